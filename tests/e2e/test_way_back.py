"""Forward, back and forward again with real processes, under writers that never stop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from brainy.errors import PastPointOfNoReturnError, PreconditionError
from brainy.samples import sample_truth
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.migration import Migration, TargetSpec
from tests.e2e.conftest import RunCluster, unexpected
from tests.e2e.test_crashes import sample_bucket
from tests.e2e.traffic import Traffic
from tests.e2e.truth import entries


async def rested(client: AsyncBrainy, migration: Migration, *, back: int) -> Migration:
    """Wait until it rests, on the side that is meant."""
    async with asyncio.timeout(180):
        while True:
            seen = await client.wait_until_migration_rests(migration.id)
            turned = sum(event.trigger == "rolled_back" for event in seen.story)
            if turned == back and (seen.held or seen.state == "OBSERVING" or seen.ended):
                return seen
            await asyncio.sleep(0.05)


async def promoted(client: AsyncBrainy, migration: Migration) -> None:
    """Promote as soon as it is ready to."""
    async with asyncio.timeout(60):
        while True:
            try:
                await client.promote_migration(migration.id, requested_by="test")
                return
            except PreconditionError:
                await asyncio.sleep(0.1)


async def wrote(traffic: Traffic, more: int = 20) -> None:
    before = traffic.oracle.writes
    async with asyncio.timeout(60):
        while traffic.oracle.writes < before + more:
            await asyncio.sleep(0.02)


async def assert_whole(client: AsyncBrainy, traffic: Traffic, generation: int) -> None:
    oracle, truth = traffic.oracle, sample_truth()
    await oracle.assert_kept(client)
    statistics = await client.get_statistics()
    written = sum(1 for vector in oracle.acknowledged.values() if vector is not None)
    assert statistics.generation == generation
    assert statistics.noun_count == len(entries(truth["nouns"])) + written
    assert statistics.verb_count == len(entries(truth["verbs"]))


def dimensions() -> int:
    return len(next(iter(entries(sample_truth()["nouns"]).values()))["vector"])


@pytest.mark.slow
@pytest.mark.timeout(480)
@pytest.mark.parametrize(("strategy", "shards"), [("in-place-upgrade", 0), ("rolling", 3)])
async def test_five_times_there_and_back_loses_nothing(
    strategy: str, shards: int, tmp_path: Path, run_cluster: RunCluster
) -> None:
    namespace = await sample_bucket(tmp_path / "bucket")
    async with run_cluster(namespace, nodes=3) as (cluster, client):
        traffic = Traffic(client, dimensions(), seed=7)
        migration = await client.start_migration(strategy, TargetSpec(shard_count=shards), keep_way_back=True)
        for cycle in range(1, 6):
            seen = await rested(client, migration, back=cycle - 1)
            assert (seen.state, seen.digest_equal) == ("OBSERVING", True), seen.story
            await wrote(traffic)
            await client.rollback_migration(migration.id, reason=f"cycle {cycle}")
            seen = await rested(client, migration, back=cycle)
            assert (seen.state, seen.held) == ("READY", True), seen.story
            await wrote(traffic)
            await promoted(client, migration)
        seen = await rested(client, migration, back=5)
        assert seen.state == "OBSERVING"
        listed = await client.complete_migration(migration.id, validate_only=True)
        assert listed.retired == ("cluster/generations/0/",)
        assert (await client.get_migration(migration.id)).state == "OBSERVING"
        await client.complete_migration(migration.id)
        ended = await asyncio.wait_for(client.wait_for_migration(migration.id), 60)
        oracle = await traffic.stop()
        print(f"\n{strategy} {shards}: writes={oracle.writes} slowest={oracle.slowest_write_seconds:.3f} s")
        assert ended.succeeded
        assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
        await assert_whole(client, traffic, 1)
        with pytest.raises(PastPointOfNoReturnError):
            await client.rollback_migration(migration.id)
        assert [event.trigger for event in ended.story].count("copy_done") == 1
        assert unexpected(cluster) == []


@pytest.mark.slow
@pytest.mark.timeout(480)
@pytest.mark.parametrize("victim", ["leader", "owner"])
async def test_a_killed_process_does_not_keep_it_from_coming_back(
    victim: str, tmp_path: Path, run_cluster: RunCluster
) -> None:
    namespace = await sample_bucket(tmp_path / "bucket")
    async with run_cluster(namespace, nodes=3) as (cluster, client):
        traffic = Traffic(client, dimensions(), seed=8)
        migration = await client.start_migration("in-place-upgrade", keep_way_back=True)
        await rested(client, migration, back=0)
        await wrote(traffic)
        if victim == "owner":
            # While the source follows: its owner is gone, another takes over from where its log says.
            await cluster.kill_node(0)
            await cluster.start_node()
            await wrote(traffic)
            await client.rollback_migration(migration.id)
        else:
            await client.rollback_migration(migration.id)
            async with asyncio.timeout(60):
                while (await client.get_migration(migration.id)).story[-1].trigger == "rollback_requested":
                    await asyncio.sleep(0.005)
            await cluster.restart_coordinator()
        seen = await rested(client, migration, back=1)
        assert (seen.state, seen.held) == ("READY", True), seen.story
        await wrote(traffic)
        oracle = await traffic.stop()
        assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
        await assert_whole(client, traffic, 0)
        await client.abort_migration(migration.id)
        assert (await asyncio.wait_for(client.wait_for_migration(migration.id), 60)).state == "ABORTED"
        # The client still holds positions of the generation that is gone.
        await oracle.assert_kept(client)
