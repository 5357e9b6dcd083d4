"""Reading a side through: its digest, and a row for each item."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from brainy.bucket.digest import MultisetDigest
from brainy.dataset.base import ItemBatch
from brainy.verify.rows import RowReader, RowWriter, noun_key, verb_key
from brainy.verify.sides import Side
from brainy.verify.state import PartDone

_SOURCE, _TARGET = bytes(8), (1).to_bytes(8, "little")
#: Which end an ends row is about, by its ``high``.
END_NAMES = ("source_id", "target_id")


@dataclass(slots=True)
class Scan:
    """A side, read through."""

    digest: MultisetDigest = field(default_factory=MultisetDigest)
    nouns: int = 0
    verbs: int = 0
    quarantined: int = 0
    stems: list[str] = field(default_factory=list)
    end_stems: list[str] = field(default_factory=list)

    def include(self, label: str, part: int, done: PartDone, digest: MultisetDigest) -> None:
        """Add a part."""
        self.digest.merge(digest)
        self.nouns += done.nouns
        self.verbs += done.verbs
        self.quarantined += done.quarantined
        self.stems += [f"{label}.{part}.{run}" for run in range(done.runs)]
        self.end_stems += [f"{label}.{part}.ends.{run}" for run in range(done.end_runs)]

    def rows(self, directory: Path) -> RowReader:
        """Open the rows."""
        return RowReader(directory, self.stems)

    def ends(self, directory: Path) -> RowReader:
        """Open the rows of the ends of verbs: under the key of the noun, with the verb's id."""
        return RowReader(directory, self.end_stems)


async def scan_part(
    side: Side, label: str, part: int, directory: Path, *, relations: bool, tell: Callable[[int], None]
) -> PartDone:
    """Read a part through and write its rows and its digest. Errors as ``Side.read``.

    Cancel safety: what was written is written over by the next try.
    """
    digest = MultisetDigest()
    items = RowWriter(directory, f"{label}.{part}")
    ends = RowWriter(directory, f"{label}.{part}.ends")
    nouns = verbs = quarantined = 0
    async with aclosing(side.read(part)) as batches:
        async for batch in batches:
            _take(batch, digest, items)
            if relations:
                _take_ends(batch, ends)
            nouns += len(batch.nouns)
            verbs += len(batch.verbs)
            quarantined += len(batch.quarantined)
            tell(len(batch.nouns) + len(batch.verbs))
    done = PartDone(nouns=nouns, verbs=verbs, quarantined=quarantined, runs=items.close(), end_runs=ends.close())
    digest_path(directory, label, part).write_bytes(digest.encode())
    return done


def digest_path(directory: Path, label: str, part: int) -> Path:
    """Where a part's digest lies."""
    return directory / f"{label}.{part}.digest"


def _take(batch: ItemBatch, digest: MultisetDigest, items: RowWriter) -> None:
    for noun in batch.nouns:
        value = noun.digest()
        digest.add(noun.id, value)
        items.add(noun_key(noun.id), value[:16], noun.id)
    for verb in batch.verbs:
        value = verb.digest()
        digest.add(verb.id, value)
        items.add(verb_key(verb.id), value[:16], verb.id)


def _take_ends(batch: ItemBatch, ends: RowWriter) -> None:
    for verb in batch.verbs:
        own = verb_key(verb.id).to_bytes(8, "little")
        ends.add(noun_key(verb.source_id), own + _SOURCE, verb.id)
        ends.add(noun_key(verb.target_id), own + _TARGET, verb.id)
