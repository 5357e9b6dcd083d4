"""Strategies that are about where and when: blue-green on its own nodes, coordinated in a window without writers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from brainy.api.coordinator.v1 import cluster_pb2, cluster_pb2_grpc
from brainy.bucket.records import Routing
from brainy.cli.main import app
from brainy.errors import InvalidRequestError, PreconditionError
from brainy.rpc.channel import ChannelPool
from brainy.samples import sample_truth
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.migration import TargetSpec
from tests.e2e.conftest import RunCluster, unexpected
from tests.e2e.test_crashes import sample_bucket
from tests.e2e.traffic import Oracle, Traffic
from tests.e2e.truth import entries

DIMENSIONS = len(next(iter(entries(sample_truth()["nouns"]).values()))["vector"])


async def routing(cluster: LocalCluster) -> Routing:
    """The record in force."""
    pool = ChannelPool()
    try:
        stub = pool.stub(cluster.coordinator, cluster_pb2_grpc.ClusterServiceStub)
        answer = await stub.GetRouting(cluster_pb2.GetRoutingRequest(), timeout=5.0)
        return Routing.decode(answer.routing_json.encode(), key="routing.json")
    finally:
        await pool.close()


def holders(record: Routing, generation: int) -> set[str]:
    """Nodes with a copy of any shard of a generation."""
    return {n for s in record.generations[generation].shards.values() for n in (s.owner, *s.replicas)}


async def until(cluster: LocalCluster, found: Callable[[Routing], bool]) -> Routing:
    async with asyncio.timeout(60):
        while not found(record := await routing(cluster)):
            await asyncio.sleep(0.1)
        return record


async def watch_pools(cluster: LocalCluster, pools: dict[int, set[str]], stop: asyncio.Event) -> int:
    """Look at every record until told to stop: a generation's shards are on its own nodes in each of them."""
    looks = 0
    while not stop.is_set():
        record = await routing(cluster)
        for generation in record.generations:
            assert holders(record, generation) <= pools[generation], record
        looks += 1
        await asyncio.sleep(0.05)
    return looks


