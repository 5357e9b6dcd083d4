"""Writing a base directory from a stream of items, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import Noun, Verb
from brainy.bucket.partition import key_hash
from brainy.bucket.records import Spec
from brainy.errors import CorruptDataError
from brainy_node.shard import base_record as layout
from brainy_node.shard import flags, index, metric
from brainy_node.shard.base_record import BaseRecord
from brainy_node.shard.columns import BATCH_ROWS, HashLookup
from brainy_node.shard.facts import facts_of, verb_service
from brainy_node.shard.statistics import Tally

NOUN_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("metadata", pa.binary()),
        pa.field("attributes", pa.binary()),
        pa.field("raw_vector", pa.binary()),
        # A vector of another length than the matrix's; in vectors.npy its row is zero.
        pa.field("other_vector", pa.binary()),
        pa.field("flags", pa.uint8(), nullable=False),
    ]
)
VERB_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("target_id", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("weight", pa.float64()),
        pa.field("vector", pa.binary(), nullable=False),
        pa.field("raw_vector", pa.binary()),
        pa.field("metadata", pa.binary()),
        pa.field("attributes", pa.binary()),
    ]
)

_T = TypeVar("_T", bound=np.generic)

#: Writes an index file over ``matrix[keys]`` and returns how many removed slots it carries.
IndexMaker = Callable[[Path, index.Matrix, index.Keys], int]


class BaseWriter:
    """Builds one base directory.

    Before: ``directory`` does not exist or is empty.
    Steps: ``add_nouns``, ``add_verbs``, ``add_quarantined`` in any order and number; ids are unique within
    their kind, and rows are in the order of the calls; then ``finish`` once.
    After: every file is complete and ``base.json``, written last, names and hashes them all.
    If it crashes before that, the directory has no ``base.json`` and is not a base.

    Use it with ``with``: leaving it closes the files, finished or not.
    """

    def __init__(self, directory: Path, *, spec: Spec, shard: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._spec = spec
        self._shard = shard
        self._digest = MultisetDigest()
        self._tally = Tally()
        self._quarantined: list[dict[str, Any]] = []
        self._nouns = _ItemFile(directory / layout.NOUNS, NOUN_SCHEMA)
        self._verbs = _ItemFile(directory / layout.VERBS, VERB_SCHEMA)
        self._pending_nouns: list[Noun] = []
        self._pending_noun_hashes: list[bytes] = []
        self._pending_verbs: list[Verb] = []
        self._pending_verb_hashes: list[bytes] = []
        self._sources: list[npt.NDArray[np.uint64]] = []
        self._targets: list[npt.NDArray[np.uint64]] = []
        self._lengths: list[npt.NDArray[np.float32]] = []
        self._flags: list[npt.NDArray[np.uint8]] = []
        self._vectors = _MatrixFile(directory / layout.VECTORS, spec.dimensions)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._nouns.close()
        self._verbs.close()
        self._vectors.close()

    @property
    def noun_count(self) -> int:
        """Nouns added so far."""
        return self._nouns.rows + len(self._pending_nouns)

    @property
    def verb_count(self) -> int:
        """Verbs added so far."""
        return self._verbs.rows + len(self._pending_verbs)

    def add_nouns(self, nouns: Sequence[Noun], hashes: Sequence[bytes] | None = None) -> None:
        """Add nouns; ``hashes`` are their digests where the caller has them already."""
        self._pending_nouns.extend(nouns)
        self._pending_noun_hashes.extend(hashes if hashes is not None else [noun.digest() for noun in nouns])
        while len(self._pending_nouns) >= BATCH_ROWS:
            self._flush_nouns()

    def add_verbs(self, verbs: Sequence[Verb], hashes: Sequence[bytes] | None = None) -> None:
        """Add verbs; ``hashes`` are their digests where the caller has them already."""
        self._pending_verbs.extend(verbs)
        self._pending_verb_hashes.extend(hashes if hashes is not None else [verb.digest() for verb in verbs])
        while len(self._pending_verbs) >= BATCH_ROWS:
            self._flush_verbs()

    def add_quarantined(self, key: str, reason: str, size: int) -> None:
        """Note a source object that could not be read."""
        self._quarantined.append({"key": key, "reason": reason, "size": size})

    def _flush_nouns(self) -> None:
        nouns, hashes = self._pending_nouns[:BATCH_ROWS], self._pending_noun_hashes[:BATCH_ROWS]
        del self._pending_nouns[:BATCH_ROWS], self._pending_noun_hashes[:BATCH_ROWS]
        if not nouns:
            return
        matrix, reasons = _matrix_of(nouns, self._spec)
        facts = [facts_of(noun.metadata) for noun in nouns]
        for noun, item_hash, fact, reason in zip(nouns, hashes, facts, reasons.tolist(), strict=True):
            self._digest.add(noun.id, item_hash)
            self._tally.noun(fact, indexed=not reason)
        marks = np.fromiter((fact.soft_deleted for fact in facts), np.uint8, len(facts))
        row_flags = reasons | marks * np.uint8(flags.SOFT_DELETED)
        other = [
            noun.vector if reason == flags.DIMENSION else None
            for noun, reason in zip(nouns, reasons.tolist(), strict=True)
        ]
        self._nouns.append(
            [
                pa.array([noun.id for noun in nouns], pa.string()),
                pa.array([noun.metadata for noun in nouns], pa.binary()),
                pa.array([noun.attributes for noun in nouns], pa.binary()),
                pa.array([noun.raw_vector for noun in nouns], pa.binary()),
                pa.array(other, pa.binary()),
                pa.array(row_flags, pa.uint8()),
            ],
            [noun.id for noun in nouns],
            hashes,
        )
        self._vectors.append(matrix)
        self._lengths.append(metric.norms(matrix))
        self._flags.append(row_flags)

    def _flush_verbs(self) -> None:
        verbs, hashes = self._pending_verbs[:BATCH_ROWS], self._pending_verb_hashes[:BATCH_ROWS]
        del self._pending_verbs[:BATCH_ROWS], self._pending_verb_hashes[:BATCH_ROWS]
        if not verbs:
            return
        for verb, item_hash in zip(verbs, hashes, strict=True):
            self._digest.add(verb.id, item_hash)
            self._tally.verb(verb.type, verb_service(verb.metadata, verb.attributes))
        self._verbs.append(
            [pa.array([getattr(verb, field.name) for verb in verbs], field.type) for field in VERB_SCHEMA],
            [verb.id for verb in verbs],
            hashes,
        )
        self._sources.append(_hashes_of([verb.source_id for verb in verbs]))
        self._targets.append(_hashes_of([verb.target_id for verb in verbs]))

    def finish(
        self,
        *,
        position: int,
        source_cursor: Mapping[int, int] | None = None,
        source_generation: int | None = None,
        recent_requests: Mapping[str, int] | None = None,
        threads: int = 0,
        make_index: IndexMaker | None = None,
    ) -> BaseRecord:
        """Write the lookups, the index and, last, ``base.json``.

        Args:
            position: log position the items stand for.
            source_cursor: source positions they stand for.
            source_generation: the generation of these; None for the one it was made of.
            recent_requests: request ids that must still be recognised -> position, oldest first.
            threads: for building the index; 0 means one per core.
            make_index: writes the index file instead of building it from nothing.

        Raises:
            CorruptDataError: an id was added twice, or the index is not one of these rows.
        """
        self._flush_nouns()
        self._flush_verbs()
        directory = self.directory
        np.save(directory / layout.LENGTHS, _joined(self._lengths, np.float32))
        self._nouns.finish(directory / layout.NOUN_IDS, directory / layout.NOUN_HASHES)
        self._verbs.finish(directory / layout.VERB_IDS, directory / layout.VERB_HASHES)
        np.save(directory / layout.VERB_SOURCES, HashLookup.table(_joined(self._sources, np.uint64)))
        np.save(directory / layout.VERB_TARGETS, HashLookup.table(_joined(self._targets, np.uint64)))
        matrix = self._vectors.finish()
        keys = np.flatnonzero((_joined(self._flags, np.uint8) & flags.REASON) == 0).astype(np.uint64)
        removed = 0
        if len(keys):
            path = directory / layout.INDEX
            if make_index is None:
                index.build(path, matrix, keys, self._spec, threads)
            else:
                removed = make_index(path, matrix, keys)
            index.VectorIndex.view(path, self._spec, expected=len(keys))
        (directory / layout.DIGEST).write_bytes(self._digest.encode())
        (directory / layout.QUARANTINED).write_text(json.dumps(self._quarantined), encoding="utf-8")
        files = {path.name: layout.describe(path) for path in sorted(directory.iterdir())}
        record = BaseRecord(
            generation=self._spec.generation,
            shard=self._shard,
            position=position,
            source_cursor=dict(source_cursor or {}),
            source_generation=source_generation,
            recent_requests=dict(recent_requests or {}),
            spec=self._spec,
            noun_count=self._nouns.rows,
            verb_count=self._verbs.rows,
            indexed_count=len(keys),
            index_removed=removed,
            tally=self._tally.encode(),
            digest=self._digest.fold(),
            files=files,
        )
        unfinished = directory / (layout.NAME + ".new")
        unfinished.write_bytes(record.encode())
        unfinished.replace(directory / layout.NAME)
        return record


class _ItemFile:
    """An Arrow file of items, with the lookup by id and the item hashes that go with it."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._path = path
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, schema)
        self._ids: list[npt.NDArray[np.uint64]] = []
        self._hashes: list[bytes] = []
        self.rows = 0

    def append(self, arrays: list[pa.Array], ids: Sequence[str], hashes: Sequence[bytes]) -> None:
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._ids.append(_hashes_of(ids))
        self._hashes.append(b"".join(hashes))
        self.rows += len(ids)

    def finish(self, ids_path: Path, hashes_path: Path) -> None:
        self._writer.close()
        self._file.close()
        table = HashLookup.table(_joined(self._ids, np.uint64))
        self._refuse_duplicates(table)
        np.save(ids_path, table)
        np.save(hashes_path, np.frombuffer(b"".join(self._hashes), np.uint8).reshape(-1, 32))

    def close(self) -> None:
        self._file.close()

    def _refuse_duplicates(self, table: npt.NDArray[np.uint64]) -> None:
        repeated = np.flatnonzero(table[0][1:] == table[0][:-1])
        if not len(repeated):
            return
        ids = pa.ipc.open_file(pa.memory_map(str(self._path))).read_all().column("id")
        for place in repeated.tolist():
            first, second = (ids[int(table[1][i])].as_py() for i in (place, place + 1))
            if first == second:
                raise CorruptDataError(
                    "the source yields an id twice",
                    remedy="report it: the reader of the source must yield every id once",
                    id=first,
                    file=self._path.name,
                )


