"""Recorded buckets: what real programs wrote, to be put into any store."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from brainy.config.environment import fixtures_directory
from brainy.store.base import ObjectStore
from brainy.store.local import LocalStore

_CONCURRENCY = 64
_CHUNK = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class FixtureObject:
    """One object of a recorded bucket."""

    key: str
    body: bytes
    content_type: str = ""
    #: S3 user metadata.
    metadata: dict[str, str] = field(default_factory=dict)
    #: ISO 8601, as recorded.
    last_modified: str = ""


def fixtures_root() -> Path | None:
    """Return the directory of recorded buckets: BRAINY_FIXTURES, else beside the checkout, else None."""
    named = fixtures_directory()
    if named:
        return Path(named) if Path(named).is_dir() else None
    for checkout in Path(__file__).resolve().parents[2:4]:
        beside = checkout.parent / "shared" / "brainy" / "fixtures"
        if beside.is_dir():
            return beside
    return None


def read_objects(folder: str | Path) -> Iterator[FixtureObject]:
    """Yield the objects of ``objects.jsonl.gz``, or of ``objects.jsonl``, in recorded order."""
    for line in _open(Path(folder), "objects.jsonl"):
        entry = orjson.loads(line)
        yield FixtureObject(
            key=entry["key"],
            body=base64.b64decode(entry["body_b64"]),
            content_type=entry.get("content_type") or "",
            metadata=entry.get("metadata") or {},
            last_modified=entry.get("last_modified") or "",
        )


def read_truth(folder: str | Path) -> dict[str, Any]:
    """Return ``truth.json.gz``: what must be read back from the bucket."""
    truth: dict[str, Any] = orjson.loads(b"".join(_open(Path(folder), "truth.json")))
    return truth


async def load_fixture(store: ObjectStore, folder: str | Path, *, key_prefix: str = "") -> int:
    """Put every object whose key starts with ``key_prefix`` into ``store``; returns how many.

    Fastest into a bare ``LocalStore(directory, durable=False)``, which needs no thread hop for every object.
    """
    loaded = 0
    batch: list[FixtureObject] = []
    for item in read_objects(folder):
        if item.key.startswith(key_prefix):
            batch.append(item)
        if len(batch) == _CHUNK:
            loaded += await _put_all(store, batch)
            batch = []
    return loaded + await _put_all(store, batch)


async def _put_all(store: ObjectStore, batch: list[FixtureObject]) -> int:
    # One writer a key, in recorded order: a key may be recorded twice.
    latest = {item.key: item for item in batch}
    if isinstance(store, LocalStore):
        await store.put_many([(item.key, item.body, item.metadata or None) for item in latest.values()])
        return len(batch)
    items = iter(latest.values())

    async def worker() -> None:
        for item in items:
            await store.put(item.key, item.body, user_metadata=item.metadata or None)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_CONCURRENCY, len(latest))):
            group.create_task(worker())
    return len(batch)


def _open(folder: Path, name: str) -> Iterator[bytes]:
    packed = folder / f"{name}.gz"
    if packed.exists():
        with gzip.open(packed, "rb") as lines:
            yield from lines
    else:
        with (folder / name).open("rb") as lines:
            yield from lines
