"""A small Brainy bucket as one shard of a node, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from brainy.bucket.items import Noun
from brainy.bucket.records import Spec
from brainy.clock import SystemClock
from brainy.ids import Ids
from brainy_node.builder.job import Job
from brainy_node.builder.run import run_job
from brainy_node.shard.base import Base
from brainy_node.shard.shard import Shard
from tests.buckets import bucket

ALL = ("typed", "flat", "entity")
NOW = 1795330000000


def first(item: Noun) -> float:
    return float(np.frombuffer(item.vector, "<f4")[0])


async def served(objects: Mapping[str, bytes], folder: Path, *, dimensions: int = 2) -> Shard:
    """The bucket as one shard of a node."""
    spec = Spec(generation=0, dimensions=dimensions, shard_count=1, source="brainy", source_trees=ALL)
    job = Job.model_validate(
        {"kind": "adopt", "namespace": "memory://", "spec": spec, "shards": (0,), "output": str(folder), "threads": 1}
    )
    store = await bucket(objects)
    (built,) = await run_job(job, store, clock=SystemClock(), ids=Ids(), report=lambda _: None)
    return Shard.open(Base.open(Path(built.directory)), spec, threads=1)


def scanned(shard: Shard, *, include_soft_deleted: bool) -> set[str]:
    return {item.id for part in shard.scan_nouns(include_soft_deleted=include_soft_deleted) for item in part}


def found(shard: Shard, query: Sequence[float], *, include_soft_deleted: bool = False) -> list[str]:
    matrix = np.array([query], np.float32)
    return list(shard.search(matrix, 50, exact=True, include_soft_deleted=include_soft_deleted).ids)
