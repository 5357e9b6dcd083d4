"""A small bucket that Brainy and our clients both write, followed, its clock set by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
from followed_bucket import FollowedBucket, spec_of

from brainy.api.common.v1 import common_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import FaultyStore
from brainy_node.shard.base import Base


def stored(item_id: str, number: float) -> tuple[str, bytes]:
    return f"nouns/{item_id}.json", orjson.dumps({"id": item_id, "vector": [number] * 8, "connections": {}})


def said(item_id: str, number: float) -> log_pb2.LogRecord:
    vector = np.full(8, number, "<f4").tobytes()
    return log_pb2.LogRecord(
        request_id=f"client-{item_id}-{number}/0", upsert_noun=common_pb2.Noun(id=item_id, vector=vector)
    )


class LiveBucket:
    """A memory bucket with a settable clock, followed."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        self.store = MeteredStore(MemoryStore(self.clock))
        self.bases: dict[int, Base] = {}
        self.bucket = FollowedBucket(self.store, spec_of(1), directory, self.clock)

    def value(self, item_id: str) -> float | None:
        found = self.bucket.owned[0].shard.get_nouns([item_id])
        return float(np.frombuffer(found[0].vector, "<f4")[0]) if found else None

    async def put(self, item_id: str, number: float) -> None:
        await self.store.put(*stored(item_id, number))

    async def commit(self, *records: log_pb2.LogRecord) -> None:
        await self.bucket.owned[0].commits.commit(records)

    @property
    def conflicts(self) -> int:
        figures = self.bucket.follower.figures(0, 0)
        return 0 if figures is None else figures.conflicts


class FaultyBucket(LiveBucket):
    """Followed through a store that fails on command; Brainy writes past it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.faulty = FaultyStore(self.store)
        self.bucket = FollowedBucket(self.faulty, spec_of(1), directory, self.clock)
