"""The right to mirror a shard: its cursor record, held by compare-and-swap.

A PUT to one of Brainy's keys carries no fence, so whoever mirrors must know that nobody else does. The cursor record
says who: taking it raises its epoch to the owner's, every step swaps it by its ETag, and between steps it is read again
whenever the last look is more than ``FRESH_SECONDS`` old by a clock that counts suspension. An owner that was paused
finds another's record and stops before its next write. What remains is a request that left before the pause and arrives
after it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from brainy.bucket import layout
from brainy.bucket.mirroring import MirrorCursor
from brainy.clock import iso
from brainy.errors import FencedError
from brainy.store.cas import CasRegister
from brainy_node.runtime.host import Host

FRESH_SECONDS = 1.0
#: A new owner writes nothing for so long after it took the record: the former one has looked again, and its requests
#: under way have landed.
SETTLE_SECONDS = 2.5


class MirrorClaim:
    """One shard's cursor in our hands."""

    def __init__(self, host: Host, generation: int, shard: int, *, epoch: int, dialect: str) -> None:
        self._host = host
        self._epoch = epoch
        self._dialect = dialect
        self._key = key = layout.mirror_cursor(generation, shard)
        self._register = CasRegister(
            host.store,
            key,
            encode=MirrorCursor.encode,
            decode=lambda body: MirrorCursor.decode(body, key=key),
            clock=host.clock,
            ids=host.ids,
        )
        self._etag = ""
        self._looked_at = 0.0
        self._looking = asyncio.Lock()
        #: Somebody else had the record before.
        self.took_over = False
        self.cursor = MirrorCursor(
            generation=generation,
            shard=shard,
            dialect=dialect,
            epoch=epoch,
            nonce="",
        )

    async def load(self) -> MirrorCursor | None:
        """Return the record as it is, None if there is none or it is of another dialect.

        Raises:
            BrainyError: the store failed.
        """
        held = await self._register.load()
        return held[0] if held is not None and held[0].dialect == self._dialect else None

    async def take(self, fresh: MirrorCursor | None = None) -> MirrorCursor:
        """Take the record, so that whoever had it stops.

        Args:
            fresh: what to begin with where there is none. One of another dialect starts over with that too: the tree
                that is in use now has none of it.

        Raises:
            FencedError: a newer owner has it.
            BrainyError: the store failed.
        """
        while True:
            looked_at = self._host.clock.monotonic()
            held = await self._register.load()
            after = fresh or self.cursor
            if held is not None:
                before = held[0]
                if before.epoch > self._epoch:
                    raise self._lost(before.epoch)
                after = before if before.dialect == self._dialect else _anew(after, before)
            after = after.model_copy(update={"epoch": self._epoch, "nonce": self._host.ids.uuid(), "problem": ""})
            etag = await self._register.exchange(after, held[1] if held else None)
            if etag is not None:
                self.took_over = held is not None and held[0].epoch != self._epoch
                self.cursor, self._etag, self._looked_at = after, etag, looked_at
                return after

    async def freeze(self) -> MirrorCursor:
        """Mark the record of a generation that has ended as final, so that its mirror stops; return the record.

        Raises:
            BrainyError: the store failed.
        """
        while True:
            held = await self._register.load()
            after = self.cursor
            if held is not None:
                before = held[0]
                if before.final and before.dialect == self._dialect:
                    return before
                after = before if before.dialect == self._dialect else _anew(after, before)
                after = after.model_copy(update={"epoch": before.epoch + 1})
            after = after.model_copy(update={"nonce": self._host.ids.uuid(), "final": True})
            if await self._register.swap(after, held[1] if held else None):
                return after

    async def advance(self, **changes: Any) -> None:
        """Swap the record for one with these changes.

        Raises:
            FencedError: another has it.
            BrainyError: the store failed; nobody knows what the record says. ``guard`` finds out.
        """
        now = {"nonce": self._host.ids.uuid(), "updated_at": iso(self._host.clock.wall())}
        after = self.cursor.model_copy(update={**changes, **now})
        looked_at = self._host.clock.monotonic()
        etag = await self._register.exchange(after, self._etag)
        if etag is None:
            raise self._lost(None)
        self.cursor, self._etag, self._looked_at = after, etag, looked_at

    async def guard(self) -> None:
        """Return if the record was ours a moment ago.

        Raises:
            FencedError: another has it.
            BrainyError: the store failed.
        """
        if self._is_fresh:
            return
        async with self._looking:
            if self._is_fresh:
                return
            looked_at = self._host.clock.monotonic()
            found = await self._host.store.get(self._key)
            if found is None or found.etag != self._etag:
                raise self._lost(None)
            self._looked_at = looked_at

    @property
    def _is_fresh(self) -> bool:
        return self._host.clock.monotonic() - self._looked_at < FRESH_SECONDS

    def _lost(self, seen: int | None) -> FencedError:
        return FencedError("another owner mirrors the shard", key=self._key, epoch=self._epoch, seen=seen)


def _anew(fresh: MirrorCursor, before: MirrorCursor) -> MirrorCursor:
    # Names of change-log entries go on rising.
    milliseconds = max(fresh.milliseconds, before.milliseconds)
    return fresh.model_copy(update={"milliseconds": milliseconds, "counts": before.counts})
