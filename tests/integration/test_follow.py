"""Following a tree that Brainy processes write: one pass after their last write, source and target are equal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from followed_bucket import FollowedBucket, spec_of, tree_digest

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.environment import inherited
from brainy.config.settings import StoreSettings
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.local import LocalStore
from brainy.store.opening import open_store
from brainy.testing.brainy_writer import MANNERS, BrainyFleet, Manner
from brainy.testing.servers import S3Server

SCHEDULES = int(inherited().get("FOLLOW_SCHEDULES") or 3)


async def play(store: ObjectStore, directory: Path, manner: Manner, seed: int) -> int:
    """Writers write while we follow; one pass after their last write both sides are equal. Returns what was applied."""
    fleet = BrainyFleet(store, clock=SystemClock(), seed=seed, manner=manner)
    await fleet.write(120)
    bucket = FollowedBucket(store, spec_of(), directory)
    bases = await bucket.bases()
    await fleet.write(20)
    await bucket.open(bases)
    try:
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(fleet.write(120))
            while not writing.done():
                await bucket.turn()
                await bucket.follower.take_hints()
                await asyncio.sleep(0)
        await fleet.finish()
        await bucket.turn()
        expected, nouns, _ = await tree_digest(store)
        served = bucket.digest()
        assert served.differing(expected) == []
        assert len(nouns) > 10
        assert await bucket.replica_digest(bases) == served
        return bucket.applied
    finally:
        await bucket.close()


@pytest.mark.parametrize("manner", MANNERS, ids=lambda manner: manner.name)
@pytest.mark.parametrize("seed", range(2))
async def test_one_pass_after_the_last_write_both_are_equal(tmp_path: Path, manner: Manner, seed: int) -> None:
    assert await play(LocalStore(tmp_path / "bucket", durable=False), tmp_path / "bases", manner, seed) > 20


@pytest.fixture
def seaweed(seaweedfs_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[], ObjectStore]:
    """Makes stores of fresh namespaces on SeaweedFS."""
    for name, value in seaweedfs_server.environment.items():
        monkeypatch.setenv(name, value)

    def fresh() -> ObjectStore:
        ids = Ids()
        namespace = Namespace.parse(f"s3://brainy-tests/follow-{ids.short()}")
        return open_store(namespace, StoreSettings(endpoint=seaweedfs_server.endpoint), clock=SystemClock(), ids=ids)

    return fresh


@pytest.mark.slow
async def test_random_schedules_on_an_object_server(tmp_path: Path, seaweed: Callable[[], ObjectStore]) -> None:
    """SCHEDULES of them (``make follow``: 50), the manners in turn."""
    for seed in range(SCHEDULES):
        store = seaweed()
        applied = await play(store, tmp_path / str(seed), MANNERS[seed % len(MANNERS)], 1000 + seed)
        assert applied > 20
        await store.close()
