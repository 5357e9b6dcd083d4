"""A backup or a restore in a process of its own that stops at every step until it is told to go on.

    python -m tests.e2e.backup_worker backup NAMESPACE FILE
    python -m tests.e2e.backup_worker restore FILE ENDPOINT

Prints the number of items done, and waits for a line, at each step; at the end the result as JSON.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import orjson

from brainy.backup import restoring
from brainy.backup.parts import PartSize
from brainy.backup.values import BackupFormat
from brainy.backup.writing import BackupOptions, write_backup
from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import load_settings
from brainy.ids import Ids
from brainy.sdk.client import AsyncBrainy
from brainy.store.opening import open_store


def step(done: int, total: int | None) -> None:
    print(done, flush=True)
    sys.stdin.readline()


async def back_up(namespace: str, path: str) -> object:
    store = open_store(Namespace.parse(namespace), load_settings().store, clock=SystemClock(), ids=Ids())
    options = BackupOptions(format=BackupFormat.NATIVE, part_size=PartSize(unit_items=60), on_progress=step)
    try:
        return await write_backup(store, namespace, Path(path), options, clock=SystemClock(), ids=Ids())
    finally:
        await store.close()


async def restore(path: str, endpoint: str) -> object:
    restoring.BATCH_ITEMS = 40  # type: ignore[misc]  # so that a small backup has many steps
    async with AsyncBrainy([endpoint]) as client:
        return await client.restore(path, clear_existing=True, on_progress=step)


if __name__ == "__main__":
    work = back_up if sys.argv[1] == "backup" else restore
    result = asyncio.run(work(*sys.argv[2:4]))
    print(orjson.dumps(result, option=orjson.OPT_NON_STR_KEYS).decode(), flush=True)
