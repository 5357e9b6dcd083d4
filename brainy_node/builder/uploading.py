"""Writing immutable objects from local disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

from brainy.bucket import segments
from brainy.bucket.records import StoredFile
from brainy_node.builder.context import Context


async def upload(context: Context, path: Path, key: str, rows: int) -> StoredFile:
    """Write a finished local file under a fresh name; returns what it is there."""
    described = await asyncio.to_thread(segments.stored_file, path, key=key, rows=rows)
    # The name is fresh, so an unconditional write that is repeated writes the same bytes.
    await context.store.put(key, await asyncio.to_thread(path.read_bytes))
    return described
