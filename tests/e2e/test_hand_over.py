"""Planned departures of nodes under traffic: shards first, then the process; no write fails, none waits long."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from brainy.clock import SystemClock
from brainy.errors import NotFoundError, PreconditionError
from tests.e2e.conftest import RunCluster
from tests.e2e.traffic import Traffic

DIMENSIONS = 8
#: What a planned move may cost a write, with room for a machine that does other things as well.
GAP_SECONDS = 1.0


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_nodes_go_one_after_the_other_and_no_write_notices(tmp_path: Path, run_cluster: RunCluster) -> None:
    clock = SystemClock()
    async with run_cluster(f"file://{tmp_path / 'bucket'}", nodes=3) as (cluster, client):
        await client.add_many([[float(n), 1.0] + [0.0] * (DIMENSIONS - 2) for n in range(20)])
        first, second, _ = cluster.nodes
        gaps = {}

        with pytest.raises(NotFoundError):
            await client.drain_node("node-99")
        traffic = Traffic(client, DIMENSIONS, seed=1)
        await client.wait_until_drained(first.name, timeout_seconds=30)
        await first.gone(clock, within_seconds=10)
        drained = await traffic.stop()
        gaps["drain"] = drained.slowest_write_seconds
        assert {n.node_id for n in await client.nodes() if n.state == "alive"} == {"node-2", "node-3"}

        traffic = Traffic(client, DIMENSIONS, seed=2)
        os.kill(second.record.pid, signal.SIGTERM)
        await second.gone(clock, within_seconds=20)
        terminated = await traffic.stop()
        gaps["SIGTERM"] = terminated.slowest_write_seconds
        with pytest.raises(PreconditionError):
            await client.drain_node("node-3")

        print("\nslowest write:", {what: f"{seconds * 1000:.0f} ms" for what, seconds in gaps.items()})
        for oracle in (drained, terminated):
            assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
            assert oracle.writes > 20
            await oracle.assert_kept(client)
        assert max(gaps.values()) < GAP_SECONDS, gaps
