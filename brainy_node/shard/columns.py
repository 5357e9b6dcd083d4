"""Columns of the base's files, mapped and read in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: Rows of every record batch but the last, so that a row's batch is a division away.
BATCH_ROWS = 8192

_EMPTY = memoryview(b"")


class BytesColumn:
    """A binary or string column over batches of ``BATCH_ROWS`` rows; no row is copied until it is read."""

    __slots__ = ("_chunks",)

    def __init__(self, arrays: Sequence[pa.Array]) -> None:
        self._chunks = [_buffers(array) for array in arrays]

    def __getitem__(self, row: int) -> bytes | None:
        """Return the value of a row, None where it is null."""
        number, place = divmod(row, BATCH_ROWS)
        validity, offsets, data = self._chunks[number]
        if validity is not None and not validity[place >> 3] >> (place & 7) & 1:
            return None
        return bytes(data[offsets[place] : offsets[place + 1]])

    def text(self, row: int) -> str:
        """Return the value of a row of a string column."""
        number, place = divmod(row, BATCH_ROWS)
        _, offsets, data = self._chunks[number]
        return str(data[offsets[place] : offsets[place + 1]], "utf-8")

    def texts(self, rows: Sequence[int]) -> list[str]:
        """Return the values of several rows of a string column."""
        return [self.text(row) for row in rows]


def _buffers(array: pa.Array) -> tuple[memoryview | None, memoryview, memoryview]:
    validity, offsets, data = array.buffers()
    return (
        memoryview(validity).cast("B") if validity is not None and array.null_count else None,
        memoryview(offsets).cast("B").cast("i"),
        memoryview(data).cast("B") if data is not None and data.size else _EMPTY,
    )


class RecordFile:
    """An uncompressed Arrow IPC file, mapped."""

    __slots__ = ("_batches", "rows")

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        #: Rows in the file.
        self.rows: int = sum(batch.num_rows for batch in self._batches)

    def bytes_column(self, name: str) -> BytesColumn:
        """Return a binary or string column."""
        return BytesColumn([batch.column(name) for batch in self._batches])

    def arrays(self, name: str) -> list[pa.Array]:
        """Return a column as one Arrow array per batch."""
        return [batch.column(name) for batch in self._batches]


class HashLookup:
    """Rows by the 64-bit hash of a text: two parallel rows of a uint64 matrix, sorted by hash, then row.

    Different texts may share a hash: the caller compares the text.
    """

    __slots__ = ("_hashes", "_rows")

    def __init__(self, table: npt.NDArray[np.uint64]) -> None:
        self._hashes, self._rows = table[0], table[1]

    def rows(self, text_hash: int) -> list[int]:
        """Return the rows that carry a hash, ascending."""
        size = len(self._hashes)
        if not size:
            return []
        wanted = np.uint64(text_hash)
        first = int(self._hashes.searchsorted(wanted))
        last = first
        while last < size and self._hashes[last] == wanted:
            last += 1
        return [int(row) for row in self._rows[first:last]]

    def spans(self, text_hashes: npt.NDArray[np.uint64]) -> tuple[list[int], list[int]]:
        """Return where the rows of each of many hashes start and stop; ``row_at`` reads a place in between."""
        first = self._hashes.searchsorted(text_hashes, side="left")
        last = self._hashes.searchsorted(text_hashes, side="right")
        return first.tolist(), last.tolist()

    def rows_where(self, chosen: Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.bool_]]) -> list[int]:
        """Return the rows whose hashes are chosen."""
        return [int(row) for row in self._rows[chosen(self._hashes)]]

    def row_at(self, place: int) -> int:
        """Return the row at a place."""
        return int(self._rows[place])

    @staticmethod
    def table(text_hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Build the matrix from the hashes of rows 0, 1, 2, ..."""
        order = np.argsort(text_hashes, kind="stable")
        return np.stack([text_hashes[order], order.astype(np.uint64)])


def map_array(path: Path) -> npt.NDArray[np.generic]:
    """Map a .npy file read-only, as a plain array (slicing NumPy's memmap class costs microseconds)."""
    array: npt.NDArray[np.generic]
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        array = np.load(path, allow_pickle=False)  # nothing to map in an array without elements
    return np.asarray(array).view(np.ndarray)
