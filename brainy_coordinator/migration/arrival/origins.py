"""What lies elsewhere and shall come here: looked at, counted, digested. Reads only."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from brainy.backup.source import BackupSource, is_object, open_backup
from brainy.bucket import layout
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.follow import read_choice
from brainy.bucket.namespace import Namespace
from brainy.bucket.origin import Origin
from brainy.bucket.projection import Projection
from brainy.bucket.records import Routing, Spec
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.dataset.elsewhere import Elsewhere
from brainy.dataset.generation import read_spec
from brainy.errors import NotFoundError, PreconditionError
from brainy.legacy.survey import survey
from brainy.legacy.writers import signs_of_writers
from brainy.store.base import ObjectStore
from brainy_coordinator.migration.arrival.items import count_without_text, digest_of_items
from brainy_coordinator.migration.arrival.source_cluster import SourceCluster
from brainy_coordinator.migration.preflight.counts import counted_items
from brainy_coordinator.migration.record import SourceWish
from brainy_coordinator.nodes import DigestSeen, NodeCalls

_FOLLOWS = (
    "it follows Brainy's own tree, and what Brainy writes there is lost with the switch: stop those processes, then"
    " brainy follow --off"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginSeen:
    """What was found elsewhere."""

    origin: Origin
    #: The description that a target is derived from: this namespace's own, with what the data elsewhere decide.
    spec: Spec
    nouns: int
    verbs: int
    #: Elements of a backup that cannot be restored.
    skipped: int = 0
    #: Nouns that have no text to embed; None where nobody looked.
    without_text: int | None = None
    detail: str = ""
    #: What speaks for a Brainy process that writes there.
    signs: tuple[str, ...] = ()
    #: Why it cannot be taken over now; "" where it can.
    problem: str = ""
    #: Of a namespace that no cluster serves: the trees it is read from.
    trees: tuple[str, ...] = ()


class Origins:
    """Finds out what a wish for data from elsewhere means, for one namespace."""

    def __init__(self, namespace: str, elsewhere: Elsewhere, nodes: NodeCalls) -> None:
        self.namespace = namespace
        self.elsewhere = elsewhere
        self.nodes = nodes
        #: Digests of backups and what else their check found, by name, size and time, and whether
        #: texts were looked for.
        self._checked: dict[tuple[str, int, str, bool], asyncio.Task[_Backup]] = {}

    def cluster(self, origin: Origin) -> SourceCluster:
        """Return the other namespace as this coordinator deals with it."""
        return SourceCluster(origin, self.elsewhere, self.nodes)

    async def look(self, wish: SourceWish, own: Spec) -> OriginSeen:
        """Look at what a wish names.

        Args:
            wish: what was asked for.
            own: the description of the generation that is replaced.

        Raises:
            NotFoundError: it is not there.
            CorruptDataError: a backup that is not whole, or a damaged record.
            InvalidRequestError: a file that is no backup.
            PreconditionError: objects, but none of Brainy's.
            UnavailableError: the store cannot be read now.
        """
        if wish.backup:
            return await self._look_at_backup(wish, own)
        name = str(Namespace.parse(wish.namespace))
        store = self.elsewhere.store(name)
        found = await store.get(layout.ROUTING)
        if found is None:
            return await self._look_at_tree(wish, name, store, own)
        return await self._look_at_cluster(name, store, Routing.decode(found.body, key=layout.ROUTING), own)

    async def digest(self, origin: Origin, seen: OriginSeen, projection: Projection | None) -> DigestSeen:
        """Digest data that nobody changes, by reading them; under a projection where they are embedded anew.

        Errors as ``look``.
        """
        if origin.backup and projection is not None:
            with tempfile.TemporaryDirectory(prefix="brainy-backup-") as directory:
                backup = await open_backup(origin.backup, Path(directory), self.elsewhere)
                return await digest_of_items(BackupSource(backup), projection)
        if origin.backup:
            checked = await self._check(origin.backup, texts=False)
            return DigestSeen(digest=checked.state.copy(), nouns=checked.nouns, verbs=checked.verbs, positions={})
        return await digest_of_items(BrainyTreeSource(self.elsewhere.store(origin.namespace), seen.trees), projection)

    async def _look_at_backup(self, wish: SourceWish, own: Spec) -> OriginSeen:
        checked = await self._check(wish.backup, texts=wish.without_vectors)
        return OriginSeen(
            origin=Origin(backup=wish.backup, without_vectors=wish.without_vectors),
            spec=own.model_copy(update={"dimensions": checked.dimensions or own.dimensions, "source": "empty"}),
            nouns=checked.nouns,
            verbs=checked.verbs,
            skipped=checked.skipped,
            without_text=checked.without_text,
            detail=f"{wish.backup} is whole: {checked.nouns:,} nouns, {checked.verbs:,} verbs"
            + ("" if checked.sealed else "; not sealed, its digest is of what it holds now"),
        )

    async def _check(self, backup: str, *, texts: bool) -> _Backup:
        if is_object(backup):
            place, _, name = backup.rpartition("/")
            metas = [meta async for page in self.elsewhere.store(place).list(name) for meta in page]
            size, stamp = next(((meta.size, meta.etag) for meta in metas if meta.key == name), (0, ""))
        else:
            try:
                found = await asyncio.to_thread(Path(backup).stat)
            except OSError as error:
                raise NotFoundError(
                    f"there is no such backup file as this coordinator sees it: {error.strerror}",
                    remedy="give the path as coordinator and nodes see it, or s3://bucket/key",
                    backup=backup,
                ) from error
            size, stamp = found.st_size, str(found.st_mtime_ns)
        key = (backup, size, stamp, texts)
        task = self._checked.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._checked[key] = asyncio.create_task(self._read(backup, texts=texts))
        # A call that was given up is gone on with by the next one.
        return await asyncio.shield(task)

    async def _read(self, backup: str, *, texts: bool) -> _Backup:
        with tempfile.TemporaryDirectory(prefix="brainy-backup-") as directory:
            checked = await open_backup(backup, Path(directory), self.elsewhere)
            found = checked.verification
            return _Backup(
                state=checked.state.copy(),
                nouns=found.nouns,
                verbs=found.verbs,
                dimensions=found.dimensions,
                skipped=len(found.skipped),
                sealed=found.sealed,
                without_text=await asyncio.to_thread(count_without_text, checked) if texts else None,
            )

    async def _look_at_tree(self, wish: SourceWish, name: str, store: ObjectStore, own: Spec) -> OriginSeen:
        found = await survey(store)
        if found.foreign_keys:
            raise PreconditionError(
                "the other namespace holds objects, but none of Brainy's",
                reason="NOT_A_BRAINY_BUCKET",
                remedy="check bucket and prefix",
                namespace=name,
            )
        if not found.trees:
            raise NotFoundError(
                "nothing is stored there", reason="UNKNOWN_NAMESPACE", remedy="check bucket and prefix", namespace=name
            )
        total = await BrainyTreeSource(store, found.trees).total()
        return OriginSeen(
            origin=Origin(namespace=name, without_vectors=wish.without_vectors),
            spec=own.model_copy(update={"dimensions": found.dimensions or own.dimensions, "source": "empty"}),
            nouns=total,
            verbs=0,
            detail=f"{name}: about {total:,} items as Brainy wrote them",
            signs=await signs_of_writers(store, self.elsewhere.clock.wall()),
            trees=tuple(found.trees),
        )

    async def _look_at_cluster(self, name: str, store: ObjectStore, routing: Routing, own: Spec) -> OriginSeen:
        theirs = await read_spec(store, routing.active)
        origin = Origin(namespace=name, generation=routing.active, shard_count=theirs.shard_count)
        cluster = self.cluster(origin)
        answers = await cluster.states(routing)
        nouns, verbs = counted_items(routing, routing.active, answers)
        choice = await read_choice(store)
        signs: tuple[str, ...] = ()
        if theirs.source == "brainy":
            # What Brainy writes into the tree is lost with the switch, whether it is followed until then or not.
            signs = await signs_of_writers(store, self.elsewhere.clock.wall(), mirrored=bool(choice.mirror))
        kept = ("dimensions", "metric", "scalar_kind", "connectivity", "expansion_add", "expansion_search", "embedding")
        return OriginSeen(
            origin=origin,
            spec=own.model_copy(update={**{field: getattr(theirs, field) for field in kept}, "source": "empty"}),
            nouns=nouns,
            verbs=verbs,
            detail=f"{name}: generation {routing.active}, {nouns:,} nouns, {verbs:,} verbs",
            signs=signs,
            problem=cluster.problem(routing, answers) or (_FOLLOWS if choice.follow else ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Backup:
    state: MultisetDigest
    nouns: int
    verbs: int
    dimensions: int
    skipped: int
    sealed: bool
    without_text: int | None