async def assert_exactly(client: AsyncBrainy, oracle: Oracle, others: set[str]) -> None:
    """Nothing acknowledged is missing, stale or back from the dead, and nothing is there that nobody wrote."""
    await oracle.assert_kept(client)
    expected = {i for i, v in oracle.acknowledged.items() if v is not None and i not in oracle.unsure} | others
    served = {noun.id async for noun in client.scan(include_vectors=False)}
    assert (expected - served, served - expected - oracle.unsure) == (set(), set())


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_blue_green_moves_a_namespace_to_other_nodes_and_on_under_traffic(
    tmp_path: Path, run_cluster: RunCluster
) -> None:
    """From a recorded tree on blue nodes to green ones, a green node dies, and on to a third pool."""
    namespace = await sample_bucket(tmp_path / "bucket")
    async with run_cluster(namespace, nodes=2) as (cluster, client):
        before = {noun.id async for noun in client.scan(include_vectors=False)}
        blue = {node.name for node in cluster.nodes}
        green = {(await cluster.start_node(pool="green")).name for _ in range(2)}
        assert {n.node_id: n.pool for n in await client.nodes()} == {
            **dict.fromkeys(blue, ""),
            **dict.fromkeys(green, "green"),
        }
        pools, stop = {0: blue, 1: green}, asyncio.Event()
        # Half of the traffic goes through blue front doors, half through green ones; all see one namespace.
        whole = cluster.client()
        traffic = Traffic(whole, DIMENSIONS, seed=5)
        looking = asyncio.create_task(watch_pools(cluster, pools, stop))

        begun = await client.start_migration("blue-green", TargetSpec(pool="green"), requested_by="test")
        ended = await asyncio.wait_for(client.wait_for_migration(begun.id), 90)
        assert (ended.state, ended.digest_equal) == ("SUCCEEDED", True), ended.message
        assert ended.strategy == "blue-green"
        record = await routing(cluster)
        assert (record.active, set(record.generations), record.generations[1].pool) == (1, {1}, "green")
        assert holders(record, 1) == green

        # Blue's copies are gone, and its front doors answer from green.
        async with asyncio.timeout(60):
            while any(n.replicas for n in await client.nodes() if n.node_id in blue):
                await asyncio.sleep(0.1)
        door = AsyncBrainy([cluster.nodes[0].address], coordinators=cluster.coordinator_addresses)
        hits = await door.search(np.ones(DIMENSIONS, np.float32), 5)
        assert (len(hits), (await door.get_statistics()).generation) == (5, 1)
        await door.close()

        # A green node dies: the other one takes its shards, although two idle blue ones are there.
        index = next(i for i, node in enumerate(cluster.nodes) if node.name in green)
        dead = await cluster.kill_node(index)
        left = green - {dead}
        record = await until(cluster, lambda r: all(s.owner in left for s in r.generations[1].shards.values()))
        assert holders(record, 1) == left
        wrote = traffic.oracle.writes
        async with asyncio.timeout(60):
            while traffic.oracle.writes < wrote + 30:
                await asyncio.sleep(0.05)

        # The second move starts from a generation, with a node of green missing and another shard count.
        third = {(await cluster.start_node(pool="third")).name for _ in range(2)}
        pools[2] = third
        begun = await client.start_migration("blue-green", TargetSpec(pool="third", shard_count=3))
        ended = await asyncio.wait_for(client.wait_for_migration(begun.id), 90)
        assert (ended.state, ended.digest_equal) == ("SUCCEEDED", True), ended.message
        stop.set()
        assert await looking > 10
        record = await routing(cluster)
        assert (record.active, holders(record, 2)) == (2, third)

        oracle = await traffic.stop()
        await whole.close()
        print(f"\nwrites={oracle.writes} reads={oracle.reads} pause={ended.write_pause_seconds:.3f}s")
        assert oracle.failed_writes == []
        assert oracle.failed_reads == []
        await assert_exactly(client, oracle, before)
        assert unexpected(cluster) == []


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_blue_green_asks_for_nodes_of_another_pool(tmp_path: Path, run_cluster: RunCluster) -> None:
    namespace = await sample_bucket(tmp_path / "bucket")
    async with run_cluster(namespace, nodes=1) as (cluster, client):
        with pytest.raises(InvalidRequestError, match="pool"):
            await client.start_migration("blue-green")
        with pytest.raises(PreconditionError, match=r"pool_has_nodes.*no node is alive"):
            await client.start_migration("blue-green", TargetSpec(pool="green"))
        assert set((await routing(cluster)).generations) == {0}

        started = await asyncio.to_thread(
            CliRunner().invoke,
            app,
            ["add-nodes", namespace, "--pool", "green", "--dir", str(cluster.directory), "--json"],
        )
        assert started.exit_code == 0, started.output
        shown = await asyncio.to_thread(CliRunner().invoke, app, ["status", "--dir", str(cluster.directory)])
        assert "green" in shown.output
        planned = await client.plan_migration("blue-green", TargetSpec(pool="green"))
        assert any("1 nodes of pool green" in step.detail for step in planned.steps), planned
        # The only node of its pool must not go while it is the only place for the generation.
        begun = await client.start_migration("blue-green", TargetSpec(pool="green"))
        ended = await client.wait_for_migration(begun.id)
        assert ended.state == "SUCCEEDED", ended.message
        (green,) = (node.node_id for node in await client.nodes() if node.pool == "green")
        with pytest.raises(PreconditionError, match="no other node of the pool"):
            await client.drain_node(green)
        # The blue one may: it holds nothing.
        (blue,) = (node.node_id for node in await client.nodes() if not node.pool)
        await client.wait_until_drained(blue, timeout_seconds=30)
        attached = LocalCluster.attach(cluster.directory)
        assert attached is not None
        async with attached.client() as later:
            assert (await later.get_statistics()).generation == 1
        await attached.stop()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_coordinated_moves_reads_together_once_nobody_writes(tmp_path: Path, run_cluster: RunCluster) -> None:
    namespace = await sample_bucket(tmp_path / "bucket")
    async with run_cluster(namespace, nodes=2) as (cluster, client):
        with pytest.raises(PreconditionError, match="writers_stopped"):
            await client.start_migration("coordinated")
        traffic = Traffic(cluster.client(), DIMENSIONS, seed=9, writers=1)
        # The operator's word is wrong: one writer was forgotten. Reads do not move, and it is said why.
        begun = await client.start_migration("coordinated", writers_stopped=True)
        async with asyncio.timeout(60):
            while "a writer is not stopped" not in "".join((seen := await client.get_migration(begun.id)).waits_for):
                assert seen.message == ""
                assert seen.adopted_nodes == ()
                assert not seen.ended, seen
                await asyncio.sleep(0.1)
        assert seen.state == "READY"
        oracle = await traffic.stop()
        adopted: list[int] = []
        async for seen in client.watch_migration(begun.id):
            if len(seen.adopted_nodes) not in adopted[-1:]:
                adopted.append(len(seen.adopted_nodes))
        assert (seen.state, seen.digest_equal) == ("SUCCEEDED", True), seen
        # None, then both: never one of the two.
        assert adopted in ([0, 2, 0], [2, 0], [0, 2])
        assert (oracle.failed_writes, oracle.failed_reads) == ([], [])
        await oracle.assert_kept(client)
        assert (await client.get_statistics()).generation == 1
