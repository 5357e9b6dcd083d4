"""Data that come from elsewhere through the one engine: backups, and namespaces that move, with real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from brainy.errors import PreconditionError
from brainy.samples import sample_truth
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.migration import Migration, TargetSpec
from brainy.sdk.sources import SourceSpec
from tests.e2e.conftest import QUICK, unexpected
from tests.e2e.test_crashes import sample_bucket
from tests.e2e.traffic import Oracle, Traffic
from tests.e2e.truth import entries


@asynccontextmanager
async def cluster_at(
    namespace: str, directory: Path, *, nodes: int = 2, shards: int = 2
) -> AsyncIterator[tuple[LocalCluster, AsyncBrainy]]:
    cluster = LocalCluster(
        namespace,
        nodes=nodes,
        directory=directory,
        settings={**QUICK, "BRAINY_COORDINATOR__SHARD_COUNT": str(shards)},
    )
    await cluster.start()
    client = cluster.client()
    try:
        yield cluster, client
    finally:
        await client.close()
        await cluster.stop(grace_seconds=5.0)


async def ended(client: AsyncBrainy, migration: Migration) -> Migration:
    async with asyncio.timeout(120):
        while not (seen := await client.get_migration(migration.id)).ended:
            await asyncio.sleep(0.05)
    return seen


def counts() -> tuple[int, int]:
    truth = sample_truth()
    return len(entries(truth["nouns"])), len(entries(truth["verbs"]))


def dimensions() -> int:
    return len(next(iter(entries(sample_truth()["nouns"]).values()))["vector"])


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("backup_format", ["native", "brainy"])
async def test_a_backup_becomes_the_first_generation(tmp_path: Path, backup_format: str) -> None:
    old = await sample_bucket(tmp_path / "old")
    file = tmp_path / "before.backup"
    async with cluster_at(old, tmp_path / "c-old", nodes=1) as (_, client):
        summary = await client.backup_to(file, format=backup_format)
    new = f"file://{tmp_path / 'new'}"
    async with cluster_at(new, tmp_path / "c-new") as (cluster, client):
        source = SourceSpec(backup=str(file))
        plan = await client.plan_migration(target=TargetSpec(shard_count=3), source=source)
        assert (plan.strategy, plan.passes) == ("backup-restore", True), plan.checks
        assert (plan.basis.nouns, plan.basis.verbs) == counts()
        migration = await client.execute_plan(plan.id, confirm=[each.name for each in plan.confirmations])
        seen = await ended(client, migration)
        assert (seen.state, seen.digest_equal, seen.target_generation) == ("SUCCEEDED", True, 1), seen.story
        assert seen.outcome is not None and seen.outcome.as_planned, seen.outcome.disturbances
        statistics = await client.get_statistics()
        assert (statistics.generation, statistics.noun_count, statistics.verb_count) == (1, *counts())
        again = await client.backup_to(tmp_path / "after.backup", format="native")
        assert again.digest == summary.digest
        with pytest.raises(PreconditionError) as refused:
            await client.start_migration(source=source)
        assert refused.value.reason == "TARGET_NOT_EMPTY"
        # From here on it is a namespace like any other.
        await client.add([0.5] * dimensions(), id="later")
        further = await ended(client, await client.start_migration("in-place-upgrade"))
        assert further.state == "SUCCEEDED", further.story
        assert (await client.get_statistics()).noun_count == counts()[0] + 1
    assert unexpected(cluster) == []
