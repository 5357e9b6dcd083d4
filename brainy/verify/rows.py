"""What is kept of every item while two datasets are compared: 32 bytes and its id, on disk, in sorted runs.

A row is the hash of an id (its last bit says noun or verb), 16 bytes of the item's digest, and where in the run's ids
file the id lies. A run holds at most ``RUN_ROWS`` rows, sorted; the rows of a range of buckets lie together in each
run, so a comparison maps the runs and looks at the buckets that differ, some at a time. Memory: one run while
reading, the rows of some buckets while comparing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from brainy.bucket.digest import BUCKETS
from brainy.bucket.partition import key_hash
from brainy.verify.values import NOUN, VERB, Name

RUN_ROWS: Final = 1 << 19
ROW: Final = np.dtype([("key", "<u8"), ("low", "<u8"), ("high", "<u8"), ("at", "<u8")])
_SHIFT: Final = 52

Rows: TypeAlias = np.ndarray[Any, np.dtype[np.void]]


def noun_key(item_id: str) -> int:
    """Return the key of a noun's row: its id's hash, the last bit 0."""
    return key_hash(item_id) & ~1


def verb_key(item_id: str) -> int:
    """Return the key of a verb's row: its id's hash, the last bit 1."""
    return key_hash(item_id) | 1


class RowWriter:
    """Writes rows into runs ``<stem>.<n>.rows`` with their ids in ``<stem>.<n>.ids``."""

    def __init__(self, directory: Path, stem: str, *, run_rows: int = RUN_ROWS) -> None:
        self._directory = directory
        self._stem = stem
        self._run_rows = run_rows
        self._rows = bytearray()
        self._ids = bytearray()
        self.runs = 0

    def add(self, key: int, value: bytes, item_id: str) -> None:
        """Add a row: ``value`` has 16 bytes."""
        name = item_id.encode("utf-8", "surrogatepass")
        self._rows += key.to_bytes(8, "little")
        self._rows += value
        self._rows += len(self._ids).to_bytes(8, "little")
        self._ids += len(name).to_bytes(4, "little")
        self._ids += name
        if len(self._rows) >= self._run_rows * ROW.itemsize:
            self._flush()

    def close(self) -> int:
        """Write what is left; returns the number of runs."""
        if self._rows:
            self._flush()
        return self.runs

    def _flush(self) -> None:
        rows = np.frombuffer(bytes(self._rows), ROW)
        stem = f"{self._stem}.{self.runs}"
        (self._directory / f"{stem}.ids").write_bytes(self._ids)
        np.save(self._directory / f"{stem}.rows.npy", rows[np.argsort(rows["key"], kind="stable")])
        self._rows, self._ids = bytearray(), bytearray()
        self.runs += 1


class RowReader:
    """Rows of one side, mapped."""

    def __init__(self, directory: Path, runs: Sequence[str]) -> None:
        """Open the runs of these stems."""
        self._rows: list[Rows] = [np.load(directory / f"{stem}.rows.npy", mmap_mode="r") for stem in runs]
        self._ids = [_mapped(directory / f"{stem}.ids") for stem in runs]
        edges = np.arange(1, BUCKETS, dtype=np.uint64) << np.uint64(_SHIFT)
        self._bounds = [np.concatenate(([0], np.searchsorted(rows["key"], edges), [len(rows)])) for rows in self._rows]

    def size(self, bucket: int) -> int:
        """Return how many rows a bucket has."""
        return sum(int(bounds[bucket + 1] - bounds[bucket]) for bounds in self._bounds)

    def bucket(self, bucket: int) -> tuple[Rows, np.ndarray[Any, np.dtype[np.int64]]]:
        """Return the rows of a bucket, and for each the run it lies in."""
        parts = [
            np.asarray(rows[bounds[bucket] : bounds[bucket + 1]])
            for rows, bounds in zip(self._rows, self._bounds, strict=True)
        ]
        if not parts:
            return np.empty(0, ROW), np.empty(0, np.int64)
        runs = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return np.concatenate(parts), runs

    def id_of(self, run: int, at: int) -> str:
        """Return the id that lies at an offset of a run's ids."""
        ids = self._ids[run]
        length = int.from_bytes(ids[at : at + 4].tobytes(), "little")
        return ids[at + 4 : at + 4 + length].tobytes().decode("utf-8", "surrogatepass")


def suspects(a: RowReader, b: RowReader, bucket: int) -> list[Name]:
    """Return the names of a bucket's rows that only one of the sides has as they are."""
    rows_a, runs_a = a.bucket(bucket)
    rows_b, runs_b = b.bucket(bucket)
    alone_a, alone_b = _alone(rows_a, rows_b)
    names = _names(a, rows_a, runs_a, alone_a)
    names |= _names(b, rows_b, runs_b, alone_b)
    return list(names)


def _names(side: RowReader, rows: Rows, runs: np.ndarray[Any, Any], picked: np.ndarray[Any, Any]) -> dict[Name, None]:
    return {
        (VERB if int(rows["key"][row]) & 1 else NOUN, side.id_of(int(runs[row]), int(rows["at"][row]))): None
        for row in picked.tolist()
    }


def _alone(a: Rows, b: Rows) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the places in ``a`` and in ``b`` of rows that the other has not."""
    both = np.concatenate((a, b))
    order = np.lexsort((both["high"], both["low"], both["key"]))
    ordered = both[order]
    same = np.ones(max(0, len(both) - 1), np.bool_)
    for column in ("key", "low", "high"):
        same &= ordered[column][1:] == ordered[column][:-1]
    # Ids are unique within a side, so a row has one equal at most, the other side's.
    paired = np.zeros(len(both), np.bool_)
    paired[order[1:][same]] = True
    paired[order[:-1][same]] = True
    alone = np.flatnonzero(~paired)
    return alone[alone < len(a)], alone[alone >= len(a)] - len(a)


def _mapped(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.memmap(path, np.uint8, mode="r")
