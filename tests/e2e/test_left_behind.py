"""What a migration leaves behind is deleted under traffic; waves and a postponed switch outlive the leader."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from brainy.errors import PastPointOfNoReturnError, PreconditionError
from tests.e2e.conftest import RunCluster, events, unexpected
from tests.e2e.traffic import Traffic

DIMENSIONS = 8
#: Far too short for a real store with requests that linger; long enough to show that nothing depends on it.
BRIEF = {
    "BRAINY_COORDINATOR__RETAIN_SECONDS": "1",
    "BRAINY_COORDINATOR__LOG_RETENTION_SECONDS": "1",
    "BRAINY_COORDINATOR__SHARD_COUNT": "2",
    "BRAINY_NODE__LOG_RETENTION_SECONDS": "1",
    "BRAINY_NODE__FOLD_RECORDS": "60",
}


def files(bucket: Path, generation: int) -> set[str]:
    root = bucket / "cluster" / "generations" / str(generation)
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_node_that_slept_through_a_deletion_meets_no_damage(tmp_path: Path, run_cluster: RunCluster) -> None:
    bucket = tmp_path / "bucket"
    async with run_cluster(f"file://{bucket}", nodes=3, settings=BRIEF) as (cluster, client):
        await client.add_many([[float(n), 1.0] + [0.0] * (DIMENSIONS - 2) for n in range(50)])
        first = await client.start_migration("in-place-upgrade")
        assert (await client.wait_for_migration(first.id)).succeeded
        traffic = Traffic(client, DIMENSIONS, seed=11)
        sleeper = cluster.nodes[2]
        os.kill(sleeper.record.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(400):
                while any(node.node_id == sleeper.name and node.state == "alive" for node in await client.nodes()):
                    await asyncio.sleep(0.1)
                while True:
                    try:
                        second = await client.start_migration("in-place-upgrade", keep_way_back=True)
                        break
                    except PreconditionError:
                        await asyncio.sleep(0.2)  # shards are still moving off the node that sleeps
                await client.wait_until_migration_rests(second.id)
                listed = await client.complete_migration(second.id, validate_only=True)
                assert {each.kind for each in listed.deletes} >= {"manifests", "nouns", "change-log"}
                assert {"spec.json"} < files(bucket, 1)
                await client.complete_migration(second.id)
                while (await client.list_generations())[1].state != "deleted":
                    await asyncio.sleep(0.1)
            assert files(bucket, 1) == {"spec.json", "collected/0.json", "collected/1.json"}
        finally:
            os.kill(sleeper.record.pid, signal.SIGCONT)
        async with asyncio.timeout(400):
            while True:
                # One that was silent for very long is forgotten until it speaks again.
                woken = next((node for node in await client.nodes() if node.node_id == sleeper.name), None)
                replicas = woken.replicas if woken is not None else ()
                ready = [each for each in replicas if each.generation == 2 and each.state == "ready"]
                if woken is not None and woken.state == "alive" and ready and len(ready) == len(replicas):
                    break
                await asyncio.sleep(0.1)
        before = traffic.oracle.writes
        async with asyncio.timeout(400):
            while traffic.oracle.writes < before + 20:
                await asyncio.sleep(0.05)
        oracle = await traffic.stop()
        assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
        await oracle.assert_kept(client)
        assert [event for process in cluster.nodes for event in events(process) if "CORRUPT_DATA" in str(event)] == []
        # With a retention this short a fold may still be under way: its builder finds the log given up, and says so.
        # gRPC tells of the connections that went away while a process slept.
        expected = ("LogCollectedError", "GOAWAY")
        odd = [event for event in unexpected(cluster) if not any(text in str(event) for text in expected)]
        assert odd == []
        shown = await client.get_migration(second.id)
        assert shown.left_behind is not None
        assert (shown.left_behind.state, shown.left_behind.deleted_objects > 0) == ("deleted", True)
        with pytest.raises(PastPointOfNoReturnError):
            await client.rollback_migration(second.id)
        with pytest.raises(PastPointOfNoReturnError):
            await client.keep_generation(1)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_waves_and_a_postponed_switch_outlive_the_leader(tmp_path: Path, run_cluster: RunCluster) -> None:
    bucket = tmp_path / "bucket"
    async with run_cluster(f"file://{bucket}", nodes=3) as (cluster, client):
        await client.add_many([[float(n), 1.0] + [0.0] * (DIMENSIONS - 2) for n in range(50)])
        traffic = Traffic(client, DIMENSIONS, seed=12)
        plan = await client.plan_migration("rolling", max_unavailable=2, bake_seconds=2.0)
        assert (plan.max_unavailable, plan.bake_seconds) == (2, 2.0)
        assert [step.action for step in plan.steps].count("AwaitBake") >= 2
        began = await client.execute_plan(plan.id, confirm=[each.name for each in plan.confirmations])
        postponed = await client.postpone_migration(began.id, 1200.0, reason="lunch", requested_by="ann")
        assert postponed.postponed is not None
        async with asyncio.timeout(400):
            while not (seen := await client.can_switch(began.id)).can_switch:
                await asyncio.sleep(0.1)
            # Nothing is in its way, and it does not switch: somebody has put that off.
            while (left := seen.migration.postponed) is None or left.remaining_seconds > 1185.0:
                await asyncio.sleep(0.5)
                seen = await client.can_switch(began.id)
        assert (seen.migration.state, seen.migration.adopted_nodes) == ("READY", ())
        await cluster.restart_coordinator()
        async with asyncio.timeout(400):
            while not (seen := await client.can_switch(began.id)).can_switch:
                await asyncio.sleep(0.1)
        after = seen.migration.postponed
        # Written down each hundredth, twelve seconds: the new leader did not begin anew.
        assert after is not None
        assert (after.reason, 0.0 < after.remaining_seconds <= 1188.0) == ("lunch", True), after
        await client.promote_migration(began.id, requested_by="bob")
        async with asyncio.timeout(400):
            async for now in client.watch_migration(began.id):
                if any(wave.state == "baking" and wave.baked_seconds for wave in now.waves):
                    break
        await cluster.restart_coordinator()
        ended = await asyncio.wait_for(client.wait_for_migration(began.id), 400)
        oracle = await traffic.stop()
        assert ended.succeeded, ended.story
        assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
        await oracle.assert_kept(client)
        waves = [event.detail for event in ended.story if event.trigger == "wave_baked"]
        assert len(waves) >= 2
        assert sum(len(wave.nodes) for wave in ended.waves) == 3
        assert all(wave.state == "done" and len(wave.nodes) <= 2 for wave in ended.waves)
        asked = {event.trigger: event.by for event in ended.story if event.trigger.endswith("_requested")}
        assert asked == {"postpone_requested": "ann", "promote_requested": "bob"}
        summary = next(each for each in await client.list_plans() if each.id == plan.id)
        assert (summary.migration_id, summary.migration_state) == (began.id, "SUCCEEDED")
        assert unexpected(cluster) == []
