"""Which nodes may hold a generation's shards. Pure.

A node has a label, its pool ("" unless it is given one); a generation may name a pool. A generation that names one
lives on the nodes of that pool and on no others, whatever dies: with none of them there its shards stay where they
are and wait. A generation that names none lives on the nodes without a label; when there is none of these, on nodes
of pools that no other generation of the namespace names; and when there is none of these either, on any, for it is
better served by the wrong node than by none.

A node that holds a shard it may not hold any more (it was given another label, or a generation has named its pool)
is relieved like one that drains: it goes on until a replica where it belongs is ready.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from brainy.bucket.records import Routing


def eligible(pool: str, labels: Mapping[str, str], *, reserved: Collection[str] = ()) -> frozenset[str]:
    """Return the nodes that may hold a generation.

    Args:
        pool: what the generation names, or "".
        labels: node -> its pool, of the nodes there are to choose from.
        reserved: the pools that other generations of the namespace name.
    """
    if pool:
        return frozenset(node for node, label in labels.items() if label == pool)
    unlabelled = frozenset(node for node, label in labels.items() if not label)
    unreserved = frozenset(node for node, label in labels.items() if label not in reserved)
    return unlabelled or unreserved or frozenset(labels)


def eligible_for(routing: Routing, generation: int, labels: Mapping[str, str]) -> frozenset[str]:
    """Return the nodes that may hold a generation of a routing record."""
    others = {placed.pool for number, placed in routing.generations.items() if number != generation}
    return eligible(routing.generations[generation].pool, labels, reserved=others - {""})


def heirless(routing: Routing, node_id: str, labels: Mapping[str, str]) -> tuple[int, ...]:
    """Return the generations of which a node holds shards that no other node may take.

    Args:
        routing: the record in force.
        node_id: the node that goes.
        labels: node -> pool, of the nodes that can be given shards.
    """
    others = {node: label for node, label in labels.items() if node != node_id}
    return tuple(
        number
        for number, placed in sorted(routing.generations.items())
        if any(node_id in (where.owner, *where.replicas) for where in placed.shards.values())
        and not eligible_for(routing, number, others)
    )
