"""What reading a tree yields: items in bounded batches, and what could not be read, with the reason."""

from __future__ import annotations

import enum
from collections.abc import Container
from dataclasses import dataclass, field

from brainy.bucket.items import Noun, Verb


class Reason(enum.StrEnum):
    """Why an object of the source is not an item. Stored and shown as text."""

    #: No bytes, or only white space.
    EMPTY = "empty"
    #: Not JSON in UTF-8 (truncated, HTML, another encoding).
    NOT_JSON = "not-json"
    #: JSON nested deeper than any reader here can follow.
    TOO_DEEP = "too-deep"
    #: Larger than an object of Brainy can sensibly be; not fetched.
    TOO_LARGE = "too-large"
    #: JSON, but not an object, or a field of another type than Brainy writes.
    WRONG_SHAPE = "wrong-shape"
    MISSING_ID = "missing-id"
    MISSING_VECTOR = "missing-vector"
    #: A verb that does not say what it connects.
    MISSING_ENDS = "missing-ends"
    #: A verb's vector object without the object that holds the relation: no Brainy can read it either.
    VERB_WITHOUT_METADATA = "verb-without-metadata"
    #: An id that is empty, over 1,024 bytes, or not text that UTF-8 can carry.
    INVALID_ID = "invalid-id"
    #: Says an id inside that another object holds under its proper key.
    DUPLICATE_ID = "duplicate-id"
    #: Deleted according to the change log, written again by a late buffer flush; or, in the typed tree, which had
    #: no log, according to its metadata.
    SUSPECTED_ZOMBIE = "suspected-zombie"
    #: A verb that a disk-based index of Brainy also stored among the nouns.
    VERB_STORED_AS_NOUN = "verb-stored-as-noun"
    #: Lies among Brainy's objects but its key is not one Brainy builds.
    FOREIGN_OBJECT = "foreign-object"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An object of the source that is not taken over. It stays where it is."""

    key: str
    #: A value of ``Reason``.
    reason: str
    #: Bytes, as far as known.
    size: int


@dataclass(frozen=True, slots=True)
class ItemBatch:
    """At most about 1,000 items, in no particular order."""

    nouns: list[Noun] = field(default_factory=list)
    verbs: list[Verb] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    #: Objects fetched for this batch.
    objects_read: int = 0
    #: Rows of the source, in its own order, that are done with once this batch is; 0 of a source that has no order.
    place: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """Ids that a reader need not be given any more."""

    nouns: Container[str] = frozenset()
    verbs: Container[str] = frozenset()
