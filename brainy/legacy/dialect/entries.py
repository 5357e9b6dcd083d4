"""Entries of Brainy's change log (from 0.26): which they are, and what they are called.

The name is ``<ms>-<9 base36>``. Brainy draws the nine at random; here they follow from where in our log the change
is, so that writing an entry again writes the same object, and entries of one millisecond are in the order of the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from brainy.legacy.dialect.javascript import stringify
from brainy.legacy.keys import CHANGE_LOG, SUFFIX

#: In place of Brainy's process id, which is a number: no Brainy process takes our entries for its own.
INSTANCE = "brainy-cluster"

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SHARDS = 36**2
_PLACES = 36**7


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in our log a change is, and when it was made."""

    shard: int
    position: int
    #: Milliseconds since 1970; never falls along a log.
    milliseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object of the change log."""

    key: str
    body: bytes
    user_metadata: Mapping[str, str] = field(default_factory=dict)


def base36(value: int, width: int) -> str:
    """Return the last ``width`` base-36 digits of a number."""
    digits = []
    for _ in range(width):
        value, digit = divmod(value, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def entry_key(place: Place, part: int) -> str:
    """Key of an entry; ``part`` (0 to 3) tells the entries of one change apart."""
    suffix = base36(place.shard % _SHARDS, 2) + base36((4 * place.position + part) % _PLACES, 7)
    return f"{CHANGE_LOG}{place.milliseconds:013d}-{suffix}{SUFFIX}"


def entry(place: Place, part: int, operation: str, entity: str, item_id: str, data: object = ...) -> Entry:
    """Return an entry; without ``data`` the field is left out, as in Brainy's deletes."""
    body: dict[str, object] = {
        "timestamp": place.milliseconds,
        "operation": operation,
        "entityType": entity,
        "entityId": item_id,
    }
    if data is not ...:
        body["data"] = data
    body["instanceId"] = INSTANCE
    # The id goes into a header as it is, where only visible ASCII is safe. Brainy's PUT fails on others.
    marks = {"timestamp": str(place.milliseconds), "operation": operation, "entity-type": entity}
    if fits_header(item_id):
        marks["entity-id"] = item_id
    return Entry(key=entry_key(place, part), body=stringify(body), user_metadata=marks)


def fits_header(item_id: str) -> bool:
    """Whether an id may stand in an HTTP header."""
    return item_id.isascii() and item_id.isprintable() and item_id == item_id.strip()
