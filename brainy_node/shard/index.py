"""The approximate index over a shard's base: the only module that imports usearch.

Keys are row numbers of the base. What the library was measured to do, and what follows from it:

* It opens a file with flipped bits without a word and may then crash the process. A file is opened only after
  its SHA-256 was checked (``Base.open`` does).
* It takes NaN silently and finds zero vectors at distance 0. Only finite, non-zero rows are handed to it, and
  queries are checked before they get here.
* It holds the GIL in its inner loops. Indexes are built and extended by builder processes; a serving process
  only maps finished files (``view``).
* Removing 10 % and adding 10 % again, eight times over, cost 0.001 of recall@10; so a fold extends the old file
  as long as the removed share stays small (see ``REBUILD_SHARE``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from usearch.index import BatchMatches, Index  # noqa: TID251 - the one module that may

from brainy.bucket.records import Spec
from brainy.errors import CorruptDataError

Keys = npt.NDArray[np.uint64]
Matrix = npt.NDArray[np.float32]

#: A fold that removes a larger share of an index than this builds it anew.
REBUILD_SHARE = 0.2

#: Rows handed over at a time, so that gathering from the mapped matrix needs bounded memory.
_BLOCK = 16_384

#: Below this many queries one thread is faster than waking several.
_PARALLEL_QUERIES = 8


class Pacer(Protocol):
    """Says when to go on, and hears how far it is."""

    def next_rows(self, most: int) -> int:
        """Wait for the turn to add rows, and return how many, 1 to ``most``."""

    def added(self, rows: int) -> None:
        """So many have been added since the begin."""


def build(path: Path, matrix: Matrix, keys: Keys, spec: Spec, threads: int = 0, *, pacer: Pacer | None = None) -> None:
    """Write a new index over ``matrix[keys]`` (rows x dimensions, finite) to ``path``.

    ``threads`` 0 means one per core; only 1 gives reproducible bytes.
    """
    index = _new(spec)
    _add(index, matrix, keys, keys, threads, pacer)
    index.save(str(path))


def extend(
    path: Path,
    old: Path,
    *,
    removed: Keys,
    renamed: tuple[Keys, Keys],
    matrix: Matrix,
    added: Keys,
    spec: Spec,
    threads: int = 0,
) -> None:
    """Write to ``path`` the index ``old`` without ``removed``, with keys renamed, plus ``matrix[added]``.

    ``renamed`` is (from, to): both ascending, ``to <= from`` in each place, so that a target is always free by
    the time it is taken. ``old`` itself is left as it is; its checksum was checked by the caller.
    """
    index = _new(spec)
    index.load(str(old))
    if len(removed):
        index.remove(removed)
    moved = renamed[0] != renamed[1]
    if moved.any():
        index.rename(renamed[0][moved], renamed[1][moved])
    _add(index, matrix, added, added, threads)
    index.save(str(path))


def _new(spec: Spec) -> Index:
    return Index(
        ndim=spec.dimensions,
        metric=spec.metric,
        dtype=spec.scalar_kind,
        connectivity=spec.connectivity,
        expansion_add=spec.expansion_add,
        expansion_search=spec.expansion_search,
    )


def _add(index: Index, matrix: Matrix, rows: Keys, keys: Keys, threads: int, pacer: Pacer | None = None) -> None:
    start = 0
    while start < len(rows):
        most = min(_BLOCK, len(rows) - start)
        part = slice(start, start + (most if pacer is None else pacer.next_rows(most)))
        index.add(keys[part], np.ascontiguousarray(matrix[rows[part]]), threads=threads, copy=True)
        start = part.stop
        if pacer is not None:
            pacer.added(start)


class VectorIndex:
    """A finished index, mapped from its file and never changed."""

    __slots__ = ("_index", "size")

    def __init__(self, index: Index) -> None:
        self._index = index
        #: Rows in the index.
        self.size: int = len(index)

    @classmethod
    def view(cls, path: Path, spec: Spec, *, expected: int | None = None) -> VectorIndex:
        """Map a file whose checksum the caller has checked.

        Raises:
            CorruptDataError: not an index of this generation: other dimensions, metric or number of rows.
        """
        try:
            index = Index.restore(str(path), view=True, expansion_search=spec.expansion_search)
        except (RuntimeError, ValueError) as error:
            raise _unfit(path, str(error)) from error
        if index is None:
            raise _unfit(path, "not an index file")
        metric, scalar = str(index.metric_kind).rpartition(".")[2].lower(), str(index.dtype.name).lower()
        if (index.ndim, metric, scalar) != (spec.dimensions, spec.metric, spec.scalar_kind):
            raise _unfit(path, f"it holds {index.ndim} x {scalar} by {metric}")
        if expected is not None and len(index) != expected:
            raise _unfit(path, f"it holds {len(index)} rows, not {expected}")
        return cls(index)

    def keep_candidates(self, expansion_search: int) -> None:
        """Set how many candidates a search keeps, instead of what the generation's description says.

        More find more and take longer. Before the index is searched: the library has no lock around this.
        """
        # mypy does not see the setter, which stands apart from its property.
        self._index.expansion_search = expansion_search  # type: ignore[misc]

    def search(self, queries: Matrix, count: int, *, threads: int = 0) -> tuple[Keys, Matrix, npt.NDArray[np.int64]]:
        """Find up to ``count`` nearest rows for each query (n x dimensions, float32, finite).

        Returns:
            keys (n x count), distances (n x count, ascending; float32 as the index's scalar kind gives
            them) and counts (n): how many of each row are valid. One call into the library.
        """
        workers = 1 if len(queries) < _PARALLEL_QUERIES else threads
        found = self._index.search(queries, count, threads=workers)
        if isinstance(found, BatchMatches):
            return found.keys, found.distances, found.counts
        # The library returns another type, cut to the hits, when there is one query.
        return found.keys.reshape(1, -1), found.distances.reshape(1, -1), np.array([len(found.keys)])


def _unfit(path: Path, why: str) -> CorruptDataError:
    return CorruptDataError(
        "not the index this base needs",
        remedy="delete the base directory; it is rebuilt from the bucket",
        file=path.name,
        cause=why,
    )
