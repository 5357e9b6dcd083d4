"""What the routing record asks of this node, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brainy.bucket.records import Routing


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One shard this node has to serve, and how."""

    generation: int
    shard: int
    #: Owner (writes) or replica (reads only).
    is_owner: bool
    #: Node that owns it, and the epoch of that ownership.
    owner: str
    epoch: int
    #: The generation this one follows: while a migration builds it from that one, or keeps it as a way back from it.
    follows: int | None


def assignments(routing: Routing, node_id: str) -> dict[tuple[int, int], Assignment]:
    """Return what ``node_id`` has to serve, by (generation, shard)."""
    wanted: dict[tuple[int, int], Assignment] = {}
    for number, generation in routing.generations.items():
        for shard, placement in generation.shards.items():
            if node_id != placement.owner and node_id not in placement.replicas:
                continue
            wanted[number, shard] = Assignment(
                generation=number,
                shard=shard,
                is_owner=node_id == placement.owner,
                owner=placement.owner,
                epoch=placement.epoch,
                follows=None if generation.state == "serving" else generation.follows,
            )
    return wanted


def start_cursor(
    routing: Routing, target: int, shard: int, *, reached: Mapping[int, int], reached_in: int | None
) -> dict[int, int]:
    """Return the positions after which a target shard has to follow, by followed shard.

    Two things are known: what the shard itself has persisted (``reached``, positions of generation ``reached_in``,
    which counts only if that is the one followed now) and, once the two sides have changed roles, what the swap said
    it holds (``follow_from``). Positions of a log only grow, so the higher one is right.
    """
    placement = routing.generations[target]
    own = reached if reached_in == placement.follows else {}
    return {
        number: max(own.get(number, 0), placement.follow_from.get(number, 0))
        for number in followed_shards(routing, target, shard)
    }


def followed_shards(routing: Routing, target: int, shard: int) -> tuple[int, ...]:
    """Shards of the followed generation that may hold items of a target shard.

    With equal shard counts an item keeps its shard number; otherwise any source shard may hold it.
    """
    placement = routing.generations[target]
    if placement.follows is None:
        return ()
    return source_shards(shard, placement.shard_count, routing.generations[placement.follows].shard_count)


def source_shards(shard: int, shard_count: int, followed_count: int) -> tuple[int, ...]:
    """Return the shards out of ``followed_count`` that may hold items of one out of ``shard_count``."""
    return (shard,) if shard_count == followed_count else tuple(range(followed_count))
