"""From what a person writes to a side of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from brainy.clock import Clock
from brainy.errors import InvalidRequestError
from brainy.store.base import ObjectStore
from brainy.verify.namespace_side import NamespaceSide, Which
from brainy.verify.sides import BackupSide, Side


async def open_side(
    text: str, open_bucket: Callable[[str], ObjectStore], clock: Clock
) -> tuple[Side, ObjectStore | None]:
    """Return the side that ``URI``, ``URI@generation``, ``URI@tree`` or a backup file's name means, and its store.

    The store is the caller's to close. A backup is read through and checked here.

    Raises:
        InvalidRequestError: it means nothing.
        NotFoundError: there is no such directory.
        CorruptDataError: a backup is not whole.
    """
    if "://" not in text and _is_file(text):
        return await BackupSide.open(text, Path(text)), None
    place, which = parse_which(text)
    store = open_bucket(place)
    return NamespaceSide(text, store, which, clock), store


def _is_file(text: str) -> bool:
    return Path(text).is_file()


def parse_which(text: str) -> tuple[str, Which]:
    """Split ``URI@generation``: what follows the last ``@`` is a generation's number, or ``tree``.

    Raises:
        InvalidRequestError: it is neither.
    """
    place, separator, last = text.rpartition("@")
    if not separator or "/" in last:
        return text, None
    if last == "tree":
        return place, "tree"
    if last.isascii() and last.isdigit():
        return place, int(last)
    raise InvalidRequestError(
        "what follows @ is neither a generation nor the tree", remedy="write URI@3, URI@tree or URI", side=text
    )
