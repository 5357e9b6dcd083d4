"""A namespace as one side of a comparison, read straight from its bucket.

Three kinds: Brainy's trees alone (``tree``), one generation with its log, or whichever generation is active when it
is looked at. It is read through at a cut (``brainy.dataset.cut``). Single items are read again by state transfer:

* of a generation: the last word of the log behind the last look, else what was known at the last look; at first the
  segments, which never change;
* of a tree read in place: the objects an id may have, put together by the one reader of the trees.

A generation is left for another (the active one moved), or the log behind the last look was collected: everything is
read anew from a new cut.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal, TypeAlias

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.items import noun_from_proto, verb_from_proto
from brainy.bucket.partition import shard_of
from brainy.bucket.records import Record, Spec
from brainy.clock import Clock, iso
from brainy.dataset.base import ItemBatch
from brainy.dataset.cut import Cut, CutReader, take_cut
from brainy.dataset.generation import GenerationSource, is_published, read_manifests
from brainy.dataset.snapshot import Overlay
from brainy.errors import LogCollectedError, NotFoundError, UnavailableError
from brainy.legacy.last_words import LastWords
from brainy.legacy.part import read_part
from brainy.legacy.places import Places
from brainy.legacy.reading import TreeReader, Wanted
from brainy.legacy.survey import survey
from brainy.legacy.trees import open_trees
from brainy.store.base import ObjectStore
from brainy.verify.values import NOUN, VERB, Holding, Item, Name, Place, Sample

#: A generation, Brainy's trees, or None for the generation that is active.
Which: TypeAlias = int | Literal["tree"] | None

_IDS_AT_ONCE: Final = 250
_TRIES: Final = 5


class _Saved(Record):
    cut: Cut
    reached: dict[int, int]
    strays: bool


class NamespaceSide:
    """See the module and ``Side``."""

    def __init__(self, name: str, store: ObjectStore, which: Which, clock: Clock) -> None:
        self.name = name
        self.store = store
        self.which = which
        self.clock = clock
        #: Objects were found whose id inside differs from their key's: reading by id would miss them.
        self.strays = False
        #: Shard -> log position that was read through.
        self._reached: dict[int, int] = {}
        self._cut: Cut | None = None
        self._sample: Sample | None = None

    @property
    def identity(self) -> str:
        """See ``Side``."""
        return f"namespace {self.name}"

    @property
    def moves(self) -> bool:
        """See ``Side``."""
        return True

    @property
    def cut(self) -> Cut:
        """The point at which it is read through."""
        if self._cut is None:
            raise RuntimeError("begin before anything else")
        return self._cut

    @property
    def parts(self) -> int:
        """See ``Side``. A tree is listed once, whatever its shards; a sample needs all of it anyway."""
        return self.cut.spec.shard_count if self.cut.manifests and self._sample is None else 1

    @property
    def place(self) -> Place:
        """See ``Side``."""
        return place_of(self.cut, self._reached)

    async def begin(self, saved: str | None = None) -> None:
        """See ``Side``. Errors as ``take_cut``."""
        if saved is None:
            self._cut = await self.take()
            return
        known = _Saved.decode(saved.encode(), key="state of the comparison")
        self._cut, self._reached, self.strays = known.cut, dict(known.reached), known.strays

    def save(self) -> str:
        """See ``Side``."""
        return _Saved(cut=self.cut, reached=self._reached, strays=self.strays).encode().decode()

    def sampled(self, sample: Sample | None) -> None:
        """See ``Side``."""
        self._sample = sample

    async def take(self) -> Cut:
        """Return where it stands now."""
        if self.which == "tree":
            return await self._take_tree()
        cut = await take_cut(self.store, self.clock, generation=self.which)
        spec = cut.spec
        if spec.generation == 0 and cut.adopted and await is_published(self.store, spec):
            # It is followed: what the log is replayed over is a checkpoint, and no longer the tree.
            cut = cut.model_copy(update={"manifests": tuple(await read_manifests(self.store, spec))})
        return cut

    async def _take_tree(self) -> Cut:
        seen = await survey(self.store)
        if not seen.trees:
            raise NotFoundError("no tree of Brainy's is here", reason="UNKNOWN_NAMESPACE", remedy="check the prefix")
        now = self.clock.wall()
        spec = Spec(
            generation=0, dimensions=seen.dimensions, shard_count=1, source="brainy", source_trees=tuple(seen.trees)
        )
        return Cut(spec=spec, adopted=False, began=now, ended=now, settled=False)

    async def total(self) -> int:
        """See ``Side``."""
        if self.cut.manifests:
            whole = sum(manifest.noun_count + manifest.verb_count for manifest in self.cut.manifests)
        elif self.cut.spec.source == "brainy":
            whole = await TreeReader(self.store, open_trees(self.cut.spec.source_trees)).count()
        else:
            whole = 0
        return whole

    async def read(self, part: int) -> AsyncGenerator[ItemBatch]:
        """See ``Side``. Errors as ``CutReader.overlay`` and ``Source.stream``."""
        whole = self.parts == 1
        numbers = range(self.cut.spec.shard_count) if whole else (part,)
        overlay = await overlay_of(self.store, self.cut, numbers)
        self._reached.update(overlay.positions)
        if (sample := self._sample) is not None:
            overlay.nouns = {i: one for i, one in overlay.nouns.items() if shard_of(i, sample.of) == sample.part}
            overlay.verbs = {i: one for i, one in overlay.verbs.items() if shard_of(i, sample.of) == sample.part}
            below = self._base(self.cut, (sample.part,), sample.of)
        else:
            below = self._base(self.cut, numbers, self.cut.spec.shard_count)
        async with aclosing(below) as batches:
            async for batch in batches:
                yield overlay.covers(batch)
        for batch in overlay.items():
            yield batch

    async def _base(self, cut: Cut, shards: Collection[int], shard_count: int) -> AsyncGenerator[ItemBatch]:
        if cut.manifests:
            source = GenerationSource.at(self.store, cut.spec, cut.manifests)
            async with aclosing(source.stream(shards=shards, shard_count=shard_count)) as batches:
                async for batch in batches:
                    yield batch
        elif cut.spec.source == "brainy":
            whole = len(shards) == shard_count
            reader = TreeReader(self.store, open_trees(cut.spec.source_trees), look_for_strays=whole)
            async with aclosing(reader.stream(Wanted(frozenset(shards), shard_count))) as batches:
                async for batch in batches:
                    yield batch
            self.strays = self.strays or bool(reader.strays)

    def watch(self, names: Collection[Name]) -> NamespaceWatch:
        """See ``Side``."""
        return NamespaceWatch(self, names)

    async def below(self, cut: Cut, names: Collection[Name], words: LastWords) -> Holding:
        """Return what the base of a cut holds of some names; of a tree, as it is now."""
        held: Holding = dict.fromkeys(names)
        if not names:
            return held
        if cut.manifests or self.strays:
            count = cut.spec.shard_count
            shards = sorted({shard_of(item_id, count) for _, item_id in names}) if cut.manifests else range(count)
            async with aclosing(self._base(cut, shards, count)) as batches:
                async for batch in batches:
                    held.update(((NOUN, one.id), one) for one in batch.nouns if (NOUN, one.id) in held)
                    held.update(((VERB, one.id), one) for one in batch.verbs if (VERB, one.id) in held)
        elif cut.spec.source == "brainy":
            places = Places(open_trees(cut.spec.source_trees))
            await words.sweep()
            for ids in _chunks(dict.fromkeys(item_id for _, item_id in names)):
                part = await read_part(self.store, places, ids, words=words)
                held.update(((NOUN, i), one) for i, one in part.nouns.items() if (NOUN, i) in held)
                held.update(((VERB, i), one) for i, one in part.verbs.items() if (VERB, i) in held)
        return held


class NamespaceWatch:
    """See ``Watch``."""

    def __init__(self, side: NamespaceSide, names: Collection[Name]) -> None:
        self._side = side
        self._names = tuple(names)
        self._words = LastWords(side.store, side.clock)
        self._cut: Cut | None = None
        #: Names of which the log has said something: the base does not count for them.
        self._logged: Holding = {}
        #: What immutable segments hold; of trees nothing is kept.
        self._below: Holding | None = None
        self._reached: dict[int, int] = {}
        self._passed: dict[Name, set[bytes]] = {}

    def passed(self, name: Name) -> set[bytes]:
        """See ``Watch``."""
        return self._passed.get(name, set())

    @property
    def place(self) -> Place:
        """See ``Watch``."""
        if self._cut is None:
            raise RuntimeError("look before you ask where")
        return place_of(self._cut, self._reached)

    async def look(self, names: Collection[Name]) -> Holding:
        """See ``Watch``. Errors as ``NamespaceSide.read``; where the log is collected below it, it begins anew."""
        self._passed = {}
        for _ in range(_TRIES):
            cut = await self._side.take()
            try:
                if self._cut is None or self._cut.spec.generation != cut.spec.generation:
                    self._logged, self._below, self._reached = {}, None, {}
                self._cut = cut
                await self._advance(cut)
                return await self._held(cut, names)
            except LogCollectedError:
                self._cut = None
        raise UnavailableError("the log is collected faster than it is read", remedy="try again", side=self._side.name)

    async def _advance(self, cut: Cut) -> None:
        if not cut.adopted:
            return
        count = cut.spec.shard_count
        shards = {shard_of(item_id, count) for _, item_id in self._names}
        wanted = frozenset(self._names)
        for shard in sorted(shards):
            after = self._reached.get(shard)
            overlay = await CutReader(self._side.store, cut).overlay(
                shard, from_position=None if after is None else after + 1, into=_Watched(wanted=wanted)
            )
            if isinstance(overlay, _Watched):
                self._logged.update(overlay.last)
                if after is not None:
                    for name, digests in overlay.passed.items():
                        self._passed.setdefault(name, set()).update(digests)
            self._reached[shard] = max(after or 0, overlay.positions[shard])

    async def _held(self, cut: Cut, names: Collection[Name]) -> Holding:
        if cut.manifests:
            if self._below is None:
                bare = [name for name in self._names if name not in self._logged]
                self._below = await self._side.below(cut, bare, self._words)
            below = self._below
        else:
            below = await self._side.below(cut, [name for name in names if name not in self._logged], self._words)
        return {name: self._logged[name] if name in self._logged else below.get(name) for name in names}


@dataclass(slots=True)
class _Watched(Overlay):
    """Of a log, what it says of some names: the last word, and the digests of all of them."""

    wanted: frozenset[Name] = frozenset()
    last: Holding = field(default_factory=dict)
    passed: dict[Name, set[bytes]] = field(default_factory=dict)

    def apply(self, record: log_pb2.LogRecord) -> None:
        """See ``Overlay``; what is not wanted is not kept."""
        match record.WhichOneof("operation"):
            case "upsert_noun":
                self._word((NOUN, record.upsert_noun.id), lambda: noun_from_proto(record.upsert_noun))
            case "delete_noun":
                self._word((NOUN, record.delete_noun), lambda: None)
            case "upsert_verb":
                self._word((VERB, record.upsert_verb.id), lambda: verb_from_proto(record.upsert_verb))
            case "delete_verb":
                self._word((VERB, record.delete_verb), lambda: None)
            case _:
                pass  # fences and advances change no item

    def _word(self, name: Name, item: Callable[[], Item | None]) -> None:
        if name in self.wanted:
            self.last[name] = found = item()
            self.passed.setdefault(name, set()).add(b"" if found is None else found.digest())


async def overlay_of(store: ObjectStore, cut: Cut, shards: Iterable[int]) -> Overlay:
    """Replay the logs of some shards up to a cut into one overlay: ids of different shards differ."""
    whole = Overlay()
    if not cut.adopted:
        return whole
    reader = CutReader(store, cut)
    for shard in shards:
        one = await reader.overlay(shard)
        whole.nouns.update(one.nouns)
        whole.verbs.update(one.verbs)
        whole.positions.update(one.positions)
    return whole


def place_of(cut: Cut, reached: dict[int, int]) -> Place:
    """Return a cut as a place to report; ``reached`` where the logs end, as far as they were read."""
    return Place(
        kind="generation" if cut.adopted else "tree",
        generation=cut.spec.generation if cut.adopted else None,
        positions=dict(sorted(reached.items())),
        at=iso(cut.ended),
    )


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while some := list(islice(rest, _IDS_AT_ONCE)):
        yield some
