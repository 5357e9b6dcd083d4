"""Parts: what is read of a source becomes segments in the bucket while the copy goes on, and is not read again.

Before: this node owns the shards of the job; none of them has a manifest.

Steps:
  1. For each shard load ``filling/<shard>.json``. A higher epoch there: FENCED. Where it speaks of the same source, its
     segments are fetched, hashed and added to the base in their order; what the source still has to yield comes after
     its ``place``, or is not among the ids held.
  2. Rows are added to the base and to the open segments alike, so that both have them in one order. Every 64 MB, and
     every half minute, and at the end, the segments are closed and written under fresh names.
  3. Then ``filling/<shard>.json`` is swapped by its ETag: the segments so far and the place that comes after them.

After: the segments hold the rows of the base, in order, and are what the manifest will name.

If it crashes before a step 3 lands: the rows since the last part are read again, by this node or another; segments
that nobody names are orphans. After it: they are not. Cancel safety: as a crash.

An owner that was replaced goes on until its next swap, which is FENCED: a newer owner's first swap raises the epoch.
What it wrote until then lies under names of its own. Damaged segments are dropped, and the shard is read anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from brainy.bucket import layout, segments
from brainy.bucket.filling import Filling, FillSource
from brainy.bucket.items import Noun, Verb
from brainy.bucket.records import StoredFile
from brainy.dataset.base import Held
from brainy.errors import ConflictError, CorruptDataError, FencedError
from brainy.store.cas import CasRegister
from brainy.telemetry.logs import get_logger
from brainy_node.builder.context import Context
from brainy_node.builder.downloading import fetch
from brainy_node.builder.job import Progress
from brainy_node.builder.publication import Segments
from brainy_node.builder.source import ChosenSource, source_at
from brainy_node.builder.uploading import upload
from brainy_node.shard.writer import BaseWriter

_log = get_logger(__name__)

_ROW_OVERHEAD = 512
#: Swaps of one object that may be lost before giving up; nobody but an owner that was replaced competes.
_ATTEMPTS = 8


@dataclass(slots=True)
class _Open:
    """The segments of one shard that are being written."""

    nouns: segments.NounSegmentWriter | None = None
    verbs: segments.VerbSegmentWriter | None = None


@dataclass(slots=True)
class ShardParts:
    """What of one shard is in the bucket."""

    shard: int
    source_key: str = ""
    place: int = 0
    nouns: list[StoredFile] = field(default_factory=list)
    verbs: list[StoredFile] = field(default_factory=list)
    #: Items taken over from an earlier run.
    resumed: int = 0
    #: Of a source without places: ids that are held, nouns and verbs apart.
    held_nouns: set[str] = field(default_factory=set)
    held_verbs: set[str] = field(default_factory=set)
    etag: str | None = None

    @property
    def rows(self) -> int:
        """Items in the parts."""
        return sum(file.rows for file in (*self.nouns, *self.verbs))


class Parts:
    """The parts of a job's shards; the protocol is at the top of this module."""

    def __init__(self, context: Context, shards: Sequence[int]) -> None:
        self._context = context
        self._dimensions = context.job.spec.dimensions
        self._directory = context.workspace.stage("parts")
        self._files = 0
        self._open: dict[int, _Open] = {}
        self._pending_bytes = 0
        self._cut_at = context.clock.monotonic()
        self._own_source_key = ""
        self.shards: dict[int, ShardParts] = {shard: ShardParts(shard) for shard in shards}

    # --- taking over ------------------------------------------------------------------------------------------

    async def resume(self, chosen: ChosenSource, writers: Mapping[int, BaseWriter]) -> dict[int, ChosenSource]:
        """Take over what earlier runs have written; returns the source that each shard goes on with.

        Raises:
            FencedError: a newer owner fills one of the shards.
            BrainyError: the store.
        """
        sources: dict[str, ChosenSource | None] = {}
        going_on: dict[int, ChosenSource] = {}
        for shard, writer in writers.items():
            found = await self._register(shard).load()
            parts = self.shards[shard]
            if found is None:
                going_on[shard] = chosen
                continue
            filling, parts.etag = found
            self._refuse_newer(filling)
            if filling.source_key not in sources:
                sources[filling.source_key] = await self._source(chosen, filling)
            source = sources[filling.source_key]
            if source is not None and await self._take_over(filling, parts, writer):
                going_on[shard] = source
            else:
                _log.warning("parts_dropped", shard=shard, items=filling.rows)
                going_on[shard] = chosen
        return going_on

    async def _source(self, chosen: ChosenSource, filling: Filling) -> ChosenSource | None:
        """The source that the parts are of, if it still is what the generation is filled from."""
        if not filling.source_key or chosen.generation is None:
            # A tree does not move while it is filled from; once it may, it is published and no source any more.
            return chosen if not filling.source_key and chosen.generation is None else None
        found = await self._context.store.get(filling.source_key)
        if found is None:
            return None
        kept = FillSource.decode(found.body, key=filling.source_key)
        if kept.generation != chosen.generation:
            return None
        return await source_at(self._context.store, kept)

    async def _take_over(self, filling: Filling, parts: ShardParts, writer: BaseWriter) -> bool:
        directory = self._context.workspace.stage(f"taken-{filling.shard}")
        try:
            nouns = [await fetch(self._context, f, directory / f"nouns-{i}") for i, f in enumerate(filling.nouns)]
            verbs = [await fetch(self._context, f, directory / f"verbs-{i}") for i, f in enumerate(filling.verbs)]
        except CorruptDataError as error:
            _log.warning("part_damaged", shard=filling.shard, cause=str(error))
            return False
        await asyncio.to_thread(self._add_taken, filling, parts, writer, nouns, verbs)
        parts.source_key, parts.place = filling.source_key, filling.place
        parts.nouns, parts.verbs = list(filling.nouns), list(filling.verbs)
        parts.resumed = filling.rows
        _log.info("copy_resumed", shard=filling.shard, items=filling.rows, place=filling.place)
        return True

    def _add_taken(
        self, filling: Filling, parts: ShardParts, writer: BaseWriter, nouns: Sequence[Path], verbs: Sequence[Path]
    ) -> None:
        for path in nouns:
            for some in segments.read_nouns(path):
                writer.add_nouns(some)
                if not filling.source_key:
                    parts.held_nouns.update(noun.id for noun in some)
            path.unlink()
        for path in verbs:
            for more in segments.read_verbs(path):
                writer.add_verbs(more)
                if not filling.source_key:
                    parts.held_verbs.update(verb.id for verb in more)
            path.unlink()

    # --- going on ---------------------------------------------------------------------------------------------

    async def begin(self, chosen: ChosenSource, shards: Collection[int]) -> None:
        """Say which source the rows of these shards come from, from now on."""
        fresh = [shard for shard in shards if not self.shards[shard].resumed]
        if not fresh or chosen.generation is None:
            return
        if not self._own_source_key:
            name = self._context.ids.short()
            self._own_source_key = layout.fill_source(self._context.job.spec.generation, name)
            kept = FillSource(generation=chosen.generation, manifests=tuple(chosen.manifests))
            await self._context.store.put(self._own_source_key, kept.encode())
        for shard in fresh:
            self.shards[shard].source_key = self._own_source_key

    def add(self, shard: int, nouns: Sequence[Noun], verbs: Sequence[Verb]) -> None:
        """Add rows in the order in which the base got them."""
        opened = self._open.setdefault(shard, _Open())
        if nouns:
            if opened.nouns is None:
                opened.nouns = segments.NounSegmentWriter(self._path("nouns"), dimensions=self._dimensions)
            opened.nouns.append(nouns)
        if verbs:
            if opened.verbs is None:
                opened.verbs = segments.VerbSegmentWriter(self._path("verbs"), dimensions=self._dimensions)
            opened.verbs.append(verbs)
        self._pending_bytes += sum(map(_weight, nouns)) + sum(map(_weight, verbs))

    def _path(self, kind: str) -> Path:
        self._files += 1
        return self._directory / f"{kind}-{self._files}.parquet"

    @property
    def due(self) -> bool:
        """Whether a part is large enough, or old enough, to be written."""
        job, now = self._context.job, self._context.clock.monotonic()
        return self._pending_bytes >= job.part_bytes or (
            self._pending_bytes > 0 and now - self._cut_at >= job.part_seconds
        )

    async def cut(self, place: int) -> None:
        """Write the open segments, then say so; ``place`` is where the source goes on.

        Raises:
            FencedError: a newer owner fills one of the shards.
            BrainyError: the store.
        """
        opened, self._open = self._open, {}
        self._pending_bytes, self._cut_at = 0, self._context.clock.monotonic()
        for shard, each in opened.items():
            parts = self.shards[shard]
            if each.nouns is not None:
                parts.nouns.append(await self._write(shard, "nouns", each.nouns))
            if each.verbs is not None:
                parts.verbs.append(await self._write(shard, "verbs", each.verbs))
            parts.place = place
            await self._swap(parts)
        for parts in self.shards.values():
            if parts.shard in opened:
                self._context.report(
                    Progress(shard=parts.shard, stage="publishing", done=parts.rows, resumed=parts.resumed)
                )

    def held(self, shards: Collection[int]) -> Held:
        """Return the ids of a source without places that these shards hold already."""
        parts = [self.shards[shard] for shard in shards]
        return Held(
            nouns=frozenset().union(*(part.held_nouns for part in parts)),
            verbs=frozenset().union(*(part.held_verbs for part in parts)),
        )

    def written(self, shard: int) -> Segments:
        """Return what was written of a shard; all of it once the source was read to its end."""
        parts = self.shards[shard]
        self._context.report(
            Progress(shard=shard, stage="publishing", done=parts.rows, total=parts.rows, resumed=parts.resumed)
        )
        return Segments(nouns=tuple(parts.nouns), verbs=tuple(parts.verbs))

    def close(self) -> None:
        """Close the files that are open."""
        with ExitStack() as closing:
            for opened in self._open.values():
                for writer in (opened.nouns, opened.verbs):
                    if writer is not None:
                        closing.callback(writer.abandon)
        self._open = {}

    async def _write(
        self, shard: int, kind: str, writer: segments.NounSegmentWriter | segments.VerbSegmentWriter
    ) -> StoredFile:
        rows = await asyncio.to_thread(writer.close)
        epoch = self._context.job.epochs.get(shard, 0)
        name = f"{0:020d}-{epoch}-{self._context.ids.short()}"
        key = layout.segment(self._context.job.spec.generation, kind, shard, name)
        stored = await upload(self._context, writer.path, key, rows)
        writer.path.unlink()
        return stored

    async def _swap(self, parts: ShardParts) -> None:
        register = self._register(parts.shard)
        for _ in range(_ATTEMPTS):
            filling = Filling(
                generation=self._context.job.spec.generation,
                shard=parts.shard,
                epoch=self._context.job.epochs.get(parts.shard, 0),
                nonce=self._context.ids.nonce().hex(),
                source_key=parts.source_key,
                place=parts.place,
                nouns=tuple(parts.nouns),
                verbs=tuple(parts.verbs),
            )
            etag = await register.exchange(filling, parts.etag)
            if etag is not None:
                parts.etag = etag
                return
            current = await register.load()
            if current is not None:
                self._refuse_newer(current[0])
            parts.etag = current[1] if current is not None else None
        raise ConflictError(
            "the state of a copy was replaced under every attempt to write it",
            remedy="find out who else fills this shard; what was written is unreachable and harmless",
            key=register.key,
        )

    def _refuse_newer(self, filling: Filling) -> None:
        epoch = self._context.job.epochs.get(filling.shard, 0)
        if filling.epoch > epoch:
            raise FencedError(
                "a newer owner fills this shard",
                remedy="stop; the newer owner goes on with it",
                shard=filling.shard,
                epoch=epoch,
                newer=filling.epoch,
            )

    def _register(self, shard: int) -> CasRegister[Filling]:
        key = layout.filling(self._context.job.spec.generation, shard)
        return CasRegister(
            self._context.store,
            key,
            encode=Filling.encode,
            decode=lambda body: Filling.decode(body, key=key),
            clock=self._context.clock,
            ids=self._context.ids,
        )


def _weight(item: Noun | Verb) -> int:
    return len(item.vector) + len(item.metadata or b"") + len(item.attributes or b"") + _ROW_OVERHEAD
