"""Brainy's own backup file: what its ``backup()`` writes and its ``restore()`` reads.

One JSON object: ``nouns``, ``verbs``, ``nounTypes``, ``verbTypes``, ``hnswIndex`` and ``version``, which is always
"1.0.0". Brainy's restore insists on the first two and the last, and takes of a noun ``id``, ``vector`` and
``metadata``; of a verb ``id``, its ends, ``vector`` and ``metadata``, whose ``verb`` it makes the type of.

Here this is added, all of it ignored by Brainy:

* ``brainyCluster``, the first member of the file: who wrote it, and that it must end with ``integrity``.
* ``integrity``, the last member: SHA-256 of every byte before it, counts, and the multiset digest of the items.
* In an element, ``brainyCluster``: what Brainy's form has no place for, so that reading the file gives the very same
  item (``_noun_extras``, ``_verb_extras``).

A verb's type is written where Brainy looks for it, into its metadata. ``data`` then holds the caller's metadata as it
was; Brainy itself stores both.
"""

from __future__ import annotations

import base64
from typing import Any, Final

import numpy as np
import orjson

from brainy.backup.held import needs_raw
from brainy.bucket.items import Noun, Verb
from brainy.legacy.values import UnreadableError, dump_json, parse_json, vector_bytes

VERSION: Final = "1.0.0"
FORMAT_VERSION: Final = 1
#: First member of a file of ours, and the member of an element that holds what is ours alone.
OURS: Final = "brainyCluster"
INTEGRITY: Final = "integrity"
#: What a file of ours begins with.
HEADER: Final = orjson.dumps({OURS: {"format_version": FORMAT_VERSION, "sealed_by": INTEGRITY}})[:-1] + b","
#: Between the last member and the seal.
SEAL: Final = b',\n"integrity":'

_INDEX_CONFIG: Final = {"M": 16, "efConstruction": 200, "efSearch": 50, "ml": 16}
#: Members of a verb that are not its attributes.
VERB_MEMBERS: Final = frozenset(
    {"id", "vector", "sourceId", "targetId", "source", "target", "verb", "type", "weight", "data", "metadata", OURS}
)


def encode_noun(noun: Noun) -> bytes:
    """Return a noun as Brainy's backup writes it: id, vector, metadata or null."""
    fields = {"id": noun.id, "vector": _vector(noun), "metadata": _fragment(noun.metadata)}
    if extras := _noun_extras(noun):
        fields[OURS] = extras
    return _encode(fields)


def encode_verb(verb: Verb) -> bytes:
    """Return a verb as Brainy's backup writes it: ends and type under both of their names, the type also in its
    metadata.
    """
    fields: dict[str, Any] = {
        "id": verb.id,
        "vector": _vector(verb),
        "sourceId": verb.source_id,
        "targetId": verb.target_id,
        "source": verb.source_id,
        "target": verb.target_id,
        "verb": verb.type,
        "type": verb.type,
    }
    if verb.weight is not None:
        fields["weight"] = verb.weight
    attributes = {} if verb.attributes is None else parse_json(verb.attributes)
    for name, value in attributes.items():
        if name not in VERB_MEMBERS:
            # Through the tolerant writer, for surrogates.
            fields[name] = orjson.Fragment(dump_json(value))
    if verb.metadata is not None:
        fields["data"] = _fragment(verb.metadata)
    fields["metadata"] = orjson.Fragment(with_type(verb.metadata, verb.type))
    if extras := _verb_extras(verb, attributes):
        fields[OURS] = extras
    try:
        return _encode(fields)
    except TypeError:
        # A name with a lone surrogate.
        return b"{" + b",".join(dump_json(name) + b":" + _encode(value) for name, value in fields.items()) + b"}"


def with_type(metadata: bytes | None, kind: str) -> bytes:
    """Return a verb's metadata with its type where Brainy's restore looks for it.

    A document that is no object has no such place; it becomes the member ``metadata`` of one.
    """
    if metadata is None:
        return dump_json({"verb": kind})
    document = parse_json(metadata)
    if not isinstance(document, dict):
        return dump_json({"verb": kind} if document is None else {"verb": kind, "metadata": document})
    if document.get("verb") == kind:
        return metadata
    return dump_json({**document, "verb": kind})


def rest_of(noun_types: list[str], verb_types: list[str], dimension: int) -> dict[str, object]:
    """Return the members after ``verbs``."""
    index = {
        "entryPointId": None,
        "maxLevel": 0,
        "dimension": dimension or None,
        "config": _INDEX_CONFIG,
        "connections": {},
    }
    return {"nounTypes": noun_types, "verbTypes": verb_types, "hnswIndex": index, "version": VERSION}


def seal(*, sha256: str, nouns: int, verbs: int, digest: str) -> bytes:
    """Return the end of a file, from the comma before ``integrity`` on."""
    body = {"sha256": sha256, "nouns": nouns, "verbs": verbs, "digest": digest}
    return SEAL + orjson.dumps(body) + b"}\n"


def _noun_extras(noun: Noun) -> dict[str, object]:
    """What Brainy's noun has no place for.

    ``attributes``: other fields of the stored object, a document (see ``_exact``). ``metadata``: null, where it is
    the JSON null and not absent; or the text of a document that JSON readers would change. ``vector``: base64 of the
    float32 values, where the array does not give them.
    """
    extras = _shared_extras(noun)
    if noun.attributes is not None:
        extras["attributes"] = _exact(noun.attributes)
    if noun.metadata == b"null":
        extras["metadata"] = None
    elif noun.metadata is not None and not _survives(noun.metadata):
        extras["metadata"] = noun.metadata.decode()
    return extras


def _verb_extras(verb: Verb, attributes: dict[str, Any]) -> dict[str, object]:
    """What Brainy's verb has no place for. ``vector`` as with nouns.

    ``attributes``: only where they are not simply the members of the verb that are not Brainy's own. ``metadata``:
    only where it is not ``data``: the text of the document, or false if there is none.
    """
    extras = _shared_extras(verb)
    if verb.attributes is not None and (
        not attributes or attributes.keys() & VERB_MEMBERS or not _survives(verb.attributes)
    ):
        extras["attributes"] = _exact(verb.attributes)
    if verb.metadata is not None and not _survives(verb.metadata):
        extras["metadata"] = verb.metadata.decode()
    return extras


def _shared_extras(item: Noun | Verb) -> dict[str, object]:
    if not item.vector or not needs_raw(item.vector):
        return {}
    if item.raw_vector is None or vector_bytes(parse_json(item.raw_vector)) != (item.vector, item.raw_vector):
        # NaN and infinity without the text they came from, or a text that is not compact.
        raw = None if item.raw_vector is None else item.raw_vector.decode()
        return {"vector": base64.b64encode(item.vector).decode(), "raw_vector": raw}
    return {}


def _exact(document: bytes) -> object:
    """A document as JSON where reading and writing it gives the same bytes, else its text."""
    return orjson.Fragment(document) if _survives(document) else document.decode()


def _survives(document: bytes) -> bool:
    try:
        return dump_json(parse_json(document)) == document
    except UnreadableError:
        return False


def _vector(item: Noun | Verb) -> object:
    if item.raw_vector is not None:
        return orjson.Fragment(item.raw_vector)
    # As float32 the shortest digits that give the same float32 again; NaN and infinity become null.
    return np.frombuffer(item.vector, dtype="<f4").astype(np.float32)


def _encode(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _fragment(body: bytes | None) -> object:
    return None if body is None else orjson.Fragment(body)
