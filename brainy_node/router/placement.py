"""Which node answers for which shards: pure arithmetic over the routing record."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from brainy.bucket.records import GenerationPlacement


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A division of shards among nodes. Each shard asked for is in exactly one place."""

    #: Answered in this process.
    local: tuple[int, ...] = ()
    #: Node -> shards to ask it for, in one call.
    remote: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    #: Shards for which no untried node is left.
    missing: tuple[int, ...] = ()


def assign(
    placement: GenerationPlacement,
    shards: Collection[int],
    *,
    node_id: str,
    ready: Collection[int],
    reachable: Collection[str],
    tried: Mapping[int, Collection[str]] | None = None,
    suspects: Collection[str] = (),
    rotation: int = 0,
) -> Assignment:
    """Divide shards among the nodes that hold them.

    A shard that is ready here stays here. Others go to one of their owner and replicas: nodes that just failed
    (``suspects``) come last, nodes already asked in this call come first (the cost is the call, not its size),
    and ``rotation`` spreads what remains over time.

    Args:
        placement: of the generation being read.
        shards: the shards to divide.
        node_id: this node.
        ready: shards whose local replica answers.
        reachable: nodes whose address is known.
        tried: shard -> nodes that failed for it in this call; never chosen again.
        suspects: nodes that failed a moment ago.
        rotation: any number; counts up from call to call.
    """
    tried = tried or {}
    local: list[int] = []
    remote: dict[str, list[int]] = {}
    missing: list[int] = []
    ordered = sorted(shards)
    start = rotation % len(ordered) if ordered else 0
    for shard in ordered[start:] + ordered[:start]:
        excluded = tried.get(shard, ())
        if shard in ready and node_id not in excluded:
            local.append(shard)
            continue
        placed = placement.shards.get(shard)
        holders = (placed.owner, *placed.replicas) if placed else ()
        candidates = [n for n in dict.fromkeys(holders) if n != node_id and n in reachable and n not in excluded]
        candidates = [n for n in candidates if n not in suspects] or candidates
        if not candidates:
            missing.append(shard)
            continue
        turn = (rotation + shard) % len(candidates)
        candidates = candidates[turn:] + candidates[:turn]
        chosen = max(candidates, key=lambda node: len(remote.get(node, ())))  # the first of equals
        remote.setdefault(chosen, []).append(shard)
    return Assignment(
        local=tuple(sorted(local)),
        remote={node: tuple(sorted(numbers)) for node, numbers in remote.items()},
        missing=tuple(sorted(missing)),
    )
