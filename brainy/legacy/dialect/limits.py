"""What a dialect cannot say. Limits are values that are counted and shown; none is passed over in silence."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class LimitKind(enum.StrEnum):
    """What about an item Brainy cannot hold, or reads otherwise than it was meant. Stored and shown as text."""

    #: The key would be longer than an object store allows. Withheld.
    KEY_TOO_LONG = "key-too-long"
    #: The store refuses the key. Withheld.
    KEY_REFUSED = "key-refused"
    #: Brainy keeps something else under this name. Withheld.
    RESERVED_ID = "reserved-id"
    #: The vector is not as long as the others: Brainy deletes such a noun when it starts. Withheld.
    DIMENSION = "dimension"
    #: The id holds ".json" before its end: Brainy's listings cut it there. Reads by id find it.
    JSON_IN_ID = "json-in-id"
    #: Components that are no finite numbers: Brainy stores null there and finds the noun by its id only.
    NULL_COMPONENTS = "null-components"
    #: All components are zero: Brainy gives it the same distance to everything.
    ZERO_VECTOR = "zero-vector"
    #: Brainy of this era has no such verb type; it keeps the text.
    VERB_TYPE = "verb-type"
    #: Brainy of this era has no such noun type; it keeps the text until it saves the metadata again.
    NOUN_TYPE = "noun-type"
    #: No number: Brainy reads 1.
    WEIGHT = "weight"
    #: A whole number beyond 2^53: written with all its digits, rounded by whoever reads it with JavaScript.
    LARGE_INTEGER = "large-integer"
    #: Marked as deleted: only Brainy 1.x knows the mark, others show the noun.
    SOFT_DELETED = "soft-deleted"
    #: The id cannot stand in an HTTP header; the change-log entry is written without its copy there.
    LOG_HEADER = "log-header"
    #: Part of our log was collected before it was mirrored: these changes were not written.
    LOG_COLLECTED = "log-collected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One item that met a limit."""

    kind: LimitKind
    #: noun or verb.
    item: str
    id: str
    detail: str = ""
    #: Nothing was written for the item: what Brainy has of it stays as it was.
    withheld: bool = False
