"""Whether Brainy processes write to a bucket now, by what they say of themselves. Reads only: two LISTs, a few GETs.

Two signs count: an entry of Brainy's change log whose name is of the last minutes, and a lock of Brainy's that is not
over. Neither is proof that nobody writes: versions before 0.26 keep no change log. When an object was written last is
no sign at all, for a copy of a bucket is new in every object.
"""

from __future__ import annotations

from brainy.legacy import keys
from brainy.legacy.hazards import LIVE_SECONDS
from brainy.legacy.statistics_lock import expires_at_ms
from brainy.store.base import ObjectStore

#: A clock that runs ahead of ours by more than this names no recent write, but a wrong one.
_AHEAD_SECONDS = 3600.0
_MOST_LOCKS = 64


async def signs_of_writers(store: ObjectStore, now: float, *, mirrored: bool = False) -> tuple[str, ...]:
    """Return what speaks for a Brainy that writes, in words; empty where nothing does.

    Args:
        store: of the namespace.
        now: wall seconds.
        mirrored: the cluster writes entries of the change log itself, so that they tell nothing.

    Raises:
        BrainyError: the store failed.
    """
    signs: list[str] = []
    entries = 0 if mirrored else await _recent_entries(store, now)
    if entries:
        noun = "entry" if entries == 1 else "entries"
        signs.append(f"{entries:,} {noun} of Brainy's change log in the last {LIVE_SECONDS:.0f} s")
    locks = await _live_locks(store, now)
    if locks:
        signs.append(f"locks of Brainy's that are not over: {', '.join(locks)}")
    return tuple(signs)


async def _recent_entries(store: ObjectStore, now: float) -> int:
    after = keys.change_log_from(max(0, int((now - LIVE_SECONDS) * 1000)))
    latest = (now + _AHEAD_SECONDS) * 1000
    async for page in store.list(keys.CHANGE_LOG, start_after=after):
        # One page says enough.
        return sum((time := keys.change_time(meta.key)) is not None and time <= latest for meta in page)
    return 0


async def _live_locks(store: ObjectStore, now: float) -> list[str]:
    names: list[str] = []
    async for page in store.list(keys.LOCKS):
        names = [meta.key for meta in page][:_MOST_LOCKS]
        break
    live = []
    for found in await store.get_many(names):
        if isinstance(found, Exception):
            raise found
        if found is None:
            continue
        expires = expires_at_ms(found)
        if expires is not None and now * 1000 < expires <= (now + _AHEAD_SECONDS) * 1000:
            live.append(found.key)
    return live
