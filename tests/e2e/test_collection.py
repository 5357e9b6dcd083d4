"""Change logs that are collected within a second, under traffic, folds and a node that comes back from far behind."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from brainy.bucket import layout
from brainy.bucket.namespace import Namespace
from brainy.changelog.collection import collected_position
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.ids import Ids
from brainy.store.opening import open_store
from tests.e2e.conftest import RunCluster
from tests.e2e.traffic import Traffic

DIMENSIONS = 8
#: Far too short for a real store with requests that linger; long enough to show that nothing depends on it.
HASTY = {
    "BRAINY_NODE__LOG_RETENTION_SECONDS": "0.5",
    "BRAINY_NODE__LOG_COLLECTION_SECONDS": "0.2",
    "BRAINY_NODE__FOLD_RECORDS": "40",
    "BRAINY_NODE__FOLD_SLOTS": "20",
    "BRAINY_COORDINATOR__SHARD_COUNT": "2",
}


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_what_was_acknowledged_outlives_its_log(tmp_path: Path, run_cluster: RunCluster) -> None:
    namespace = f"file://{tmp_path / 'bucket'}"
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    async with run_cluster(namespace, nodes=2, settings=HASTY) as (cluster, client):
        await client.add_many([[float(n), 1.0] + [0.0] * (DIMENSIONS - 2) for n in range(20)])
        migration = await client.start_migration("in-place-upgrade", requested_by="test")
        assert (await client.wait_for_migration(migration.id)).state == "SUCCEEDED"
        traffic = Traffic(client, DIMENSIONS, seed=5)

        async def collected(shard: int, *, above: int = 0) -> int:
            while (position := await collected_position(store, 1, shard)) <= above:
                await asyncio.sleep(0.05)
            return position

        async with asyncio.timeout(60):
            seen = [await collected(0), await collected(1)]
            # A node that was away, and whose disk is gone or old, opens the newest checkpoint.
            node = cluster.nodes[1]
            data = cluster.directory / "data" / node.name
            kept = tmp_path / "kept"
            await asyncio.to_thread(shutil.copytree, data, kept)
            again = [await collected(0, above=seen[0]), await collected(1, above=seen[1])]
            await node.kill(SystemClock())
            await asyncio.to_thread(shutil.rmtree, data)
            await asyncio.to_thread(shutil.copytree, kept, data)
            await cluster.restart_node(1)
        oracle = await traffic.stop()

        for shard in (0, 1):
            log = [meta.key async for page in store.list(layout.log(1, shard)) for meta in page]
            first = min(found[2] for key in log if (found := layout.parse_log_slot(key)) is not None)
            assert first > seen[shard], "the beginning of the log is gone"
        assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
        await oracle.assert_kept(client)
        print(f"\n{oracle.writes} writes; collected up to {seen}, then {again}")
    await store.close()
