"""Counting mirrored changes into Brainy's statistics object, under Brainy's own lock.

*Before.* ``total`` is what all shards have mirrored so far, by service. ``cluster/mirror/statistics.json`` says how
much of it Brainy's object includes already.

*Steps.* 1. Nothing to add → done. 2. LIST the statistics objects; none → this version keeps none, done. 3. Take
Brainy's lock; held → try again later. 4. Read today's object and the last one before it; the larger count of each
service, plus the difference, is the new one. 5. Swap our record to ``total``. 6. Check that the lock is ours yet; PUT.

*If it crashes* between 5 and 6, that difference is never counted: Brainy's statistics drift by as much. It is never
counted twice. *Brainy* may overwrite the object at any time with counts of its own; its merge keeps the larger ones.
"""

from __future__ import annotations

from typing import Any

from brainy.bucket import layout
from brainy.bucket.mirroring import MirrorCounts, MirrorStatistics
from brainy.clock import Clock
from brainy.ids import Ids
from brainy.legacy.dialect.dialects import Dialect
from brainy.legacy.dialect.entries import INSTANCE
from brainy.legacy.dialect.statistics import counted_in, encode, statistics_keys
from brainy.legacy.keys import INDEX, SYSTEM, Kind, parse
from brainy.legacy.statistics_lock import StatisticsLock
from brainy.legacy.values import UnreadableError, parse_json
from brainy.store.base import ObjectStore
from brainy.store.cas import CasRegister
from brainy.telemetry.logs import get_logger

_log = get_logger(__name__)
#: What Brainy marks the second copy with.
_COPY_MARKS = {"migration-note": "dual-write-for-compatibility", "schema-version": "2"}


class StatisticsUpdate:
    """Adds to the statistics of one namespace."""

    def __init__(self, store: ObjectStore, dialect: Dialect, *, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._dialect = dialect
        self._ids = ids
        self._lock = StatisticsLock(store, clock=clock, ids=ids)
        self._register = CasRegister(
            store,
            layout.MIRROR_STATISTICS,
            encode=MirrorStatistics.encode,
            decode=lambda body: MirrorStatistics.decode(body, key=layout.MIRROR_STATISTICS),
            clock=clock,
            ids=ids,
        )

    async def count_in(self, total: MirrorCounts) -> bool:
        """Make Brainy's statistics include ``total``; says whether they were written.

        Raises:
            LeaseHeldError: a Brainy process is writing them; try again later.
            FencedError: the lock was lost on the way.
            BrainyError: the store failed.
        """
        held = await self._register.load()
        included = held[0].included if held else MirrorCounts()
        change = total.plus(included, -1)
        names = await self._names() if not change.empty else []
        if not names:
            return False
        async with self._lock.hold() as lock:
            now_ms = int(lock.value.partition("_")[0])
            where = statistics_keys(names, self._dialect.keys.tree, now_ms)
            if where is None:
                return False
            today, earlier = await self._read(where.today), await self._read(where.earlier)
            if today is None or earlier is None:
                _log.warning("statistics_unreadable", keys=[where.today, where.earlier])
                return False
            body = encode(counted_in(today, earlier, change, now_ms=now_ms))
            after = MirrorStatistics(nonce=self._ids.uuid(), included=total)
            if not await self._register.swap(after, held[1] if held else None):
                return False  # another owner was faster: its total is at least as new
            await lock.check()
            marks = {"last-updated": str(now_ms), "updated-by": INSTANCE}
            await self._store.put(where.today, body, user_metadata=marks)
            if where.copy and where.copy != where.today:
                await lock.check()
                await self._store.put(where.copy, body, user_metadata=_COPY_MARKS)
        _log.info("statistics_counted_in", key=where.today, change=change.model_dump())
        return True

    async def _names(self) -> list[str]:
        names = []
        for folder in (SYSTEM, INDEX):
            async for page in self._store.list(f"{folder}statistics"):
                names += [meta.key for meta in page if parse(meta.key).kind is Kind.STATISTICS]
        return names

    async def _read(self, key: str) -> dict[str, Any] | None:
        """Return an object's fields, {} for one that is absent, None for one that cannot be read."""
        found = await self._store.get(key) if key else None
        if found is None:
            return {}
        try:
            body = parse_json(found.body)
        except UnreadableError:
            return None
        return body if isinstance(body, dict) else None
