"""What the cluster itself needs to know of an item's metadata, parsed once."""

from __future__ import annotations

from typing import Any, NamedTuple

from brainy.legacy.values import UnreadableError, parse_json


class Facts(NamedTuple):
    """The few fields of a metadata document that counts and searches depend on."""

    #: The document is an object whose ``deleted`` is true: Brainy's soft-delete marker.
    soft_deleted: bool = False
    #: ``createdBy.augmentation``, "" where there is none.
    service: str = ""
    #: ``noun``, or ``nounType`` as Brainy 1.x writes, "" where there is neither.
    type: str = ""
    #: There is a document at all, if only JSON ``null``.
    documented: bool = False


_NOTHING = Facts()
_PLAIN = Facts(documented=True)


def facts_of(metadata: bytes | None) -> Facts:
    """Parse a metadata document; of anything that is not a JSON object only its being there is a fact."""
    if metadata is None:
        return _NOTHING
    document = _object(metadata)
    if document is None:
        return _PLAIN
    kind = document.get("noun")
    if not isinstance(kind, str):
        kind = document.get("nounType")
    return Facts(document.get("deleted") is True, _service(document), _text(kind), documented=True)


def verb_service(metadata: bytes | None, attributes: bytes | None) -> str:
    """Return the service that made a verb.

    That is ``createdBy.augmentation`` of its metadata or else, because Brainy keeps ``createdBy`` beside a verb's
    metadata, of its attributes; "" where there is neither.
    """
    for body in (metadata, attributes):
        # Most have none, and to look for the word costs a fiftieth of parsing.
        if body and b"createdBy" in body and (document := _object(body)) is not None and (name := _service(document)):
            return name
    return ""


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        document = parse_json(body)
    except UnreadableError:
        return None
    return document if isinstance(document, dict) else None


def _service(document: dict[str, Any]) -> str:
    creator = document.get("createdBy")
    return _text(creator.get("augmentation")) if isinstance(creator, dict) else ""


def _text(value: object) -> str:
    if not isinstance(value, str):
        return ""
    # Lone surrogates, as JavaScript leaves them, cannot be said on the wire.
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
