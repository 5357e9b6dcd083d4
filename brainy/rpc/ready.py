"""The ready file: how a process tells its supervisor that it answers, and where."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def ready_file(path: Path | None, address: str) -> AsyncIterator[None]:
    """Keep a JSON object {address, pid} at ``path`` for the length of the block; None writes nothing.

    The file appears whole or not at all.
    """
    if path is None:
        yield
        return
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps({"address": address, "pid": os.getpid()}), encoding="utf-8")
    fresh.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - one small file, once
