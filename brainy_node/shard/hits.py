"""Search results as columns, and their merge.

Columns, not objects: a batch of 256 queries with 10 hits each is three arrays and one list of ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

_NO_ROWS: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """The hits of n queries, those of one query after those of the one before.

    Within a query distances ascend and ties are in the order of ids.
    """

    #: Hits of each query, uint32 (n); sums to total.
    counts: npt.NDArray[np.uint32]
    #: Ids (total).
    ids: list[str]
    #: Distances, float32 (total).
    distances: npt.NDArray[np.float32]
    #: From a shard: where each hit lies in it (opaque). From a merge: the hit's place in the parts' hits
    #: laid one after the other. Empty when the hits came over the wire.
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: _NO_ROWS)
    #: Parallel to ids, or None when it was not asked for; b"" where a noun has none.
    metadata: list[bytes] | None = None
    #: What ``rows`` refer to; keeps a base that was replaced meanwhile alive. Opaque.
    origin: object = None

    @property
    def queries(self) -> int:
        """Number of queries answered."""
        return len(self.counts)

    @classmethod
    def none(cls, queries: int) -> Hits:
        """Return the answer that found nothing."""
        return cls(counts=np.zeros(queries, np.uint32), ids=[], distances=np.empty(0, np.float32), rows=_NO_ROWS)

    @classmethod
    def from_columns(
        cls,
        counts: Sequence[int],
        ids: Sequence[str],
        distances: bytes,
        metadata: Sequence[bytes] | None = None,
    ) -> Hits:
        """Read the columns of a wire message (distances little-endian float32)."""
        return cls(
            counts=np.asarray(counts, dtype=np.uint32),
            ids=list(ids),
            distances=np.frombuffer(distances, dtype="<f4"),
            metadata=None if metadata is None else list(metadata),
        )


def merge_hits(parts: Sequence[Hits], k: int) -> Hits:
    """Merge the answers of several shards to the same queries into the ``k`` nearest of each.

    Every part answers the same n queries. ``rows`` of the result index the parts' hits laid one after the
    other, and metadata is carried along if every part has it. An id that two parts return at one distance (a
    shard asked twice) appears once.
    """
    if not parts:
        raise ValueError("nothing to merge")
    if len(parts) == 1 and int(parts[0].counts.max(initial=0)) <= k:
        return parts[0]
    queries = parts[0].queries
    numbers = np.arange(queries, dtype=np.int64)
    query = np.concatenate([np.repeat(numbers, part.counts) for part in parts])
    distances = np.concatenate([part.distances for part in parts])
    ids = [item_id for part in parts for item_id in part.ids]
    order, counts = select(query, distances, ids, queries, k)
    metadata = None
    if all(part.metadata is not None for part in parts):
        every = [document for part in parts for document in part.metadata or ()]
        metadata = [every[i] for i in order.tolist()]
    return Hits(
        counts=counts,
        ids=[ids[i] for i in order.tolist()],
        distances=distances[order],
        rows=order,
        metadata=metadata,
    )


def select(
    query: npt.NDArray[np.int64],
    distances: npt.NDArray[np.float32],
    ids: Sequence[str],
    queries: int,
    k: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """Choose the ``k`` nearest of each query among hits in any order.

    Args:
        query: number of the query each hit belongs to (total), 0 <= q < queries.
        distances: total.
        ids: total; break ties. An id repeated at one distance counts once.
        queries: how many queries there are.
        k: hits wanted for each.

    Returns:
        The chosen hits' places, query by query in order of (distance, id), and how many each query got.
    """
    if queries == 1:
        return _select_one(distances, ids, k)
    order = np.lexsort((distances, query))
    sorted_query, sorted_distances = query[order], distances[order]
    tied = (sorted_query[1:] == sorted_query[:-1]) & (sorted_distances[1:] == sorted_distances[:-1])
    if tied.any():
        # Only equal distances need the ids: rank them among themselves (same id: drop all but the first).
        order = _by_id(order, tied, ids)
        sorted_query = query[order]
    starts = np.searchsorted(sorted_query, np.arange(queries + 1, dtype=np.int64))
    rank = np.arange(len(order), dtype=np.int64) - starts[sorted_query]
    kept = rank < k
    counts = np.minimum(np.diff(starts), k).astype(np.uint32)
    return order[kept], counts


def _select_one(
    distances: npt.NDArray[np.float32], ids: Sequence[str], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """As ``select`` for a single query, at half the cost."""
    order = np.argsort(distances, kind="stable")
    near = distances[order]
    tied = near[1:] == near[:-1]
    if tied.any():
        order = _by_id(order, tied, ids)
    order = order[:k]
    return order, np.array([len(order)], np.uint32)


def _by_id(order: npt.NDArray[np.int64], tied: npt.NDArray[np.bool_], ids: Sequence[str]) -> npt.NDArray[np.int64]:
    places = order.tolist()
    edges = np.flatnonzero(np.diff(np.concatenate(([0], tied.view(np.int8), [0]))))
    dropped: list[int] = []
    for first, last in edges.reshape(-1, 2).tolist():  # runs of ties: places[first : last + 1]
        run = sorted(places[first : last + 1], key=lambda place: ids[place])
        places[first : last + 1] = run
        dropped.extend(first + i for i in range(1, len(run)) if ids[run[i]] == ids[run[i - 1]])
    result = np.asarray(places, dtype=np.int64)
    return np.delete(result, dropped) if dropped else result
