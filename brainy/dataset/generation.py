"""A generation as its manifests have it: the ``Source`` a later generation, a backup or a check is filled from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from brainy.bucket import invariants, layout, segments
from brainy.bucket.items import Noun, Verb
from brainy.bucket.partition import shard_of
from brainy.bucket.quarantine import read_quarantine
from brainy.bucket.records import Manifest, Spec, StoredFile
from brainy.dataset.base import ItemBatch, Quarantined
from brainy.errors import CorruptDataError, NotFoundError
from brainy.legacy import keys as legacy_keys
from brainy.store.base import ObjectStore

BATCH_ITEMS: Final = 1000

I = TypeVar("I", Noun, Verb)  # noqa: E741 - an item


async def read_spec(store: ObjectStore, generation: int) -> Spec:
    """Read what a generation is.

    Raises:
        NotFoundError: there is no such generation.
    """
    found = await store.get(layout.spec(generation))
    if found is None:
        raise NotFoundError("no such generation", remedy="list the generations", generation=generation)
    return Spec.decode(found.body, key=found.key)


async def is_published(store: ObjectStore, spec: Spec) -> bool:
    """Whether every shard of a generation has a manifest: of generation 0 only where it was followed."""
    keys = [layout.manifest(spec.generation, shard) for shard in range(spec.shard_count)]
    for found in await store.get_many(keys):
        if isinstance(found, Exception):
            raise found
        if found is None:
            return False
    return True


async def read_manifests(store: ObjectStore, spec: Spec) -> list[Manifest]:
    """Read and check the manifest of every shard of a generation, in shard order.

    Raises:
        CorruptDataError: a manifest is missing, damaged, or breaks an invariant.
    """
    keys = [layout.manifest(spec.generation, shard) for shard in range(spec.shard_count)]
    manifests = []
    for key, found in zip(keys, await store.get_many(keys), strict=True):
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise CorruptDataError(
                "a shard of the generation has no manifest",
                remedy="wait until the generation is filled, or restore the manifest from a copy",
                key=key,
            )
        manifest = Manifest.decode(found.body, key=key)
        invariants.check_manifest(manifest, key=key)
        if layout.manifest(manifest.generation, manifest.shard) != key:
            raise CorruptDataError(
                "a manifest lies under a key that is not its own",
                remedy="restore the object from a copy; nothing was read from it",
                key=key,
            )
        manifests.append(manifest)
    return manifests


async def read_stored(store: ObjectStore, file: StoredFile) -> bytes:
    """Read an immutable object and check that it is the one the manifest means.

    Raises:
        CorruptDataError: missing, or another size or SHA-256.
    """
    found = await store.get(file.key)
    if found is None:
        raise CorruptDataError(
            "an object named by a manifest is missing",
            remedy="restore the object from a copy",
            data_safe=False,
            key=file.key,
        )
    segments.check_stored(found.body, file)
    return found.body


class GenerationSource:
    """The items of a generation at the positions of its manifests, without the log behind them.

    The manifests are read once, by the first call or by ``open``; cursor, total and stream all speak of those,
    whatever is published meanwhile (segments are immutable and stay). Every segment is hashed before a row of
    it is used. Memory: one segment at a time.
    """

    def __init__(self, store: ObjectStore, generation: int) -> None:
        """Prepare; nothing is read yet."""
        self._store = store
        self._generation = generation
        self._spec: Spec | None = None
        self._manifests: Sequence[Manifest] = ()
        self._listed: Sequence[Quarantined] | None = None

    @classmethod
    async def open(cls, store: ObjectStore, generation: int) -> GenerationSource:
        """Return a source whose manifests are read. Errors as ``read_spec`` and ``read_manifests``."""
        source = cls(store, generation)
        await source.load()
        return source

    @classmethod
    def at(cls, store: ObjectStore, spec: Spec, manifests: Sequence[Manifest]) -> GenerationSource:
        """Return a source of manifests that were read before, in shard order."""
        source = cls(store, spec.generation)
        source._spec, source._manifests = spec, manifests
        return source

    async def load(self) -> Spec:
        """Read the spec and the manifests unless that was done; return the spec."""
        if self._spec is None:
            spec = await read_spec(self._store, self._generation)
            self._manifests = await read_manifests(self._store, spec)
            self._spec = spec
        return self._spec

    @property
    def cursor(self) -> Mapping[int, int]:
        """Shard -> log position that the stream includes. Only after ``load``, ``total`` or ``stream``."""
        if self._spec is None:
            raise RuntimeError("load the source before asking for its cursor")
        return {manifest.shard: manifest.position for manifest in self._manifests}

    @property
    def generation(self) -> int:
        """Which generation it is."""
        return self._generation

    @property
    def manifests(self) -> Sequence[Manifest]:
        """One for each shard. Only after ``load``."""
        return self._manifests

    @property
    def recent_requests(self) -> Collection[str]:
        """Request ids that the manifests' positions include. Only after ``load``."""
        return [request_id for manifest in self._manifests for request_id in manifest.recent_requests]

    async def total(self) -> int:
        """Nouns and verbs, counted."""
        await self.load()
        return sum(manifest.noun_count + manifest.verb_count for manifest in self._manifests)

    async def stream(self, *, shards: Collection[int], shard_count: int, after: int = 0) -> AsyncGenerator[ItemBatch]:
        """Yield every item whose shard out of ``shard_count`` is in ``shards``, once, in bounded batches.

        With another shard count than the generation's own, every segment is read and the ids decide.

        The order is that of the manifests and their segments, whichever shards are wanted, so that a row has the same
        place in every stream of these manifests. ``place`` of a batch says how many rows of that order are done with;
        ``after`` leaves those rows out that an earlier stream has yielded, and does not read segments of which none
        is left.

        Raises:
            CorruptDataError: a segment is missing, altered, or has other rows than its manifest says.
        """
        spec = await self.load()
        same = shard_count == spec.shard_count
        wanted = frozenset(shards)
        place = 0
        for manifest in self._manifests:
            if same and manifest.shard not in wanted:
                place += manifest.noun_count + manifest.verb_count
                continue
            for file in manifest.nouns:
                if place + file.rows <= after:
                    place += file.rows
                    continue
                body = await read_stored(self._store, file)
                for nouns in _counted(segments.read_nouns(body, batch_rows=BATCH_ITEMS), file):
                    left = nouns[max(0, after - place) :]
                    place += len(nouns)
                    kept = left if same else [n for n in left if shard_of(n.id, shard_count) in wanted]
                    if left:
                        yield ItemBatch(nouns=kept, objects_read=len(left), place=place)
            for file in manifest.verbs:
                if place + file.rows <= after:
                    place += file.rows
                    continue
                body = await read_stored(self._store, file)
                for verbs in _counted(segments.read_verbs(body, batch_rows=BATCH_ITEMS), file):
                    rest = verbs[max(0, after - place) :]
                    place += len(verbs)
                    kept_verbs = rest if same else [v for v in rest if shard_of(v.id, shard_count) in wanted]
                    if rest:
                        yield ItemBatch(verbs=kept_verbs, objects_read=len(rest), place=place)
        listed = [row for row in await self._quarantine() if quarantine_shard(row.key, shard_count) in wanted]
        if listed:
            yield ItemBatch(quarantined=listed, place=place)

    async def _quarantine(self) -> Sequence[Quarantined]:
        # Wherever a row lies, the id in its key decides: a fill that is taken up again meets each row once. They are
        # few, and read once.
        if self._listed is None:
            listed: list[Quarantined] = []
            for manifest in self._manifests:
                if manifest.quarantine is not None:
                    body = await read_stored(self._store, manifest.quarantine)
                    rows = read_quarantine(body, key=manifest.quarantine.key, with_bytes=False)
                    listed += [Quarantined(row.key, row.reason, row.size) for row in rows]
            self._listed = listed
        return self._listed


def quarantine_shard(key: str, shard_count: int) -> int:
    """Shard that lists an object which could not be read: that of the id in its key, else of the key itself."""
    return shard_of(legacy_keys.parse(key).id or key, shard_count)


def _counted(batches: Iterator[list[I]], file: StoredFile) -> Iterator[list[I]]:
    rows = 0
    for batch in batches:
        rows += len(batch)
        yield batch
    if rows != file.rows:
        raise CorruptDataError(
            "a segment has other rows than its manifest says",
            remedy="restore the shard from a copy; nothing was read from it",
            key=file.key,
            rows=rows,
            expected=file.rows,
        )
