"""One side of a comparison: something that can be read through once, and of which single items can be read again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from pathlib import Path
from typing import Protocol

from brainy.backup.opening import check_backup
from brainy.backup.values import CheckedBackup
from brainy.bucket.partition import shard_of
from brainy.dataset.base import ItemBatch
from brainy.verify.values import NOUN, VERB, Holding, Item, Name, Place, Sample


class Side(Protocol):
    """What a comparison needs of a dataset."""

    name: str

    @property
    def identity(self) -> str:
        """What is read: a run is only taken up again where this is the same."""

    @property
    def moves(self) -> bool:
        """Whether it may change."""

    @property
    def parts(self) -> int:
        """In how many parts it is read through. After ``begin``."""

    @property
    def place(self) -> Place:
        """Where it is read through. After ``read``."""

    async def begin(self, saved: str | None = None) -> None:
        """Fix what is read through: now, or at the point that ``save`` once gave. Before everything else."""

    def save(self) -> str:
        """Return the point, and what is known from reading, as text."""

    async def total(self) -> int:
        """Items to expect, for progress."""

    def read(self, part: int) -> AsyncGenerator[ItemBatch]:
        """Yield the items of a part, each once, at the point."""

    def sampled(self, sample: Sample | None) -> None:
        """Read a part of the ids only."""

    def watch(self, names: Collection[Name]) -> Watch:
        """Prepare to read some items again and again; must fit into memory."""


class Watch(Protocol):
    """Some items of a side, read again and again."""

    async def look(self, names: Collection[Name]) -> Holding:
        """Read those of the watched items as they are now."""

    def passed(self, name: Name) -> set[bytes]:
        """Digests that an item is known to have had between the last two looks; b"" for a deletion.

        Complete where there is a log, empty where there is none.
        """

    @property
    def place(self) -> Place:
        """Where the last look was."""


class BackupSide:
    """A backup file: checked to its last byte, and then not moving."""

    def __init__(self, name: str, checked: CheckedBackup) -> None:
        self.name = name
        self._checked = checked
        self._sample: Sample | None = None

    @classmethod
    async def open(cls, name: str, source: Path) -> BackupSide:
        """Check a file. Errors as ``check_backup``."""
        return cls(name, await asyncio.to_thread(check_backup, source))

    @property
    def identity(self) -> str:
        """See ``Side``."""
        return f"backup {self._checked.verification.digest}"

    @property
    def moves(self) -> bool:
        """See ``Side``."""
        return False

    @property
    def parts(self) -> int:
        """See ``Side``."""
        return 1

    @property
    def place(self) -> Place:
        """See ``Watch``."""
        return Place(kind="backup")

    async def begin(self, saved: str | None = None) -> None:
        """See ``Side``."""

    def save(self) -> str:
        """See ``Side``."""
        return self._checked.verification.digest

    async def total(self) -> int:
        """See ``Side``."""
        return self._checked.verification.nouns + self._checked.verification.verbs

    def sampled(self, sample: Sample | None) -> None:
        """See ``Side``."""
        self._sample = sample

    async def read(self, part: int) -> AsyncGenerator[ItemBatch]:
        """See ``Side``."""
        for batch in self._checked.items():
            yield batch if self._sample is None else thinned(batch, self._sample)
            await asyncio.sleep(0)

    def watch(self, names: Collection[Name]) -> BackupWatch:
        """See ``Side``."""
        return BackupWatch(self, names)

    def pick(self, names: Collection[Name]) -> Holding:
        """Return the items of these names."""
        wanted = frozenset(names)
        held: Holding = dict.fromkeys(names)
        for batch in self._checked.items():
            held.update(((NOUN, noun.id), noun) for noun in batch.nouns if (NOUN, noun.id) in wanted)
            held.update(((VERB, verb.id), verb) for verb in batch.verbs if (VERB, verb.id) in wanted)
        return held


class BackupWatch:
    """Some items of a backup, read once."""

    def __init__(self, side: BackupSide, names: Collection[Name]) -> None:
        self._side = side
        self._names = names
        self._held: dict[Name, Item | None] | None = None

    async def look(self, names: Collection[Name]) -> Holding:
        """See ``Watch``."""
        if self._held is None:
            self._held = await asyncio.to_thread(self._side.pick, self._names)
        return {name: self._held[name] for name in names}

    def passed(self, name: Name) -> set[bytes]:
        """See ``Watch``."""
        return set()

    @property
    def place(self) -> Place:
        """See ``Watch``."""
        return self._side.place


def thinned(batch: ItemBatch, sample: Sample) -> ItemBatch:
    """Return a batch without what is not in the sample."""
    return ItemBatch(
        nouns=[noun for noun in batch.nouns if shard_of(noun.id, sample.of) == sample.part],
        verbs=[verb for verb in batch.verbs if shard_of(verb.id, sample.of) == sample.part],
        quarantined=batch.quarantined,
        objects_read=batch.objects_read,
    )
