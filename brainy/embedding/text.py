"""The text of an item's metadata, as Brainy's ``importSparseData`` takes it.

* An object with a key ``text``: that. Brainy's models take a string, or strings of which they embed the first that is
  not blank; anything else is an error there and here.
* Metadata that is itself a string, or strings: likewise.
* Any other object: Brainy hands it to the model, which refuses it, so that the item is lost. Here its text is what
  Brainy's ``add`` makes of a JSON object: each field as ``name: value``, fields that name or describe first and twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from brainy.errors import InvalidRequestError

#: Fields Brainy's ``add`` writes first, and twice.
_FIRST = frozenset(("name", "title", "company", "organization", "description", "summary"))
#: What lies deeper does not count.
_MAX_DEPTH = 5


def text_of(metadata: Any) -> str:
    """Return what is to be embedded for an item.

    Raises:
        InvalidRequestError: NO_TEXT, because there is none or because ``metadata.text`` is something else.
    """
    if isinstance(metadata, Mapping):
        return _string(metadata["text"]) if "text" in metadata else _nonblank(_words(metadata, 0))
    if isinstance(metadata, str | list):
        return _string(metadata)
    raise _no_text()


def stored_text(metadata: bytes | None) -> str | None:
    """Return what is to be embedded for an item as it is stored; None where there is no text."""
    if metadata is None:
        return None
    try:
        try:
            document = orjson.loads(metadata)
        except orjson.JSONDecodeError:
            # Lone surrogates are JSON that is stored; no model takes them.
            document = json.loads(metadata.decode())
        text = text_of(document)
        text.encode()
    except (InvalidRequestError, ValueError, RecursionError):
        return None
    return text


def _string(value: Any) -> str:
    if isinstance(value, str):
        return _nonblank(value)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return _nonblank(next((part for part in value if part.strip()), ""))
    raise InvalidRequestError(
        "the text is no string",
        reason="NO_TEXT",
        remedy="give a string in metadata.text, or a vector",
        type=type(value).__name__,
    )


def _nonblank(text: str) -> str:
    if not text.strip():
        raise _no_text()
    return text


def _no_text() -> InvalidRequestError:
    return InvalidRequestError(
        "there is no text to embed", reason="NO_TEXT", remedy="give a string in metadata.text, or a vector"
    )


def _words(value: Any, depth: int) -> str:
    if isinstance(value, Mapping):
        first: list[str] = []
        others: list[str] = []
        for name, part in value.items():
            words = _words(part, depth + 1)
            if words:
                (first if name in _FIRST else others).append(f"{name}: {words}")
        return "" if depth >= _MAX_DEPTH else " ".join([*first, *first, *others])
    if isinstance(value, list):
        return "" if depth >= _MAX_DEPTH else " ".join(filter(None, (_words(part, depth + 1) for part in value)))
    return _scalar(value)


def _scalar(value: Any) -> str:
    # As JavaScript prints them; what is false, zero or nothing counts for nothing.
    if not value:
        return ""
    if value is True:
        return "true"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value)
