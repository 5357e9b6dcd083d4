"""How the bodies of Brainy's objects combine into nouns and verbs; the same in every tree.

A noun is its vector object plus its metadata object. A verb is its vector object plus its verb-metadata object
(from 0.36), or one object with everything (up to 0.35). ``connections`` are dropped: they are hints of an index
that Brainy itself rebuilds.
"""

from __future__ import annotations

import math
import re
from typing import Any

from brainy.bucket.items import Noun, Verb
from brainy.legacy.batch import Reason
from brainy.legacy.values import MAX_OBJECT_BYTES, UnreadableError, differ, dump_json, parse_json, text_id, vector_bytes

#: Enough for an id of 1,024 bytes behind the opening brace; Brainy writes the id first.
HEAD_BYTES = 1536
_ID_FIRST = re.compile(rb'\s*\{\s*"id"\s*:\s*("(?:[^"\\]|\\.)*")')
_NOUN_FIELDS = frozenset({"id", "vector", "connections"})
_VERB_FIELDS = frozenset(
    {
        "id",
        "vector",
        "connections",
        "sourceId",
        "targetId",
        "source",
        "target",
        "type",
        "verb",
        "weight",
        "metadata",
        "data",
        "embedding",
    }
)


def id_at_first(head: bytes) -> str | None:
    """Return the id with which an object begins, or None where another field comes first.

    ``head`` is its first ``HEAD_BYTES``, or all of it.

    Raises:
        UnreadableError: what stands there can be no id.
    """
    match = _ID_FIRST.match(head)
    return None if match is None else text_id(parse_json(match[1]))


def says_id(body: bytes, item_id: str) -> bool:
    """Whether an object can be read and says this id wherever one looks."""
    try:
        return open_object(body)[0] == item_id and id_at_first(body[:HEAD_BYTES]) in (None, item_id)
    except UnreadableError:
        return False


def open_object(body: bytes) -> tuple[str, dict[str, Any]]:
    """Return the id a vector object says it has, and its fields.

    Raises:
        UnreadableError: it is no such object.
    """
    fields = _fields(body)
    return text_id(fields.get("id")), fields


def _fields(body: bytes) -> dict[str, Any]:
    value = parse_json(body)
    if not isinstance(value, dict):
        raise UnreadableError(Reason.WRONG_SHAPE)
    return value


def build_noun(item_id: str, fields: dict[str, Any], metadata: bytes | None, *, keep_doubles: bool = False) -> Noun:
    """Build a noun from its vector object and its compacted metadata; ``keep_doubles`` as in ``vector_bytes``.

    Fields other than the vector's (``level``, a placeholder's inline metadata, unknown ones) become attributes.

    Raises:
        UnreadableError: the vector object cannot be read.
    """
    vector, raw = vector_bytes(fields.get("vector"), keep_doubles=keep_doubles)
    rest = {name: value for name, value in fields.items() if name not in _NOUN_FIELDS}
    return Noun(
        id=item_id,
        vector=vector,
        raw_vector=raw,
        metadata=metadata,
        attributes=dump_json(rest) if rest else None,
    )


def is_one_piece(fields: dict[str, Any]) -> bool:
    """Whether a verb's object says itself what it connects (up to 0.35)."""
    return any(fields.get(name) for name in ("sourceId", "source", "targetId", "target"))


def build_verb(item_id: str, own: dict[str, Any], relation: bytes | None, *, keep_doubles: bool = False) -> Verb:
    """Build a verb from its vector object and, unless that is complete in itself, its verb-metadata object.

    A complete vector object was written by 0.35 or older; verb-metadata beside it is a left-over of a newer
    writer whose verb the older one replaced.

    Raises:
        UnreadableError: one of the two cannot be read (``in_companion`` says which), or nothing names the ends.
    """
    vector, raw = vector_bytes(own.get("vector"), keep_doubles=keep_doubles)
    fields = own
    if not is_one_piece(own):
        if relation is None:
            raise UnreadableError(Reason.VERB_WITHOUT_METADATA)
        try:
            if len(relation) > MAX_OBJECT_BYTES:
                raise UnreadableError(Reason.TOO_LARGE)
            fields = {**own, **_fields(relation)}
        except UnreadableError as error:
            raise UnreadableError(error.cause, in_companion=True) from error
    weight = _number(fields.get("weight"))
    return Verb(
        id=item_id,
        source_id=_end(fields, "sourceId", "source"),
        target_id=_end(fields, "targetId", "target"),
        type=_type(fields),
        weight=weight,
        vector=vector,
        raw_vector=raw,
        metadata=dump_json(fields["metadata"]) if "metadata" in fields else None,
        attributes=_verb_attributes(fields, own.get("vector"), keeps_weight=weight is not None),
    )


def _number(value: object) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _end(fields: dict[str, Any], name: str, alias: str) -> str:
    value = fields.get(name) or fields.get(alias)
    if value is None or value == "":
        raise UnreadableError(Reason.MISSING_ENDS)
    return text_id(value)


def _type(fields: dict[str, Any]) -> str:
    value = fields.get("type") or fields.get("verb") or ""
    if not isinstance(value, str):
        raise UnreadableError(Reason.WRONG_SHAPE)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UnreadableError(Reason.WRONG_SHAPE) from None
    return value


def _verb_attributes(fields: dict[str, Any], vector: object, *, keeps_weight: bool) -> bytes | None:
    rest = {name: value for name, value in fields.items() if name not in _VERB_FIELDS}
    # The same thing under two names is kept once; a disagreement is kept whole.
    for name, alias in (("sourceId", "source"), ("targetId", "target"), ("type", "verb")):
        if fields.get(name) and alias in fields and differ(fields[alias], fields[name]):
            rest[alias] = fields[alias]
    if "data" in fields and ("metadata" not in fields or differ(fields["data"], fields["metadata"])):
        rest["data"] = fields["data"]
    if "embedding" in fields and differ(fields["embedding"], vector):
        rest["embedding"] = fields["embedding"]
    if fields.get("weight") is not None and not keeps_weight:
        rest["weight"] = fields["weight"]
    return dump_json(rest) if rest else None


def created_at(verb: Verb) -> int | None:
    """Milliseconds since 1970 at which Brainy says it wrote the verb, or None."""
    if verb.attributes is None:
        return None
    stamp = parse_json(verb.attributes).get("createdAt")
    if not isinstance(stamp, dict):
        return None
    seconds, nanoseconds = stamp.get("seconds"), stamp.get("nanoseconds", 0)
    if not isinstance(seconds, (int, float)) or not isinstance(nanoseconds, (int, float)):
        return None
    try:
        return int(seconds * 1000 + nanoseconds / 1_000_000)
    except (OverflowError, ValueError):
        return None
