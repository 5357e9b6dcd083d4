"""Publishing a base to the bucket: segments, index, quarantine, and the manifest that names them.

Before: a finished base on local disk, equal to the shard's log up to ``base.position``; this node owned the shard
at ``epoch`` when the job was given out.

Steps:
  1. Load the manifest. A higher epoch there: FENCED. A position not below ours: nothing to do (DROPPED).
  2. Write segments, index and quarantine under fresh names ``<020d position>-<epoch>-<nonce>``. Nobody reads
     them yet. What was quarantined when the shard was filled does not change: a later manifest names the same file.
  3. Swap the manifest by its ETag. Lost: load it, decide as in step 1, and swap again.

After: PUBLISHED, and every later reader finds a whole checkpoint; or DROPPED, and the manifest names another one at
least as new.

If it crashes before step 3 lands: orphans under fresh names, never half a checkpoint. After: published; the next
fold supersedes it. Cancel safety: as a crash.

A stale owner that still gets here publishes a state that is a function of the log alone, so it can waste space but
not change what readers see; that epoch and position of a manifest never fall keeps it from turning back time.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from brainy.bucket import invariants, layout, segments
from brainy.bucket.items import Noun, Verb
from brainy.bucket.quarantine import QuarantineWriter
from brainy.bucket.records import Manifest, StoredFile
from brainy.dataset.kept import KeptSource, NothingKept
from brainy.errors import ConflictError, FencedError
from brainy.store.cas import CasRegister
from brainy.telemetry.logs import get_logger
from brainy_node.builder.context import Context
from brainy_node.builder.job import Progress
from brainy_node.builder.uploading import upload
from brainy_node.shard import base_record
from brainy_node.shard.base import Base

_log = get_logger(__name__)

#: Bytes of vectors and documents in one segment: few objects to fetch, and bounded memory to fetch them with.
SEGMENT_BYTES = 64 << 20
_ROW_OVERHEAD = 512
_BLOCK_ROWS = 1000
#: Swaps of one manifest that may be lost before giving up; nobody but a rival owner competes.
_ATTEMPTS = 8


class Publication(enum.Enum):
    """What became of a base offered for publication."""

    PUBLISHED = "published"
    #: The manifest names another base that is at least as new.
    DROPPED = "dropped"


def manifest_register(context: Context, shard: int) -> CasRegister[Manifest]:
    """Return the one mutable object of a shard."""
    key = layout.manifest(context.job.spec.generation, shard)
    return CasRegister(
        context.store,
        key,
        encode=Manifest.encode,
        decode=lambda body: Manifest.decode(body, key=key),
        clock=context.clock,
        ids=context.ids,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Segments that are in the bucket already, with the rows of a base in their order."""

    nouns: tuple[StoredFile, ...]
    verbs: tuple[StoredFile, ...]


async def publish(
    context: Context, base: Base, *, kept: KeptSource | None = None, written: Segments | None = None
) -> Publication:
    """Publish a base; the protocol is at the top of this module.

    Args:
        context: the job.
        base: what to publish.
        kept: where the bytes of what is quarantined come from; asked only for the first manifest of a shard.
        written: its segments, where they were written while it was built.

    Raises:
        FencedError: the manifest carries a higher epoch. Terminal for this ownership.
        ConflictError: the manifest was replaced under every attempt.
        UnavailableError, OutcomeUnknownError: the store; what was written is an orphan.
    """
    shard, epoch = base.record.shard, context.job.epochs.get(base.record.shard, 0)
    register = manifest_register(context, shard)
    current = await register.load()
    if _is_superseded(base, epoch, current[0] if current else None):
        return Publication.DROPPED
    quarantine = await _quarantine(context, base, epoch, current[0] if current else None, kept or NothingKept())
    manifest = await _write_files(context, base, epoch, quarantine, written)
    for _ in range(_ATTEMPTS):
        invariants.check_manifest_swap(current[0] if current else None, manifest)
        if await register.swap(manifest, current[1] if current else None):
            _log.info("base_published", shard=shard, position=base.position, epoch=epoch)
            return Publication.PUBLISHED
        current = await register.load()
        if _is_superseded(base, epoch, current[0] if current else None):
            return Publication.DROPPED
    raise ConflictError(
        "the manifest was replaced under every attempt to publish",
        remedy="find out who else publishes this shard; what was written is unreachable and harmless",
        key=register.key,
    )


