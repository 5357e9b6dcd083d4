"""Following a tree that Brainy processes write: one pass after their last write, source and target are equal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from followed_bucket import FollowedBucket, spec_of, tree_digest

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.environment import inherited
from brainy.config.settings import StoreSettings
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.local import LocalStore
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy.store.opening import open_store
from brainy.testing.brainy_writer import ENTITY_057, FLAT_046, MANNERS, BrainyFleet, Manner
from brainy.testing.servers import S3Server
from brainy_node.shard.base import Base

SCHEDULES = int(inherited().get("FOLLOW_SCHEDULES") or 3)


async def play(store: ObjectStore, directory: Path, manner: Manner, seed: int) -> int:
    """Writers write while we follow; one pass after their last write both sides are equal. Returns what was applied."""
    fleet = BrainyFleet(store, clock=SystemClock(), seed=seed, manner=manner)
    await fleet.write(120)
    chances, applied = np.random.default_rng(seed), 0
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
                applied += await change_hands(bucket, bases, chances)
        await fleet.finish()
        await bucket.turn()
        expected, nouns, _ = await tree_digest(store)
        served = bucket.digest()
        assert served.differing(expected) == []
        assert len(nouns) > 5
        assert await bucket.replica_digest(bases) == served
        return applied + bucket.applied
    finally:
        await bucket.close()


async def change_hands(bucket: FollowedBucket, bases: dict[int, Base], chances: np.random.Generator) -> int:
    """Now and then the owner dies, or leaves, and another begins from the bucket; returns what the first applied."""
    chance = chances.random()
    if chance > 0.3:
        return 0
    applied = bucket.applied
    await bucket.close(save=chance < 0.1)
    await bucket.take_over(bases)
    return applied


@pytest.mark.parametrize("manner", MANNERS, ids=lambda manner: manner.name)
@pytest.mark.parametrize("seed", range(2))
async def test_one_pass_after_the_last_write_both_are_equal(tmp_path: Path, manner: Manner, seed: int) -> None:
    assert await play(LocalStore(tmp_path / "bucket", durable=False), tmp_path / "bases", manner, seed) > 20


@pytest.mark.parametrize("seed", range(3))
async def test_old_and_new_brainy_side_by_side(tmp_path: Path, seed: int) -> None:
    """Two trees are written at once, the same ids in both: the newer tree wins, its deletions hide the older one's."""
    store = LocalStore(tmp_path / "bucket", durable=False)
    clock = SystemClock()
    old = BrainyFleet(store, clock=clock, seed=seed, manner=FLAT_046)
    await old.write(200)
    new = BrainyFleet(store, clock=clock, seed=seed + 50, manner=ENTITY_057, known=old.nouns)
    bucket = FollowedBucket(store, spec_of(), tmp_path / "bases")
    bases = await bucket.bases()
    await bucket.open(bases)
    try:
        for _ in range(4):
            await old.write(30)
            await new.write(60)
            await bucket.turn()
            await bucket.follower.take_hints()
        await old.finish()
        await new.finish()
        await bucket.turn()
        expected, _, _ = await tree_digest(store)
        assert bucket.digest().differing(expected) == []
        assert bucket.applied > 40
    finally:
        await bucket.close()


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
    total = 0
    for seed in range(SCHEDULES):
        store = seaweed()
        applied = await play(store, tmp_path / str(seed), MANNERS[seed % len(MANNERS)], 1000 + seed)
        assert applied > 5
        total += applied
        await store.close()
    print(f"\n{SCHEDULES} schedules: {total} foreign changes taken over, both sides equal after each")


# --- what a pass costs ------------------------------------------------------------------------------------------


async def test_a_pass_over_an_unchanged_bucket_costs_lists_only(tmp_path: Path) -> None:
    store = MeteredStore(MemoryStore())
    fleet = BrainyFleet(store, clock=SystemClock(), seed=3, manner=FLAT_046)
    await fleet.write(300)
    await fleet.finish()
    bucket = FollowedBucket(store, spec_of(), tmp_path)
    await bucket.open(await bucket.bases())
    try:
        await bucket.turn()
        await bucket.turn()
        before = dict(store.calls)
        records = await bucket.log_records()
        after = dict(store.calls)
        await bucket.turn()
        spent = {kind: count - after[kind] for kind, count in store.calls.items() if count != after[kind]}
        assert before["get"] > 0
        assert set(spent) == {"list"}
        assert spent["list"] <= 8 + 1 + 2  # eight prefixes, the end of the change log, second pages
        assert await bucket.log_records() == records
    finally:
        await bucket.close()
