"""Writing a native backup: streamed, compressed, hashed, resumable, at one cut.

Protocol
--------
*Before.* The namespace can be read; no cluster needs to run, and one that runs is not asked for anything.

*Steps*

1. Take a cut (``brainy.dataset.cut``): the state to be backed up is fixed from here on. Write it to the journal.
2. For each shard whose log goes beyond its base: replay it, append what it left alive as parts, note what it deleted.
3. For each group of shards: stream the base, leave out what step 2 has named, append the rest as parts.
4. Append the list of what could not be read and the manifest; seal; rename ``.FILE.part`` to FILE; remove the journal.

Steps 2 and 3 are units: after each the archive is on disk up to its last part and the journal says so.

*After.* FILE holds exactly the items of the cut, and hashes that prove it; a former FILE is replaced in one step.

*If it crashes*: a later call with the same namespace and FILE reads the journal, hashes the parts that are there, and
goes on with the next unit, at the *same* cut. It begins anew if the journal is older than six hours, if a part does
not hash to what the journal says, or if the part of the log it still needs has been collected. Incremental backups
are small and always begin anew.

*Cancel safety.* As a crash.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import Field

from brainy.backup.archive import ArchiveWriter, Entry, sha256_of
from brainy.backup.held import as_held
from brainy.backup.manifest import (
    DELETED,
    MANIFEST,
    QUARANTINED,
    BackupManifest,
    DeletedIds,
    Part,
    QuarantinedObjects,
    Since,
)
from brainy.backup.native_reading import CheckedNative, Known, part_items
from brainy.backup.parts import PartSize, PartWriter, ids_of
from brainy.backup.values import BackupFormat, BackupSummary, Progress, no_progress
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import Noun, Verb
from brainy.bucket.records import Record
from brainy.clock import Clock, iso
from brainy.dataset.base import ItemBatch, Quarantined
from brainy.dataset.cut import Cut, CutReader, take_cut
from brainy.dataset.snapshot import Overlay
from brainy.errors import BrainyError, CorruptDataError, LogCollectedError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.telemetry.logs import get_logger

_log = get_logger(__name__)

#: A killed backup is gone on with for so long; whoever comes later wants a newer state.
RESUME_SECONDS: Final = 6 * 3600.0
#: Units of a base: never more than this many LISTs of one tree.
_MAX_UNITS: Final = 64

#: A shard's log, or some shards' base.
Unit: TypeAlias = int | tuple[int, ...]


class Journal(Record):
    """How far a backup has come."""

    namespace: str
    backup_id: str
    cut: Cut
    #: Into how many shards the base is divided, and its units.
    shard_count: int
    groups: tuple[tuple[int, ...], ...]
    units_done: int = 0
    entries: tuple[Entry, ...] = ()
    end: int = 0
    parts: tuple[Part, ...] = ()
    #: How many of the parts hold what logs left alive.
    log_parts: int = 0
    deleted: DeletedIds = DeletedIds()
    quarantined: tuple[tuple[str, str, int], ...] = ()
    positions: dict[int, int] = Field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class NativeOptions:
    """How a native backup is made."""

    since: CheckedNative | None = None
    keep_doubles: bool = True
    #: Go on with a killed backup.
    resume: bool = True
    size: PartSize = field(default_factory=PartSize)
    on_progress: Progress = no_progress


async def write_native(
    store: ObjectStore, namespace: str, path: Path, options: NativeOptions, *, clock: Clock, ids: Ids
) -> BackupSummary:
    """Back up a namespace; see the module for the protocol.

    Raises:
        NotFoundError: nothing is stored there.
        PreconditionError: not a bucket of Brainy's, or another process is making this very file.
        CorruptDataError: something stored is damaged; no file was made.
        UnavailableError: the store cannot be read now; the next call goes on.
        OSError: the file cannot be written.
    """
    journal = None
    if options.resume and options.since is None:
        journal = await asyncio.to_thread(_unfinished, path, namespace, clock)
    if journal is not None:
        try:
            return await _run(store, path, journal, options, resumed=True, clock=clock)
        except (LogCollectedError, _UnfitError) as error:
            _log.warning("backup_begun_anew", file=str(path), cause=str(error))
    cut = await take_cut(store, clock)
    reader = CutReader(store, cut)
    shard_count, groups = _groups(cut, await reader.total(), options.size)
    journal = Journal(namespace=namespace, backup_id=ids.uuid(), cut=cut, shard_count=shard_count, groups=groups)
    return await _run(store, path, journal, options, resumed=False, clock=clock)


class _UnfitError(Exception):
    """What is left of a killed backup cannot be used."""


def _groups(cut: Cut, total: int, size: PartSize) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """Divide the base: a unit reads whole shards, of about ``unit_items`` together."""
    wanted = min(max(1, -(-total // size.unit_items)), _MAX_UNITS)
    shard_count = cut.spec.shard_count if cut.adopted else wanted
    units = min(wanted, shard_count)
    return shard_count, tuple(tuple(range(first, shard_count, units)) for first in range(units))


def _journal_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.journal")


def _archive_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _unfinished(path: Path, namespace: str, clock: Clock) -> Journal | None:
    """Return the journal of a killed backup of this namespace, if it is recent."""
    place = _journal_path(path)
    try:
        journal = Journal.decode(place.read_bytes(), key=str(place))
    except (FileNotFoundError, BrainyError):
        return None
    fresh = 0 <= clock.wall() - journal.cut.began <= RESUME_SECONDS
    return journal if fresh and journal.namespace == namespace else None


async def _run(
    store: ObjectStore, path: Path, journal: Journal, options: NativeOptions, *, resumed: bool, clock: Clock
) -> BackupSummary:
    making = await asyncio.to_thread(_Making, path, journal, options)
    try:
        reader = CutReader(store, journal.cut, keep_doubles=options.keep_doubles)
        if options.since is not None and _by_position(options.since, journal.cut):
            await making.changes(reader, options.since)
        else:
            await making.everything(reader)
        summary = await asyncio.to_thread(making.finish, clock)
    except BaseException:
        await asyncio.to_thread(making.abandon)
        raise
    return BackupSummary(**{**summary, "resumed": resumed})  # type: ignore[arg-type]


def _by_position(since: CheckedNative, cut: Cut) -> bool:
    """Whether the logs alone tell what changed: the same generation, and no tree that others may write to."""
    old = since.manifest
    return (
        cut.adopted
        and not cut.in_place
        and (old.generation, old.generation_created_at) == (cut.spec.generation, cut.spec.created_at)
        and old.shard_count == cut.spec.shard_count
        and old.positions.keys() == set(range(cut.spec.shard_count))
    )


class _Making:
    """A backup that is being made. Everything here but ``changes`` and ``everything`` blocks."""

    def __init__(self, path: Path, journal: Journal, options: NativeOptions) -> None:
        self._path = path
        self._journal = journal
        self._options = options
        self._archive = ArchiveWriter(_archive_path(path), entries=journal.entries, end=journal.end)
        self._writer = PartWriter(
            self._archive,
            path.with_name(f".{path.name}.segment"),
            dimensions=journal.cut.spec.dimensions,
            size=options.size,
        )
        self._writer.parts = list(journal.parts)
        self._state = MultisetDigest()
        self._nouns = self._verbs = self._changed = 0
        #: Ids that the logs name; the base's items of these ids are older.
        self._covered = Overlay()
        self._covered.nouns.update(dict.fromkeys(journal.deleted.nouns))
        self._covered.verbs.update(dict.fromkeys(journal.deleted.verbs))
        self._quarantined = list(journal.quarantined)
        self._deleted = DeletedIds()
        #: Of an incremental backup: what the older one holds and was not seen yet.
        self._old: Known | None = None
        try:
            self._take_up(journal)
            if options.since is not None:
                self._old = options.since.known()
        except BaseException:
            self._archive.abandon()
            raise

    def _take_up(self, journal: Journal) -> None:
        """Count in the parts that a killed process left."""
        for number, (part, entry) in enumerate(zip(journal.parts, journal.entries, strict=True)):
            body = self._archive.read(entry)
            if sha256_of(body) != part.sha256:
                raise _UnfitError(f"{part.name} is not what the journal says")
            try:
                for batch in part_items(body, part.kind):
                    self._count(batch.nouns, batch.verbs)
            except CorruptDataError as error:
                raise _UnfitError(str(error)) from error
            if number < journal.log_parts:
                table = self._covered.nouns if part.kind == "nouns" else self._covered.verbs
                table.update(dict.fromkeys(ids_of(body)))

    def abandon(self) -> None:
        """Let go; what is complete stays for the next attempt."""
        self._writer.abandon()
        self._archive.abandon()
        if self._options.since is not None:
            _archive_path(self._path).unlink(missing_ok=True)

    # --- the two ways -----------------------------------------------------------------------------------------

    async def everything(self, reader: CutReader) -> None:
        """Go through the logs, then through what lies below them."""
        if not self._journal.units_done:
            await asyncio.to_thread(self._note)
        total = await reader.total()
        shards = sorted(self._journal.cut.heads)
        units: list[Unit] = [*shards, *self._journal.groups]
        for unit in units[self._journal.units_done :]:
            if isinstance(unit, int):
                overlay = await reader.overlay(unit)
                await asyncio.to_thread(self._take_overlay, unit, overlay)
            else:
                async with aclosing(_base(reader, unit, self._journal.shard_count)) as batches:
                    async for batch in batches:
                        await asyncio.to_thread(self._take, self._covered.covers(batch))
                        self._options.on_progress(self._nouns + self._verbs, max(total, self._nouns + self._verbs))
            await asyncio.to_thread(self._unit_done, is_log=isinstance(unit, int))
        if self._old is not None:
            self._deleted = self._old.rest()

    async def changes(self, reader: CutReader, since: CheckedNative) -> None:
        """Go through the logs since the older backup only."""
        self._state = since.state.copy()
        self._nouns, self._verbs = since.manifest.nouns, since.manifest.verbs
        gone: tuple[list[str], list[str]] = ([], [])
        for shard in range(self._journal.cut.spec.shard_count):
            try:
                overlay = await reader.overlay(shard, from_position=since.manifest.positions[shard] + 1)
            except LogCollectedError:
                # Too long ago for the logs: compare everything instead.
                self._state, self._nouns, self._verbs = MultisetDigest(), 0, 0
                await asyncio.to_thread(self._restart)
                await self.everything(reader)
                return
            await asyncio.to_thread(self._take_changes, shard, overlay, gone)
        self._deleted = DeletedIds(nouns=tuple(gone[0]), verbs=tuple(gone[1]))
        await asyncio.to_thread(self._writer.flush)

    def _restart(self) -> None:
        self._writer.abandon()
        self._archive.abandon()
        self._archive = ArchiveWriter(_archive_path(self._path))
        self._writer = PartWriter(
            self._archive,
            self._path.with_name(f".{self._path.name}.segment"),
            dimensions=self._journal.cut.spec.dimensions,
            size=self._options.size,
        )
        self._changed = 0
        self._journal = self._journal.model_copy(update={"positions": {}})
        if self._options.since is not None:
            self._old = self._options.since.known()

    # --- items ------------------------------------------------------------------------------------------------

    def _take(self, batch: ItemBatch) -> None:
        self._quarantined += [(found.key, found.reason, found.size) for found in batch.quarantined]
        nouns, verbs = self._count(batch.nouns, batch.verbs)
        self._writer.add(nouns, verbs)

    def _count(self, nouns: Iterable[Noun], verbs: Iterable[Verb]) -> tuple[list[Noun], list[Verb]]:
        """Count items into the state; returns those that belong into the file."""
        kept: tuple[list[Noun], list[Verb]] = ([], [])
        for noun in nouns:
            digest = as_held(noun).digest()
            self._state.add(noun.id, digest)
            self._nouns += 1
            if self._old is None or self._old.nouns.pop(noun.id, None) != digest:
                kept[0].append(noun)
        for verb in verbs:
            digest = as_held(verb).digest()
            self._state.add(verb.id, digest)
            self._verbs += 1
            if self._old is None or self._old.verbs.pop(verb.id, None) != digest:
                kept[1].append(verb)
        self._changed += len(kept[0]) + len(kept[1])
        return kept

    def _take_overlay(self, shard: int, overlay: Overlay) -> None:
        for batch in overlay.items():
            self._take(batch)
        self._covered.nouns.update(dict.fromkeys(overlay.nouns))
        self._covered.verbs.update(dict.fromkeys(overlay.verbs))
        old = self._journal.deleted
        deleted = DeletedIds(
            nouns=(*old.nouns, *(item_id for item_id, noun in overlay.nouns.items() if noun is None)),
            verbs=(*old.verbs, *(item_id for item_id, verb in overlay.verbs.items() if verb is None)),
        )
        positions = {**self._journal.positions, **overlay.positions}
        self._journal = self._journal.model_copy(update={"deleted": deleted, "positions": positions})

    def _take_changes(self, shard: int, overlay: Overlay, gone: tuple[list[str], list[str]]) -> None:
        old = self._old
        if old is None:
            raise RuntimeError("changes are relative to an older backup")
        for noun_id, noun in overlay.nouns.items():
            before = old.nouns.get(noun_id)
            if before is not None:
                self._state.remove(noun_id, before)
                self._nouns -= 1
                if noun is None:
                    gone[0].append(noun_id)
        for verb_id, verb in overlay.verbs.items():
            before = old.verbs.get(verb_id)
            if before is not None:
                self._state.remove(verb_id, before)
                self._verbs -= 1
                if verb is None:
                    gone[1].append(verb_id)
        for batch in overlay.items():
            self._take(batch)
        positions = {**self._journal.positions, **overlay.positions}
        self._journal = self._journal.model_copy(update={"positions": positions})

    # --- the journal and the end ------------------------------------------------------------------------------

    def _unit_done(self, *, is_log: bool) -> None:
        self._writer.flush()
        parts = tuple(self._writer.parts)
        self._journal = self._journal.model_copy(
            update={
                "units_done": self._journal.units_done + 1,
                "entries": tuple(self._archive.entries),
                "end": self._archive.end,
                "parts": parts,
                "log_parts": len(parts) if is_log else self._journal.log_parts,
                "quarantined": tuple(self._quarantined),
            }
        )
        self._note()

    def _note(self) -> None:
        if self._options.since is not None:
            return
        place = _journal_path(self._path)
        draft = place.with_name(f"{place.name}.tmp")
        with draft.open("wb") as file:
            file.write(self._journal.encode())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)

    def finish(self, clock: Clock) -> dict[str, object]:
        """Seal the archive and give it its name; returns the fields of the summary."""
        cut, since = self._journal.cut, self._options.since
        if since is not None:
            self._append(DELETED, "deleted", self._deleted, len(self._deleted.nouns) + len(self._deleted.verbs))
        if self._quarantined:
            listed = QuarantinedObjects(objects=tuple(self._quarantined))
            self._append(QUARANTINED, "quarantined", listed, len(self._quarantined))
        positions = {}
        if cut.adopted:
            positions = {
                shard: self._journal.positions.get(shard, cut.floor(shard)) for shard in range(cut.spec.shard_count)
            }
        manifest = BackupManifest(
            backup_id=self._journal.backup_id,
            namespace=self._journal.namespace,
            created_at=iso(clock.wall()),
            dimensions=cut.spec.dimensions,
            metric=cut.spec.metric,
            generation=cut.spec.generation,
            generation_created_at=cut.spec.created_at,
            shard_count=cut.spec.shard_count,
            positions=positions,
            cut_began=cut.began,
            cut_ended=cut.ended,
            settled=cut.settled,
            since=None
            if since is None
            else Since(backup_id=since.manifest.backup_id, file=since.path.name, digest=since.manifest.digest),
            nouns=self._nouns,
            verbs=self._verbs,
            digest=self._state.fold(),
            parts=tuple(self._writer.parts),
        )
        self._archive.add_bytes(MANIFEST, manifest.encode())
        size = self._archive.seal()
        _archive_path(self._path).replace(self._path)
        _sync_directory(self._path.parent)
        _journal_path(self._path).unlink(missing_ok=True)
        return {
            "file": str(self._path),
            "format": BackupFormat.NATIVE,
            "nouns": manifest.nouns,
            "verbs": manifest.verbs,
            "bytes": size,
            "digest": manifest.digest,
            "dimensions": manifest.dimensions,
            "backup_id": manifest.backup_id,
            "positions": positions,
            "settled": manifest.settled,
            "changed": self._changed if since is not None else 0,
            "deleted": len(self._deleted.nouns) + len(self._deleted.verbs),
            "since": "" if since is None else str(since.path),
            "quarantined": tuple(Quarantined(key, reason, found) for key, reason, found in self._quarantined),
        }

    def _append(self, name: str, kind: str, record: Record, rows: int) -> None:
        entry = self._archive.add_bytes(name, record.encode())
        part = Part.model_validate(
            {"name": name, "kind": kind, "rows": rows, "size": entry.size, "sha256": entry.sha256}
        )
        self._writer.parts.append(part)


async def _base(reader: CutReader, shards: tuple[int, ...], shard_count: int) -> AsyncGenerator[ItemBatch]:
    async for batch in reader.base(shards, shard_count):
        yield batch


def _sync_directory(directory: Path) -> None:
    # The new name must survive a power failure too.
    with suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
