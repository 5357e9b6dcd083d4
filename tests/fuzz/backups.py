"""Backup files: ours come back whole or not at all, foreign ones element by element or with a row in the report."""

from __future__ import annotations

import asyncio
import gzip
import json
import random  # noqa: TID251 - seeded
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

from brainy.backup.document_reading import check_document
from brainy.backup.document_writing import write_document
from brainy.dataset.base import ItemBatch
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.errors import BrainyError
from brainy.store.memory import MemoryStore
from brainy.testing.fixtures import fixtures_root
from tests.buckets import Content, noun, verb
from tests.fuzz.mutation import mutate

_MOST = 12


async def try_backups(
    store: MemoryStore, content: Content, trees: tuple[str, ...], folder: Path, chance: random.Random
) -> None:
    """Write a backup of a bucket, read it, damage it; read a damaged one of the real Brainy."""
    path = folder / "backup.json"
    source = BrainyTreeSource(store, trees, keep_doubles=True)
    stream: AsyncIterator[ItemBatch] = source.stream(shards=[0], shard_count=1)
    written = await write_document(path, stream)
    assert (written.nouns, written.verbs) == (len(content.nouns), len(content.verbs))
    await asyncio.to_thread(_try_ours, path, content, written.digest, chance)
    await asyncio.to_thread(_try_theirs, path, chance)


def _try_ours(path: Path, content: Content, digest: str, chance: random.Random) -> None:
    checked = check_document(path)
    found = checked.verification
    assert (found.nouns, found.verbs, found.digest) == (len(content.nouns), len(content.verbs), digest)
    assert not found.skipped
    nouns = {item.id: item.metadata for batch in checked.items() for item in batch.nouns}
    assert nouns == {item_id: item.metadata for item_id, item in content.nouns.items()}
    whole = path.read_bytes()
    for _ in range(3):
        damaged = _damaged(whole, chance)
        path.write_bytes(damaged)
        try:
            check_document(path)
        except BrainyError:
            continue
        assert damaged == whole, "a damaged backup of ours was taken"


def _damaged(whole: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(whole))
    match chance.randrange(4):
        case 0:
            return whole[:at]
        case 1:
            return whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1 :]
        case 2:
            return whole[:at] + b"0" + whole[at:]
        case _:
            return whole[:at] + whole[at + 1 :]


def _try_theirs(path: Path, chance: random.Random) -> None:
    real = chance.choice(_recorded())
    parts = {
        f"{section}/{number}.json": json.dumps(element).encode()
        for section in ("nouns", "verbs")
        for number, element in enumerate(chance.sample(real[section], min(_MOST, len(real[section]))))
    }
    mutate(parts, chance)
    sections = {name: [body for key, body in parts.items() if key.startswith(name)] for name in ("nouns", "verbs")}
    text = b'{"nouns":[%s],"verbs":[%s],"nounTypes":[],"version":"1.0.0"}' % tuple(
        b",".join(body for body in sections[name]) for name in ("nouns", "verbs")
    )
    path.write_bytes(text)
    try:
        found = check_document(path).verification
    except BrainyError:
        return
    # Not every body is one element: some are none, some are two.
    elements = json.loads(text) if _is_json(text) else None
    if elements is not None:
        total = len(elements["nouns"]) + len(elements["verbs"])
        assert found.nouns + found.verbs + len(found.skipped) == total, "an element is lost without a word"


def _is_json(text: bytes) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and all(isinstance(value.get(name), list) for name in ("nouns", "verbs"))


@cache
def _recorded() -> tuple[dict[str, Any], ...]:
    root = fixtures_root()
    found = [
        json.loads(gzip.decompress(path.read_bytes()))
        for path in (sorted(root.glob("*/backup.json.gz")) if root else ())
        if path.stat().st_size < 1 << 20
    ]
    made_up = {
        "nouns": [json.loads(noun(f"n{number}", metadata={"noun": "person"})) for number in range(8)],
        "verbs": [json.loads(verb(f"v{number}", "n1", "n2")) for number in range(8)],
    }
    return (*found, made_up)
