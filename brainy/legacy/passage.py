"""One pass over the trees of a bucket: what is listed, what is fetched, what stands back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from brainy.bucket.partition import shard_of
from brainy.legacy.assembly import Assembly, Entry, Stray
from brainy.legacy.batch import Held, ItemBatch, Quarantined, Reason
from brainy.legacy.deletions import Deletions
from brainy.legacy.keys import PERSONS, Kind, id_in, is_folder_marker, names_no_item, object_key
from brainy.legacy.persons import Persons
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.presence import Hashes, Presence, hashes_of
from brainy.legacy.rivals import Rivals
from brainy.legacy.strays import find_strays
from brainy.legacy.tree import Tree
from brainy.legacy.values import MAX_OBJECT_BYTES
from brainy.store.base import ObjectMeta

_BATCH_ITEMS = 1000
_BATCH_BYTES = 16 << 20
# Parsing gives way to the event loop this often, so that the next requests go out meanwhile.
_PARSED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which ids a reading is for."""

    shards: frozenset[int]
    shard_count: int

    @property
    def all(self) -> bool:
        """Whether every id is wanted."""
        return len(self.shards) == self.shard_count

    def has(self, item_id: str) -> bool:
        """Whether an id is wanted."""
        return self.all or shard_of(item_id, self.shard_count) in self.shards


@dataclass(slots=True)
class _Work:
    """Entries of one batch, and what the listing alone disqualified."""

    entries: list[Entry] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    size: int = 0

    @property
    def full(self) -> bool:
        return len(self.entries) >= _BATCH_ITEMS or self.size >= _BATCH_BYTES


