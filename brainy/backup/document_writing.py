"""Writing Brainy's backup file from a stream of items."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from brainy.backup.document import HEADER, encode_noun, encode_verb, rest_of, seal
from brainy.backup.held import as_held
from brainy.bucket.digest import MultisetDigest
from brainy.dataset.base import ItemBatch, Quarantined
from brainy.legacy.tally import Names
from brainy.legacy.values import dump_json, parse_json

_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a file holds."""

    nouns: int
    verbs: int
    #: Size of the file.
    bytes: int
    digest: str
    dimensions: int
    quarantined: tuple[Quarantined, ...]


class _Hashed:
    """A file whose bytes are hashed as they are written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, body: bytes) -> None:
        self._file.write(body)
        self.sha256.update(body)


class _Section:
    """The elements of a JSON array, comma separated."""

    def __init__(self, file: _Hashed | IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def add(self, elements: Iterable[bytes]) -> None:
        for element in elements:
            self._file.write(b",\n" if self.count else b"\n")
            self._file.write(element)
            self.count += 1


class _DocumentFile:
    """Nouns go into the file, verbs beside it until all nouns are known."""

    def __init__(self, path: Path, dimensions: int) -> None:
        self._path = path
        self._parts = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.verbs.part")
        self._file = self._parts[0].open("wb")
        self._hashed = _Hashed(self._file)
        self._verb_file = self._parts[1].open("wb+")
        self._nouns = _Section(self._hashed)
        self._verbs = _Section(self._verb_file)
        self._noun_types = Names()
        self._verb_types = Names()
        self._dimensions = dimensions
        self._digest = MultisetDigest()
        self._quarantined: list[Quarantined] = []
        self._hashed.write(HEADER + b'"nouns":[')

    def add(self, batch: ItemBatch) -> None:
        for noun in batch.nouns:
            self._dimensions = self._dimensions or len(noun.vector) // 4
            metadata = None if noun.metadata is None else parse_json(noun.metadata)
            if isinstance(metadata, dict):
                self._noun_types.see(metadata.get("noun") or metadata.get("nounType"))
            self._digest.add(noun.id, as_held(noun).digest())
        for verb in batch.verbs:
            self._verb_types.see(verb.type)
            self._digest.add(verb.id, as_held(verb).digest())
        self._nouns.add(map(encode_noun, batch.nouns))
        self._verbs.add(map(encode_verb, batch.verbs))
        self._quarantined += batch.quarantined

    def finish(self) -> Written:
        self._hashed.write(b'\n],"verbs":[')
        self._verb_file.seek(0)
        while part := self._verb_file.read(_COPY_BYTES):
            self._hashed.write(part)
        rest = rest_of(sorted(self._noun_types), sorted(self._verb_types), self._dimensions)
        self._hashed.write(b"\n]," + dump_json(rest)[1:-1])
        digest = self._digest.fold()
        sha256 = self._hashed.sha256.hexdigest()
        self._file.write(seal(sha256=sha256, nouns=self._nouns.count, verbs=self._verbs.count, digest=digest))
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._verb_file.close()
        self._parts[0].replace(self._path)
        self._parts[1].unlink()
        return Written(
            nouns=self._nouns.count,
            verbs=self._verbs.count,
            bytes=size,
            digest=digest,
            dimensions=self._dimensions,
            quarantined=tuple(self._quarantined),
        )

    def discard(self) -> None:
        self._file.close()
        self._verb_file.close()
        for part in self._parts:
            with suppress(FileNotFoundError):
                part.unlink()


async def write_document(path: Path, batches: AsyncIterator[ItemBatch], *, dimensions: int = 0) -> Written:
    """Write Brainy's backup file from a stream of items.

    The file appears under its name only when it is complete and on disk; until then it is a hidden ``.part``
    beside it. A failure or a cancelled call removes the parts and leaves a former file as it was; after a crash they
    are overwritten by the next attempt. Memory: one batch.

    Args:
        path: of the file.
        batches: every item once.
        dimensions: length of the vectors; 0 takes the first noun's.

    Raises:
        OSError: the file cannot be written.
        BrainyError: what the stream raised.
    """
    file = await asyncio.to_thread(_DocumentFile, path, dimensions)
    try:
        async for batch in batches:
            await asyncio.to_thread(file.add, batch)
        return await asyncio.to_thread(file.finish)
    except BaseException:
        await asyncio.to_thread(file.discard)
        raise
