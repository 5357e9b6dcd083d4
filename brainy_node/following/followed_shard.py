"""One owned shard being followed: what is read of the tree goes into its log, where it differs from what is served.

``settle`` is the one place where a foreign change becomes a record. The decision and the place in the commit queue
are made without giving way to the event loop, so nothing of our clients' can come between them: what they committed
before is in the shard or in the queue and is looked at, what they commit later gets a later position. ``decision``
says whose word counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence

from brainy.bucket.partition import shard_of
from brainy.clock import Clock
from brainy.legacy.part import Part
from brainy.legacy.places import Places
from brainy.legacy.seen import SeenBook
from brainy.store.base import ObjectStore
from brainy.telemetry.logs import get_logger
from brainy_node.following.decision import Decision, same
from brainy_node.following.echoes import Echoes
from brainy_node.following.figures import FollowFigures
from brainy_node.following.own_words import ItemKind, OwnWords, spoken_names
from brainy_node.following.owned import OwnedShard, ownership_ended

_log = get_logger(__name__)
#: Nothing of a mirror's is under way any more when there has been none for so long.
_IDLE_SECONDS = 60.0
#: Records of one commit; a commit is one log object at most.
_COMMIT_RECORDS = 500
KINDS: tuple[ItemKind, ...] = ("noun", "verb")
#: Decisions that are overtaken by our clients so often are left to the next pass.
_ATTEMPTS = 5


class FollowedShard:
    """The book, the own words and the figures of one shard under one ownership."""

    def __init__(
        self,
        owned: OwnedShard,
        store: ObjectStore,
        places: Places,
        *,
        book: SeenBook | None,
        words: OwnWords,
        echoes: Echoes,
        clock: Clock,
        mirrored: Callable[[], bool] = lambda: False,
    ) -> None:
        self.owned = owned
        self._mirrored = mirrored
        self.figures = FollowFigures(stage="following" if book is not None else "transferring")
        #: None until everything was compared once.
        self.book = book
        #: Own writes announced before the book exists go here.
        self._early = SeenBook(places.listed)
        self.words = words
        self.echoes = echoes
        self._store = store
        self.places = places
        self.clock = clock
        #: When the mirror had passed everything that may be an echo.
        self._overtaken_at: float | None = None
        #: When there may have been a mirror last, by the passes.
        self._mirrored_at = clock.monotonic()
        self._listened = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        #: Ids that a word of Brainy's is served of, and the saved book knows no object of: it may be gone by now.
        self.unsaved = {
            item_id
            for _, item_id in words.foreign
            if book is not None
            and shard_of(item_id, owned.shard_count) == owned.number
            and not any(book.version(key) for key in places.keys_of(item_id))
        }
        #: Ids found changed and not settled.
        self.open: set[str] = set(self.unsaved)

    @property
    def number(self) -> int:
        """The shard's number."""
        return self.owned.number

    @property
    def seen(self) -> SeenBook:
        """The book own writes are announced to (``hold``, ``wrote``, ``deleted``)."""
        return self._early if self.book is None else self.book

    def start(self) -> None:
        """Begin to listen to the shard's own log.

        From here on, without giving way to the event loop, our own writes into the tree are to be told to the book.
        """
        self.echoes.until = self.owned.shard.applied
        self._listener = asyncio.create_task(self._listen())

    async def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)

    @property
    def deaf(self) -> bool:
        """Whether the shard's own log is heard no more: the ownership ended."""
        return self._listener is None or self._listener.done()

    async def _listen(self) -> None:
        async for slot in self.owned.slots(self.words.position + 1):
            self.words.take(slot)
            self.echoes.take(slot, mirrored=0, own=True)
            self.words.position = max(self.words.position, slot.last)
            listened, self._listened = self._listened, asyncio.Event()
            listened.set()

    async def _hear_out(self) -> None:
        """Wait until the words include everything the shard has applied.

        Raises:
            UnavailableError: the ownership ended.
        """
        while self.words.position < self.owned.shard.applied:
            if self._listener is None or self.deaf:
                raise ownership_ended(self.number)
            waiting = asyncio.ensure_future(self._listened.wait())
            try:
                await asyncio.wait({waiting, self._listener}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()

    # --- our own writes into the tree -----------------------------------------------------------

    def is_mirrored(self) -> bool:
        """Whether what our clients commit is written into the tree."""
        return self._mirrored()

    def mirror_reached(self, position: int) -> None:
        """Note that everything of the log up to a position is in the tree, and was told to the book."""
        self._mirrored_at = self.clock.monotonic()
        until = self.echoes.until
        if self._overtaken_at is None and until is not None and position >= until:
            self._overtaken_at = self._mirrored_at

    @property
    def idle(self) -> bool:
        """Whether nobody mirrors the shard, and nothing of a mirror's is under way."""
        return self._was_idle(self.clock.monotonic())

    def _was_idle(self, at: float) -> bool:
        return not self.is_mirrored() and at - self._mirrored_at >= _IDLE_SECONDS

    # --- the book -------------------------------------------------------------------------------

    def begin_book(self, book: SeenBook) -> None:
        """Put the book of a finished transfer in force; own writes announced meanwhile are in it."""
        for prefix, place in self._early.places.items():
            for item_hash, version in place.recent():
                book.places[prefix].set(item_hash, version)
        for key in self._early.held:
            book.hold(key)
        self.book = book
        self.figures.stage = "following"

    def passed(self, position: int, began_at: float) -> None:
        """Note a complete pass that began when the shard had applied ``position``."""
        self.figures.passes += 1
        self.figures.open_items = len(self.open)
        self.figures.last_error = ""
        if self.is_mirrored():
            self._mirrored_at = self.clock.monotonic()
        if self.book is not None and not self.open:
            if (self._overtaken_at is not None and self._overtaken_at <= began_at) or self._was_idle(began_at):
                self.echoes.close()
            self.book.position = max(self.book.position, position)
            self.words.forget(self.owned.generation, self.book.position)
            self.figures.caught_up_at = began_at

    # --- foreign changes ------------------------------------------------------------------------

    def news(self, part: Part, ids: Iterable[str], deleted: Collection[str] = ()) -> list[str]:
        """Return those of the ids of which something was read that the book does not know, or the log says deleted."""
        assert self.book is not None
        held = self.book.held
        fresh = []
        for item_id in ids:
            versions = part.versions.get(item_id, {})
            if any(key in held for key in versions):
                self.open.add(item_id)
            elif (
                item_id in deleted
                or item_id in self.unsaved
                or not all(same(self.book.version(key), read) for key, read in versions.items())
            ):
                fresh.append(item_id)
            else:
                self.open.discard(item_id)
        return fresh

    async def settle(
        self,
        part: Part,
        ids: Sequence[str],
        *,
        kinds: Sequence[ItemKind] = KINDS,
    ) -> int:
        """Commit what the tree says of some ids of this shard, unless it is served so or our clients spoke later.

        Only ``kinds`` are looked at. Returns the number of records. The versions of the ids settled go into the book.

        Raises:
            FencedError, UnavailableError, OutcomeUnknownError: the commit; nothing of it goes into the book.
        """
        total = 0
        for start in range(0, len(ids), _COMMIT_RECORDS):
            total += await self._settle(part, ids[start : start + _COMMIT_RECORDS], kinds)
        return total

    async def _settle(self, part: Part, ids: Sequence[str], kinds: Sequence[ItemKind]) -> int:
        mine = [item_id for item_id in ids if shard_of(item_id, self.owned.shard_count) == self.number]
        await self._fit(part, mine)
        for _ in range(_ATTEMPTS):
            await self._hear_out()
            for item_id in mine:
                for kind in kinds:
                    if self.words.known_time((kind, item_id)) is None:
                        await self.words.look_up(self._store, (kind, item_id))
            # From here to the queue nothing is awaited.
            if self.words.position < self.owned.shard.applied:
                continue
            commits = self.owned.commits
            busy = set(spoken_names(commits.unsettled()))
            decided = Decision(self, part, mine, kinds, busy)
            if decided.unknown:
                continue
            if records := [*decided.records, *decided.restated]:
                if not self.owned.may_commit:
                    break
                await commits.commit(records)
            self.figures.applied += len(decided.records)
            self.figures.conflicts += decided.conflicts
            self.open |= decided.deferred
            self._note(part, [item_id for item_id in ids if item_id not in decided.deferred])
            return len(decided.records)
        self.open.update(mine)
        return 0

    async def _fit(self, part: Part, ids: Iterable[str]) -> None:
        if not self.owned.shard.spec.dimensions:
            for item_id in ids:
                noun = part.nouns.get(item_id)
                if noun is not None and noun.vector:
                    await self.owned.fit(len(noun.vector) // 4)
                    return

    def _note(self, part: Part, ids: Iterable[str]) -> None:
        for item_id in ids:
            self.open.discard(item_id)
            self.unsaved.discard(item_id)
            if self.book is not None:
                for key, version in part.versions.get(item_id, {}).items():
                    self.book.saw(key, version)
