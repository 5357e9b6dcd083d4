"""Distances as the index defines them, and exact search over a matrix.

cos = 1 - cosine similarity, l2sq = squared Euclidean distance, ip = 1 - inner product; float32, ascending is
nearer.

Exact search works in two steps. A matrix product, in float32, picks candidates: fast, but the last bits of its
results depend on the block a row happened to be in. The few candidates are then measured one by one in float64
by ``measure``, whose result depends on the two vectors alone. So base, tail, replicas and shards agree to the
bit on the distance of an item, and ties are real ties.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

#: Rows multiplied at a time: 16k x 384 x 4 bytes = 25 MB, which a cache-friendly product likes.
_BLOCK = 16_384


# Rows that are not indexed may hold infinity, NaN or zero: nobody looks at what becomes of them.
@np.errstate(all="ignore")
def measure(metric: str, vectors: Floats, queries: Floats) -> Floats:
    """Return the distances (m) of ``vectors`` (m x d) to one query (d) or to one each (m x d).

    Summed in float64 and rounded to float32, so that the result depends on the two vectors alone.
    """
    rows, wanted = vectors.astype(np.float64), queries.astype(np.float64)
    if metric == "l2sq":
        rows -= wanted
        return _single((rows * rows).sum(axis=1))
    dots = (rows * wanted).sum(axis=1)
    if metric == "ip":
        return _single(1.0 - dots)
    dots /= np.sqrt((rows * rows).sum(axis=1) * (wanted * wanted).sum(axis=-1))
    # Rounding must not make an item nearer to itself than nothing.
    return _single(np.maximum(1.0 - dots, 0.0))


@np.errstate(all="ignore")
def norms(vectors: Floats) -> Floats:
    """Return the Euclidean lengths (m) of rows (m x d)."""
    return _single(np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)))


def _single(values: npt.NDArray[np.float64]) -> Floats:
    single: Floats = values.astype(np.float32)
    return single


@np.errstate(all="ignore")
def approximate(metric: str, vectors: Floats, lengths: Floats, queries: Floats) -> Floats:
    """Return distances (n x m) by one matrix product; the last bits may differ from ``measure``."""
    dots: Floats = queries @ vectors.T
    if metric == "ip":
        return np.subtract(np.float32(1.0), dots, out=dots)
    query_lengths = norms(queries)
    if metric == "l2sq":
        dots *= np.float32(-2.0)
        dots += (lengths * lengths)[None, :]
        dots += (query_lengths * query_lengths)[:, None]
        return dots
    dots /= lengths[None, :]
    dots /= query_lengths[:, None]
    return np.subtract(np.float32(1.0), dots, out=dots)


def nearest(
    metric: str,
    vectors: Floats,
    lengths: Floats,
    allowed: npt.NDArray[np.bool_] | None,
    queries: Floats,
    k: int,
) -> list[tuple[Rows, Floats]]:
    """Search exactly: for each query the rows that may be among its ``k`` nearest, and their distances.

    Args:
        metric: cos, l2sq or ip.
        vectors: rows (m x d), may be a memory map; read in blocks.
        lengths: Euclidean lengths (m) of the rows.
        allowed: rows (m) that count, or None for all. Others may hold anything, NaN included.
        queries: n x d, finite.
        k: how many are wanted.

    Returns:
        One (rows, distances) per query, unordered, with at least min(k, allowed) entries: every row that ties
        with the k-th is included, so that the caller can break ties by id.
    """
    kept: list[tuple[Rows, Floats]] = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
    for start in range(0, len(vectors), _BLOCK):
        stop = min(start + _BLOCK, len(vectors))
        mask = None if allowed is None else allowed[start:stop]
        if mask is not None and not mask.any():
            continue
        block, size = vectors[start:stop], lengths[start:stop]
        rough = approximate(metric, block, size, queries)
        if mask is not None:
            rough[:, ~mask] = np.inf
        for number, query in enumerate(queries):
            chosen = candidates(rough[number], k, margin(metric, size if mask is None else size[mask], query))
            rows, distances = kept[number]
            rows = np.concatenate([rows, chosen + start])
            distances = np.concatenate([distances, measure(metric, block[chosen], query)])
            kept[number] = _cut(rows, distances, k)
    return kept


def margin(metric: str, lengths: Floats, queries: Floats) -> float:
    """Return how far ``approximate`` may be from ``measure`` for rows of these lengths and these queries."""
    # Rounding grows with the number and the size of the terms summed, not with the difference that is left.
    slack = 1e-6 + 2e-7 * float(np.sqrt(queries.shape[-1]))
    if metric == "cos":
        return slack
    longest = max(float(lengths.max(initial=0.0)), float(np.sqrt((queries * queries).sum(axis=-1).max())))
    return slack * max(1.0, longest * longest)


def candidates(rough: Floats, k: int, slack: float) -> Rows:
    """Return the places that may be among the ``k`` smallest of ``rough`` (m); infinity never is."""
    if k >= len(rough):
        return np.flatnonzero(rough < np.inf)
    cut = np.partition(rough, k - 1)[k - 1] + np.float32(slack)
    return np.flatnonzero(rough <= cut) if cut < np.inf else np.flatnonzero(rough < np.inf)


def _cut(rows: Rows, distances: Floats, k: int) -> tuple[Rows, Floats]:
    if len(rows) <= k:
        return rows, distances
    near = distances <= np.partition(distances, k - 1)[k - 1]
    return rows[near], distances[near]
