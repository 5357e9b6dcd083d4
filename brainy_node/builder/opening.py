"""Opening a published generation: from its manifests to local bases, every byte hashed on the way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from brainy.bucket import invariants, layout, segments
from brainy.bucket.quarantine import read_quarantine
from brainy.bucket.records import Manifest, Spec, StoredFile
from brainy.errors import CorruptDataError, UnavailableError
from brainy.telemetry.logs import get_logger
from brainy_node.builder.context import Context
from brainy_node.builder.copying import log_base
from brainy_node.builder.downloading import fetch as fetch_file
from brainy_node.builder.job import Built, Progress
from brainy_node.shard import base_record, index
from brainy_node.shard.writer import BaseWriter

_log = get_logger(__name__)

#: Files of one shard fetched at a time; memory is this many parts.
_AT_ONCE = 3


async def open_shard(context: Context, shard: int, manifest: Manifest | None = None) -> Built:
    """Build a local base from a shard's manifest.

    One GET for the manifest and one for each file up to 32 MB. Files are hashed while they are written to disk and
    read only afterwards. A damaged segment is an error; a damaged index is built anew from the segments, which
    hold everything it does.

    Raises:
        UnavailableError: there is no manifest (SHARD_NOT_READY): nobody has filled the shard yet, or its generation
            is out of service and being deleted.
        CorruptDataError: a segment does not hash to what the manifest says, or its rows do not add up to the
            manifest's digest. No base was left behind.
    """
    spec = context.job.spec
    if manifest is None:
        manifest = await _read_manifest(context, shard)
    directory = context.workspace.stage(f"download-{shard}")
    try:
        files = await _download(context, manifest, directory)
    except CorruptDataError as error:
        # A generation that is deleted loses its manifests first: what vanished then is no damage.
        key = layout.manifest(spec.generation, shard)
        if await context.store.get(key) is None:
            raise UnavailableError(
                "the shard's generation is out of service and being deleted",
                reason="SHARD_NOT_READY",
                remedy="none is needed: this node finds out with the next routing record",
                key=key,
            ) from error
        raise
    indexing = _StoredIndex(files.index, spec, context.job.threads)
    with BaseWriter(context.workspace.stage(f"s{shard}"), spec=spec, shard=shard) as writer:
        record = await asyncio.to_thread(_write, context, manifest, files, writer, indexing)
    if (record.digest, record.noun_count, record.verb_count) != (
        manifest.digest,
        manifest.noun_count,
        manifest.verb_count,
    ):
        raise CorruptDataError(
            "the segments do not add up to the digest of their manifest",
            remedy="restore the shard from a copy; nothing was served from it",
            data_safe=False,
            key=layout.manifest(spec.generation, shard),
        )
    log_base(record)
    place = context.workspace.settle(writer.directory, shard=shard, position=record.position)
    return Built(shard=shard, directory=str(place), position=record.position, published=True, rebuilt=indexing.rebuilt)


async def _read_manifest(context: Context, shard: int) -> Manifest:
    key = layout.manifest(context.job.spec.generation, shard)
    found = await context.store.get(key)
    if found is None:
        raise UnavailableError(
            "the shard has not been published yet",
            reason="SHARD_NOT_READY",
            remedy="retry once its owner has filled it",
            key=key,
        )
    manifest = Manifest.decode(found.body, key=key)
    invariants.check_manifest(manifest, key=key)
    return manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """Where the downloads lie; all but ``index`` are verified."""

    nouns: list[Path]
    verbs: list[Path]
    quarantine: Path | None
    #: None if there is none, or it was damaged.
    index: Path | None


async def _download(context: Context, manifest: Manifest, directory: Path) -> _Files:
    limit = asyncio.Semaphore(_AT_ONCE)

    async def fetch(file: StoredFile, name: str) -> Path:
        async with limit:
            return await fetch_file(context, file, directory / name)

    async def fetch_index(file: StoredFile) -> Path | None:
        try:
            return await fetch(file, "index")
        except CorruptDataError as error:
            _log.warning("index_damaged", key=file.key, cause=str(error))
            return None

    try:
        async with asyncio.TaskGroup() as group:
            nouns = [group.create_task(fetch(file, f"nouns-{i}")) for i, file in enumerate(manifest.nouns)]
            verbs = [group.create_task(fetch(file, f"verbs-{i}")) for i, file in enumerate(manifest.verbs)]
            listed = group.create_task(fetch(manifest.quarantine, "quarantine")) if manifest.quarantine else None
            stored = group.create_task(fetch_index(manifest.index)) if manifest.index else None
    except ExceptionGroup as failures:
        # The others were cancelled; the first failure is what the caller acts on.
        raise failures.exceptions[0] from failures
    return _Files(
        nouns=[task.result() for task in nouns],
        verbs=[task.result() for task in verbs],
        quarantine=listed.result() if listed else None,
        index=stored.result() if stored else None,
    )


def _write(
    context: Context, manifest: Manifest, files: _Files, writer: BaseWriter, indexing: _StoredIndex
) -> base_record.BaseRecord:
    total = manifest.noun_count + manifest.verb_count
    for path in files.nouns:
        for nouns in segments.read_nouns(path):
            writer.add_nouns(nouns)
            context.report(_reading(writer, manifest.shard, total))
        path.unlink()
    for path in files.verbs:
        for verbs in segments.read_verbs(path):
            writer.add_verbs(verbs)
            context.report(_reading(writer, manifest.shard, total))
        path.unlink()
    if files.quarantine is not None and manifest.quarantine is not None:
        for row in read_quarantine(files.quarantine, key=manifest.quarantine.key, with_bytes=False):
            writer.add_quarantined(row.key, row.reason, row.size)
    return writer.finish(
        position=manifest.position,
        source_cursor=manifest.source_cursor,
        source_generation=manifest.source_generation,
        recent_requests=manifest.recent_requests,
        threads=context.job.threads,
        make_index=indexing.make,
    )


def _reading(writer: BaseWriter, shard: int, total: int) -> Progress:
    return Progress(shard=shard, stage="reading", done=writer.noun_count + writer.verb_count, total=total)


class _StoredIndex:
    """Puts the downloaded index in place, or builds one if that cannot be used."""

    def __init__(self, path: Path | None, spec: Spec, threads: int) -> None:
        self._path = path
        self._spec = spec
        self._threads = threads
        self.rebuilt = False

    def make(self, target: Path, matrix: index.Matrix, keys: index.Keys) -> int:
        """Write the index over ``matrix[keys]`` to ``target``."""
        if self._path is not None:
            try:
                index.VectorIndex.view(self._path, self._spec, expected=len(keys))
            except CorruptDataError as error:
                _log.warning("index_unfit", cause=str(error))
            else:
                self._path.rename(target)
                return 0
        _log.warning("index_rebuilt", generation=self._spec.generation, rows=len(keys))
        index.build(target, matrix, keys, self._spec, self._threads)
        self.rebuilt = True
        return 0
