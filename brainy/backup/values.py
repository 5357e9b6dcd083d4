"""What backing up, checking and restoring tell their caller."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from brainy.bucket.digest import MultisetDigest
from brainy.dataset.base import ItemBatch, Quarantined

#: Called with (items done, items expected or None).
Progress: TypeAlias = Callable[[int, int | None], None]


def no_progress(done: int, total: int | None) -> None:
    """Tell nobody."""


class BackupFormat(enum.StrEnum):
    """What a backup file is."""

    #: Brainy's JSON, which its own ``restore()`` reads.
    BRAINY = "brainy"
    #: One ZIP archive of compressed segments.
    NATIVE = "native"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSummary:
    """What was backed up."""

    file: str
    format: BackupFormat
    #: Items of the namespace at the cut. An incremental file holds fewer.
    nouns: int
    verbs: int
    #: Size of the file.
    bytes: int
    #: Multiset digest of all items, folded (docs/format.md).
    digest: str
    #: Length of the vectors; 0 where there are none.
    dimensions: int
    #: Of a native backup: its identity, which later incremental ones name.
    backup_id: str = ""
    #: Shard -> log position included. Empty for a bucket that no cluster has served.
    positions: dict[int, int]
    #: The namespace at one instant (``brainy.dataset.cut``).
    settled: bool
    #: A killed backup was gone on with.
    resumed: bool = False
    #: Of an incremental backup: items in the file, ids deleted since, and the file it builds on.
    changed: int = 0
    deleted: int = 0
    since: str = ""
    #: Objects of the source that could not be read and are in no backup.
    quarantined: tuple[Quarantined, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Something of a backup that is not restored."""

    #: noun or verb.
    kind: str
    #: The id, or ``#n`` for the n-th element (from 0) where it has none that can be read.
    id: str
    #: A value of ``brainy.legacy.batch.Reason``, or ``exists`` where what was there was to be kept.
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A backup that holds what it should."""

    file: str
    format: BackupFormat
    nouns: int
    verbs: int
    dimensions: int
    digest: str
    #: Hashes and counts were there and agree. A file of the real Brainy has none: it was only read through.
    sealed: bool
    #: Verbs with an end that is no noun of the backup; they are restored as they are.
    dangling_verbs: int
    skipped: tuple[Skipped, ...] = ()
    #: Remarks for the operator.
    warnings: tuple[str, ...] = ()
    backup_id: str = ""
    #: Files of the chain, newest first; only the file itself unless it is incremental.
    chain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult:
    """What a restore did, or with ``dry_run`` would do."""

    #: Items of the backup that the namespace now holds exactly as the backup does.
    nouns_restored: int
    verbs_restored: int
    skipped: tuple[Skipped, ...]
    #: Of the restored: those that were there already, equal in every field.
    unchanged: int
    #: Items deleted because the backup does not hold them (``clear_existing``).
    nouns_deleted: int
    verbs_deleted: int
    #: Multiset digest of the backup's items, which the namespace was proven to hold.
    digest: str
    dry_run: bool = False
    warnings: tuple[str, ...] = ()


class CheckedBackup(Protocol):
    """A backup that was read from its first to its last byte and found whole."""

    @property
    def verification(self) -> Verification:
        """What the check found."""

    @property
    def state(self) -> MultisetDigest:
        """The digest of its items, not yet folded."""

    def items(self) -> Iterator[ItemBatch]:
        """Yield the items as a namespace holds them, each once, nouns first, in bounded batches."""