def _is_superseded(base: Base, epoch: int, stored: Manifest | None) -> bool:
    if stored is None:
        return False
    if stored.epoch > epoch:
        raise FencedError(
            "a newer owner has published this shard",
            remedy="stop; the newer owner serves the shard",
            shard=stored.shard,
            epoch=epoch,
            newer=stored.epoch,
        )
    if stored.position < base.position:
        return False
    _log.info("publication_dropped", shard=stored.shard, position=base.position, stored=stored.position)
    return True


async def _quarantine(
    context: Context, base: Base, epoch: int, stored: Manifest | None, kept: KeptSource
) -> StoredFile | None:
    if stored is not None and stored.quarantine is not None:
        return stored.quarantine
    listed = base.quarantined()
    if not listed:
        return None
    shard = base.record.shard
    path = context.workspace.stage(f"quarantine-{shard}") / "quarantine.parquet"
    with QuarantineWriter(path) as writer:
        async for row in kept.keep(listed):
            await asyncio.to_thread(writer.add, row)
    name = f"{base.record.position:020d}-{epoch}-{context.ids.short()}"
    return await upload(context, path, layout.quarantine(base.record.generation, shard, name), writer.rows)


async def _write_files(
    context: Context, base: Base, epoch: int, quarantine: StoredFile | None, written: Segments | None
) -> Manifest:
    record, generation = base.record, base.record.generation
    nonce = context.ids.short()
    name = f"{record.position:020d}-{epoch}-{nonce}"
    if written is None:
        written = await _write_segments(context, base, name)
    index = None
    if base.index is not None:
        key = layout.checkpoint(generation, record.shard, name, base_record.INDEX)
        index = await upload(context, base.directory / base_record.INDEX, key, base.index.size)
    return Manifest(
        generation=generation,
        shard=record.shard,
        epoch=epoch,
        nonce=context.ids.nonce().hex(),
        position=record.position,
        source_cursor=record.source_cursor,
        source_generation=record.source_generation,
        recent_requests=record.recent_requests,
        nouns=written.nouns,
        verbs=written.verbs,
        index=index,
        quarantine=quarantine,
        noun_count=record.noun_count,
        verb_count=record.verb_count,
        indexed_count=record.indexed_count,
        digest=record.digest,
    )


async def _write_segments(context: Context, base: Base, name: str) -> Segments:
    shard, generation, total = base.record.shard, base.record.generation, base.rows + base.verb_rows
    written: dict[str, list[StoredFile]] = {"nouns": [], "verbs": []}
    directory = context.workspace.stage(f"segments-{shard}")
    done = 0
    context.report(Progress(shard=shard, stage="publishing", done=0, total=total))
    for kind, write in (("nouns", _noun_segments), ("verbs", _verb_segments)):
        for number, (path, rows) in enumerate(await asyncio.to_thread(write, base, directory)):
            key = layout.segment(generation, kind, shard, f"{name}-{number}")
            written[kind].append(await upload(context, path, key, rows))
            done += rows
            context.report(Progress(shard=shard, stage="publishing", done=done, total=total))
    return Segments(nouns=tuple(written["nouns"]), verbs=tuple(written["verbs"]))


def _noun_segments(base: Base, directory: Path) -> list[tuple[Path, int]]:
    """Write every row in order, so that a row number stays the key of its vector in the index."""
    dimensions = base.record.spec.dimensions

    def blocks(start: int, stop: int) -> Iterator[list[Noun]]:
        for first in range(start, stop, _BLOCK_ROWS):
            yield [base.noun(row) for row in range(first, min(first + _BLOCK_ROWS, stop))]

    written = []
    for number, (start, stop) in enumerate(_spans(base.rows, dimensions)):
        path = directory / f"nouns-{number}.parquet"
        written.append((path, segments.write_nouns(path, blocks(start, stop), dimensions=dimensions)))
    return written


def _verb_segments(base: Base, directory: Path) -> list[tuple[Path, int]]:
    dimensions = base.record.spec.dimensions

    def blocks(start: int, stop: int) -> Iterator[list[Verb]]:
        for first in range(start, stop, _BLOCK_ROWS):
            yield [base.verb(row) for row in range(first, min(first + _BLOCK_ROWS, stop))]

    written = []
    for number, (start, stop) in enumerate(_spans(base.verb_rows, dimensions)):
        path = directory / f"verbs-{number}.parquet"
        written.append((path, segments.write_verbs(path, blocks(start, stop), dimensions=dimensions)))
    return written


def _spans(rows: int, dimensions: int) -> list[tuple[int, int]]:
    size = max(_BLOCK_ROWS, SEGMENT_BYTES // (4 * dimensions + _ROW_OVERHEAD))
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]
