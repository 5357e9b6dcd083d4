"""Checking a native backup, and reading its items.

A check reads the whole file: the hash over all bytes, the manifest's own checksum, the hash and the row count of every
part, every item; and of an incremental backup every file of its chain. In the end the digest of what was read must be
the digest the backup was sealed with. Only then does anybody use an item of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from brainy.backup.archive import Archive, sha256_of
from brainy.backup.held import as_held
from brainy.backup.manifest import DELETED, MANIFEST, BackupManifest, DeletedIds
from brainy.backup.scanning import not_whole
from brainy.backup.values import BackupFormat, Progress, Verification, no_progress
from brainy.bucket import segments
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import check_ids
from brainy.dataset.base import ItemBatch
from brainy.errors import CorruptDataError, InvalidRequestError, NotFoundError, PreconditionError

_BATCH = 1000
#: Files of up to so many bytes are unpacked once: what the check read is handed out again.
_KEPT_BYTES = 128 << 20


@dataclass(slots=True)
class Known:
    """Digests of a backup's items by id."""

    nouns: dict[str, bytes] = field(default_factory=dict)
    verbs: dict[str, bytes] = field(default_factory=dict)

    def rest(self) -> DeletedIds:
        """Return the ids that are left."""
        return DeletedIds(nouns=tuple(self.nouns), verbs=tuple(self.verbs))


class NativeFile:
    """One archive of a chain, its bytes checked, its items not yet."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            NotFoundError: there is no such file.
            CorruptDataError: it is not whole.
            PreconditionError: written by a newer version of the software.
            InvalidRequestError: it is something else.
        """
        if not path.is_file():
            raise NotFoundError("there is no such backup file", remedy="check the path", file=path)
        self.path = path
        self._archive = Archive(path)
        body = self._archive.entry(MANIFEST)
        self.manifest = BackupManifest.decode(body.to_pybytes(), key=f"{path.name}:{MANIFEST}")
        if self._archive.names != [*(part.name for part in self.manifest.parts), MANIFEST]:
            raise not_whole("its entries are not those of its manifest", file=path)
        for part in self.manifest.parts:
            found = self._archive.entry(part.name)
            if found.size != part.size or sha256_of(found) != part.sha256:
                raise not_whole(f"{part.name} does not hash to what the manifest says", file=path)

    def batches(self, kind: str) -> Iterator[ItemBatch]:
        """Yield the items of one kind, as they were read from the source.

        Raises:
            CorruptDataError: a part has other rows than the manifest says.
        """
        for part in self.manifest.parts:
            if part.kind != kind:
                continue
            rows = 0
            for batch in part_items(self._archive.entry(part.name), kind):
                rows += len(batch.nouns) + len(batch.verbs)
                yield batch
            if rows != part.rows:
                raise not_whole(f"{part.name} has other rows than the manifest says", file=self.path)

    def deleted(self) -> DeletedIds:
        """Return the ids that an incremental backup takes away."""
        if self.manifest.since is None:
            return DeletedIds()
        return DeletedIds.decode(self._archive.entry(DELETED).to_pybytes(), key=f"{self.path.name}:{DELETED}")

    def close(self) -> None:
        """Unmap it."""
        self._archive.close()


