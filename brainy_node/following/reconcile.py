"""The reconcile pass: one listing of the trees for all shards a node follows, held against their books.

*Before.* Each shard is owned and open for commits; what it has applied is noted before anything is listed.

*Steps.*
  1. The end of Brainy's change log is looked over for deletions that are new (``LastWords.sweep``).
  2. Every prefix is listed once. An object that the book of its shard does not know, or knows in another version,
     makes its id one to read; an id whose object is missing is found in the shard by its hash.
  3. What is to be read is read, some hundred ids at a time, put together by the rules of the trees, and settled
     (``FollowedShard.settle``): committed where it differs from what is served.
  4. A shard without a book is transferred instead: everything the trees hold for it is read once and settled, then what
     is served and not in the trees; the versions listed *before* become its book.

*After.* If nothing was left open, every change that was in the bucket before the listing began is in the log, or lost
to a later word of our own clients, and the book's position moves to what was applied at the beginning.

*If it crashes* anywhere: what was committed is in the log; the next pass, here or at the next owner, reads again what
the book does not know and finds it served. *Cancel safety:* as a crash.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing

import numpy as np

from brainy.bucket.partition import key_hash, shard_of
from brainy.clock import Clock
from brainy.legacy.last_words import LastWords
from brainy.legacy.part import Part, read_part, unreadable_ids
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.places import Places
from brainy.legacy.presence import Hashes, Presence, hashes_of
from brainy.legacy.reading import TreeReader, Wanted
from brainy.legacy.seen import Comparison, Mask, Place, Seconds, SeenBook, Version, version_of
from brainy.store.base import ObjectMeta, ObjectStore
from brainy.telemetry.logs import get_logger
from brainy_node.following.followed_shard import KINDS, FollowedShard
from brainy_node.following.own_words import ItemKind

_log = get_logger(__name__)
#: Ids read together: some megabytes.
PART_IDS = 250
_IN_FLIGHT = 96


class Reconciler:
    """Makes passes over the trees of one namespace."""

    def __init__(self, store: ObjectStore, places: Places, words: LastWords, clock: Clock) -> None:
        self._store = store
        self._places = places
        self._words = words
        self._clock = clock

    async def run(self, shards: Sequence[FollowedShard]) -> None:
        """Make one pass for some shards of one generation; the protocol is at the top of this module.

        Raises:
            BrainyError: the store, or a commit; what was settled stands.
        """
        began_at = self._clock.monotonic()
        began = {followed.number: followed.owned.shard.applied for followed in shards}
        # Ids left open by earlier passes and hints are read again whatever the listing says.
        touched = _by_shard((i for followed in shards for i in followed.open), shards)
        deleted = {entry.id for entry in await self._words.sweep() if not entry.ours}
        for number, ids in _by_shard(deleted, shards).items():
            touched[number] |= ids
        listing = _Listing(shards, self._places)
        await listing.take_all(self._store)
        for followed in shards:
            if followed.book is not None:
                await self._catch_up(followed, listing, touched[followed.number], deleted)
        transfers = [followed for followed in shards if followed.book is None]
        if transfers:
            await self._transfer(transfers, listing)
        for followed in shards:
            followed.passed(began[followed.number], began_at)

    async def read_again(
        self, shards: Sequence[FollowedShard], ids: Iterable[str], deleted: Collection[str] = ()
    ) -> None:
        """Read some ids of followed shards and settle them: what a hint calls for.

        Of ``deleted`` the log says so: they may be items no more although no object of theirs has changed.

        Raises:
            BrainyError: the store, or a commit.
        """
        for number, mine in _by_shard(ids, shards).items():
            followed = next(each for each in shards if each.number == number)
            if followed.book is not None:
                for some in _some(sorted(mine), PART_IDS):
                    part = await read_part(self._store, self._places, some, words=self._words)
                    await self._settle(followed, part, some, shards, deleted)

    async def _catch_up(
        self, followed: FollowedShard, listing: _Listing, touched: set[str], deleted: Collection[str]
    ) -> None:
        book, comparison = followed.book, listing.comparisons[followed.number]
        assert book is not None
        ids = touched | listing.changed[followed.number] | await self._vanished(followed, comparison)
        followed.figures.open_items = len(ids)
        followed.figures.unreadable = 0

        def asked(item_id: str, key: str) -> bool:
            located = book.locate(key)
            return item_id in touched or located is None or comparison.may_hold(located[0], key_hash(located[1]))

        for some in _some(sorted(ids), PART_IDS):
            part = await read_part(self._store, self._places, some, words=self._words, asked=asked)
            followed.figures.unreadable += len(part.unreadable)
            await self._settle(followed, part, some, listing.shards, deleted)

    async def _settle(
        self,
        followed: FollowedShard,
        part: Part,
        ids: Sequence[str],
        shards: Sequence[FollowedShard],
        deleted: Collection[str],
    ) -> None:
        await followed.settle(part, followed.news(part, ids, deleted))
        # An object whose id inside is another one's.
        strays = _by_shard((part.nouns.keys() | part.verbs.keys()) - set(ids), shards)
        for number, others in strays.items():
            await next(each for each in shards if each.number == number).settle(part, sorted(others))

    async def _vanished(self, followed: FollowedShard, comparison: Comparison) -> set[str]:
        """Return the served ids of which an object of the book was not listed; forget those that are not served."""
        assert followed.book is not None
        missing = {prefix: comparison.missing(prefix) for prefix in self._places.listed}
        every = np.unique(np.concatenate(list(missing.values())))
        if not len(every):
            return set()
        # A look at all hashes of the shard: not on the event loop.
        nouns, verbs = await asyncio.to_thread(followed.owned.shard.ids_where, _among(every))
        found = {*nouns, *verbs}
        known = {key_hash(item_id) for item_id in found}
        for prefix, hashes in missing.items():
            for item_hash in hashes.tolist():
                if item_hash not in known:
                    followed.book.places[prefix].set(item_hash, None)
        return found

    # --- transfer -------------------------------------------------------------------------------

    async def _transfer(self, shards: Sequence[FollowedShard], listing: _Listing) -> None:
        count = shards[0].owned.shard_count
        books = {followed.number: listing.book(followed.number) for followed in shards}
        alive = {(followed.number, kind): Presence() for followed in shards for kind in KINDS}
        by_number = {followed.number: followed for followed in shards}
        reader = TreeReader(self._store, self._places.trees, in_flight=_IN_FLIGHT)
        async with aclosing(reader.stream(Wanted(frozenset(by_number), count))) as batches:
            async for batch in batches:
                unreadable = unreadable_ids(self._places, batch.quarantined)
                parts: dict[int, Part] = defaultdict(Part)
                for noun in batch.nouns:
                    parts[shard_of(noun.id, count)].nouns[noun.id] = noun
                for verb in batch.verbs:
                    parts[shard_of(verb.id, count)].verbs[verb.id] = verb
                for number, part in parts.items():
                    if number not in by_number:
                        continue
                    part.unreadable = unreadable
                    alive[number, "noun"].add(hashes_of(list(part.nouns)))
                    alive[number, "verb"].add(hashes_of(list(part.verbs)))
                    await self._settle_batch(by_number[number], part, books[number])
                for item_id in unreadable:
                    # Whatever is served of it stays.
                    for kind in KINDS:
                        if (number := shard_of(item_id, count)) in by_number:
                            alive[number, kind].add(hashes_of([item_id]))
        for followed in shards:
            await self._remove_others(followed, alive, books[followed.number])
            followed.begin_book(books[followed.number])
            _log.info(
                "tree_transferred",
                generation=followed.owned.generation,
                shard=followed.number,
                objects=len(books[followed.number]),
                applied=followed.figures.applied,
                conflicts=followed.figures.conflicts,
            )

    async def _settle_batch(self, followed: FollowedShard, part: Part, book: SeenBook) -> None:
        for kind in KINDS:
            ids = list(part.nouns if kind == "noun" else part.verbs)
            # Only the kind that was read: the other is unknown here, not absent.
            part.versions = _listed(book, self._places, ids)
            await followed.settle(part, ids, kinds=(kind,))

    async def _remove_others(
        self, followed: FollowedShard, alive: Mapping[tuple[int, ItemKind], Presence], book: SeenBook
    ) -> None:
        for kind in KINDS:
            there = alive[followed.number, kind]
            there.finish()
            nouns, verbs = await asyncio.to_thread(followed.owned.shard.ids_where, _outside(there))
            for some in _some(nouns if kind == "noun" else verbs, 10 * PART_IDS):
                part = Part(versions=_listed(book, self._places, some))
                await followed.settle(part, some, kinds=(kind,))


def _listed(book: SeenBook, places: Places, ids: Iterable[str]) -> dict[str, dict[str, Version | None]]:
    """Return the versions of the objects of each id, as the listing has them that is to be the book."""
    return {item_id: {key: book.version(key) for key in places.keys_of(item_id)} for item_id in ids}


def _some(ids: Sequence[str], count: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), count):
        yield ids[start : start + count]


def _among(hashes: Hashes) -> Callable[[Hashes], Mask]:
    return lambda some: np.isin(some, hashes)


def _outside(there: Presence) -> Callable[[Hashes], Mask]:
    return lambda some: ~there.contains(some)


def _by_shard(ids: Iterable[str], shards: Sequence[FollowedShard]) -> dict[int, set[str]]:
    """Return the ids of each of the shards; those of other shards are left out."""
    parts: dict[int, set[str]] = defaultdict(set)
    if shards:
        count, numbers = shards[0].owned.shard_count, {followed.number for followed in shards}
        for item_id in ids:
            if (number := shard_of(item_id, count)) in numbers:
                parts[number].add(item_id)
    return parts


class _Listing:
    """One listing of all prefixes, sorted by shard."""

    def __init__(self, shards: Sequence[FollowedShard], places: Places) -> None:
        self.shards = shards
        self._places = places
        self._count = shards[0].owned.shard_count
        self.comparisons = {each.number: each.book.compare() for each in shards if each.book is not None}
        #: Ids to read, by shard.
        self.changed: dict[int, set[str]] = defaultdict(set)
        #: For shards without a book: what was listed, by (shard, prefix).
        self._listed: dict[tuple[int, str], list[tuple[Hashes, Hashes, Seconds]]] = defaultdict(list)
        #: Hashes missing under prefixes that were listed already, by shard.
        self._missing: dict[int, list[Hashes]] = defaultdict(list)

    async def take_all(self, store: ObjectStore) -> None:
        """List every prefix; the order of ``Places.listed`` is that in which objects decide about others."""
        fetcher = Fetcher(store, in_flight=_IN_FLIGHT)
        for prefix in self._places.listed:
            async with aclosing(fetcher.pages(prefix)) as pages:
                async for page in pages:
                    self._take(prefix, page)
            for number, comparison in self.comparisons.items():
                if len(missing := comparison.missing(prefix)):
                    self._missing[number].append(missing)

    def _take(self, prefix: str, page: Sequence[ObjectMeta]) -> None:
        ids, metas = [], []
        for meta in page:
            if (item_id := self._places.id_at(prefix, meta.key)) is not None:
                ids.append(item_id)
                metas.append(meta)
        hashes = hashes_of(ids)
        versions = [version_of(meta.etag, meta.last_modified, meta.size) for meta in metas]
        tags = np.fromiter((version.tag for version in versions), np.uint64, len(ids))
        seconds = np.fromiter((version.seconds for version in versions), np.uint32, len(ids))
        numbers = hashes % np.uint64(self._count)
        for followed in self.shards:
            mine: Mask = numbers == np.uint64(followed.number)
            if not mine.any():
                continue
            comparison = self.comparisons.get(followed.number)
            if comparison is None:
                self._listed[followed.number, prefix].append((hashes[mine], tags[mine], seconds[mine]))
                continue
            news = comparison.page(prefix, hashes[mine], tags[mine], seconds[mine])
            for gone in self._missing[followed.number]:
                news |= np.isin(hashes[mine], gone)
            for at in np.flatnonzero(mine)[news].tolist():
                self.changed[followed.number].add(ids[at])
                # One prefix may lie below another: the same object, by another id.
                self.changed[followed.number].update(self._places.ids_named(metas[at].key))

    def book(self, number: int) -> SeenBook:
        """Return what was listed of a shard without a book, as its book."""
        book = SeenBook(self._places.listed)
        for prefix in self._places.listed:
            parts = self._listed.pop((number, prefix), [])
            if parts:
                book.places[prefix] = Place.of(
                    np.concatenate([part[0] for part in parts]),
                    np.concatenate([part[1] for part in parts]),
                    np.concatenate([part[2] for part in parts]),
                )
        return book
