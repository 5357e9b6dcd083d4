"""What the items of a tree say when counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from brainy.bucket.items import Noun, Verb
from brainy.legacy.batch import ItemBatch, Quarantined, Reason
from brainy.legacy.presence import Presence, hashes_of
from brainy.legacy.values import UnreadableError, parse_json

#: Different names counted in one tally; user data may hold any number.
_MAX_NAMES = 500
_OTHER = "(other)"
_MAX_LISTED = 100


class Names(Counter[str]):
    """A counter of names that stops growing."""

    def see(self, name: object) -> None:
        """Count a name; anything but text is passed over. Lone surrogates are shown as escapes."""
        if isinstance(name, str):
            if not name.isascii():
                name = name.encode("utf-8", "backslashreplace").decode()
            self[name if name in self or len(self) < _MAX_NAMES else _OTHER] += 1


@dataclass(slots=True)
class Tally:
    """Counts over all items of a bucket. Memory: 24 bytes an item."""

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
    quarantined_count: int = 0
    quarantined: list[Quarantined] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    noun_ids: Presence = field(default_factory=Presence)
    _sources: Presence = field(default_factory=Presence)
    _ends: list[tuple[Any, Any]] = field(default_factory=list)

    def take(self, batch: ItemBatch) -> None:
        """Count a batch."""
        for noun in batch.nouns:
            self._noun(noun)
        for verb in batch.verbs:
            self._verb(verb)
        self.noun_ids.add(hashes_of([noun.id for noun in batch.nouns]))
        if batch.verbs:
            sources = hashes_of([verb.source_id for verb in batch.verbs])
            self._ends.append((sources, hashes_of([verb.target_id for verb in batch.verbs])))
        self.quarantined_count += len(batch.quarantined)
        self.quarantined += batch.quarantined[: max(0, _MAX_LISTED - len(self.quarantined))]
        self.reasons.update(str(entry.reason) for entry in batch.quarantined)

    def _noun(self, noun: Noun) -> None:
        self.nouns += 1
        self.dimensions[len(noun.vector) // 4] += 1
        if noun.vector:
            values = np.frombuffer(noun.vector, dtype="<f4")
            self.zero_vectors += not values.any()
            self.non_finite_vectors += not np.isfinite(values).all()
        if noun.metadata is None:
            self.without_metadata += 1
        metadata = _document(noun.metadata)
        self.null_metadata += noun.metadata == b"null"
        attributes = _document(noun.attributes)
        self.with_level += "level" in attributes
        inline = attributes.get("metadata")
        self.placeholders += metadata.get("autoCreated") is True or (
            isinstance(inline, dict) and inline.get("isPlaceholder") is True
        )
        self.soft_deleted += metadata.get("deleted") is True and "deletedAt" in metadata
        self.noun_types.see(metadata.get("noun") or metadata.get("nounType"))
        self._author(metadata, self.noun_services)

    def _verb(self, verb: Verb) -> None:
        self.verbs += 1
        self.verb_types.see(verb.type)
        self._author(_document(verb.attributes), self.verb_services)

    def _author(self, document: dict[str, Any], services: Names) -> None:
        author = document.get("createdBy")
        if isinstance(author, dict):
            services.see(author.get("augmentation"))
            self.created_by_041 += author.get("version") == "0.41.0"

    @property
    def zombies(self) -> int:
        """Items that the change log says were deleted."""
        return self.reasons[Reason.SUSPECTED_ZOMBIE]

    def dangling_verbs(self) -> int:
        """Verbs of which at least one end is no noun. Call once, after the last batch."""
        self.noun_ids.finish()
        return sum(
            int((~self.noun_ids.contains(sources) | ~self.noun_ids.contains(targets)).sum())
            for sources, targets in self._ends
        )


def _document(body: bytes | None) -> dict[str, Any]:
    if body is None:
        return {}
    try:
        value = parse_json(body)
    except UnreadableError:
        return {}
    return value if isinstance(value, dict) else {}
