"""An item, or the end of one, as the object writes of a dialect. Pure: the same change always gives the same bytes.

Order matters where a reader may come in between: a noun's vector goes before its metadata, as Brainy writes them; a
verb's relation goes before its vector, because Brainy looks for the vector first and shows a verb without ends if the
relation is missing. The change log comes last: an entry is a hint to read the object.

What is written reads back as the item it was made from, field by field: nothing is added that a reader would take for a
part of it. So there is no level, and no createdAt, unless the item has one; Brainy's readers fill in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainy.bucket.items import Noun, Verb
from brainy.legacy import keys
from brainy.legacy.dialect.dialects import Dialect
from brainy.legacy.dialect.entries import Entry, Place, entry, fits_header
from brainy.legacy.dialect.javascript import Vector, stringify
from brainy.legacy.dialect.limits import Limit, LimitKind
from brainy.legacy.keys import Kind, object_key
from brainy.legacy.values import UnreadableError, parse_json
from brainy.store.keys import MAX_KEY_BYTES

CONTENT_TYPE = "application/json"
#: Who Brainy says has added something if nobody did.
DEFAULT_SERVICE = "default"
_SAFE_INTEGER = 2**53
_VERB_FIELDS = frozenset({"source", "target", "type", "verb", "weight", "data", "embedding"})
_STAMPS = ("createdAt", "updatedAt", "createdBy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One object to put, or to delete where ``body`` is None."""

    key: str
    body: bytes | None
    content_type: str = CONTENT_TYPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What a change is in a dialect."""

    #: In the order in which they are to be made. Empty where the item is withheld; ``limits`` says why.
    writes: tuple[Write, ...] = ()
    entries: tuple[Entry, ...] = ()
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the namespace allows."""

    #: Length of its vectors; 0 while nobody knows.
    dimensions: int = 0
    #: Bytes a key may have below the namespace's prefix.
    key_bytes: int = MAX_KEY_BYTES


def render_noun(dialect: Dialect, noun: Noun, place: Place, bounds: Bounds) -> Rendered:
    """Return the writes that make Brainy read a noun."""
    limits = list(_id_limits(dialect, Kind.NOUN, noun.id, bounds))
    vector = _components(noun.vector, noun.raw_vector)
    if bounds.dimensions and len(vector) != bounds.dimensions:
        detail = f"{len(vector)} components instead of {bounds.dimensions}"
        limits.append(Limit(kind=LimitKind.DIMENSION, item=Kind.NOUN, id=noun.id, detail=detail, withheld=True))
    if any(limit.withheld for limit in limits):
        return Rendered(limits=tuple(limits))
    limits += _vector_limits(Kind.NOUN, noun.id, vector)
    rest = _object(noun.attributes)
    body: dict[str, Any] = {"id": noun.id, "vector": vector, "connections": {}}
    logged: dict[str, Any] = {"vector": vector}
    if "metadata" in rest:
        logged["metadata"] = rest["metadata"]
    writes = [_put(object_key(dialect.keys.nouns, noun.id), body | rest)]
    entries = [entry(place, 0, "add", "noun", noun.id, logged)]
    metadata_key = object_key(dialect.keys.noun_metadata, noun.id)
    if noun.metadata is None:
        # One of an earlier state would be read as this one's.
        writes.append(Write(key=metadata_key, body=None))
    else:
        metadata = parse_json(noun.metadata)
        limits += _metadata_limits(dialect, noun.id, metadata)
        writes.append(_put(metadata_key, metadata))
        entries.append(entry(place, 1, "add", "metadata", noun.id, metadata))
    return Rendered(writes=tuple(writes), entries=tuple(entries), limits=tuple(limits))


