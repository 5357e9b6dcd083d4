"""One owned shard being followed: what is read of the tree goes into its log, where it differs from what is served.

``settle`` is the one place where a foreign change becomes a record. The decision and the place in the commit queue
are made without giving way to the event loop, so nothing of our clients' can come between them: what they committed
before is in the shard or in the queue and is looked at, what they commit later gets a later position.

Where the namespace is mirrored and our word is kept, the tree has to get it. A word that is later than what the tree
has is not mirrored yet, and will be. One that may have been in the tree already, and was replaced there (in the same
second, or by a deletion, which has no time), the mirror has behind it: it is *restated*, a record that says what is
served. The mirror writes it; it makes our word no younger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import xxhash

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.items import Noun, Verb, noun_to_proto, verb_to_proto
from brainy.bucket.partition import shard_of
from brainy.clock import Clock
from brainy.legacy.part import Part
from brainy.legacy.places import Places
from brainy.legacy.seen import SeenBook, Version
from brainy.store.base import ObjectStore
from brainy.telemetry.logs import get_logger
from brainy_node.following.figures import FollowFigures
from brainy_node.following.own_words import ItemKind, Name, OwnWords, spoken_names
from brainy_node.following.owned import OwnedShard, ownership_ended

_log = get_logger(__name__)
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
        clock: Clock,
        mirrored: Callable[[], bool] = lambda: False,
    ) -> None:
        self.owned = owned
        #: Whether what our clients commit is written into the tree.
        self.mirrored = mirrored
        self.figures = FollowFigures(stage="following" if book is not None else "transferring")
        #: None until everything was compared once.
        self.book = book
        #: Own writes announced before the book exists go here.
        self._early = SeenBook(places.listed)
        self.words = words
        self._store = store
        self._places = places
        self.clock = clock
        self._listened = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        #: Ids found changed and not settled.
        self.open: set[str] = set()

    @property
    def number(self) -> int:
        """The shard's number."""
        return self.owned.number

    @property
    def seen(self) -> SeenBook:
        """The book own writes are announced to (``hold``, ``wrote``, ``deleted``)."""
        return self._early if self.book is None else self.book

    def start(self) -> None:
        """Begin to listen to the shard's own log."""
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
        if self.book is not None and not self.open:
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
            elif item_id in deleted or not all(_same(self.book.version(key), read) for key, read in versions.items()):
                fresh.append(item_id)
            else:
                self.open.discard(item_id)
        return fresh

    async def settle(
        self,
        part: Part,
        ids: Sequence[str],
        times: Mapping[str, int] | None = None,
        *,
        kinds: Sequence[ItemKind] = KINDS,
    ) -> int:
        """Commit what the tree says of some ids of this shard, unless it is served so or our clients spoke later.

        ``times`` are the seconds in which the tree's items were written, where ``part`` does not know. Only ``kinds``
        are looked at. Returns the number of records. The versions of the ids settled go into the book.

        Raises:
            FencedError, UnavailableError, OutcomeUnknownError: the commit; nothing of it goes into the book.
        """
        total = 0
        for start in range(0, len(ids), _COMMIT_RECORDS):
            total += await self._settle(part, ids[start : start + _COMMIT_RECORDS], times, kinds)
        return total

    async def _settle(
        self, part: Part, ids: Sequence[str], times: Mapping[str, int] | None, kinds: Sequence[ItemKind]
    ) -> int:
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
            decided = _Decision(self, part, mine, times, kinds, busy)
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
            if self.book is not None:
                for key, version in part.versions.get(item_id, {}).items():
                    self.book.saw(key, version)


