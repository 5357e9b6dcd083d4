"""The nearest neighbours two generations name for one query, side by side. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from brainy.traffic.comparison import Comparison, difference, overlap_counts
from brainy_node.shard.hits import Hits

#: Id -> distance, nearest first.
Neighbours = Mapping[str, float]

#: Distances closer than this, relative to one plus their size, are called equal.
_TOLERANCE = 1e-4


def neighbours_of(hits: Hits) -> list[Neighbours]:
    """Return the neighbours of each query."""
    ends = np.cumsum(hits.counts, dtype=np.int64).tolist()
    distances = hits.distances.tolist()
    return [
        dict(zip(hits.ids[end - count : end], distances[end - count : end], strict=True))
        for end, count in zip(ends, hits.counts.tolist(), strict=True)
    ]


def close(one: float, other: float) -> bool:
    """Say whether two distances are equal but for rounding."""
    return abs(one - other) <= _TOLERANCE * (1.0 + abs(one))


def shared(source: Neighbours, target: Neighbours) -> int:
    """Count the neighbours both sides name.

    One that is as far away as the source's last is as good: which of several equally far ones is named is chance.
    """
    both = source.keys() & target.keys()
    if not source or len(both) == len(target):
        return len(both)
    last = max(source.values())
    return len(both) + sum(close(last, distance) for name, distance in target.items() if name not in both)


def apart(source: Neighbours, target: Neighbours) -> float:
    """Return the largest difference of the distances both sides give one item."""
    return max((abs(source[name] - target[name]) for name in source.keys() & target.keys()), default=0.0)


def alike(source: Neighbours, target: Neighbours) -> bool:
    """Say whether the two sides name the same neighbours, at the same distances but for rounding."""
    if shared(source, target) < max(len(source), len(target)):
        return False
    return all(close(source[name], target[name]) for name in source.keys() & target.keys())


def verdict(source: Neighbours, target: Neighbours, *, healed: bool = False) -> Comparison:
    """Return the figures of one query."""
    wanted = max(len(source), len(target))
    both = min(wanted, shared(source, target))
    missing = sorted(source.keys() - target.keys())
    return Comparison(
        queries=1,
        queries_differing=int(both < wanted),
        queries_healed=int(healed),
        hits_shared=both,
        hits_wanted=wanted,
        overlaps=overlap_counts(both, wanted),
        distance_difference=apart(source, target),
        differences=()
        if both == wanted
        else (difference("search", ",".join(missing), f"{both} of {wanted} neighbours are shared"),),
    )
