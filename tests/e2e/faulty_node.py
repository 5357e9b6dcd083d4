"""A node whose replicas of one generation serve badly, for as long as a file says so.

    python -m tests.e2e.faulty_node --faults FILE ...  # the rest as brainy_node

The file holds JSON: ``{"generation": 1, "slow_seconds": 0.05, "failing_share": 0.1, "blind": true}``, each but the
first optional. Without the file, or for other generations, everything is as it should be. It is looked at each time,
so a test plants and mends at will.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson

import brainy_node.__main__  # noqa: F401 - sets what gRPC reads when it is imported
from brainy_node.main import app
from brainy_node.shard.hits import Hits
from brainy_node.shard.shard import Shard


def faults_of(file: Path, generation: int) -> dict[str, Any]:
    """What is planted for a generation now."""
    try:
        faults: dict[str, Any] = orjson.loads(file.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):  # mended, or being written
        return {}
    return faults if faults["generation"] == generation else {}


def plant(file: Path) -> None:
    """Make searches of this process obey the file."""
    search = Shard.search
    count = 0

    def faulty(shard: Shard, queries: np.ndarray, *arguments: Any, **options: Any) -> Hits:
        nonlocal count
        faults = faults_of(file, shard.generation)
        if "slow_seconds" in faults:
            time.sleep(faults["slow_seconds"])  # noqa: TID251 - it is the fault: the thread that serves is held
        if "failing_share" in faults:
            count += 1
            if count % round(1 / faults["failing_share"]) == 0:
                raise RuntimeError("planted")
        return search(shard, -queries if faults.get("blind") else queries, *arguments, **options)

    Shard.search = faulty  # type: ignore[method-assign]


if __name__ == "__main__":
    at = sys.argv.index("--faults")
    plant(Path(sys.argv[at + 1]))
    del sys.argv[at : at + 2]
    app()
