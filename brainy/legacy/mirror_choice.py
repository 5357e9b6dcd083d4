"""Whether a namespace's commits are mirrored, and in which dialect: the field ``mirror`` of ``cluster/follow.json``."""

from __future__ import annotations

from typing import cast

from brainy.bucket.follow import MirrorDialect, change_choice, read_choice
from brainy.clock import Clock, iso
from brainy.ids import Ids
from brainy.legacy.dialect.dialects import DIALECTS, Dialect
from brainy.store.base import ObjectStore


async def chosen_dialect(store: ObjectStore) -> Dialect | None:
    """Return the dialect in which commits are mirrored, None where they are not.

    Raises:
        CorruptDataError: the record is damaged, or names no dialect.
        PreconditionError: it was written by a newer version (UNSUPPORTED_FORMAT).
        BrainyError: the store failed.
    """
    return DIALECTS.get((await read_choice(store)).mirror)


async def choose_dialect(store: ObjectStore, name: str, *, clock: Clock, ids: Ids) -> None:
    """Set the dialect, "" for none; everything else in the record stays.

    Raises:
        ConflictError: others kept changing the record.
        BrainyError: as ``chosen_dialect``.
    """
    mirror = cast("MirrorDialect", name)
    await change_choice(store, mirror=mirror, changed_at=iso(clock.wall()), clock=clock, ids=ids)
