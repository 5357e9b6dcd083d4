"""The immutable part of a shard: a local directory of memory-mapped files, right at one log position.

====================  ==================================================================================
nouns.arrow           id, metadata, attributes, raw_vector, other_vector, flags; row = order of writing
vectors.npy           float32, rows x dimensions; a row of zeros where the noun has no such vector
lengths.npy           Euclidean lengths of those rows
nouns.ids.npy         row by hash of the id (see ``columns.HashLookup``)
nouns.hashes.npy      32 bytes a row: the noun's digest, so that replacing it needs no re-hash
verbs.arrow           every field of the verbs
verbs.{ids,sources,targets}.npy, verbs.hashes.npy   the same for verbs
index.usearch         the index over the indexed rows; absent if there are none
digest.bin            the shard's multiset digest
quarantined.json      source objects that could not be read
base.json             position, counts, and size and SHA-256 of every other file; written last
====================  ==================================================================================

A base is a cache: losing it costs time, never data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import Noun, Unindexed, Verb
from brainy.bucket.partition import key_hash
from brainy.dataset.base import Quarantined
from brainy_node.shard import base_record as layout
from brainy_node.shard import flags
from brainy_node.shard.base_record import BaseRecord
from brainy_node.shard.columns import BATCH_ROWS, HashLookup, RecordFile, map_array
from brainy_node.shard.facts import Facts, facts_of, verb_service
from brainy_node.shard.index import VectorIndex
from brainy_node.shard.statistics import Tally

Rows = npt.NDArray[np.int64]


class Base:
    """A base directory, opened. Never changes; reading it from several threads is safe."""

    def __init__(self, directory: Path, record: BaseRecord) -> None:
        self.directory = directory
        self.record = record
        spec = record.spec
        nouns = RecordFile(directory / layout.NOUNS)
        verbs = RecordFile(directory / layout.VERBS)
        #: Nouns in the base; rows are 0 to ``rows`` - 1.
        self.rows = nouns.rows
        #: Verbs in the base.
        self.verb_rows = verbs.rows
        #: float32, rows x dimensions.
        self.vectors: npt.NDArray[np.float32] = map_array(directory / layout.VECTORS)  # type: ignore[assignment]
        self.lengths: npt.NDArray[np.float32] = map_array(directory / layout.LENGTHS)  # type: ignore[assignment]
        row_flags = [np.asarray(array) for array in nouns.arrays("flags")]
        marks = np.concatenate(row_flags) if row_flags else np.empty(0, np.uint8)
        #: uint8 (rows): ``flags.REASON`` bits.
        self.reasons: npt.NDArray[np.uint8] = marks & np.uint8(flags.REASON)
        #: bool (rows): in the index.
        self.indexed: npt.NDArray[np.bool_] = self.reasons == 0
        #: bool (rows): carries the soft-delete marker.
        self.soft_deleted: npt.NDArray[np.bool_] = (marks & np.uint8(flags.SOFT_DELETED)) != 0
        self.ids = nouns.bytes_column("id")
        self._metadata = nouns.bytes_column("metadata")
        self._attributes = nouns.bytes_column("attributes")
        self._raw_vectors = nouns.bytes_column("raw_vector")
        self._other_vectors = nouns.bytes_column("other_vector")
        self._by_id = HashLookup(map_array(directory / layout.NOUN_IDS))  # type: ignore[arg-type]
        self._hashes = map_array(directory / layout.NOUN_HASHES)
        self.verb_ids = verbs.bytes_column("id")
        self._verb_sources = verbs.bytes_column("source_id")
        self._verb_targets = verbs.bytes_column("target_id")
        self._verb_types = verbs.bytes_column("type")
        self._verb_type_arrays = verbs.arrays("type")
        self._verb_weights = verbs.arrays("weight")
        self._verb_vectors = verbs.bytes_column("vector")
        self._verb_raw_vectors = verbs.bytes_column("raw_vector")
        self._verb_metadata = verbs.bytes_column("metadata")
        self._verb_attributes = verbs.bytes_column("attributes")
        self._verbs_by_id = HashLookup(map_array(directory / layout.VERB_IDS))  # type: ignore[arg-type]
        self._verbs_by_source = HashLookup(map_array(directory / layout.VERB_SOURCES))  # type: ignore[arg-type]
        self._verbs_by_target = HashLookup(map_array(directory / layout.VERB_TARGETS))  # type: ignore[arg-type]
        self._verb_hashes = map_array(directory / layout.VERB_HASHES)
        #: The index over the indexed rows, keys = rows; None if there are none.
        self.index: VectorIndex | None = None
        if record.indexed_count:
            self.index = VectorIndex.view(directory / layout.INDEX, spec, expected=record.indexed_count)
        # Read once here, so that a base without a count of today is refused when it is opened.
        Tally.decode(record.tally)
        self._quarantined = [
            Quarantined(entry["key"], entry["reason"], entry["size"])
            for entry in json.loads((directory / layout.QUARANTINED).read_bytes())
        ]

    @classmethod
    def open(cls, directory: Path, *, verify: bool = True) -> Base:
        """Map a base directory.

        With ``verify`` every byte is hashed first (about 1.3 GB/s; it gives up the GIL, so call it in a
        thread). Without it only sizes and ``base.json`` itself are checked: for a directory this machine's
        builder has just written and hashed.

        Raises:
            CorruptDataError: a file is missing, truncated or altered; names it. Nothing was mapped.
            PreconditionError: written by a newer version of the software.
        """
        record = BaseRecord.read(directory)
        record.check_files(directory, contents=verify)
        return cls(directory, record)

    @property
    def position(self) -> int:
        """Every record of the shard's log at or below this is included."""
        return self.record.position

    @property
    def source_cursor(self) -> dict[int, int]:
        """Source shard -> position included, when the generation was filled from another."""
        return dict(self.record.source_cursor)

    @property
    def source_generation(self) -> int | None:
        """The generation of these positions; None where there are none."""
        if self.record.source_generation is not None:
            return self.record.source_generation
        return self.record.spec.made_of if self.record.source_cursor else None

    @property
    def vector_bytes(self) -> int:
        """What the indexed vectors take as float32."""
        return 4 * self.record.indexed_count * self.record.spec.dimensions

    @property
    def index_bytes(self) -> int:
        """Size of the index file: the vectors as the index keeps them, and its graph. 0 without one."""
        file = self.record.files.get(layout.INDEX)
        return 0 if file is None else file.size

    def digest(self) -> MultisetDigest:
        """Return the multiset digest at ``position``."""
        return MultisetDigest.decode((self.directory / layout.DIGEST).read_bytes())

    def tally(self) -> Tally:
        """Return the counts at ``position``; a fresh copy each time."""
        return Tally.decode(self.record.tally)

    def quarantined(self) -> list[Quarantined]:
        """Return the source objects that could not be read."""
        return list(self._quarantined)

    # -- nouns -----------------------------------------------------------------------------------------------

    def row_of(self, item_id: str) -> int | None:
        """Return the row of a noun, or None."""
        for row in self._by_id.rows(key_hash(item_id)):
            if self.ids.text(row) == item_id:
                return row
        return None

    def rows_of(self, ids: Sequence[str]) -> list[int]:
        """Return the rows of many nouns, -1 for those that are not here."""
        wanted = np.fromiter((key_hash(item_id) for item_id in ids), np.uint64, len(ids))
        first, last = self._by_id.spans(wanted)
        rows = [-1] * len(ids)
        for number, (start, stop) in enumerate(zip(first, last, strict=True)):
            for place in range(start, stop):
                row = self._by_id.row_at(place)
                if self.ids.text(row) == ids[number]:
                    rows[number] = row
        return rows

    def noun_rows_where(self, chosen: Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.bool_]]) -> list[int]:
        """Return the rows of the nouns whose id hashes (``key_hash``) are chosen."""
        return self._by_id.rows_where(chosen)

    def verb_rows_where(self, chosen: Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.bool_]]) -> list[int]:
        """Return the rows of the verbs whose id hashes (``key_hash``) are chosen."""
        return self._verbs_by_id.rows_where(chosen)

    def noun(self, row: int, *, include_vectors: bool = True) -> Noun:
        """Return a noun; without vectors, ``vector`` is b"" and ``raw_vector`` None."""
        return Noun(
            id=self.ids.text(row),
            vector=self._vector(row) if include_vectors else b"",
            raw_vector=self._raw_vectors[row] if include_vectors else None,
            metadata=self._metadata[row],
            attributes=self._attributes[row],
        )

    def _vector(self, row: int) -> bytes:
        reason = self.reasons[row]
        if reason == flags.NO_VECTOR:
            return b""
        if reason == flags.DIMENSION:
            return self._other_vectors[row] or b""
        vector: bytes = self.vectors[row].tobytes()
        return vector

    def vector_size(self, row: int) -> int:
        """Return the bytes of a noun's vector without reading it."""
        reason = self.reasons[row]
        if reason == flags.NO_VECTOR:
            return 0
        if reason == flags.DIMENSION:
            return len(self._other_vectors[row] or b"")
        return 4 * self.record.spec.dimensions

    def metadata(self, row: int) -> bytes | None:
        """Return a noun's metadata."""
        return self._metadata[row]

    def noun_hash(self, row: int) -> bytes:
        """Return a noun's digest."""
        digest: bytes = self._hashes[row].tobytes()
        return digest

    def noun_facts(self, row: int) -> Facts:
        """Return what the counts know of a noun."""
        return facts_of(self._metadata[row])

    def unindexed(self, dead: npt.NDArray[np.bool_]) -> Iterator[tuple[str, str]]:
        """Yield (id, reason) of the rows that are stored but not searchable and not ``dead``."""
        for row in np.flatnonzero((self.reasons != 0) & ~dead).tolist():
            reason: Unindexed | None = flags.REASONS[int(self.reasons[row])]
            if reason is not None:
                yield self.ids.text(row), reason.value

    # -- verbs -----------------------------------------------------------------------------------------------

    def verb_row_of(self, item_id: str) -> int | None:
        """Return the row of a verb, or None."""
        for row in self._verbs_by_id.rows(key_hash(item_id)):
            if self.verb_ids.text(row) == item_id:
                return row
        return None

    def verb(self, row: int, *, include_vectors: bool = True) -> Verb:
        """Return a verb; without vectors, ``vector`` is b"" and ``raw_vector`` None."""
        number, place = divmod(row, BATCH_ROWS)
        return Verb(
            id=self.verb_ids.text(row),
            source_id=self._verb_sources.text(row),
            target_id=self._verb_targets.text(row),
            type=self._verb_types.text(row),
            weight=self._verb_weights[number][place].as_py(),
            vector=(self._verb_vectors[row] or b"") if include_vectors else b"",
            raw_vector=self._verb_raw_vectors[row] if include_vectors else None,
            metadata=self._verb_metadata[row],
            attributes=self._verb_attributes[row],
        )

    def verb_hash(self, row: int) -> bytes:
        """Return a verb's digest."""
        digest: bytes = self._verb_hashes[row].tobytes()
        return digest

    def verb_type(self, row: int) -> str:
        """Return a verb's type."""
        return self._verb_types.text(row)

    def verb_service(self, row: int) -> str:
        """Return the service that made a verb."""
        return verb_service(self._verb_metadata[row], self._verb_attributes[row])

    def verb_rows_matching(self, source_id: str | None, target_id: str | None, kind: str | None) -> Iterator[list[int]]:
        """Yield rows of verbs by source, target and type (None matches all), in batches."""
        if source_id is not None or target_id is not None:
            if source_id is not None:
                rows = self._verbs_by_source.rows(key_hash(source_id))
            else:
                rows = self._verbs_by_target.rows(key_hash(target_id or ""))
            for start in range(0, len(rows), BATCH_ROWS):
                yield [
                    row
                    for row in rows[start : start + BATCH_ROWS]
                    if (source_id is None or self._verb_sources.text(row) == source_id)
                    and (target_id is None or self._verb_targets.text(row) == target_id)
                    and (kind is None or self._verb_types.text(row) == kind)
                ]
            return
        for number, types in enumerate(self._verb_type_arrays):
            first = number * BATCH_ROWS
            if kind is None:
                yield list(range(first, first + len(types)))
            else:
                same = pc.equal(types, kind).to_numpy(zero_copy_only=False)
                yield (np.flatnonzero(same) + first).tolist()
