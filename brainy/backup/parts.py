"""Items on their way into the parts of a native backup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from brainy.backup.archive import ArchiveWriter
from brainy.backup.manifest import Part
from brainy.bucket.items import Noun, Verb
from brainy.bucket.segments import NounSegmentWriter, VerbSegmentWriter

#: Rows of a part: what is done again, at most, for each kind when a backup is killed.
PART_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSize:
    """Bounds of parts, and of the units a backup is resumed by."""

    rows: int = PART_ROWS
    #: A unit of a base takes shards until they hold about so many items.
    unit_items: int = 100_000


class PartWriter:
    """Packs nouns and verbs into segments of bounded size and appends each to the archive once it is full."""

    def __init__(self, archive: ArchiveWriter, scratch: Path, *, dimensions: int, size: PartSize) -> None:
        """Write segments at ``scratch`` first: an archive's entry needs its size."""
        self._archive = archive
        self._scratch = scratch
        self._dimensions = dimensions
        self._rows = size.rows
        self._nouns: NounSegmentWriter | None = None
        self._verbs: VerbSegmentWriter | None = None
        self._noun_rows = self._verb_rows = 0
        #: Parts of the archive so far.
        self.parts: list[Part] = []

    def add(self, nouns: Sequence[Noun], verbs: Sequence[Verb]) -> None:
        """Take items."""
        if nouns:
            if self._nouns is None:
                self._nouns = NounSegmentWriter(self._place("nouns"), dimensions=self._dimensions)
            self._nouns.append(nouns)
            self._noun_rows += len(nouns)
            if self._noun_rows >= self._rows:
                self._finish_nouns()
        if verbs:
            if self._verbs is None:
                self._verbs = VerbSegmentWriter(self._place("verbs"), dimensions=self._dimensions)
            self._verbs.append(verbs)
            self._verb_rows += len(verbs)
            if self._verb_rows >= self._rows:
                self._finish_verbs()

    def flush(self) -> None:
        """Finish the parts that were begun."""
        if self._nouns is not None:
            self._finish_nouns()
        if self._verbs is not None:
            self._finish_verbs()

    def abandon(self) -> None:
        """Remove what was begun."""
        for writer in (self._nouns, self._verbs):
            if writer is not None:
                writer.abandon()

    def _finish_nouns(self) -> None:
        writer, self._nouns, self._noun_rows = self._nouns, None, 0
        if writer is not None:
            rows = writer.close()
            name = f"nouns/{len(self.parts):06d}.parquet"
            entry = self._archive.add_file(name, writer.path)
            self.parts.append(Part(name=name, kind="nouns", rows=rows, size=entry.size, sha256=entry.sha256))
            writer.path.unlink()

    def _finish_verbs(self) -> None:
        writer, self._verbs, self._verb_rows = self._verbs, None, 0
        if writer is not None:
            rows = writer.close()
            name = f"verbs/{len(self.parts):06d}.parquet"
            entry = self._archive.add_file(name, writer.path)
            self.parts.append(Part(name=name, kind="verbs", rows=rows, size=entry.size, sha256=entry.sha256))
            writer.path.unlink()

    def _place(self, kind: str) -> Path:
        return self._scratch.with_name(f"{self._scratch.name}.{kind}")


def ids_of(segment: bytes) -> list[str]:
    """Return the ids of a segment, without reading anything else of it."""
    found: list[str] = pq.read_table(pa.BufferReader(segment), columns=["id"]).column("id").to_pylist()
    return found
