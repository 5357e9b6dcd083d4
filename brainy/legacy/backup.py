"""Brainy's own backup file: what its ``backup()`` writes and its ``restore()`` reads.

One JSON object: ``nouns``, ``verbs``, ``nounTypes``, ``verbTypes``, ``hnswIndex`` and ``version``, which is
always "1.0.0". ``restore()`` insists on the first two and the last. It takes a verb's type from the verb's own
metadata and ignores ``type``, which is written here as Brainy writes it; a file restored by the real Brainy
therefore gets the type ``relatedTo`` wherever the metadata does not say otherwise.

A noun's attributes (level, a placeholder's marker) have no place in this file and are left out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import orjson

from brainy.bucket.items import Noun, Verb
from brainy.legacy.tally import Names
from brainy.legacy.values import dump_json, parse_json

VERSION = "1.0.0"
_INDEX_CONFIG = {"M": 16, "efConstruction": 200, "efSearch": 50, "ml": 16}
_COPY_BYTES = 1 << 20


class Items(Protocol):
    """A batch of items, such as ``brainy.dataset.base.ItemBatch``."""

    @property
    def nouns(self) -> Sequence[Noun]:
        """Nouns of the batch."""

    @property
    def verbs(self) -> Sequence[Verb]:
        """Verbs of the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupCounts:
    """What a backup file holds."""

    nouns: int
    verbs: int
    #: Size of the file.
    bytes: int


class _Section:
    """The elements of a JSON array, comma separated."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def add(self, elements: Iterable[bytes]) -> None:
        for element in elements:
            self._file.write(b",\n" if self.count else b"\n")
            self._file.write(element)
            self.count += 1


class _BackupFile:
    """Nouns go into the file, verbs beside it until all nouns are known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.verbs.part")
        self._file = self._parts[0].open("wb")
        self._verb_file = self._parts[1].open("wb+")
        self._nouns = _Section(self._file)
        self._verbs = _Section(self._verb_file)
        self._noun_types = Names()
        self._verb_types = Names()
        self._dimension = 0
        self._file.write(b'{"nouns":[')

    def add(self, batch: Items) -> None:
        for noun in batch.nouns:
            self._dimension = self._dimension or len(noun.vector) // 4
            metadata = None if noun.metadata is None else parse_json(noun.metadata)
            if isinstance(metadata, dict):
                self._noun_types.see(metadata.get("noun") or metadata.get("nounType"))
        for verb in batch.verbs:
            self._verb_types.see(verb.type)
        self._nouns.add(map(encode_noun, batch.nouns))
        self._verbs.add(map(encode_verb, batch.verbs))

    def finish(self) -> BackupCounts:
        self._file.write(b'\n],"verbs":[')
        self._verb_file.seek(0)
        while part := self._verb_file.read(_COPY_BYTES):
            self._file.write(part)
        index = {
            "entryPointId": None,
            "maxLevel": 0,
            "dimension": self._dimension or None,
            "config": _INDEX_CONFIG,
            "connections": {},
        }
        rest = {
            "nounTypes": sorted(self._noun_types),
            "verbTypes": sorted(self._verb_types),
            "hnswIndex": index,
            "version": VERSION,
        }
        self._file.write(b"\n]," + dump_json(rest)[1:])
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._verb_file.close()
        self._parts[0].replace(self._path)
        self._parts[1].unlink()
        return BackupCounts(nouns=self._nouns.count, verbs=self._verbs.count, bytes=size)

    def discard(self) -> None:
        self._file.close()
        self._verb_file.close()
        for part in self._parts:
            with suppress(FileNotFoundError):
                part.unlink()


async def write_backup(path: Path, batches: AsyncIterator[Items]) -> BackupCounts:
    """Write a backup file from a stream of items.

    The file appears under its name only when it is complete and on disk; until then it is a hidden ``.part``
    beside it. A failure or a cancelled call removes the parts and leaves a former file as it was.
    Memory: one batch.

    Raises:
        OSError: the file cannot be written.
        BrainyError: what the stream raised.
    """
    file = await asyncio.to_thread(_BackupFile, path)
    try:
        async for batch in batches:
            await asyncio.to_thread(file.add, batch)
        return await asyncio.to_thread(file.finish)
    except BaseException:
        await asyncio.to_thread(file.discard)
        raise


def encode_noun(noun: Noun) -> bytes:
    """Return a noun as Brainy's backup writes it: id, vector, metadata or null."""
    return orjson.dumps(
        {"id": noun.id, "vector": _vector(noun), "metadata": _fragment(noun.metadata)},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def encode_verb(verb: Verb) -> bytes:
    """Return a verb as Brainy's backup writes it, ends and type under both of their names."""
    fields: dict[str, Any] = {
        "id": verb.id,
        "vector": _vector(verb),
        "sourceId": verb.source_id,
        "targetId": verb.target_id,
        "source": verb.source_id,
        "target": verb.target_id,
        "verb": verb.type,
        "type": verb.type,
    }
    if verb.weight is not None:
        fields["weight"] = verb.weight
    attributes = {} if verb.attributes is None else parse_json(verb.attributes)
    for name, value in attributes.items():
        # Through the tolerant writer, for surrogates; what has a field of its own keeps it.
        fields.setdefault(name, orjson.Fragment(dump_json(value)))
    if verb.metadata is not None:
        fields.setdefault("data", _fragment(verb.metadata))
        fields["metadata"] = _fragment(verb.metadata)
    try:
        return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        # A name with a lone surrogate.
        parts = (dump_json(name) + b":" + _encode(value) for name, value in fields.items())
        return b"{" + b",".join(parts) + b"}"


def _encode(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _vector(item: Noun | Verb) -> object:
    if item.raw_vector is not None:
        return orjson.Fragment(item.raw_vector)
    # As float32 the shortest digits that give the same float32 again; NaN and infinity become null.
    return np.frombuffer(item.vector, dtype="<f4").astype(np.float32)


def _fragment(body: bytes | None) -> object:
    return None if body is None else orjson.Fragment(body)
