"""Searching a base around the rows that no longer count."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainy_node.shard import metric
from brainy_node.shard.base import Base
from brainy_node.shard.index import VectorIndex

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

#: A query that finds too few living rows asks again for four times as many, up to this; then it scans.
_MOST = 4096

#: Below this share of living rows the graph mostly walks over dead ones: scanning the living is cheaper.
_SPARSE = 0.04

#: Living rows are gathered before a scan if they are fewer than this share; otherwise all rows are multiplied.
_GATHER = 0.15

#: The scalar kind whose distances are too coarse to choose the nearest by: fetch this many times more.
_COARSE = {"i8": 4}


def search_base(
    base: Base, queries: Floats, k: int, *, hidden: Bools, hidden_count: int, exact: bool, threads: int
) -> tuple[Rows, Rows, Floats]:
    """Find the ``k`` nearest indexed rows of each query (n x d) that are not ``hidden``.

    One call into the index for all queries, over-fetching by the share that is hidden. Queries for which
    too few rows survive ask again for more and in the end scan, so hidden rows never make an answer short.

    Args:
        base: where to search.
        queries: n x d float32, finite, not zero where the metric is cos.
        k: hits wanted.
        hidden: bool (rows) that must not be returned.
        hidden_count: how many *indexed* rows are hidden.
        exact: scan instead of using the index.
        threads: for the call into the index; 0 means one per core.

    Returns:
        (query, row, distance), each (total), ordered by query. In exact mode all rows that tie with the
        k-th are included.
    """
    index = base.index
    live = 0 if index is None else index.size - hidden_count
    if index is None or live <= 0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    if exact or live < _SPARSE * index.size or 2 * k >= index.size:
        return _scan(base, queries, k, hidden, live)
    query, rows, distances, short = _approximate(base, index, queries, k, hidden, hidden_count, threads)
    if len(short):
        extra = _scan(base, queries[short], k, hidden, live)
        query = np.concatenate([query, short[extra[0]]])
        order = np.argsort(query, kind="stable")
        rows = np.concatenate([rows, extra[1]])[order]
        distances = np.concatenate([distances, extra[2]])[order]
        query = query[order]
    return query, rows, distances


def _approximate(
    base: Base, index: VectorIndex, queries: Floats, k: int, hidden: Bools, hidden_count: int, threads: int
) -> tuple[Rows, Rows, Floats, Rows]:
    """Ask the index; returns hits and the queries it could not serve."""
    spec = base.record.spec
    wanted = min(k, index.size - hidden_count)
    share = hidden_count / index.size
    count = k * _COARSE.get(spec.scalar_kind, 1)
    if hidden_count:
        count += min(hidden_count, int(1.3 * count * share / (1.0 - share)) + 4)
    waiting = np.arange(len(queries), dtype=np.int64)
    parts: list[tuple[Rows, Rows, Floats]] = []
    while True:
        count = min(count, index.size)
        keys, distances, counts = index.search(queries[waiting], count, threads=threads)
        rows = keys.astype(np.int64)
        if not hidden_count and len(parts) == 0 and int(counts.min()) == rows.shape[1] >= wanted:
            # Nothing to leave out and every query served: the common case, without masks.
            parts.append((np.repeat(waiting, rows.shape[1]), rows.reshape(-1), distances.reshape(-1)))
            waiting = waiting[:0]
            break
        kept = np.arange(rows.shape[1]) < counts[:, None]
        if hidden_count:
            rows[~kept] = 0
            kept &= ~hidden[rows]
        enough = kept.sum(axis=1) >= wanted
        if not enough.all():
            kept &= enough[:, None]
        place, column = np.nonzero(kept)
        parts.append((waiting[place], rows[place, column], distances[place, column]))
        waiting = waiting[~enough]
        if not len(waiting) or count >= min(_MOST, index.size):
            break
        count *= 4
    if len(parts) == 1:
        query, hits, near = parts[0]
    else:
        query, hits, near = (np.concatenate([part[i] for part in parts]) for i in range(3))
        order = np.argsort(query, kind="stable")
        query, hits, near = query[order], hits[order], near[order]
    if spec.scalar_kind != "f32":
        # The index chose by coarse distances; the stored vectors say what they are.
        near = metric.measure(spec.metric, base.vectors[hits], queries[query])
    return query, hits, near, waiting


def _scan(base: Base, queries: Floats, k: int, hidden: Bools, live: int) -> tuple[Rows, Rows, Floats]:
    allowed = base.indexed & ~hidden
    kind = base.record.spec.metric
    if live < _GATHER * base.rows:
        chosen = np.flatnonzero(allowed)
        found = metric.nearest(kind, base.vectors[chosen], base.lengths[chosen], None, queries, k)
        found = [(chosen[rows], distances) for rows, distances in found]
    else:
        found = metric.nearest(kind, base.vectors, base.lengths, allowed, queries, k)
    sizes = [len(rows) for rows, _ in found]
    return (
        np.repeat(np.arange(len(queries), dtype=np.int64), sizes),
        np.concatenate([rows for rows, _ in found]),
        np.concatenate([distances for _, distances in found]),
    )


def tail_bounds(
    query: npt.NDArray[np.int64], distances: npt.NDArray[np.float32], queries: int, k: int
) -> npt.NDArray[np.float32]:
    """Return for each query the distance of the worst base hit that the tail must beat, or infinity."""
    if len(query) == queries * k and (queries == 1 or (np.bincount(query, minlength=queries) == k).all()):
        every: npt.NDArray[np.float32] = distances.reshape(queries, k).max(axis=1)
        return every
    bounds = np.full(queries, np.inf, np.float32)
    starts = np.searchsorted(query, np.arange(queries + 1, dtype=np.int64))
    full = np.flatnonzero(np.diff(starts) >= k)
    if len(full):
        worst = np.maximum.reduceat(distances, starts[:-1][full]) if len(full) == queries else None
        if worst is None:
            worst = np.array([distances[starts[i] : starts[i + 1]].max() for i in full.tolist()], np.float32)
        bounds[full] = worst
    return bounds
