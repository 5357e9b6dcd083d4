"""Planned departures of nodes under traffic: shards first, then the process; no write fails, none waits long."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from brainy.clock import SystemClock
from brainy.errors import NotFoundError, PreconditionError
from tests.e2e.conftest import RunCluster
from tests.e2e.traffic import Traffic

DIMENSIONS = 8
#: What a planned move may add to a write.
GAP_SECONDS = 1.0


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_nodes_go_one_after_the_other_and_no_write_notices(tmp_path: Path, run_cluster: RunCluster) -> None:
    clock = SystemClock()
    async with run_cluster(f"file://{tmp_path / 'bucket'}", nodes=3) as (cluster, client):
        await client.add_many([[float(n), 1.0] + [0.0] * (DIMENSIONS - 2) for n in range(20)])
        first, second, _ = cluster.nodes
        gaps = {}

        with pytest.raises(NotFoundError):
            await client.drain_node("node-99")
        traffic = Traffic(client, DIMENSIONS, seed=3)
        async with asyncio.timeout(60):
            while traffic.oracle.writes < 100:
                await asyncio.sleep(0.05)
        # What a write costs on this machine at this moment, without any move.
        usual = (await traffic.stop()).slowest_write_seconds
        traffic = Traffic(client, DIMENSIONS, seed=1)
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "brainy.cli.main", "drain", first.name, "--dir", str(cluster.directory)),
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asyncio.wait_for(command.communicate(), 60)
        assert (command.returncode, said.decode().strip()) == (0, "node-1 has left")
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

        print("\nslowest write:", {w: f"{s * 1000:.0f} ms" for w, s in {"usual": usual, **gaps}.items()})
        for oracle in (drained, terminated):
            assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
            assert oracle.writes > 20
            await oracle.assert_kept(client)
        assert max(gaps.values()) < GAP_SECONDS + usual, (usual, gaps)
