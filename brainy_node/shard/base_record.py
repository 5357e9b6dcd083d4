"""``base.json``: what a local base is and what its files must hash to.

It is written last, so a directory that has one is a whole base.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from brainy.bucket.records import Record, Spec
from brainy.errors import CorruptDataError

NAME = "base.json"

NOUNS = "nouns.arrow"
VERBS = "verbs.arrow"
VECTORS = "vectors.npy"
LENGTHS = "lengths.npy"
NOUN_IDS = "nouns.ids.npy"
NOUN_HASHES = "nouns.hashes.npy"
VERB_IDS = "verbs.ids.npy"
VERB_SOURCES = "verbs.sources.npy"
VERB_TARGETS = "verbs.targets.npy"
VERB_HASHES = "verbs.hashes.npy"
INDEX = "index.usearch"
DIGEST = "digest.bin"
QUARANTINED = "quarantined.json"

_REMEDY = "delete the base directory; it is rebuilt from the bucket"


class LocalFile(BaseModel):
    """A file of the base."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class BaseRecord(Record):
    """The description of a base directory."""

    generation: int
    shard: int
    #: Every record of the shard's log at or below this is included.
    position: int
    #: Source shard -> position included, when the generation was filled from another.
    source_cursor: dict[int, int] = Field(default_factory=dict)
    #: The generation of these positions; None, of older software: the one it was made of.
    source_generation: int | None = None
    #: The generation's description when the base was built; ``dimensions`` is that of its matrix.
    spec: Spec
    noun_count: int
    verb_count: int
    indexed_count: int
    #: Slots of the index whose vectors were removed since it was last built anew.
    index_removed: int = 0
    #: The newest request ids at or below ``position`` -> position of their record, oldest first.
    recent_requests: dict[str, int] = Field(default_factory=dict)
    #: Counts as ``Tally.encode`` gives them.
    tally: dict[str, Any]
    #: The shard's multiset digest folded, hex.
    digest: str
    files: dict[str, LocalFile]

    @classmethod
    def read(cls, directory: Path) -> BaseRecord:
        """Read and check the record of a directory.

        Raises:
            CorruptDataError: missing (an unfinished build), malformed or altered.
            PreconditionError: written by a newer version.
        """
        path = directory / NAME
        try:
            body = path.read_bytes()
        except FileNotFoundError as error:
            raise CorruptDataError("not a finished base", remedy=_REMEDY, directory=directory, missing=NAME) from error
        return cls.decode(body, key=str(path))

    def check_files(self, directory: Path, *, contents: bool) -> None:
        """Compare every file's size and, if ``contents``, its SHA-256 (about 1.3 GB/s; gives up the GIL).

        Raises:
            CorruptDataError: names the first file that differs.
        """
        for name, expected in self.files.items():
            path = directory / name
            try:
                intact = path.stat().st_size == expected.size and (
                    not contents or describe(path).sha256 == expected.sha256
                )
            except FileNotFoundError:
                intact = False
            if not intact:
                raise CorruptDataError("a file of the base was altered", remedy=_REMEDY, directory=directory, file=name)


def describe(path: Path) -> LocalFile:
    """Return size and SHA-256 of a file."""
    with path.open("rb") as file:
        return LocalFile(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
