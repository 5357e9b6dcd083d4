"""What of a namespace could not be read, read straight from the bucket: no cluster needs to run.

Generation 0 has no file of its own: its rows are found by reading the tree as it is now. Later generations keep theirs,
bytes included, whatever became of the tree. What was mended and written again stays listed, as ``replayed``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from brainy.bucket import invariants, layout
from brainy.bucket.quarantine import Kept, ReplayedList, ReplayedObject, read_quarantine
from brainy.bucket.records import Manifest, Routing
from brainy.clock import Clock
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.dataset.generation import read_manifests, read_spec, read_stored
from brainy.dataset.kept import TreeKept
from brainy.errors import ConflictError, PreconditionError
from brainy.ids import Ids
from brainy.legacy.survey import survey
from brainy.store.base import ObjectStore
from brainy.store.cas import CasRegister

_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the rows of a namespace are."""

    #: The generation in service; None for a bucket no cluster has served.
    generation: int | None
    #: Brainy's trees in the bucket.
    trees: tuple[str, ...]
    #: Empty where the tree itself is read.
    manifests: Sequence[Manifest] = ()

    @property
    def live(self) -> bool:
        """Whether the rows are found by reading the tree."""
        return not self.generation


async def find_place(store: ObjectStore) -> Place:
    """Look up where a namespace's rows are.

    Raises:
        PreconditionError: objects of which none is Brainy's (NOT_A_BRAINY_BUCKET), or a newer format.
        CorruptDataError: a record of ours is damaged.
    """
    found = await store.get(layout.ROUTING)
    if found is None:
        seen = await survey(store)
        if seen.foreign_keys:
            raise PreconditionError(
                "the namespace holds objects, but none that Brainy or this product wrote",
                reason="NOT_A_BRAINY_BUCKET",
                remedy="check the bucket and the prefix",
            )
        return Place(generation=None, trees=seen.trees)
    routing = Routing.decode(found.body, key=layout.ROUTING)
    invariants.check_routing(routing)
    first = await read_spec(store, 0)
    if routing.active == 0:
        return Place(generation=0, trees=first.source_trees)
    manifests = await read_manifests(store, await read_spec(store, routing.active))
    return Place(generation=routing.active, trees=first.source_trees, manifests=manifests)


async def read_rows(store: ObjectStore, place: Place, *, with_bytes: bool = False) -> AsyncGenerator[Kept]:
    """Yield every row, in no particular order; a key that stands in two rows is yielded once.

    Args:
        store: of the namespace.
        place: as ``find_place`` found it.
        with_bytes: whether to give the bytes as well.

    Raises:
        BrainyError: the store failed, or a file of ours is damaged. What was yielded before stands.
    """
    seen: set[str] = set()
    rows = _live_rows(store, place, with_bytes=with_bytes) if place.live else _kept_rows(store, place, with_bytes)
    async with aclosing(rows):
        async for row in rows:
            if row.key not in seen:
                seen.add(row.key)
                yield row


async def _live_rows(store: ObjectStore, place: Place, *, with_bytes: bool) -> AsyncGenerator[Kept]:
    if not place.trees:
        return
    kept = TreeKept(store)
    stream = BrainyTreeSource(store, place.trees).stream(shards=(0,), shard_count=1)
    async with aclosing(stream) as batches:
        async for batch in batches:
            if with_bytes:
                async for row in kept.keep(batch.quarantined):
                    yield row
            else:
                for entry in batch.quarantined:
                    yield Kept(key=entry.key, reason=entry.reason, size=entry.size)


async def _kept_rows(store: ObjectStore, place: Place, with_bytes: bool) -> AsyncGenerator[Kept]:
    for manifest in place.manifests:
        if manifest.quarantine is not None:
            body = await read_stored(store, manifest.quarantine)
            for row in read_quarantine(body, key=manifest.quarantine.key, with_bytes=with_bytes):
                yield row


class ReplayedBook:
    """``cluster/quarantine/replayed.json``: read, and added to by compare-and-swap."""

    def __init__(self, store: ObjectStore, *, clock: Clock, ids: Ids) -> None:
        self._ids = ids
        self._register: CasRegister[ReplayedList] = CasRegister(
            store,
            layout.REPLAYED,
            encode=ReplayedList.encode,
            decode=lambda body: ReplayedList.decode(body, key=layout.REPLAYED),
            clock=clock,
            ids=ids,
        )

    async def objects(self) -> Mapping[str, ReplayedObject]:
        """Return what was replayed, by key."""
        found = await self._register.load()
        return {} if found is None else found[0].objects

    async def add(self, objects: Collection[ReplayedObject]) -> None:
        """Add some; what was noted of them before is replaced.

        Raises:
            ConflictError: others added at every attempt. The items themselves are written.
        """
        if not objects:
            return
        for _ in range(_ATTEMPTS):
            found = await self._register.load()
            old = None if found is None else found[0]
            noted = {} if old is None else dict(old.objects)
            noted.update((each.key, each) for each in objects)
            new = ReplayedList(nonce=self._ids.nonce().hex(), objects=noted)
            invariants.check_replayed_swap(old, new)
            if await self._register.swap(new, None if found is None else found[1]):
                return
        raise ConflictError(
            "the list of replayed objects was replaced at every attempt",
            remedy="run the replay again: what is written is recognised, and noted then",
            key=layout.REPLAYED,
        )
