"""Data that come from elsewhere through the one engine: backups, and namespaces that move, with real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from brainy.bucket import layout
from brainy.bucket.namespace import Namespace
from brainy.bucket.records import Routing
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.errors import PreconditionError
from brainy.ids import Ids
from brainy.samples import sample_objects, sample_truth
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.migration import Migration, TargetSpec
from brainy.sdk.sources import SourceSpec
from brainy.store.opening import open_store
from brainy.testing.servers import S3Server
from tests.conftest import BUCKET
from tests.e2e.conftest import QUICK, unexpected
from tests.e2e.test_crashes import sample_bucket
from tests.e2e.traffic import Oracle, Traffic
from tests.e2e.truth import entries


@asynccontextmanager
async def cluster_at(
    namespace: str, directory: Path, *, nodes: int = 2, shards: int = 2, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[LocalCluster, AsyncBrainy]]:
    cluster = LocalCluster(
        namespace,
        nodes=nodes,
        directory=directory,
        settings={**QUICK, **(environment or {}), "BRAINY_COORDINATOR__SHARD_COUNT": str(shards)},
    )
    await cluster.start()
    client = cluster.client()
    try:
        yield cluster, client
    finally:
        await client.close()
        await cluster.stop(grace_seconds=5.0)


async def ended(client: AsyncBrainy, migration: Migration) -> Migration:
    async with asyncio.timeout(300):
        while not (seen := await client.get_migration(migration.id)).ended:
            await asyncio.sleep(0.05)
    return seen


def counts() -> tuple[int, int]:
    truth = sample_truth()
    return len(entries(truth["nouns"])), len(entries(truth["verbs"]))


def dimensions() -> int:
    return len(next(iter(entries(sample_truth()["nouns"]).values()))["vector"])


@pytest.mark.long
@pytest.mark.timeout(600)
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


async def moved_under_writers(
    tmp_path: Path,
    old: str,
    new: str,
    *,
    shards: int,
    kill_when: str = "",
    environment: Mapping[str, str] | None = None,
) -> tuple[Oracle, Migration]:
    """Move one namespace into another while it is written to; returns what was acknowledged and the migration."""
    async with (
        cluster_at(old, tmp_path / "c-old", environment=environment) as (left, source),
        cluster_at(new, tmp_path / "c-new", environment=environment) as (receiving, target),
    ):
        traffic = Traffic(source, dimensions(), seed=5)
        migration = await target.start_migration(
            target=TargetSpec(shard_count=shards), source=SourceSpec(namespace=old), requested_by="test"
        )
        if kill_when:
            await until_moving(old, kill_when)
            await receiving.restart_coordinator()
        seen = await ended(target, migration)
        # Everything that was asked of the old name from now on is told where to go.
        async with asyncio.timeout(60):
            while not traffic.oracle.failed_writes or not traffic.oracle.failed_reads:
                await asyncio.sleep(0.02)
        oracle = await traffic.stop()
        assert (seen.state, seen.digest_equal, seen.strategy) == ("SUCCEEDED", True, "dedicated-namespace"), seen.story
        assert {failed.partition(":")[0] for failed in oracle.failed_writes} == {"NAMESPACE_MOVED"}
        assert {failed.partition(":")[0] for failed in oracle.failed_reads} == {"NAMESPACE_MOVED"}
        assert oracle.writes > 20
        await oracle.assert_kept(target)
        statistics = await target.get_statistics()
        written = sum(1 for vector in oracle.acknowledged.values() if vector is not None)
        nouns, verbs = counts()
        assert (statistics.generation, statistics.verb_count) == (1, verbs)
        # Of a write that was not acknowledged either outcome is right, and it was never begun after the move.
        assert nouns + written <= statistics.noun_count <= nouns + written + len(oracle.unsure)
        with pytest.raises(PreconditionError) as refused:
            await source.add([0.5] * dimensions(), id="late")
        assert refused.value.fields["moved_to"] == new
        await target.add([0.5] * dimensions(), id="late")
        pause, slowest = seen.write_pause_seconds * 1000, oracle.slowest_write_seconds * 1000
        print(f"\nmoved to {shards} shards: {oracle.writes} writes, pause {pause:.0f} ms, slowest {slowest:.0f} ms")
        assert unexpected(left) == []
        if not kill_when:
            assert unexpected(receiving) == []
    return oracle, seen


async def until_moving(namespace: str, phase: str) -> None:
    """Wait until the record of the namespace that is left says that it is fenced, or gone."""
    file = Path(namespace.removeprefix("file://")) / layout.ROUTING
    async with asyncio.timeout(240):
        while True:
            moving = Routing.decode(await asyncio.to_thread(file.read_bytes), key=layout.ROUTING).moving
            if moving is not None and (phase == "fenced" or moving.done):
                return
            await asyncio.sleep(0.002)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shards", [2, 3])
async def test_a_namespace_moves_while_it_is_written_to(tmp_path: Path, shards: int) -> None:
    old = await sample_bucket(tmp_path / "old")
    _, migration = await moved_under_writers(tmp_path, old, f"file://{tmp_path / 'new'}", shards=shards)
    assert migration.source == SourceSpec(namespace=old)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["fenced", "gone"])
async def test_a_coordinator_killed_amid_the_switch_leaves_one_that_takes_writes(tmp_path: Path, moment: str) -> None:
    old = await sample_bucket(tmp_path / "old")
    await moved_under_writers(tmp_path, old, f"file://{tmp_path / 'new'}", shards=2, kill_when=moment)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_namespace_moves_on_an_object_server(
    tmp_path: Path, seaweedfs_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in seaweedfs_server.environment.items():
        monkeypatch.setenv(variable, value)
    old, new = f"s3://{BUCKET}/old-{Ids().short()}", f"s3://{BUCKET}/new-{Ids().short()}"
    store = open_store(Namespace.parse(old), StoreSettings(), clock=SystemClock(), ids=Ids())
    for key, body, user_metadata in sample_objects():
        await store.put(key, body, user_metadata=user_metadata)
    await store.close()
    await moved_under_writers(tmp_path, old, new, shards=3, environment=seaweedfs_server.environment)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_bucket_of_brainys_whose_writers_are_stopped_moves(tmp_path: Path) -> None:
    old, new = await sample_bucket(tmp_path / "old"), f"file://{tmp_path / 'new'}"
    async with cluster_at(new, tmp_path / "c-new") as (cluster, client):
        source = SourceSpec(namespace=old)
        plan = await client.plan_migration(source=source, dry_run=True)
        failed = {check.name: check for check in plan.checks if not check.passed}
        assert failed.keys() == {"source_writers_stopped"}, plan.checks
        assert "--writers-stopped" in failed["source_writers_stopped"].remedy
        migration = await client.start_migration(source=source, writers_stopped=True)
        seen = await ended(client, migration)
        assert (seen.state, seen.digest_equal, seen.strategy) == ("SUCCEEDED", True, "dedicated-namespace"), seen.story
        statistics = await client.get_statistics()
        assert (statistics.generation, statistics.noun_count, statistics.verb_count) == (1, *counts())
    assert unexpected(cluster) == []


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_move_that_is_aborted_leaves_both_as_they_were(tmp_path: Path) -> None:
    old, new = await sample_bucket(tmp_path / "old"), f"file://{tmp_path / 'new'}"
    async with (
        cluster_at(old, tmp_path / "c-old") as (left, source),
        cluster_at(new, tmp_path / "c-new") as (_, target),
    ):
        traffic = Traffic(source, dimensions(), seed=6)
        migration = await target.start_migration(source=SourceSpec(namespace=old), hold_before_switch=True)
        held = await target.wait_until_migration_rests(migration.id)
        assert (held.state, held.held) == ("READY", True), held.story
        with pytest.raises(PreconditionError) as refused:
            await target.add([0.5] * dimensions(), id="early")
        assert (refused.value.reason, old in refused.value.remedy) == ("NAMESPACE_ARRIVING", True)
        assert (await target.get_statistics()).noun_count == 0
        await target.abort_migration(migration.id)
        assert (await ended(target, migration)).state == "ABORTED"
        await target.add([0.5] * dimensions(), id="early")
        before = traffic.oracle.writes
        async with asyncio.timeout(60):
            while traffic.oracle.writes < before + 20:
                await asyncio.sleep(0.02)
        oracle = await traffic.stop()
        assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
        await oracle.assert_kept(source)
        assert (await target.get_statistics()).noun_count == 1
        assert unexpected(left) == []
