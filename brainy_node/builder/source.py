"""Which source a generation is filled from, and the positions that stand for what was read of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from brainy.bucket import layout
from brainy.bucket.filling import FillSource
from brainy.bucket.follow import read_choice
from brainy.bucket.records import Manifest, Spec
from brainy.dataset.base import Held, ItemBatch, Source
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.dataset.generation import GenerationSource, is_published, read_spec
from brainy.dataset.kept import GenerationKept, KeptSource, NothingKept, TreeKept
from brainy.errors import NotFoundError, UnavailableError
from brainy.store.base import ObjectStore


class EmptySource:
    """No items at all: a namespace that starts empty."""

    @property
    def cursor(self) -> Mapping[int, int]:
        """Nothing is included."""
        return {}

    async def total(self) -> int:
        """None."""
        return 0

    async def stream(self, *, shards: Collection[int], shard_count: int) -> AsyncIterator[ItemBatch]:
        """Yield nothing."""
        nothing: tuple[ItemBatch, ...] = ()
        for batch in nothing:
            yield batch


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenSource:
    """A source and the shards of the generation behind it."""

    source: Source
    #: 0 where no generation, and so no log, is behind the source.
    shard_count: int
    #: The generation it is, and its manifests; None for a tree, or nothing.
    generation: int | None = None
    manifests: Sequence[Manifest] = ()
    #: Where the bytes of what could not be read come from.
    kept: KeptSource = field(default_factory=NothingKept)
    #: Requests the source's positions include; a target knows them at its own position 0.
    recent_requests: Mapping[str, int] = field(default_factory=dict)

    def cursor_for(self, shard: int, shard_count: int) -> dict[int, int]:
        """Return the source positions that a target shard includes once it holds what the source yielded.

        With equal shard counts a target shard holds ids of the source shard of its own number only; otherwise of
        all of them.
        """
        sources = range(self.shard_count) if self.shard_count != shard_count else (shard,)
        cursor = self.source.cursor
        return {number: cursor.get(number, 0) for number in sources if self.shard_count}

    def stream(
        self, *, shards: Collection[int], shard_count: int, place: int = 0, held: Held | None = None
    ) -> AsyncIterator[ItemBatch]:
        """Yield the items of the shards, without those that come before a place or are held already."""
        if isinstance(self.source, GenerationSource):
            return self.source.stream(shards=shards, shard_count=shard_count, after=place)
        if isinstance(self.source, BrainyTreeSource):
            return self.source.stream(shards=shards, shard_count=shard_count, held=held)
        return self.source.stream(shards=shards, shard_count=shard_count)


async def source_at(store: ObjectStore, kept: FillSource) -> ChosenSource:
    """Return a source generation as it was, from its manifests of then.

    Raises:
        NotFoundError: the generation does not exist.
    """
    described = await read_spec(store, kept.generation)
    return _of_manifests(store, described.shard_count, GenerationSource.at(store, described, kept.manifests))


async def choose_source(store: ObjectStore, spec: Spec) -> ChosenSource:
    """Open what ``spec.source`` names.

    Raises:
        NotFoundError: it names a generation that does not exist.
    """
    if spec.source == "empty":
        return ChosenSource(source=EmptySource(), shard_count=0)
    if spec.source == "brainy":
        # A target filled from the tree itself follows generation 0, which has its log beside the tree.
        behind = None if spec.generation == 0 else await _read_spec(store, 0)
        if behind is not None and await is_published(store, behind):
            return await choose_generation(store, spec, 0)
        tree = BrainyTreeSource(store, spec.source_trees)
        return ChosenSource(source=tree, shard_count=behind.shard_count if behind else 0, kept=TreeKept(store))
    return await choose_generation(store, spec, int(spec.source))


async def choose_generation(store: ObjectStore, spec: Spec, number: int) -> ChosenSource:
    """Open a generation of the namespace behind ``store``, for the target that ``spec`` describes.

    Raises:
        NotFoundError: there is no such generation.
        UnavailableError: it is followed and not all of its shards are pinned yet.
    """
    described = await _read_spec(store, number)
    if described is None:
        raise NotFoundError(
            "the generation to fill from does not exist",
            remedy="check the migration's source",
            generation=number,
            target=spec.generation,
        )
    if number == 0 and not await is_published(store, described):
        if (await read_choice(store)).follow:
            # The tree moves: what is read of it now has no position in the log.
            raise UnavailableError(
                "the generation is followed and not all of its shards are pinned yet",
                reason="SHARD_NOT_READY",
                remedy="wait until their owners have published them",
                generation=number,
            )
        origin = await choose_source(store, described)
        return ChosenSource(source=origin.source, shard_count=described.shard_count, kept=origin.kept)
    return _of_manifests(store, described.shard_count, await GenerationSource.open(store, number))


def _of_manifests(store: ObjectStore, shard_count: int, source: GenerationSource) -> ChosenSource:
    known = dict.fromkeys(source.recent_requests, 0)
    return ChosenSource(
        source=source,
        shard_count=shard_count,
        generation=source.generation,
        manifests=source.manifests,
        kept=GenerationKept(store, source.manifests),
        recent_requests=known,
    )


async def _read_spec(store: ObjectStore, number: int) -> Spec | None:
    key = layout.spec(number)
    found = await store.get(key)
    return None if found is None else Spec.decode(found.body, key=key)
