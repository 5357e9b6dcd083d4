"""A damaged bucket in the shards of a node: what is served is what was read, and every question has an answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brainy.bucket.items import Noun, Verb
from brainy.bucket.records import Spec
from brainy.clock import SystemClock
from brainy.ids import Ids
from brainy.store.memory import MemoryStore
from brainy_node.builder.job import Job
from brainy_node.builder.run import run_job
from brainy_node.shard.base import Base
from brainy_node.shard.shard import Shard
from tests.buckets import Content

_DIMENSIONS = 24


async def try_serving(store: MemoryStore, content: Content, trees: tuple[str, ...], folder: Path) -> None:
    """Build two shards from a bucket and ask them for everything."""
    spec = Spec(generation=0, dimensions=_DIMENSIONS, shard_count=2, source="brainy", source_trees=trees)
    job = Job.model_validate(
        {"kind": "adopt", "namespace": "memory://", "spec": spec, "shards": (0, 1), "output": str(folder), "threads": 1}
    )
    nouns: dict[str, Noun] = {}
    verbs: dict[str, Verb] = {}
    quarantined: list[str] = []
    for built in await run_job(job, store, clock=SystemClock(), ids=Ids(), report=lambda _: None):
        shard = Shard.open(Base.open(Path(built.directory)), spec, threads=1)
        for some in shard.scan_nouns(include_soft_deleted=True):
            nouns.update((noun.id, noun) for noun in some)
        for part in shard.find_verbs(None, None, None):
            verbs.update((verb.id, verb) for verb in part)
        quarantined += [entry.key for entry in shard.quarantined()]
        shard.search(np.ones((1, _DIMENSIONS), np.float32), 5)
        shard.statistics()
        shard.unindexed()
    assert nouns == content.nouns
    assert verbs == content.verbs
    assert sorted(quarantined) == sorted(content.reasons)
