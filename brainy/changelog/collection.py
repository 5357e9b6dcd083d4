"""Deleting what a shard's change log no longer needs, without letting anybody be fooled by it.

Create-if-absent forgets after a delete: a writer that slept long enough could create the key of a slot that
another owner wrote, folded and collected, and take that for a commit. Two rules keep this harmless
(docs/protocols/change-log.md): a position is *given up in writing before* anything is deleted, and neither a reader
nor a writer trusts a position at or below the one given up.

Protocol (``LogCollector.collect``)
-----------------------------------
*Before.* This node owns the shard. Whoever reads the log starts behind a published checkpoint.

*Steps.*

1. The position the log had reached one retention time ago, on this process's own clock. No clocks are compared.
2. Read the manifest: nothing above its position may go.
3. Only then ask ``held``: nothing above what a follower of this generation still has to read. (A follower that is
   placed after this step fills itself from this manifest or a later one.)
4. Swap ``collected/<shard>.json`` to the lowest of the three, if that is higher than what it says.
5. LIST the log from its start; delete the slots that begin at or below that position, page by page.

*After.* Every slot above the position given up is there; some at or below it may be.

*If it crashes* before 4: nothing happened. After it: leftovers are deleted the next time.

*A stale owner* that still collects gives up a position that a manifest covers: what it deletes nobody needs.

*Cancel safety.* As a crash.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from brainy.bucket import invariants, layout
from brainy.bucket.records import Collected, Manifest
from brainy.clock import Clock
from brainy.errors import LogCollectedError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.cas import CasRegister
from brainy.telemetry.logs import get_logger

#: Slots are kept for so long after the log has gone past them. Far above the life of a signed request (15 min).
RETENTION_SECONDS: Final = 3600.0

_DELETES_AT_ONCE = 16

_log = get_logger(__name__)


def collected_error(generation: int, shard: int, *, position: int, collected: int) -> LogCollectedError:
    """Build the error for a position at or below the one given up."""
    return LogCollectedError(
        "this part of the change log has been collected",
        remedy="open the shard from its newest checkpoint",
        generation=generation,
        shard=shard,
        position=position,
        collected=collected,
    )


async def collected_position(store: ObjectStore, generation: int, shard: int) -> int:
    """Return the position at or below which a log may be incomplete; 0 if nothing was given up.

    Generation 0 has no checkpoints in the bucket, so its log is never collected and nothing is read for it.
    """
    if generation == 0:
        return 0
    key = layout.collected(generation, shard)
    found = await store.get(key)
    return 0 if found is None else Collected.decode(found.body, key=key).position


class LogCollector:
    """Collects one owned shard's log; see the module for the protocol."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        generation: int,
        shard: int,
        epoch: int,
        retention_seconds: float,
        clock: Clock,
        ids: Ids,
    ) -> None:
        """Prepare; nothing is known to be old yet."""
        self._store = store
        self._generation = generation
        self._shard = shard
        self._epoch = epoch
        self._retention = retention_seconds
        self._clock = clock
        self._ids = ids
        self._marks: deque[tuple[float, int]] = deque()
        self._old = 0
        self._done = 0
        key = layout.collected(generation, shard)
        self._register = CasRegister(
            store,
            key,
            encode=Collected.encode,
            decode=lambda body: Collected.decode(body, key=key),
            clock=clock,
            ids=ids,
        )

    def observe(self, position: int) -> None:
        """Note that the log has reached ``position`` (the end of a slot) by now."""
        if not self._marks or self._marks[-1][1] < position:
            self._marks.append((self._clock.monotonic(), position))

    async def collect(self, held: Callable[[], Awaitable[int | None]]) -> int:
        """Delete what is due; returns how many slots went.

        Args:
            held: highest position that no follower needs any more, None where nobody follows.

        Raises:
            UnavailableError: the store cannot be reached; the rest goes the next time.
        """
        now = self._clock.monotonic()
        while self._marks and now - self._marks[0][0] >= self._retention:
            self._old = self._marks.popleft()[1]
        if self._old <= self._done:
            return 0
        key = layout.manifest(self._generation, self._shard)
        found = await self._store.get(key)
        if found is None:
            return 0
        upto = min(self._old, Manifest.decode(found.body, key=key).position)
        followers = await held()
        if followers is not None:
            upto = min(upto, followers)
        upto = max(upto, await self._give_up(upto))
        if upto <= self._done:
            return 0
        deleted = await self._delete(upto)
        self._done = upto
        _log.info("log_collected", generation=self._generation, shard=self._shard, position=upto, slots=deleted)
        return deleted

    async def _give_up(self, position: int) -> int:
        """Write the position down, unless a higher one is; returns the one that is in force."""
        while True:
            held = await self._register.load()
            before = held[0] if held else None
            if before is not None and before.position >= position:
                return before.position
            if position <= 0:
                return 0
            after = Collected(
                generation=self._generation,
                shard=self._shard,
                epoch=self._epoch,
                position=position,
                nonce=self._ids.uuid(),
            )
            invariants.check_collected_swap(before, after)
            if await self._register.swap(after, held[1] if held else None):
                return position

    async def _delete(self, upto: int) -> int:
        deleted = 0
        bound = layout.log_slot(self._generation, self._shard, upto)
        async for page in self._store.list(layout.log(self._generation, self._shard)):
            due = [meta.key for meta in page if layout.parse_log_slot(meta.key) is not None and meta.key <= bound]
            for start in range(0, len(due), _DELETES_AT_ONCE):
                await asyncio.gather(*map(self._store.delete, due[start : start + _DELETES_AT_ONCE]))
            deleted += len(due)
            if len(due) < len(page):
                break
        return deleted
