"""How long writes wait when the process of an owner dies, with the product's own times."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.conftest import RunCluster
from tests.e2e.traffic import Traffic

DIMENSIONS = 8
#: The product's defaults: a node is given up after six silent seconds, a dead process sooner.
PATIENT = {
    "BRAINY_COORDINATOR__HEARTBEAT_INTERVAL_SECONDS": "1.0",
    "BRAINY_COORDINATOR__NODE_TTL_SECONDS": "6.0",
}


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_dead_process_is_replaced_before_its_time_to_live_is_over(
    tmp_path: Path, run_cluster: RunCluster
) -> None:
    async with run_cluster(f"file://{tmp_path / 'bucket'}", nodes=3, settings=PATIENT) as (cluster, client):
        await client.add_many([[float(n), 1.0] + [0.0] * (DIMENSIONS - 2) for n in range(20)])
        traffic = Traffic(client, DIMENSIONS, seed=1)
        dead = await cluster.kill_node(0)
        while dead in {node.node_id for node in await client.nodes() if node.state == "alive"}:
            await asyncio.sleep(0.05)
        before = traffic.oracle.writes
        while traffic.oracle.writes < before + 60:
            await asyncio.sleep(0.05)
        oracle = await traffic.stop()
        print(f"\nslowest write: {oracle.slowest_write_seconds * 1000:.0f} ms")
        assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
        assert oracle.slowest_write_seconds < 6.0
        await oracle.assert_kept(client)
