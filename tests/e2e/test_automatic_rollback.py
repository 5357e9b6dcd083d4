"""Targets that serve worse than their source, with real processes: rolled back from, without anything lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from brainy.cli.main import app
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import Roles
from brainy.sdk.migration import Migration, TargetSpec
from brainy.traffic.limits import RollbackLimits
from tests.e2e.conftest import RunCluster, events, unexpected
from tests.e2e.test_crashes import sample_bucket
from tests.e2e.test_pools import holders, routing
from tests.e2e.test_way_back import assert_whole, dimensions, promoted, rested, wrote
from tests.e2e.traffic import Traffic

#: Nobody dies in here: a node that is slow is slow in everything, and still alive.
PATIENT = {"BRAINY_COORDINATOR__NODE_TTL_SECONDS": "15"}


async def until_ready(client: AsyncBrainy, migration: Migration) -> Migration:
    async with asyncio.timeout(300):
        async for seen in client.watch_migration(migration.id):
            if seen.state == "READY":
                return seen
    raise AssertionError("it ended before it was ready")


async def read(traffic: Traffic, more: int) -> None:
    before = traffic.oracle.reads
    async with asyncio.timeout(180):
        while traffic.oracle.reads < before + more:
            await asyncio.sleep(0.02)


def triggers(migration: Migration) -> list[str]:
    return [event.trigger for event in migration.story]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("strategy", "fault", "limits", "why"),
    [
        ("in-place-upgrade", {"slow_seconds": 0.3}, RollbackLimits(p99_factor=3.0, min_calls=50), "p99 "),
        ("rolling", {"failing_share": 0.1}, RollbackLimits(error_rate=0.02, min_calls=50), "error-rate "),
        ("in-place-upgrade", {"blind": True}, RollbackLimits(overlap=0.9, shadow=1.0, min_queries=20), "overlap "),
    ],
)
async def test_a_bad_target_is_rolled_back_from_by_itself_and_a_good_one_is_completed(
    strategy: str, fault: dict[str, Any], limits: RollbackLimits, why: str, tmp_path: Path, run_cluster: RunCluster
) -> None:
    namespace = await sample_bucket(tmp_path / "bucket")
    faults = tmp_path / "faults.json"
    roles = Roles(node=("-m", "tests.e2e.faulty_node", "--faults", str(faults)))
    async with run_cluster(namespace, nodes=3, roles=roles, settings=PATIENT) as (cluster, client):
        traffic = Traffic(client, dimensions(), seed=17)
        await read(traffic, 150)
        migration = await client.start_migration(
            strategy,
            keep_way_back=True,
            hold_before_switch=True,
            observe_seconds=6.0,
            rollback_if=limits,
            requested_by="test",
        )
        await until_ready(client, migration)
        await read(traffic, 150)
        faults.write_bytes(orjson.dumps({"generation": 1, **fault}))
        await promoted(client, migration)
        seen = await rested(client, migration, back=1)
        assert (seen.state, seen.held, seen.digest_equal) == ("READY", True, True), seen.story
        asked = [event for event in seen.story if event.trigger == "rollback_requested"]
        assert [(event.by, event.detail.startswith(why)) for event in asked] == [("automatic", True)], asked
        assert seen.paused == (f"rolled back by itself: {asked[0].detail}",)
        print(f"\n{strategy} {limits.texts}: {asked[0].detail}; before: {seen.served_before}")
        shown = await asyncio.to_thread(
            CliRunner().invoke, app, ["migrate", "show", migration.id, "--dir", str(cluster.directory), "--json"]
        )
        assert shown.exit_code == 0, shown.output
        assert orjson.loads(shown.stdout)["rollback_if"] == list(limits.texts)
        faults.unlink()
        await wrote(traffic)

        # The target follows again and can be tried: what was wrong with it shows, or as here, that it is mended.
        await client.set_reads(migration.id, weight=0.2, shadow=1.0, requested_by="test")
        async with asyncio.timeout(180):
            while (found := (await client.compare_reads(migration.id)).comparison).queries < 30:
                await asyncio.sleep(0.1)
        assert (found.items_differing, found.failed) == (0, 0)
        assert found.overlap is not None
        assert found.overlap > 0.9

        # Promoted alone it still stands; resumed it goes, is watched, and is completed.
        await promoted(client, migration)
        await client.resume_migration(migration.id, requested_by="test")
        ended = await asyncio.wait_for(client.wait_for_migration(migration.id), 180)
        oracle = await traffic.stop()
        assert ended.succeeded, ended.story
        assert {"reads_set", "observed_so_far", "observed"} <= set(triggers(ended))
        assert triggers(ended).count("rolled_back") == triggers(ended).count("copy_done") == 1
        assert oracle.failed_writes == []
        if "failing_share" in fault:
            assert oracle.failed_reads != []
            assert {event["event"] for event in unexpected(cluster)} == {"rpc_crashed"}
        else:
            assert oracle.failed_reads == []
            assert unexpected(cluster) == []
        await assert_whole(client, traffic, 1)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_blue_green_is_rolled_back_to_blue_and_goes_forward_again(
    tmp_path: Path, run_cluster: RunCluster
) -> None:
    namespace = await sample_bucket(tmp_path / "bucket")
    async with run_cluster(namespace, nodes=2, settings=PATIENT) as (cluster, client):
        blue = {node.name for node in cluster.nodes}
        green = {(await cluster.start_node(pool="green")).name for _ in range(2)}
        whole = cluster.client()
        traffic = Traffic(whole, dimensions(), seed=18)
        migration = await client.start_migration(
            "blue-green", TargetSpec(pool="green"), keep_way_back=True, rollback_if=["worse"]
        )
        for cycle in range(2):
            seen = await rested(client, migration, back=cycle)
            assert (seen.state, seen.digest_equal) == ("OBSERVING", True), seen.story
            record = await routing(cluster)
            assert (record.active, holders(record, 0), holders(record, 1)) == (1, blue, green)
            await wrote(traffic)
            await client.rollback_migration(migration.id, reason="test", requested_by="test")
            seen = await rested(client, migration, back=cycle + 1)
            # Blue serves again, and nothing of it was ever on a green node.
            record = await routing(cluster)
            assert (record.active, holders(record, 0), holders(record, 1)) == (0, blue, green)
            assert (seen.held, seen.paused) == (True, ()), "somebody asked for it, so it is not paused"
            await wrote(traffic)
            await promoted(client, migration)
        await rested(client, migration, back=2)
        # While blue follows it can be asked besides, and says the same.
        await client.set_reads(migration.id, weight=0.0, shadow=1.0, requested_by="test")
        async with asyncio.timeout(180):
            while (found := await client.compare_reads(migration.id)).comparison.queries < 30:
                await asyncio.sleep(0.1)
        assert (found.source_generation, found.target_generation) == (1, 0)
        assert (found.comparison.items_differing, found.comparison.failed) == (0, 0)
        assert found.comparison.overlap is not None
        assert found.comparison.overlap > 0.9
        await client.complete_migration(migration.id)
        ended = await asyncio.wait_for(client.wait_for_migration(migration.id), 180)
        oracle = await traffic.stop()
        await whole.close()
        assert ended.succeeded
        assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
        await assert_whole(client, traffic, 1)
        assert holders(await routing(cluster), 1) == green
        assert unexpected(cluster) == []


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_coordinated_migration_is_rolled_back_with_what_was_written_since(
    tmp_path: Path, run_cluster: RunCluster
) -> None:
    namespace = await sample_bucket(tmp_path / "bucket")
    async with run_cluster(namespace, nodes=2, settings=PATIENT) as (cluster, client):
        migration = await client.start_migration("coordinated", writers_stopped=True, keep_way_back=True)
        seen = await rested(client, migration, back=0)
        assert (seen.state, seen.digest_equal) == ("OBSERVING", True), seen.story
        traffic = Traffic(client, dimensions(), seed=19)
        await wrote(traffic, 60)
        await client.rollback_migration(migration.id, reason="test")
        seen = await rested(client, migration, back=1)
        assert (seen.state, seen.held, seen.adopted_nodes) == ("READY", True, ()), seen.story
        await wrote(traffic)
        oracle = await traffic.stop()
        assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
        await assert_whole(client, traffic, 0)
        # Forward again it wants a window without writers, as the first time.
        await promoted(client, migration)
        seen = await rested(client, migration, back=1)
        assert seen.state == "OBSERVING"
        await client.complete_migration(migration.id)
        assert (await asyncio.wait_for(client.wait_for_migration(migration.id), 180)).succeeded
        await assert_whole(client, traffic, 1)
        assert unexpected(cluster) == []


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_leaders_that_die_neither_shorten_the_time_to_observe_nor_begin_it_anew(
    tmp_path: Path, run_cluster: RunCluster
) -> None:
    namespace = await sample_bucket(tmp_path / "bucket")
    async with run_cluster(namespace, nodes=2, settings=PATIENT) as (cluster, client):
        traffic = Traffic(client, dimensions(), seed=20)
        migration = await client.start_migration(
            "in-place-upgrade", keep_way_back=True, observe_seconds=20.0, rollback_if=["error-rate>0.5"]
        )
        for least in (4.0, 12.0):
            await observed(client, migration, least)
            await cluster.restart_coordinator()
        ended = await asyncio.wait_for(client.wait_for_migration(migration.id), 180)
        oracle = await traffic.stop()
        assert ended.succeeded, ended.story
        assert ended.observed_seconds >= 20.0
        noted = Counter(event.leader_epoch for event in ended.story if event.trigger == "observed_so_far")
        # Each of three leaders has watched a part, and none of them near the whole: a note is a second or more.
        assert len(noted) == 3, ended.story
        assert max(noted.values()) < 15, noted
        assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
        await assert_whole(client, traffic, 1)
        assert all("rolled_back" not in event.get("story", "") for event in events(cluster.coordinators[0]))


async def observed(client: AsyncBrainy, migration: Migration, least: float) -> None:
    """Wait until so much is on record."""
    async with asyncio.timeout(180):
        while True:
            seen = await client.get_migration(migration.id)
            noted = [event for event in seen.story if event.trigger == "observed_so_far"]
            if noted and float(noted[-1].detail.split(" s of")[0]) >= least:
                return
            await asyncio.sleep(0.1)