class Passage:
    """One pass over the bucket; an async context manager that ends the background listings."""

    def __init__(
        self,
        fetcher: Fetcher,
        trees: Sequence[Tree],
        wanted: Wanted,
        persons: Persons,
        assembling: Callable[[Tree, Kind], Assembly],
        held: Held,
    ) -> None:
        self._fetcher = fetcher
        self._trees = trees
        self._wanted = wanted
        self._persons = persons
        self._assembling = assembling
        self._held = {Kind.NOUN: held.nouns, Kind.VERB: held.verbs}
        self.deletions = Deletions(fetcher)
        self.superseded = 0
        self._rivals = Rivals()
        self._objects = {(tree, kind): Presence() for tree in trees for kind in tree.kinds}
        #: By prefix: the flat and the typed tree share theirs.
        self._companions = {tree.keys.companions(kind): Presence() for tree, kind in self._objects}
        self._listings: dict[str, asyncio.Task[None]] = {}
        self._of_verbs = {tree.keys.verb_metadata for tree in trees}

    async def __aenter__(self) -> Passage:
        for tree in self._trees:
            self._list(tree.keys.verb_metadata)
            if len(self._trees) > 1:
                self._list(tree.keys.noun_metadata)
        try:
            if any(tree.keys.nouns == PERSONS for tree in self._trees):
                await self._persons.find(self._fetcher)
            await self._compare_rivals()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._listings.values():
            task.cancel()
        await asyncio.gather(*self._listings.values(), return_exceptions=True)

    async def _compare_rivals(self) -> None:
        ranks = Counter(tree.rank for tree in self._trees)
        for place, tree in enumerate(self._trees):
            if ranks[tree.rank] == 1:
                continue
            async with aclosing(self._fetcher.pages(tree.keys.nouns)) as pages:
                async for page in pages:
                    mine = [
                        (item_id, meta.last_modified)
                        for meta, item_id in self._named(tree, Kind.NOUN, page)
                        if item_id is not None and self._wanted.has(item_id)
                    ]
                    self._rivals.add(place, hashes_of([i for i, _ in mine]), [time for _, time in mine])
        self._rivals.finish()

    def _named(self, tree: Tree, kind: Kind, page: Sequence[ObjectMeta]) -> list[tuple[ObjectMeta, str | None]]:
        """The objects of a page that are the tree's, with the ids in their keys."""
        prefix = tree.keys.objects(kind)
        if kind is Kind.NOUN and tree.rank:
            here = self._persons.in_tree(tree, [meta.key for meta in page])
            page = [meta for meta, mine in zip(page, here, strict=True) if mine]
        return [(meta, id_in(prefix, meta.key)) for meta in page]

    def _list(self, prefix: str) -> None:
        if prefix not in self._listings:
            task = asyncio.create_task(self._list_companions(prefix, self._companions[prefix]))
            self._listings[prefix] = task

    async def _list_companions(self, prefix: str, presence: Presence) -> None:
        async with aclosing(self._fetcher.pages(prefix)) as pages:
            async for page in pages:
                ids = [i for meta in page if (i := id_in(prefix, meta.key)) and not names_no_item(i)]
                presence.add(hashes_of(ids))
        presence.finish()

    async def items(self, tree: Tree, kind: Kind, strays: dict[str, Stray], *, peek: bool) -> AsyncGenerator[ItemBatch]:
        """Yield the items of a kind under the keys of their own ids; note strays."""
        if kind is Kind.NOUN or tree is not self._trees[0]:
            # Everything compared with below must have been listed to its end.
            await asyncio.gather(*(task for prefix, task in self._listings.items() if prefix in self._of_verbs))
        if kind is Kind.NOUN and tree is not self._trees[0]:
            await asyncio.gather(*self._listings.values())
        work = self._work(tree, kind, strays, peek=peek)
        async with aclosing(work), aclosing(self._fetcher.fetched(work)) as fetched:
            async for part, objects in fetched:
                assembly = self._assembling(tree, kind)
                assembly.quarantined += part.quarantined
                place = 0
                for number, entry in enumerate(part.entries, 1):
                    width = len(entry.keys)
                    assembly.take(entry, list(objects[place : place + width]))
                    place += width
                    if number % _PARSED_AT_ONCE == 0:
                        await asyncio.sleep(0)
                if assembly.without_companion * 4 > len(part.entries):
                    # Asking for what is not there costs more than listing what is.
                    self._list(tree.keys.companions(kind))
                self.superseded += assembly.buried
                strays.update((stray.key, stray) for stray in assembly.strays)
                zombies = await self.deletions.last_word_is_delete(assembly.suspects)
                yield assembly.finish(zombies, objects_read=len(objects))
        self._objects[tree, kind].finish()

    async def _work(
        self, tree: Tree, kind: Kind, strays: dict[str, Stray], *, peek: bool
    ) -> AsyncGenerator[tuple[_Work, list[str]]]:
        prefix = tree.keys.objects(kind)
        work = _Work()
        async with aclosing(self._fetcher.pages(prefix)) as pages:
            async for page in pages:
                mine: list[tuple[ObjectMeta, str]] = []
                others: list[tuple[str, str]] = []
                for meta, item_id in self._named(tree, kind, page):
                    if item_id is None:
                        if not is_folder_marker(meta.key, meta.size) and self._wanted.has(meta.key):
                            work.quarantined.append(Quarantined(meta.key, Reason.FOREIGN_OBJECT, meta.size))
                    elif self._wanted.has(item_id):
                        mine.append((meta, item_id))
                    elif peek and meta.size:
                        others.append((meta.key, item_id))
                for entry, meta in self._entries(tree, kind, mine):
                    if entry is None:
                        # Whatever takes its place, the item inside may be another one.
                        if peek and meta.size:
                            others.append((meta.key, id_in(prefix, meta.key) or ""))
                        continue
                    if entry.id in self._held[kind]:
                        continue
                    if reason := _unfit(meta.size):
                        work.quarantined.append(Quarantined(meta.key, reason, meta.size))
                        continue
                    work.entries.append(entry)
                    work.size += meta.size
                    if work.full:
                        yield work, [key for e in work.entries for key in e.keys]
                        work = _Work()
                for stray in await find_strays(self._fetcher, tree, kind, others):
                    strays[stray.key] = stray
        if work.entries or work.quarantined:
            yield work, [key for e in work.entries for key in e.keys]

    def _entries(
        self, tree: Tree, kind: Kind, mine: list[tuple[ObjectMeta, str]]
    ) -> list[tuple[Entry | None, ObjectMeta]]:
        hashes = hashes_of([item_id for _, item_id in mine])
        self._objects[tree, kind].add(hashes)
        stronger = [t for t in self._trees if t.rank < tree.rank]
        hidden = self._any(hashes, [self._objects[t, kind] for t in stronger if kind in t.kinds])
        beside = self._companions[tree.keys.companions(kind)]
        # Without that listing, or before it has ended, ask for the object anyway.
        present = beside.contains(hashes).tolist() if beside.complete else [True] * len(mine)
        also_verb = [False] * len(mine)
        graves: list[str | None] = [None] * len(mine)
        if kind is Kind.NOUN:
            verbs = [part for (_, k), part in self._objects.items() if k is Kind.VERB]
            verbs += [self._companions[prefix] for prefix in self._of_verbs]
            also_verb = self._any(hashes, verbs)
            lost = self._rivals.lost(self._trees.index(tree), hashes).tolist()
            hidden = [a or b for a, b in zip(hidden, lost, strict=True)]
            for grave in {t.keys.noun_metadata: None for t in reversed(stronger)}:
                if grave == tree.keys.noun_metadata:
                    continue  # fetched with the noun anyway
                known = self._companions[grave].contains(hashes).tolist()
                for at, (_, item_id) in enumerate(mine):
                    if known[at]:
                        graves[at] = object_key(grave, item_id)
        else:
            # Verb-metadata without verb in a newer tree is what deleteVerb leaves.
            left = self._any(hashes, [self._companions[t.keys.verb_metadata] for t in stronger])
            hidden = [a or b for a, b in zip(hidden, left, strict=True)]
        self.superseded += sum(hidden)
        return [
            (
                None
                if hidden[at]
                else Entry(
                    key=meta.key,
                    id=item_id,
                    companion=object_key(tree.keys.companions(kind), item_id) if present[at] else None,
                    tombstone=graves[at],
                    also_verb=also_verb[at],
                ),
                meta,
            )
            for at, (meta, item_id) in enumerate(mine)
        ]

    @staticmethod
    def _any(hashes: Hashes, sets: Sequence[Presence]) -> list[bool]:
        found = [False] * len(hashes)
        for known in sets:
            found = [a or b for a, b in zip(found, known.contains(hashes).tolist(), strict=True)]
        return found


def _unfit(size: int) -> Reason | None:
    if size == 0:
        return Reason.EMPTY
    return Reason.TOO_LARGE if size > MAX_OBJECT_BYTES else None
