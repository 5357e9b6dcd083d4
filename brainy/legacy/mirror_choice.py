"""Whether a namespace's commits are mirrored, and in which dialect: the field ``mirror`` of ``cluster/follow.json``."""

from __future__ import annotations

from typing import Any

import orjson

from brainy.bucket import layout
from brainy.bucket.records import FORMAT_VERSION
from brainy.clock import Clock
from brainy.errors import ConflictError, CorruptDataError, PreconditionError
from brainy.ids import Ids
from brainy.legacy.dialect.dialects import DIALECTS, Dialect
from brainy.store.base import ObjectStore
from brainy.store.cas import CasRegister

_KEY = layout.ROOT + "follow.json"
_ATTEMPTS = 8


async def chosen_dialect(store: ObjectStore) -> Dialect | None:
    """Return the dialect in which commits are mirrored, None where they are not.

    Raises:
        CorruptDataError: the record is damaged, or names no dialect.
        PreconditionError: it was written by a newer version (UNSUPPORTED_FORMAT).
        BrainyError: the store failed.
    """
    found = await store.get(_KEY)
    name = _decode(found.body).get("mirror", "") if found is not None else ""
    if not name:
        return None
    if name not in DIALECTS:
        raise CorruptDataError(
            "the record names a dialect that does not exist", remedy="choose one: brainy mirror NS --on", mirror=name
        )
    return DIALECTS[name]


async def choose_dialect(store: ObjectStore, name: str, *, clock: Clock, ids: Ids) -> None:
    """Set the dialect, "" for none; everything else in the record stays.

    Raises:
        ConflictError: others kept changing the record.
        BrainyError: as ``chosen_dialect``.
    """
    register: CasRegister[dict[str, Any]] = CasRegister(
        store, _KEY, encode=_encode, decode=_decode, clock=clock, ids=ids
    )
    for _ in range(_ATTEMPTS):
        held = await register.load()
        before = held[0] if held else {"format_version": FORMAT_VERSION, "follow": False}
        if await register.swap({**before, "mirror": name, "nonce": ids.uuid()}, held[1] if held else None):
            return
    raise ConflictError("the record is being changed by others", remedy="try again", key=_KEY)


def _encode(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


def _decode(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CorruptDataError("not a valid record", remedy="restore the object from a copy", key=_KEY) from error
    if not isinstance(value, dict) or not isinstance(value.get("format_version"), int):
        raise CorruptDataError("not a valid record", remedy="restore the object from a copy", key=_KEY)
    if value["format_version"] > FORMAT_VERSION:
        raise PreconditionError(
            "this object was written by a newer version of the software",
            reason="UNSUPPORTED_FORMAT",
            remedy="upgrade this process; nothing was changed",
            key=_KEY,
        )
    # Of what it said before; a record without one is accepted.
    value.pop("checksum", None)
    return value
