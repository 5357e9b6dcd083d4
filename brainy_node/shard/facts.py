"""What the cluster itself needs to know of a noun's metadata, parsed once."""

from __future__ import annotations

from typing import NamedTuple

from brainy.legacy.values import UnreadableError, parse_json


class Facts(NamedTuple):
    """The few fields of a metadata document that counts and searches depend on."""

    #: The document is an object whose ``deleted`` is true: Brainy's soft-delete marker.
    soft_deleted: bool = False
    #: ``createdBy.augmentation``, "" where there is none.
    service: str = ""
    #: ``noun``, or ``nounType`` as Brainy 1.x writes, "" where there is neither.
    type: str = ""


_NOTHING = Facts()


def facts_of(metadata: bytes | None) -> Facts:
    """Parse a metadata document; anything that is not a JSON object has no facts."""
    if metadata is None:
        return _NOTHING
    try:
        document = parse_json(metadata)
    except UnreadableError:
        return _NOTHING
    if not isinstance(document, dict):
        return _NOTHING
    creator = document.get("createdBy")
    service = creator.get("augmentation") if isinstance(creator, dict) else None
    kind = document.get("noun")
    if not isinstance(kind, str):
        kind = document.get("nounType")
    return Facts(document.get("deleted") is True, _text(service), _text(kind))


def _text(value: object) -> str:
    if not isinstance(value, str):
        return ""
    # Lone surrogates, as JavaScript leaves them, cannot be said on the wire.
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
