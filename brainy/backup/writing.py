"""``write_backup``: a backup of either format, straight from a bucket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

from brainy.backup.document_writing import write_document
from brainy.backup.native import NativeOptions, write_native
from brainy.backup.native_reading import CheckedNative
from brainy.backup.parts import PartSize
from brainy.backup.values import BackupFormat, BackupSummary, Progress, no_progress
from brainy.clock import Clock
from brainy.dataset.base import ItemBatch
from brainy.dataset.cut import Cut, CutReader, take_cut
from brainy.dataset.snapshot import Overlay
from brainy.errors import InvalidRequestError, PreconditionError
from brainy.ids import Ids
from brainy.store.base import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """What backup to write."""

    format: BackupFormat = BackupFormat.BRAINY
    #: A native backup of the same namespace: write only what changed since.
    since: Path | None = None
    #: Keep the numbers of Brainy's own trees as they are stored, beside their float32 values.
    keep_doubles: bool = True
    #: Go on with a killed native backup.
    resume: bool = True
    part_size: PartSize = field(default_factory=PartSize)
    on_progress: Progress = no_progress


async def write_backup(
    store: ObjectStore, namespace: str, path: Path, options: BackupOptions, *, clock: Clock, ids: Ids
) -> BackupSummary:
    """Write the state of a namespace, as of one cut, to a file. No cluster needs to run; one that runs is not slowed.

    Args:
        store: of the namespace; only read.
        namespace: its canonical name, for the record.
        path: the file; a former one is replaced once the new one is complete.
        options: see there.
        clock: for the record.
        ids: for the backup's identity.

    Raises:
        NotFoundError: nothing is stored there.
        PreconditionError: the directory does not exist, or it is no bucket of Brainy's.
        InvalidRequestError: ``since`` is not a native backup of this namespace.
        CorruptDataError: something stored, or ``since``, is damaged; no file was made.
        UnavailableError: the store cannot be read now.
        OSError: the file cannot be written.
    """
    if not path.parent.is_dir():
        raise PreconditionError(
            "the directory of the backup file does not exist",
            remedy="create it",
            directory=path.parent.resolve(),
        )
    if options.format is BackupFormat.NATIVE:
        return await _native(store, namespace, path, options, clock=clock, ids=ids)
    if options.since is not None:
        raise InvalidRequestError("only native backups are incremental", remedy="add --format native")
    cut = await take_cut(store, clock)
    reader = CutReader(store, cut, keep_doubles=options.keep_doubles)
    positions: dict[int, int] = {}
    written = await write_document(path, _whole(reader, positions, options.on_progress), dimensions=cut.spec.dimensions)
    return BackupSummary(
        file=str(path),
        format=BackupFormat.BRAINY,
        nouns=written.nouns,
        verbs=written.verbs,
        bytes=written.bytes,
        digest=written.digest,
        dimensions=written.dimensions,
        positions=positions,
        settled=cut.settled,
        quarantined=written.quarantined,
    )


async def _native(
    store: ObjectStore, namespace: str, path: Path, options: BackupOptions, *, clock: Clock, ids: Ids
) -> BackupSummary:
    older = None if options.since is None else await asyncio.to_thread(_older, options.since, path, namespace)
    try:
        return await write_native(
            store,
            namespace,
            path,
            NativeOptions(
                since=older,
                keep_doubles=options.keep_doubles,
                resume=options.resume,
                size=options.part_size,
                on_progress=options.on_progress,
            ),
            clock=clock,
            ids=ids,
        )
    finally:
        if older is not None:
            older.close()


def _older(since: Path, path: Path, namespace: str) -> CheckedNative:
    """Check the backup an incremental one builds on, and that the two can lie side by side."""
    if since.resolve().parent != path.resolve().parent or since.resolve() == path.resolve():
        raise InvalidRequestError(
            "an incremental backup is another file beside the one it builds on",
            remedy="write it into the same directory, under another name",
            since=since,
            file=path,
        )
    older = CheckedNative(since)
    if older.manifest.namespace != namespace:
        older.close()
        raise InvalidRequestError(
            "the older backup is of another namespace",
            remedy="name one of this namespace with --since",
            namespace=namespace,
            since=older.manifest.namespace,
        )
    return older


async def _whole(reader: CutReader, positions: dict[int, int], on_progress: Progress) -> AsyncGenerator[ItemBatch]:
    """Yield every item of a cut."""
    cut: Cut = reader.cut
    total = await reader.total()
    covered = Overlay()
    done = 0
    if cut.adopted:
        positions.update({shard: cut.floor(shard) for shard in range(cut.spec.shard_count)})
    for shard in sorted(cut.heads):
        overlay = await reader.overlay(shard)
        positions.update(overlay.positions)
        for batch in overlay.items():
            done += len(batch.nouns) + len(batch.verbs)
            on_progress(done, max(total, done))
            yield batch
        covered.nouns.update(dict.fromkeys(overlay.nouns))
        covered.verbs.update(dict.fromkeys(overlay.verbs))
    async for batch in reader.base(range(cut.spec.shard_count), cut.spec.shard_count):
        kept = covered.covers(batch)
        done += len(kept.nouns) + len(kept.verbs)
        on_progress(done, max(total, done))
        yield kept