def render_noun_deletion(dialect: Dialect, item_id: str, place: Place, bounds: Bounds) -> Rendered:
    """Return the writes of a hard delete: the vector object goes, the metadata becomes the tombstone ``null``."""
    limits = tuple(_id_limits(dialect, Kind.NOUN, item_id, bounds))
    if any(limit.withheld for limit in limits):
        return Rendered(limits=limits)
    return Rendered(
        writes=(
            Write(key=object_key(dialect.keys.nouns, item_id), body=None),
            _put(object_key(dialect.keys.noun_metadata, item_id), None),
        ),
        entries=(
            entry(place, 0, "delete", "noun", item_id),
            entry(place, 1, "add", "metadata", item_id, None),
        ),
        limits=limits,
    )


def render_verb(dialect: Dialect, verb: Verb, place: Place, bounds: Bounds) -> Rendered:
    """Return the writes that make Brainy read a verb."""
    limits = list(_id_limits(dialect, Kind.VERB, verb.id, bounds))
    if any(limit.withheld for limit in limits):
        return Rendered(limits=tuple(limits))
    vector = _components(verb.vector, verb.raw_vector)
    limits += _vector_limits(Kind.VERB, verb.id, vector)
    if verb.type not in dialect.verb_types:
        limits.append(Limit(kind=LimitKind.VERB_TYPE, item=Kind.VERB, id=verb.id, detail=verb.type))
    if verb.weight is not None and not np.isfinite(verb.weight):
        limits.append(Limit(kind=LimitKind.WEIGHT, item=Kind.VERB, id=verb.id, detail=str(verb.weight)))
    own: dict[str, Any] = {"id": verb.id, "vector": vector, "connections": {}}
    relation = _relation(dialect, verb, vector)
    if any(map(_has_large_integer, (relation.get("metadata"), relation.get("data")))):
        limits.append(Limit(kind=LimitKind.LARGE_INTEGER, item=Kind.VERB, id=verb.id))
    own_key = object_key(dialect.keys.verbs, verb.id)
    if dialect.split_verbs:
        writes: tuple[Write, ...] = (
            _put(object_key(dialect.keys.verb_metadata, verb.id), relation),
            _put(own_key, own),
        )
        logged: dict[str, Any] = {"vector": vector}
    else:
        writes = (_put(own_key, own | relation),)
        logged = {"sourceId": verb.source_id, "targetId": verb.target_id, "type": verb.type, "vector": vector}
        if "metadata" in relation:
            logged["metadata"] = relation["metadata"]
    return Rendered(writes=writes, entries=(entry(place, 0, "add", "verb", verb.id, logged),), limits=tuple(limits))


def render_verb_deletion(dialect: Dialect, item_id: str, place: Place, bounds: Bounds) -> Rendered:
    """Return the writes of deleteVerb: the vector object goes, verb-metadata stays behind and means nothing."""
    limits = tuple(_id_limits(dialect, Kind.VERB, item_id, bounds))
    if any(limit.withheld for limit in limits):
        return Rendered(limits=limits)
    return Rendered(
        writes=(Write(key=object_key(dialect.keys.verbs, item_id), body=None),),
        entries=(entry(place, 0, "delete", "verb", item_id),),
        limits=limits,
    )


def service_of(document: bytes | None) -> str:
    """Return the service that Brainy's statistics count an item under: ``createdBy.augmentation`` of a document."""
    created_by = _object(document).get("createdBy")
    name = created_by.get("augmentation") if isinstance(created_by, dict) else None
    return name if isinstance(name, str) and name else DEFAULT_SERVICE


def _put(key: str, value: object) -> Write:
    return Write(key=key, body=stringify(value, indent=2, exact=True))


def _components(vector: bytes, raw: bytes | None) -> Vector:
    """What stands in the array: the stored numbers where they were kept, else the float32 values as doubles."""
    if raw is not None:
        stored = parse_json(raw)
        return Vector(stored if isinstance(stored, list) else ())
    return Vector(np.frombuffer(vector, "<f4").astype(np.float64).tolist())


def _object(document: bytes | None) -> dict[str, Any]:
    if document is None:
        return {}
    try:
        value = parse_json(document)
    except UnreadableError:
        return {}
    return value if isinstance(value, dict) else {}


