"""``manifest.json`` of a native backup: what the archive holds and what it must hash to."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from brainy.bucket.records import Record

MANIFEST: Final = "manifest.json"
DELETED: Final = "deleted.json"
QUARANTINED: Final = "quarantined.json"


class Part(BaseModel):
    """One file of the archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["nouns", "verbs", "deleted", "quarantined"]
    rows: int
    size: int
    sha256: str


class Since(BaseModel):
    """The backup an incremental one builds on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backup_id: str
    #: Its name when this one was made; it is looked for beside this file.
    file: str
    #: Digest of its items, folded.
    digest: str


class BackupManifest(Record):
    """What a native backup is."""

    kind: Literal["brainy-backup"] = "brainy-backup"
    backup_id: str
    namespace: str
    #: ISO 8601, for people.
    created_at: str
    dimensions: int
    metric: str
    #: The generation that was read, its shard count, and the log positions included.
    generation: int
    generation_created_at: str = ""
    shard_count: int
    positions: dict[int, int]
    #: Wall seconds between which the positions were taken, and whether they stood still (``brainy.dataset.cut``).
    cut_began: float
    cut_ended: float
    settled: bool
    since: Since | None = None
    #: Items of the namespace at the cut, and their multiset digest, folded.
    nouns: int
    verbs: int
    digest: str
    parts: tuple[Part, ...]


class DeletedIds(Record):
    """``deleted.json`` of an incremental backup."""

    nouns: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()


class QuarantinedObjects(Record):
    """``quarantined.json``: objects of the source that could not be read, as (key, reason, size)."""

    objects: tuple[tuple[str, str, int], ...] = ()