class _Decision:
    """What becomes of some ids, decided on the state of one moment."""

    def __init__(
        self,
        followed: FollowedShard,
        part: Part,
        ids: Sequence[str],
        times: Mapping[str, int] | None,
        kinds: Sequence[ItemKind],
        busy: Collection[Name],
    ) -> None:
        shard = followed.owned.shard
        self._followed = followed
        self._part = part
        self._times = times
        self.records: list[log_pb2.LogRecord] = []
        #: Ours, said again for the mirror.
        self.restated: list[log_pb2.LogRecord] = []
        self.deferred: set[str] = set()
        self.conflicts = 0
        #: A time that has to be looked up first.
        self.unknown = False
        served: dict[ItemKind, Mapping[str, Noun | Verb]] = {
            "noun": {noun.id: noun for noun in shard.get_nouns(ids)},
            "verb": {verb.id: verb for verb in shard.get_verbs(ids)},
        }
        found: dict[ItemKind, Mapping[str, Noun | Verb]] = {"noun": part.nouns, "verb": part.verbs}
        for item_id in ids:
            for kind in kinds:
                ours, theirs = served[kind].get(item_id), found[kind].get(item_id)
                if ours == theirs or (ours is not None and theirs is not None and ours.digest() == theirs.digest()):
                    continue
                if ours is not None and item_id in part.unreadable:
                    continue
                if (kind, item_id) in busy:
                    self.deferred.add(item_id)
                elif self._is_later(kind, item_id):
                    self.records.append(_record(kind, item_id, theirs, foreign_version=self._version(item_id)))
                elif followed.mirrored() and self._may_be_mirrored(kind, item_id):
                    record = _record(kind, item_id, ours, restated=True)
                    # The mirror's entries in Brainy's change log are named by it.
                    record.written_at.FromMilliseconds(int(1000 * followed.clock.wall()))
                    self.restated.append(record)
        if self.deferred:
            self.records = [record for record in self.records if _id(record) not in self.deferred]
            self.restated = [record for record in self.restated if _id(record) not in self.deferred]

    def _is_later(self, kind: ItemKind, item_id: str) -> bool:
        said = self._followed.words.known_time((kind, item_id))
        if said is None:
            self.unknown = True
            return False
        if not said:
            return True
        written = self._written(item_id)
        if written > said:
            return True
        # Where the tree has no object there is no word of its own to be overruled.
        self.conflicts += written > 0
        _log.info("own_word_kept", kind=kind, id=item_id, said=said, written=written)
        return False

    def _may_be_mirrored(self, kind: ItemKind, item_id: str) -> bool:
        """Whether our word, which is kept, may have been in the tree before what is there now."""
        if written := self._written(item_id):
            return written >= self._followed.words.earliest_time((kind, item_id))
        # Gone, and it was there; what was never there is on its way.
        book = self._followed.book
        return book is not None and any(book.version(key) for key in self._part.versions.get(item_id, {}))

    def _written(self, item_id: str) -> int:
        return self._times.get(item_id, 0) if self._times is not None else self._part.latest(item_id)

    def _version(self, item_id: str) -> str:
        state = xxhash.xxh3_128(item_id.encode())
        for key, version in sorted(self._part.versions.get(item_id, {}).items()):
            state.update(f"\0{key}\0{version}".encode())
        return state.hexdigest()


def _record(
    kind: ItemKind, item_id: str, item: Noun | Verb | None, *, foreign_version: str = "", restated: bool = False
) -> log_pb2.LogRecord:
    record = log_pb2.LogRecord(foreign_version=foreign_version, restated=restated)
    if isinstance(item, Noun):
        record.upsert_noun.CopyFrom(noun_to_proto(item))
    elif isinstance(item, Verb):
        record.upsert_verb.CopyFrom(verb_to_proto(item))
    elif kind == "noun":
        record.delete_noun = item_id
    else:
        record.delete_verb = item_id
    return record


def _same(known: Version | None, read: Version | None) -> bool:
    if known is None or read is None:
        return known is read
    return known.same_as(read)


def _id(record: log_pb2.LogRecord) -> str | None:
    match record.WhichOneof("operation"):
        case "upsert_noun":
            return record.upsert_noun.id
        case "upsert_verb":
            return record.upsert_verb.id
        case "delete_noun":
            return record.delete_noun
        case _:
            return record.delete_verb
