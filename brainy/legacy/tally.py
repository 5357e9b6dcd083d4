"""What the items of a tree say when counted."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from brainy.bucket.items import Noun, Verb
from brainy.legacy import keys
from brainy.legacy.batch import ItemBatch, Quarantined, Reason
from brainy.legacy.keys import Kind
from brainy.legacy.names import Names
from brainy.legacy.presence import Hashes, Presence, among, hashes_of
from brainy.legacy.values import UnreadableError, parse_json

__all__ = ["Names", "Tally"]

Lengths = npt.NDArray[np.uint32]

_MAX_LISTED = 100


@dataclass(slots=True)
class Tally:
    """Counts over all items of a bucket. Memory: twelve bytes a noun, 24 a verb."""

    nouns: int = 0
    verbs: int = 0
    noun_types: Names = field(default_factory=Names)
    verb_types: Names = field(default_factory=Names)
    dimensions: Counter[int] = field(default_factory=Counter)
    noun_services: Names = field(default_factory=Names)
    verb_services: Names = field(default_factory=Names)
    soft_deleted: int = 0
    placeholders: int = 0
    without_metadata: int = 0
    null_metadata: int = 0
    zero_vectors: int = 0
    non_finite_vectors: int = 0
    with_level: int = 0
    created_by_041: int = 0
    #: Of float32 vectors of nouns and verbs.
    vector_bytes: int = 0
    #: Of metadata and attributes, compact.
    document_bytes: int = 0
    quarantined_count: int = 0
    quarantined: list[Quarantined] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    zombies: Counter[Kind] = field(default_factory=Counter)
    verb_ids: Presence = field(default_factory=Presence)
    _lengths: array[int] = field(default_factory=lambda: array("I"))
    _hashes: array[int] = field(default_factory=lambda: array("Q"))
    _sorted: tuple[Hashes, Lengths] | None = None
    _ends: list[tuple[Hashes, Hashes]] = field(default_factory=list)

    def take(self, batch: ItemBatch) -> None:
        """Count a batch."""
        if batch.nouns:
            self._take_nouns(batch.nouns)
        if batch.verbs:
            self._take_verbs(batch.verbs)
        for entry in batch.quarantined:
            self.quarantined_count += 1
            self.reasons[str(entry.reason)] += 1
            if entry.reason == Reason.SUSPECTED_ZOMBIE:
                self.zombies[keys.parse(entry.key).kind] += 1
            if len(self.quarantined) < _MAX_LISTED:
                self.quarantined.append(entry)

    def finish(self) -> None:
        """Declare everything counted."""
        hashes = np.frombuffer(self._hashes, dtype=np.uint64)
        order = np.argsort(hashes)
        self._sorted = hashes[order], np.frombuffer(self._lengths, dtype=np.uint32)[order]
        self._hashes, self._lengths = array("Q"), array("I")
        self.verb_ids.finish()

    def _take_nouns(self, nouns: Sequence[Noun]) -> None:
        self.nouns += len(nouns)
        self._take_vectors([noun.vector for noun in nouns])
        self._hashes.frombytes(hashes_of([noun.id for noun in nouns]).tobytes())
        for noun in nouns:
            self._noun(noun)

    def _take_vectors(self, vectors: Sequence[bytes]) -> None:
        by_length: dict[int, list[bytes]] = {}
        for vector in vectors:
            by_length.setdefault(len(vector) // 4, []).append(vector)
        for length, some in by_length.items():
            self.dimensions[length] += len(some)
            if length:
                values = np.frombuffer(b"".join(some), dtype="<f4").reshape(-1, length)
                self.vector_bytes += values.nbytes
                self.zero_vectors += int((~values.any(axis=1)).sum())
                self.non_finite_vectors += int((~np.isfinite(values).all(axis=1)).sum())
        self._lengths.extend([len(vector) // 4 for vector in vectors])

    def _noun(self, noun: Noun) -> None:
        if noun.metadata is None:
            self.without_metadata += 1
            metadata: dict[str, Any] = {}
        else:
            self.document_bytes += len(noun.metadata)
            self.null_metadata += noun.metadata == b"null"
            metadata = _document(noun.metadata)
        inline = None
        if noun.attributes is not None:
            self.document_bytes += len(noun.attributes)
            attributes = _document(noun.attributes)
            self.with_level += "level" in attributes
            inline = attributes.get("metadata")
        self.placeholders += metadata.get("autoCreated") is True or (
            isinstance(inline, dict) and inline.get("isPlaceholder") is True
        )
        self.soft_deleted += metadata.get("deleted") is True and "deletedAt" in metadata
        self.noun_types.see(metadata.get("noun") or metadata.get("nounType"))
        self._author(metadata, self.noun_services)

    def _take_verbs(self, verbs: Sequence[Verb]) -> None:
        self.verbs += len(verbs)
        self.verb_ids.add(hashes_of([verb.id for verb in verbs]))
        sources = hashes_of([verb.source_id for verb in verbs])
        self._ends.append((sources, hashes_of([verb.target_id for verb in verbs])))
        for verb in verbs:
            self.verb_types.see(verb.type)
            self.vector_bytes += len(verb.vector)
            self.document_bytes += len(verb.metadata or b"") + len(verb.attributes or b"")
            if verb.attributes is not None:
                self._author(_document(verb.attributes), self.verb_services)

    def _author(self, document: dict[str, Any], services: Names) -> None:
        author = document.get("createdBy")
        if isinstance(author, dict):
            services.see(author.get("augmentation"))
            self.created_by_041 += author.get("version") == "0.41.0"

    @property
    def noun_ids(self) -> Hashes:
        """Hashes of the nouns' ids, sorted. After ``finish``."""
        return self.lengths_of_nouns[0]

    @property
    def lengths_of_nouns(self) -> tuple[Hashes, Lengths]:
        """Hashes of the nouns' ids, sorted, and the length of each one's vector. After ``finish``."""
        if self._sorted is None:
            raise ValueError("not everything is counted")
        return self._sorted

    def dangling_verbs(self) -> int:
        """Verbs of which at least one end is no noun. After ``finish``."""
        nouns = self.noun_ids
        return sum(int((~among(nouns, sources) | ~among(nouns, targets)).sum()) for sources, targets in self._ends)


def _document(body: bytes) -> dict[str, Any]:
    try:
        value = parse_json(body)
    except UnreadableError:
        return {}
    return value if isinstance(value, dict) else {}
