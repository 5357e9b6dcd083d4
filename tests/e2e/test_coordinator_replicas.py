"""Three coordinators: leaders that are killed or stopped in the midst of an upgrade, and then none at all."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from brainy.bucket import layout
from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.ids import Ids
from brainy.locks.record import LockRecord
from brainy.samples import sample_objects, sample_truth
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.local_process import LocalProcess
from brainy.store.base import ObjectStore
from brainy.store.opening import open_store
from tests.e2e.conftest import QUICK, RunCluster
from tests.e2e.traffic import Traffic
from tests.e2e.truth import entries

LEASE = float(QUICK["BRAINY_COORDINATOR__LEADER_LEASE_SECONDS"])
POLL = 0.02


async def leader(store: ObjectStore, *, above: int = 0) -> tuple[str, int]:
    """Wait for a leader whose epoch is higher; returns its name and epoch."""
    async with asyncio.timeout(LEASE + 20.0):
        while True:
            found = await store.get(layout.lock("coordinator"))
            if found is not None:
                record = LockRecord.decode(found.body, key="coordinator")
                if record.state == "held" and record.epoch > above:
                    return record.owner, record.epoch
            await asyncio.sleep(POLL)


def named(cluster: LocalCluster, name: str) -> LocalProcess:
    return next(process for process in cluster.coordinators if process.name == name)


async def takeovers(store: ObjectStore, migration_id: str) -> int:
    pages = [page async for page in store.list(layout.migration_events(migration_id))]
    bodies = await store.get_many([meta.key for page in pages for meta in page])
    return sum(b"leader_changed" in found.body for found in bodies if found and not isinstance(found, Exception))


async def sealed(store: ObjectStore, migration_id: str, times: int) -> None:
    async with asyncio.timeout(60):
        while await takeovers(store, migration_id) < times:
            await asyncio.sleep(POLL)


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_leaders_die_during_an_upgrade_and_then_there_is_none(tmp_path: Path, run_cluster: RunCluster) -> None:
    clock = SystemClock()
    namespace = f"file://{tmp_path / 'bucket'}"
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=clock, ids=Ids())
    for key, body, user_metadata in sample_objects():
        await store.put(key, body, user_metadata=user_metadata)
    nouns = entries(sample_truth()["nouns"])
    dimensions = len(next(iter(nouns.values()))["vector"])
    async with run_cluster(namespace, nodes=2, coordinators=3) as (cluster, client):
        assert len(set(cluster.coordinator_addresses)) == 3
        # Any coordinator answers; the leader's judgement is found from each of them.
        for address in cluster.coordinator_addresses:
            async with LocalCluster.client(cluster) as one:
                one._coordinator_pool.prefer(address)
                assert {node.state for node in await one.nodes()} == {"alive"}
        traffic = Traffic(client, dimensions, seed=3)
        migration = await client.start_migration("rolling", requested_by="takeovers")
        ended = asyncio.create_task(client.wait_for_migration(migration.id))

        first, epoch = await leader(store)
        killed_at = clock.monotonic()
        await named(cluster, first).kill(clock)
        second, epoch = await leader(store, above=epoch)
        pause = clock.monotonic() - killed_at
        await sealed(store, migration.id, 1)
        os.kill(named(cluster, second).record.pid, signal.SIGSTOP)
        stopped_at = clock.monotonic()
        third, epoch = await leader(store, above=epoch)
        second_pause = clock.monotonic() - stopped_at
        await sealed(store, migration.id, 2)
        os.kill(named(cluster, second).record.pid, signal.SIGCONT)
        result = await asyncio.wait_for(ended, 60)
        oracle = await traffic.stop()

        assert len({first, second, third}) == 3
        assert max(pause, second_pause) <= LEASE + 5.0
        assert result.state == "SUCCEEDED", result.message
        assert result.digest_equal
        assert await takeovers(store, migration.id) == 2
        assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
        await oracle.assert_kept(client)

        # No coordinator at all: reads and writes go on, also across the restart of a node.
        for process in cluster.coordinators:
            await process.kill(clock)
        alone = Traffic(client, dimensions, seed=4)
        # The time itself is the condition: longer than any node's time to live without one.
        await asyncio.sleep(2 * float(QUICK["BRAINY_COORDINATOR__NODE_TTL_SECONDS"]))
        before = alone.oracle.writes
        restarted_at = clock.monotonic()
        await cluster.restart_node(1)
        outage = clock.monotonic() - restarted_at
        async with asyncio.timeout(60):
            while alone.oracle.writes < before + 50:
                await asyncio.sleep(POLL)
        oracle_alone = await alone.stop()
        assert before > 0
        assert (oracle_alone.failed_writes, oracle_alone.failed_reads) == ([], [])
        await oracle_alone.assert_kept(client)
        await oracle.assert_kept(client)
        written = sum(v is not None for o in (oracle, oracle_alone) for v in o.acknowledged.values())
        assert (await client.get_statistics()).noun_count == len(nouns) + written
        print(
            f"\ntakeovers after {pause:.1f} s (killed) and {second_pause:.1f} s (stopped), lease {LEASE:.0f} s; "
            f"write pause {result.write_pause_seconds * 1000:.0f} ms; {oracle.writes} writes with leaders, "
            f"{oracle_alone.writes} without; node restart {outage:.1f} s"
        )
    await store.close()