class _MatrixFile:
    """A .npy file of float32 rows that grows; its header is put right at the end."""

    def __init__(self, path: Path, dimensions: int) -> None:
        self._path = path
        self._dimensions = dimensions
        self._rows = 0
        self._file: IO[bytes] = path.open("wb")
        self._header()
        self._start = self._file.tell()

    def _header(self) -> None:
        # NumPy pads the header so that the first axis can grow in place.
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": "<f4", "fortran_order": False, "shape": (self._rows, self._dimensions)}
        )

    def append(self, matrix: npt.NDArray[np.float32]) -> None:
        self._file.write(np.ascontiguousarray(matrix, dtype="<f4").data)
        self._rows += len(matrix)

    def close(self) -> None:
        self._file.close()

    def finish(self) -> npt.NDArray[np.float32]:
        self._file.seek(0)
        self._header()
        if self._file.tell() != self._start:
            raise AssertionError("the header of vectors.npy grew")
        self._file.close()
        if not self._rows * self._dimensions:
            return np.empty((self._rows, self._dimensions), np.float32)
        matrix: npt.NDArray[np.float32] = np.load(self._path, mmap_mode="r").view(np.ndarray)
        return matrix


def _matrix_of(nouns: Sequence[Noun], spec: Spec) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Return the rows (m x d; zero where the vector is absent or of another length) and the reason bits (m)."""
    width = 4 * spec.dimensions
    sizes = np.fromiter((len(noun.vector) for noun in nouns), np.int64, len(nouns))
    fits = sizes == width if width else np.zeros(len(nouns), np.bool_)
    matrix = np.zeros((len(nouns), spec.dimensions), np.float32)
    if fits.any():
        joined = b"".join(noun.vector for noun in nouns if len(noun.vector) == width)
        matrix[fits] = np.frombuffer(joined, "<f4").reshape(-1, spec.dimensions)
    # The same verdicts as brainy.bucket.items.unindexed_reason, for a whole batch.
    reasons = np.zeros(len(nouns), np.uint8)
    if spec.metric == "cos":
        reasons[~matrix.any(axis=1)] = flags.ZERO
    reasons[~np.isfinite(matrix).all(axis=1)] = flags.NON_FINITE
    reasons[~fits] = flags.DIMENSION
    reasons[sizes == 0] = flags.NO_VECTOR
    return matrix, reasons


def _hashes_of(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    return np.fromiter((key_hash(text) for text in texts), np.uint64, len(texts))


def _joined(parts: Sequence[npt.NDArray[_T]], dtype: type[_T]) -> npt.NDArray[_T]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)
