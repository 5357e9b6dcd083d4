"""Upgrades of a small bucket, each with a SIGKILL at a random moment of a random process."""

from __future__ import annotations

import asyncio
import os  # the number of runs is the caller's
import random  # noqa: TID251 - a seeded source, so that a failing run can be repeated
from pathlib import Path

import pytest

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.ids import Ids
from brainy.samples import sample_objects, sample_truth
from brainy.store.opening import open_store
from tests.e2e.conftest import RunCluster
from tests.e2e.traffic import Traffic
from tests.e2e.truth import entries

RUNS = int(os.environ.get("CRASH_RUNS", "3"))  # noqa: TID251 - a knob of the test, not of the product
FIRST = int(os.environ.get("CRASH_SEED", "1"))  # noqa: TID251 - likewise


async def sample_bucket(directory: Path) -> str:
    namespace = f"file://{directory}"
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    for key, body, user_metadata in sample_objects():
        await store.put(key, body, user_metadata=user_metadata)
    await store.close()
    return namespace


@pytest.mark.crash
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(FIRST, FIRST + RUNS))
async def test_no_acknowledged_write_is_lost_when_a_process_is_killed_during_an_upgrade(
    seed: int, tmp_path: Path, run_cluster: RunCluster
) -> None:
    rng = random.Random(seed)
    truth = sample_truth()
    nouns, verbs = entries(truth["nouns"]), entries(truth["verbs"])
    dimensions = len(next(iter(nouns.values()))["vector"])
    strategy = rng.choice(["rolling", "in-place-upgrade"])
    namespace = await sample_bucket(tmp_path / "bucket")
    async with run_cluster(namespace, nodes=3) as (cluster, client):
        traffic = Traffic(client, dimensions, seed=seed)
        migration = await client.start_migration(strategy, requested_by=f"crash run {seed}")
        ended = asyncio.create_task(client.wait_for_migration(migration.id))
        # The moment is drawn over the usual length of an upgrade, so that every stage gets its share.
        await asyncio.wait([ended], timeout=rng.uniform(0.0, 6.0))
        victim = rng.choice(["coordinator", "node", "node", "node"])
        if victim == "coordinator":
            await cluster.restart_coordinator()
        else:
            await cluster.kill_node(rng.randrange(3))
            await cluster.start_node()
        result = await asyncio.wait_for(ended, 120)
        oracle = await traffic.stop()

        told = f"seed={seed} strategy={strategy} victim={victim} writes={oracle.writes} reads={oracle.reads}"
        print(f"\n{told} state={result.state} digest_equal={result.digest_equal}")
        assert result.state == "SUCCEEDED", f"{told}: {result.message}"
        assert result.digest_equal, told
        assert oracle.writes > 0, told
        assert oracle.failed_writes == [], told
        assert oracle.failed_reads == [], told
        await oracle.assert_kept(client)
        statistics = await client.get_statistics()
        written = sum(1 for vector in oracle.acknowledged.values() if vector is not None)
        assert statistics.generation == 1, told
        assert statistics.noun_count == len(nouns) + written, told
        assert statistics.verb_count == len(verbs), told