class CheckedNative:
    """A native backup that was checked, with everything it builds on."""

    def __init__(self, path: Path, on_progress: Progress = no_progress) -> None:
        """Check it.

        Raises:
            CorruptDataError: a file of the chain is not whole.
            NotFoundError: a file of the chain is not there.
            InvalidRequestError: it is no backup.
        """
        self.path = path
        self._files = _chain(path)
        self._known = Known()
        small = sum(part.size for file in self._files for part in file.manifest.parts) <= _KEPT_BYTES
        #: The items, if there are few enough.
        self._kept: list[ItemBatch] | None = [] if small else None
        self._checked = False
        self._state = MultisetDigest()
        try:
            self._verification = self._read_through(on_progress)
        except BaseException:
            self.close()
            raise

    @property
    def manifest(self) -> BackupManifest:
        """The newest file's manifest."""
        return self._files[0].manifest

    @property
    def verification(self) -> Verification:
        """What the check found."""
        return self._verification

    @property
    def state(self) -> MultisetDigest:
        """The digest of its items, not yet folded."""
        return self._state

    def known(self) -> Known:
        """Return the digests of its items, to be changed at will."""
        if not self._known.nouns and not self._known.verbs:
            for batch in self.items():
                self._known.nouns.update((noun.id, noun.digest()) for noun in batch.nouns)
                self._known.verbs.update((verb.id, verb.digest()) for verb in batch.verbs)
        return Known(dict(self._known.nouns), dict(self._known.verbs))

    def items(self) -> Iterator[ItemBatch]:
        """Yield the items as a namespace holds them, each once, nouns first."""
        if self._checked and self._kept is not None:
            yield from self._kept
            return
        for batch in self._of_kind("nouns"):
            yield ItemBatch(nouns=[as_held(noun) for noun in batch.nouns])
        for batch in self._of_kind("verbs"):
            yield ItemBatch(verbs=[as_held(verb) for verb in batch.verbs])

    def close(self) -> None:
        """Unmap the files."""
        for file in self._files:
            file.close()

    def _of_kind(self, kind: str) -> Iterator[ItemBatch]:
        if len(self._files) == 1:
            yield from self._files[0].batches(kind)
            return
        # Newest first: the first word on an id is the last one.
        named: set[str] = set()
        for file in self._files:
            taken: list[str] = []
            for batch in file.batches(kind):
                kept = ItemBatch(
                    nouns=[noun for noun in batch.nouns if noun.id not in named],
                    verbs=[verb for verb in batch.verbs if verb.id not in named],
                )
                taken += [noun.id for noun in batch.nouns]
                taken += [verb.id for verb in batch.verbs]
                yield kept
            deleted = file.deleted()
            named.update(taken, deleted.nouns if kind == "nouns" else deleted.verbs)

    def _read_through(self, on_progress: Progress) -> Verification:
        manifest = self.manifest
        nouns: set[str] = set()
        verbs: set[str] = set()
        ends: list[tuple[str, str]] = []
        lengths: Counter[int] = Counter()
        total = manifest.nouns + manifest.verbs
        try:
            for batch in self.items():
                if self._kept is not None:
                    self._kept.append(batch)
                ids, verb_ids = [noun.id for noun in batch.nouns], [verb.id for verb in batch.verbs]
                check_ids([*ids, *verb_ids])
                check_ids([end for verb in batch.verbs for end in (verb.source_id, verb.target_id)])
                lengths.update([len(noun.vector) // 4 for noun in batch.nouns])
                ends += [(verb.source_id, verb.target_id) for verb in batch.verbs]
                self._state.add_all(ids, [noun.digest() for noun in batch.nouns])
                self._state.add_all(verb_ids, [verb.digest() for verb in batch.verbs])
                _add_new(nouns, ids, self.path)
                _add_new(verbs, verb_ids, self.path)
                on_progress(len(nouns) + len(verbs), total)
        except InvalidRequestError as error:
            raise not_whole(error.message, file=self.path) from error
        digest = self._state.fold()
        found = (len(nouns), len(verbs), digest)
        if found != (manifest.nouns, manifest.verbs, manifest.digest):
            raise not_whole(
                "its items are not those it was sealed with",
                file=self.path,
                nouns=len(nouns),
                sealed_nouns=manifest.nouns,
                verbs=len(verbs),
                sealed_verbs=manifest.verbs,
            )
        self._checked = True
        warnings = []
        if others := {length: n for length, n in lengths.items() if length not in (0, manifest.dimensions)}:
            listed = ", ".join(f"{length} x {count:,}" for length, count in sorted(others.items()))
            warnings.append(f"vectors of other lengths than {manifest.dimensions}, kept but not indexed: {listed}")
        return Verification(
            file=str(self.path),
            format=BackupFormat.NATIVE,
            nouns=len(nouns),
            verbs=len(verbs),
            dimensions=manifest.dimensions,
            digest=digest,
            sealed=True,
            dangling_verbs=sum(source not in nouns or target not in nouns for source, target in ends),
            warnings=tuple(warnings),
            backup_id=manifest.backup_id,
            chain=tuple(str(file.path) for file in self._files),
        )


def part_items(body: bytes | pa.Buffer, kind: str) -> Iterator[ItemBatch]:
    """Yield the items of a part, in bounded batches.

    Raises:
        CorruptDataError: it is no such segment.
    """
    if kind == "nouns":
        for nouns in segments.read_nouns(body, batch_rows=_BATCH):
            yield ItemBatch(nouns=nouns)
    elif kind == "verbs":
        for verbs in segments.read_verbs(body, batch_rows=_BATCH):
            yield ItemBatch(verbs=verbs)


def _chain(path: Path) -> list[NativeFile]:
    """Open a backup and everything it builds on, newest first. Older files lie beside it under their names."""
    files = [NativeFile(path)]
    try:
        while (since := files[-1].manifest.since) is not None:
            beside = path.with_name(since.file)
            if not beside.is_file():
                raise NotFoundError(
                    "a file this incremental backup builds on is missing",
                    remedy="put it beside the backup; nothing was changed",
                    file=beside,
                    backup_id=since.backup_id,
                )
            older = NativeFile(beside)
            files.append(older)
            if (older.manifest.backup_id, older.manifest.digest) != (since.backup_id, since.digest):
                raise PreconditionError(
                    "the file beside an incremental backup is not the one it builds on",
                    remedy="put the right one there; nothing was changed",
                    file=beside,
                    backup_id=older.manifest.backup_id,
                    expected=since.backup_id,
                )
            if len({file.manifest.backup_id for file in files}) < len(files):
                raise CorruptDataError("a chain of backups that leads back to itself", file=path)
    except BaseException:
        for file in files:
            file.close()
        raise
    return files


def _add_new(known: set[str], ids: Sequence[str], path: Path) -> None:
    before = len(known)
    if known.isdisjoint(ids):
        known.update(ids)
        if len(known) - before == len(ids):
            return
        known.clear()
    for item_id in ids:
        if item_id in known:
            raise not_whole("an id is there twice", file=path, id=item_id)
        known.add(item_id)
