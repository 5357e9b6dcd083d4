"""Coordinators as servers, over real gRPC and a store in memory."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from coordinator_cluster import MIGRATION, Cluster, coordinators, ended, live, request_for
from coordinator_fakes import NAMESPACE, until

from brainy.api.coordinator.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    membership_pb2,
    membership_pb2_grpc,
    migration_pb2,
    migration_pb2_grpc,
)
from brainy.bucket import layout
from brainy.bucket.records import Routing
from brainy.clock import SystemClock
from brainy.errors import (
    AlreadyExistsError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from brainy.rpc.channel import ChannelPool, call, stream
from brainy_coordinator.migration.state import State


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    found = Cluster()
    for name in ("a", "b", "c"):
        await found.node(name)
    yield found
    await found.close()


async def test_everything_over_grpc(cluster: Cluster) -> None:
    async with coordinators(cluster, 2) as servers:
        await until(lambda: len(live(servers)) == 1)
        leader = live(servers)[0]
        follower = next(s for s in servers if s is not leader)
        await until(lambda: cluster.routing() is not None)
        stub = cluster.pool.stub(leader.address, migration_pb2_grpc.MigrationServiceStub)
        lazy = cluster.pool.stub(follower.address, migration_pb2_grpc.MigrationServiceStub)
        nodes = cluster.pool.stub(leader.address, membership_pb2_grpc.MembershipServiceStub)

        async def all_ready() -> bool:
            answer = await call(
                cluster.pool.stub(leader.address, cluster_pb2_grpc.ClusterServiceStub).ListNamespaces,
                cluster_pb2.ListNamespacesRequest(),
            )
            space = answer.namespaces[0]
            return space.replicas_wanted == space.replicas_ready == 6

        async with asyncio.timeout(30):
            while True:
                if await all_ready():
                    break
                await asyncio.sleep(0.01)

        start = migration_pb2.StartMigrationRequest(
            namespace=NAMESPACE,
            strategy=migration_pb2.STRATEGY_ROLLING,
            target=migration_pb2.TargetSpec(shard_count=4, scalar_kind="f16"),
            request_id="r1",
            requested_by="ann",
        )
        await until(lambda: follower.coordinator.leadership.leader_id != "")
        with pytest.raises(UnavailableError) as refused:
            await call(lazy.StartMigration, start)
        assert refused.value.reason == "NOT_LEADER"
        assert refused.value.fields["leader"] == leader.coordinator.leadership.id
        assert refused.value.fields["address"] == leader.address

        planned = await call(
            stub.PlanMigration,
            migration_pb2.PlanMigrationRequest(namespace=NAMESPACE, strategy=migration_pb2.STRATEGY_ROLLING),
        )
        assert (planned.source_generation, planned.target_generation) == (0, 1)
        actions = [step.action for step in planned.steps]
        assert actions.count("AdoptNode") == 3
        assert actions.index("CompareDigests") < actions.index("Commit") < actions.index("RetireSource")
        kept = await call(
            stub.PlanMigration,
            migration_pb2.PlanMigrationRequest(
                namespace=NAMESPACE,
                strategy=migration_pb2.STRATEGY_ROLLING,
                keep_way_back=True,
                hold_before_switch=True,
            ),
        )
        turned = [step.action for step in kept.steps]
        order = [turned.index(name) for name in ("Hold", "AdoptNode", "Commit", "OBSERVING", "Observe", "RetireSource")]
        assert order == sorted(order)
        assert "RunPreflight" in turned
        assert any("way_back_possible passes" in step.detail for step in kept.steps)
        assert layout.spec(1) not in cluster.store._objects

        dry = migration_pb2.StartMigrationRequest()
        dry.CopyFrom(start)
        dry.validate_only = True
        await call(stub.StartMigration, dry)
        assert not [key for key in cluster.store._objects if layout.parse_migration_event(key)]
        dry.target.metric = "manhattan"
        with pytest.raises(Exception, match="the target cannot be so"):
            await call(stub.StartMigration, dry)

        started = (await call(stub.StartMigration, start)).migration
        assert (await call(stub.StartMigration, start)).migration.id == started.id
        other = migration_pb2.StartMigrationRequest()
        other.CopyFrom(start)
        other.strategy = migration_pb2.STRATEGY_IN_PLACE_UPGRADE
        with pytest.raises(AlreadyExistsError):
            await call(stub.StartMigration, other)

        states = []
        async for answer in stream(
            stub.WatchMigration, migration_pb2.WatchMigrationRequest(namespace=NAMESPACE, id=started.id)
        ):
            states.append(answer.migration.state)
            last = answer.migration
        assert last.state == migration_pb2.MIGRATION_STATE_SUCCEEDED
        assert states == sorted(states)
        assert last.digest_equal
        assert last.story[0].by == "ann"
        assert getattr(last.story[1], "from") == migration_pb2.MIGRATION_STATE_PENDING

        # A follower answers reads from the bucket.
        seen = await call(lazy.GetMigration, migration_pb2.GetMigrationRequest(id=started.id))
        assert (seen.migration.state, seen.migration.digest_equal) == (last.state, True)
        listed = await call(lazy.ListMigrations, migration_pb2.ListMigrationsRequest(page_size=1))
        assert [m.id for m in listed.migrations] == [started.id]
        assert listed.next_page_token == ""
        with pytest.raises(NotFoundError):
            await call(lazy.GetMigration, migration_pb2.GetMigrationRequest(id="../x"))
        routing = await call(
            cluster.pool.stub(follower.address, cluster_pb2_grpc.ClusterServiceStub).GetRouting,
            cluster_pb2.GetRoutingRequest(),
        )
        assert Routing.decode(routing.routing_json.encode(), key="x").active == 1
        known = await call(nodes.ListNodes, membership_pb2.ListNodesRequest())
        assert {n.node_id: n.state for n in known.nodes} == dict.fromkeys("abc", membership_pb2.NODE_STATE_ALIVE)


async def test_another_leads_when_the_leader_dies_or_resigns(cluster: Cluster) -> None:
    async with coordinators(cluster, 3) as servers:
        await until(lambda: len(live(servers)) == 1 and cluster.routing() is not None)
        first = live(servers)[0]
        epoch = first.coordinator.leadership.epoch()
        owners = {s: w.owner for s, w in cluster.in_force().generations[0].shards.items()}
        await first.kill()
        servers.remove(first)
        await until(lambda: len(live(servers)) == 1)
        second = live(servers)[0]
        assert second.coordinator.leadership.epoch() > epoch
        # Nobody is judged dead because the new leader has heard nobody yet.
        await until(lambda: NAMESPACE in (t.ready if (t := second.coordinator.term_or_none()) else ()))
        assert {s: w.owner for s, w in cluster.in_force().generations[0].shards.items()} == owners
        await second.stop(0.0)
        servers.remove(second)
        await until(lambda: len(live(servers)) == 1, seconds=60)


async def test_leaving_moves_shards_at_once(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    gone = cluster.nodes()[0]
    await gone.kill()
    assert cluster.term is not None
    cluster.term.registry.leave("a", gone.incarnation, SystemClock().monotonic())
    await until(
        lambda: all("a" not in (w.owner, *w.replicas) for w in cluster.in_force().generations[0].shards.values())
    )
    assert "a" not in cluster.in_force().nodes


async def test_a_second_migration_is_refused_while_one_runs(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    cluster.nodes()[0].stuck = True
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade", cap=1.0))
    with pytest.raises(PreconditionError) as refused:
        await cluster.migrations.start("m-other", request_for("rolling", key="r9"))
    assert refused.value.reason == "MIGRATION_RUNNING"
    cluster.nodes()[0].stuck = False
    assert (await ended(cluster)).state is State.SUCCEEDED


async def test_a_history_that_cannot_be_read_does_not_keep_shards_on_a_dead_node(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.depose()
    await cluster.store.put(layout.migration_event("m-torn", 1), b"{")
    term = cluster.lead()
    gone = cluster.nodes()[0]
    await gone.kill()
    await until(
        lambda: all("a" not in (w.owner, *w.replicas) for w in cluster.in_force().generations[0].shards.values())
    )
    assert NAMESPACE not in term.ready
    assert term.problems[NAMESPACE].reason == "CORRUPT_DATA"


async def test_the_process_says_when_it_serves_and_gives_the_leadership_back(tmp_path: Path) -> None:
    ready, space = tmp_path / "ready.json", tmp_path / "space"
    space.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brainy_coordinator", "--listen", "127.0.0.1:0", "--coordinator-id", "c1"),
        *("--namespace", f"file://{space}", "--ready-file", str(ready), "--leader-lease", "60"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    pool = ChannelPool()
    try:
        await until(ready.exists, seconds=60)
        said = json.loads(ready.read_text())
        assert said["pid"] == process.pid
        stub = pool.stub(said["address"], cluster_pb2_grpc.ClusterServiceStub)
        answer = await call(stub.ListNamespaces, cluster_pb2.ListNamespacesRequest())
        assert [n.namespace for n in answer.namespaces] == [f"file://{space}"]
        lock = space / layout.lock("coordinator")
        await until(lambda: lock.exists() and '"held"' in lock.read_text(), seconds=60)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
        assert '"free"' in lock.read_text()
        assert not ready.exists()
    finally:
        await pool.close()
        if process.returncode is None:
            process.kill()
            await process.wait()
