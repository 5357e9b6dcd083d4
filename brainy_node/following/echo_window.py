"""Which part of the logs an echo can be from, and reading it.

*Before.* The shard is owned, its fence is in its log; its book is loaded, or there is none.

*Steps.* 1. Read how far the mirrors have got: the shard's own record, or, before there is one, those of the
generations this one was made from. None, and nothing is to be mirrored: nothing can be an echo. 2. The book says up to
where it knows what the mirror wrote. If nobody was mirroring when it was saved and the records are still the same,
again nothing can be one. 3. Read the logs from there to their ends, the oldest generation first, into ``Echoes``.

*After.* Every state of ours that a mirror may have written unknown to the book is in ``Echoes``. A mirror that still
runs (the former owner's, for a moment) writes nothing else: its log ends with our fence, and the source's with the
cut-over.

*What is not known again:* states that were collected meanwhile. A log is not collected beyond the mirror's cursor, and
a book is saved every ten minutes; a mirror that was an hour behind has to have caught up between the two.

A book of before this was kept, or of another dialect, costs a reading of the whole log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from brainy.bucket import layout
from brainy.bucket.mirroring import MirrorCursor
from brainy.changelog.batch import Slot
from brainy.changelog.collection import collected_position
from brainy.changelog.reading import read_log
from brainy.errors import LogCollectedError
from brainy.legacy.dialect.dialects import ONE_PIECE
from brainy.legacy.seen import Mirrored
from brainy.store.base import ObjectStore
from brainy_node.following.echoes import Echoes
from brainy_node.following.owned import OwnedShard

#: (generation, shard count) of those a generation was made from, the nearest first.
Chain = Sequence[tuple[int, int]]


class EchoWindow:
    """Reads what the mirrors of one namespace have left in the bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def reached(self, generation: int, shard: int, chain: Chain, *, idle: bool = False) -> Mirrored | None:
        """Return how far the logs that concern a shard are mirrored, at least; None if there has never been a mirror.

        Raises:
            BrainyError: the store failed, or a record is damaged.
        """
        own = cursors = await self._cursors([(generation, shard)])
        if not own:
            cursors = await self._cursors([(g, s) for g, count in chain for s in range(count)])
        if not cursors:
            return None
        dialect, positions = cursors[0].dialect, dict[str, int]()
        for cursor in cursors:
            if cursor.dialect == dialect:
                # What a shard of a nearer generation says of an older log holds for its own ids only.
                source = cursor.source if own else {}
                positions.update({_log(cursor.generation, cursor.shard): cursor.position, **source})
        nonces = {_log(cursor.generation, cursor.shard): cursor.nonce for cursor in cursors}
        return Mirrored(dialect=dialect, positions=positions, nonces=nonces, idle=idle)

    async def echoes(self, owned: OwnedShard, chain: Chain, saved: Mirrored | None, *, dialect: str) -> Echoes:
        """Return what may be an echo in a shard.

        Args:
            owned: the shard.
            chain: the generations before its own.
            saved: what its book says, or the books it was made from together.
            dialect: in which the namespace is to be mirrored now; "" for not.

        Raises:
            BrainyError: the store failed, or a log or a record is damaged.
        """
        now = await self.reached(owned.generation, owned.number, chain)
        if now is None and dialect:
            now = Mirrored(dialect=dialect)
        if now is None or (saved is not None and saved.idle_until(now.nonces)):
            return Echoes(owned.number, owned.shard_count, since=None)
        own = _log(owned.generation, owned.number)
        begin = dict[str, int]()
        # A mirror that was turned to another dialect and back has begun anew: its position has fallen.
        if (
            saved is not None
            and saved.dialect == now.dialect
            and saved.positions.get(own, 0) <= now.positions.get(own, 0)
        ):
            begin.update(saved.positions)
        since = replace(now, positions=begin, nonces={}, idle=False)
        echoes = Echoes(
            owned.number,
            owned.shard_count,
            dimensions=owned.shard.spec.dimensions,
            one_piece=now.dialect == ONE_PIECE.name,
            since=since,
        )
        for generation, shard in [*_before(owned, chain), (owned.generation, owned.number)]:
            log = _log(generation, shard)
            async for slot in self._slots(generation, shard, begin.get(log, 0)):
                echoes.take(slot, mirrored=now.positions.get(log, 0), own=log == own)
                await asyncio.sleep(0)
        return echoes

    async def _slots(self, generation: int, shard: int, position: int) -> AsyncIterator[Slot]:
        while True:
            try:
                async for slot in read_log(self._store, generation, shard, from_position=position + 1):
                    yield slot
                    position = slot.last
                return
            except LogCollectedError:
                position = max(position, await collected_position(self._store, generation, shard))

    async def _cursors(self, shards: Sequence[tuple[int, int]]) -> list[MirrorCursor]:
        cursors = []
        for found in await self._store.get_many([layout.mirror_cursor(*each) for each in shards]):
            if isinstance(found, Exception):
                raise found
            if found is not None:
                cursors.append(MirrorCursor.decode(found.body, key=found.key))
        return cursors


def _log(generation: int, shard: int) -> str:
    return f"{generation}/{shard}"


def _before(owned: OwnedShard, chain: Chain) -> list[tuple[int, int]]:
    """Logs of earlier generations that may hold ids of a shard, the oldest generation first."""
    same = all(count == owned.shard_count for _, count in chain)
    return [(g, s) for g, count in reversed(chain) for s in range(count) if not same or s == owned.number]
