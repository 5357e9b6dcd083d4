"""The elements of a Brainy backup file, read back into items.

Two readers: one for elements we wrote, which gives the very item that was written, and one for those of the real
Brainy (any version), which is as tolerant as its restore.
"""

from __future__ import annotations

import base64
import math
from typing import Any

from brainy.backup.document import OURS, VERB_MEMBERS
from brainy.bucket.items import Noun, Verb
from brainy.legacy.batch import Reason
from brainy.legacy.objects import build_verb
from brainy.legacy.values import UnreadableError, dump_json, parse_json, text_id, vector_bytes

_NOUN_MEMBERS = frozenset({"id", "vector", "connections", "metadata"})


def parse_element(body: bytes) -> dict[str, Any]:
    """Parse an element.

    Raises:
        UnreadableError: not JSON, nested too deep, or no object.
    """
    value = parse_json(body)
    if not isinstance(value, dict):
        raise UnreadableError(Reason.WRONG_SHAPE)
    return value


def brainy_noun(fields: dict[str, Any]) -> Noun:
    """Read a noun of the real Brainy. Metadata that is null counts as none: its file does not tell the two apart.

    Raises:
        UnreadableError: no id, or no vector (``import_sparse_data`` embeds such nouns).
    """
    item_id = text_id(fields.get("id"))
    vector, raw = vector_bytes(fields.get("vector"))
    if not vector:
        raise UnreadableError(Reason.MISSING_VECTOR)
    metadata = fields.get("metadata")
    rest = {name: value for name, value in fields.items() if name not in _NOUN_MEMBERS}
    return Noun(
        id=item_id,
        vector=vector,
        raw_vector=raw,
        metadata=None if metadata is None else dump_json(metadata),
        attributes=dump_json(rest) if rest else None,
    )


def brainy_verb(fields: dict[str, Any]) -> Verb:
    """Read a verb of the real Brainy, as any version of it wrote them.

    Raises:
        UnreadableError: no id, no ends, or a vector that is no array.
    """
    item_id = text_id(fields.get("id"))
    if fields.get("vector") is None:
        fields = {**fields, "vector": []}
    return build_verb(item_id, fields, b"{}")


def our_noun(fields: dict[str, Any]) -> Noun:
    """Read a noun that ``encode_noun`` wrote.

    Raises:
        UnreadableError: it is none.
    """
    extras = _extras(fields)
    vector, raw = _vector(fields, extras)
    metadata: bytes | None
    if "metadata" in extras:
        metadata = b"null" if extras["metadata"] is None else _text(extras["metadata"])
    else:
        found = fields.get("metadata")
        metadata = None if found is None else dump_json(found)
    return Noun(
        id=text_id(fields.get("id")),
        vector=vector,
        raw_vector=raw,
        metadata=metadata,
        attributes=_document(extras["attributes"]) if "attributes" in extras else None,
    )


def our_verb(fields: dict[str, Any]) -> Verb:
    """Read a verb that ``encode_verb`` wrote.

    Raises:
        UnreadableError: it is none.
    """
    extras = _extras(fields)
    vector, raw = _vector(fields, extras)
    metadata: bytes | None = None
    if "metadata" in extras:
        metadata = _text(extras["metadata"])
    elif "data" in fields:
        metadata = dump_json(fields["data"])
    attributes: bytes | None = None
    if "attributes" in extras:
        attributes = _document(extras["attributes"])
    elif rest := {name: value for name, value in fields.items() if name not in VERB_MEMBERS}:
        attributes = dump_json(rest)
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise UnreadableError(Reason.WRONG_SHAPE)
    return Verb(
        id=text_id(fields.get("id")),
        source_id=text_id(fields.get("sourceId")),
        target_id=text_id(fields.get("targetId")),
        type=kind,
        weight=_weight(fields.get("weight")),
        vector=vector,
        raw_vector=raw,
        metadata=metadata,
        attributes=attributes,
    )


def _extras(fields: dict[str, Any]) -> dict[str, Any]:
    extras = fields.get(OURS, {})
    if not isinstance(extras, dict):
        raise UnreadableError(Reason.WRONG_SHAPE)
    return extras


def _vector(fields: dict[str, Any], extras: dict[str, Any]) -> tuple[bytes, bytes | None]:
    if "vector" not in extras:
        return vector_bytes(fields.get("vector"))
    raw = extras.get("raw_vector")
    try:
        return base64.b64decode(_text(extras["vector"]), validate=True), None if raw is None else _text(raw)
    except ValueError:
        raise UnreadableError(Reason.WRONG_SHAPE) from None


def _weight(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UnreadableError(Reason.WRONG_SHAPE)
    return float(value)


def _document(value: object) -> bytes:
    return value.encode() if isinstance(value, str) else dump_json(value)


def _text(value: object) -> bytes:
    if not isinstance(value, str):
        raise UnreadableError(Reason.WRONG_SHAPE)
    return value.encode()