def _relation(dialect: Dialect, verb: Verb, vector: Vector) -> dict[str, Any]:
    rest = _object(verb.attributes)
    one_piece = not dialect.split_verbs
    kind, alias = ("verb", "type") if one_piece else ("type", "verb")
    body: dict[str, Any] = {
        "sourceId": verb.source_id,
        "targetId": verb.target_id,
        "source": rest.get("source", verb.source_id),
        "target": rest.get("target", verb.target_id),
        kind: verb.type,
        alias: verb.type,
    }
    if "verb" in rest:
        body["verb"] = rest["verb"]
    if verb.weight is not None:
        body["weight"] = verb.weight
    elif "weight" in rest:
        body["weight"] = rest["weight"]
    if verb.metadata is not None:
        body["metadata"] = parse_json(verb.metadata)
    if "data" in rest or (verb.metadata is not None and not one_piece):
        body["data"] = rest["data"] if "data" in rest else body["metadata"]
    for name in _STAMPS:
        if name in rest:
            body[name] = rest[name]
    if "embedding" in rest or not one_piece:
        body["embedding"] = rest.get("embedding", vector)
    body.update((name, value) for name, value in rest.items() if name not in _VERB_FIELDS and name not in body)
    return body


def _id_limits(dialect: Dialect, kind: Kind, item_id: str, bounds: Bounds) -> Iterator[Limit]:
    longest = max(
        len(object_key(prefix, item_id).encode())
        for prefix in (dialect.keys.objects(kind), dialect.keys.companions(kind))
    )
    if longest > bounds.key_bytes:
        yield Limit(kind=LimitKind.KEY_TOO_LONG, item=kind, id=item_id, detail=f"{longest} bytes of key", withheld=True)
    if kind is Kind.NOUN and keys.names_no_item(item_id):
        yield Limit(kind=LimitKind.RESERVED_ID, item=kind, id=item_id, withheld=True)
    if (item_id + keys.SUFFIX).replace(keys.SUFFIX, "", 1) != item_id:
        yield Limit(kind=LimitKind.JSON_IN_ID, item=kind, id=item_id)
    if not fits_header(item_id):
        yield Limit(kind=LimitKind.LOG_HEADER, item=kind, id=item_id)


def _vector_limits(kind: Kind, item_id: str, vector: Vector) -> Iterator[Limit]:
    try:
        odd = len(vector) - int(np.count_nonzero(np.isfinite(np.array(vector, np.float64))))
    except (TypeError, ValueError, OverflowError):
        odd = sum(not (isinstance(value, (int, float)) and value - value == 0) for value in vector)
    if odd:
        detail = f"{odd} of {len(vector)}"
        yield Limit(kind=LimitKind.NULL_COMPONENTS, item=kind, id=item_id, detail=detail)
    elif kind is Kind.NOUN and not any(vector):
        yield Limit(kind=LimitKind.ZERO_VECTOR, item=kind, id=item_id)


def _metadata_limits(dialect: Dialect, item_id: str, metadata: object) -> Iterator[Limit]:
    if _has_large_integer(metadata):
        yield Limit(kind=LimitKind.LARGE_INTEGER, item=Kind.NOUN, id=item_id)
    if not isinstance(metadata, dict):
        return
    kind = metadata.get("noun")
    if isinstance(kind, str) and kind not in dialect.noun_types:
        yield Limit(kind=LimitKind.NOUN_TYPE, item=Kind.NOUN, id=item_id, detail=kind)
    if metadata.get("deleted") is True and dialect.keys is keys.FLAT_KEYS:
        yield Limit(kind=LimitKind.SOFT_DELETED, item=Kind.NOUN, id=item_id)


def _has_large_integer(value: object) -> bool:
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
        elif type(part) is int and abs(part) > _SAFE_INTEGER:
            return True
    return False
