"""The coordinator against nodes in miniature, over real gRPC and a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from coordinator_fakes import NAMESPACE, FakeNode, World, until

from brainy.api.coordinator.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    membership_pb2,
    membership_pb2_grpc,
    migration_pb2,
    migration_pb2_grpc,
)
from brainy.bucket import layout
from brainy.bucket.records import Routing, Spec
from brainy.clock import SystemClock
from brainy.config.settings import CoordinatorSettings
from brainy.errors import (
    AlreadyExistsError,
    NotFoundError,
    PastPointOfNoReturnError,
    PreconditionError,
    UnavailableError,
)
from brainy.ids import Ids
from brainy.locks.object_store import ObjectStoreLocks
from brainy.rpc.channel import ChannelPool, call, stream
from brainy.store.base import ObjectStore, PutOutcome, StoredObject
from brainy.store.memory import MemoryStore
from brainy_coordinator.control import Components, Term
from brainy_coordinator.membership.registry import Report
from brainy_coordinator.migration.record import MigrationRecord, Request, TargetWish, migration_id_for
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.nodes import GrpcNodeCalls
from brainy_coordinator.server import CoordinatorServer

SETTINGS = CoordinatorSettings(
    listen="127.0.0.1:0",
    leader_lease_seconds=0.6,
    heartbeat_interval_seconds=0.03,
    node_ttl_seconds=0.8,
    min_nodes=3,
    shard_count=3,
    replication=2,
    tick_seconds=0.02,
    dimensions=4,
)


class Frozen(MemoryStore):
    """A leader's way to the store, which stops for ever after its n-th persisted step has landed."""

    def __init__(self, inner: MemoryStore, *, after: int | None = None) -> None:
        self._objects = inner._objects
        self._clock = SystemClock()
        self.after = after
        self.steps: list[str] = []
        self.frozen = asyncio.Event()

    async def _gate(self) -> None:
        if self.frozen.is_set():
            await asyncio.Event().wait()

    async def get(self, key: str) -> StoredObject | None:
        await self._gate()
        return await super().get(key)

    async def _count(self, key: str, outcome: PutOutcome) -> PutOutcome:
        if outcome.won and (key == layout.ROUTING or key.startswith(layout.MIGRATIONS)):
            self.steps.append(key)
            if self.after is not None and len(self.steps) >= self.after:
                self.frozen.set()
                await self._gate()
        return outcome

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        await self._gate()
        return await self._count(key, await super().put_if_absent(key, body))

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        await self._gate()
        return await self._count(key, await super().put_if_match(key, body, etag))


class FixedLeader:
    """Leads under a given epoch, so that a take-over costs no lease."""

    def __init__(self, epoch: int) -> None:
        self.number = epoch
        self.id = f"leader-{epoch}"
        self.fenced = ""

    def epoch(self) -> int:
        if self.fenced:
            raise UnavailableError("not the leader", reason="NOT_LEADER")
        return self.number

    def surrender(self, why: str) -> None:
        self.fenced = why


class Cluster:
    """Nodes, a store, and whoever leads."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.world = World()
        self.pool = ChannelPool()
        self.epoch = 0
        self.term: Term | None = None
        self.leader: FixedLeader | None = None
        self.task: asyncio.Task[None] | None = None

    def components(self, store: ObjectStore, settings: CoordinatorSettings = SETTINGS) -> Components:
        clock, ids = SystemClock(), Ids()
        return Components(
            stores={NAMESPACE: store},
            locks={NAMESPACE: ObjectStoreLocks(store, clock, ids)},
            nodes=GrpcNodeCalls(self.pool, clock=clock),
            settings=settings,
            clock=clock,
            ids=ids,
        )

    def lead(self, store: ObjectStore | None = None) -> Term:
        """A new leader takes over."""
        self.epoch += 1
        leader = FixedLeader(self.epoch)
        term = Term(self.components(store or self.store), leader=leader, on_fenced=leader.surrender)
        self.term, self.leader = term, leader
        self.task = asyncio.create_task(term.run())
        return term

    async def depose(self) -> None:
        """The leader dies."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        self.term = None

    async def heartbeat(self, request: membership_pb2.HeartbeatRequest) -> membership_pb2.HeartbeatResponse:
        if self.term is None:
            raise UnavailableError("no leader", reason="NOT_LEADER")
        self.term.registry.heartbeat(
            Report(
                node_id=request.node_id,
                incarnation=request.incarnation,
                address=request.address,
                replicas=tuple(request.replicas),
                draining=request.draining,
            ),
            SystemClock().monotonic(),
        )
        return membership_pb2.HeartbeatResponse()

    async def node(self, node_id: str) -> FakeNode:
        node = FakeNode(node_id, self.world, self.store, self.heartbeat)
        await node.start()
        return node

    def routing(self) -> Routing | None:
        found = self.store._objects.get(layout.ROUTING)
        return Routing.decode(found.body, key=layout.ROUTING) if found else None

    def in_force(self) -> Routing:
        routing = self.routing()
        assert routing is not None
        return routing

    @property
    def migrations(self):
        assert self.term is not None
        return self.term.namespaces[NAMESPACE].migrations

    def record(self, migration_id: str) -> MigrationRecord | None:
        return next((r for r in self.migrations.all() if r.id == migration_id), None) if self.term else None

    async def serving(self) -> None:
        await until(lambda: self.term is not None and NAMESPACE in self.term.ready and self.routing() is not None)
        await until(
            lambda: all(n.routing is not None and n.routing.epoch >= self.in_force().epoch for n in self.nodes())
        )
        await until(lambda: len(self.term.namespaces[NAMESPACE].view.replicas()) >= 6)  # type: ignore[union-attr]

    def nodes(self) -> list[FakeNode]:
        return list(self.world.nodes.values())

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Write all the time, through every node."""

        async def writer(number: int, node: FakeNode) -> None:
            count = 0
            while not done.is_set():
                await self.world.write(f"w{number}-{count % 50}", str(count), node)
                count += 1
                await asyncio.sleep(0.002)

        done = asyncio.Event()
        tasks = [asyncio.create_task(writer(i, node)) for i, node in enumerate(self.nodes())]
        try:
            yield
        finally:
            done.set()
            await asyncio.wait_for(asyncio.gather(*tasks), 10)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    found = Cluster()
    for name in ("a", "b", "c"):
        await found.node(name)
    yield found
    await found.depose()
    for node in found.nodes():
        await node.kill()
    await found.pool.close()


def request_for(strategy: str, *, shards: int = 0, cap: float = 3.0, key: str = "r1") -> Request:
    return Request(
        request_id=key,
        namespace=NAMESPACE,
        strategy=strategy,  # type: ignore[arg-type]
        source_generation=0,
        target_generation=1,
        target=TargetWish(shard_count=shards),
        pause_cap_seconds=cap,
    )


MIGRATION = migration_id_for(NAMESPACE, "r1")


async def ended(cluster: Cluster, *, seconds: float = 15.0) -> MigrationRecord:
    await until(lambda: (found := cluster.record(MIGRATION)) is not None and found.state.is_terminal, seconds=seconds)
    found = cluster.record(MIGRATION)
    assert found is not None
    return found


def assert_migrated(cluster: Cluster, record: MigrationRecord) -> None:
    routing = cluster.in_force()
    assert record.state is State.SUCCEEDED, record.lines
    assert record.digest_equal
    assert (routing.active, routing.write, routing.phase, routing.migration) == (1, 1, "serving", None)
    assert set(routing.generations) == {1}
    assert routing.generations[1].state == "serving"
    assert routing.generations[1].follows is None
    assert routing.adopted == {}
    state = cluster.world.state(routing)
    assert {key: state.get(key) for key in cluster.world.acked} == cluster.world.acked


async def test_a_namespace_is_adopted_once_enough_nodes_are_there() -> None:
    cluster = Cluster()
    try:
        cluster.lead()
        await cluster.node("a")
        await cluster.node("b")
        await until(lambda: layout.spec(0) in cluster.store._objects)
        assert cluster.routing() is None
        await cluster.node("c")
        await until(lambda: cluster.routing() is not None)
        routing = cluster.in_force()
        spec = Spec.decode((await cluster.store.get(layout.spec(0))).body, key="spec")  # type: ignore[union-attr]
        assert (spec.source, spec.dimensions, spec.shard_count) == ("empty", 4, 3)
        assert {where.owner for where in routing.generations[0].shards.values()} == {"a", "b", "c"}
        assert all(len(where.replicas) == 1 for where in routing.generations[0].shards.values())
        assert routing.leader_epoch == 1
    finally:
        await cluster.depose()
        for node in cluster.nodes():
            await node.kill()
        await cluster.pool.close()


@pytest.mark.parametrize(("strategy", "shards"), [("in_place_upgrade", 0), ("in_place_upgrade", 5), ("rolling", 0)])
async def test_a_migration_under_writes_loses_nothing(cluster: Cluster, strategy: str, shards: int) -> None:
    cluster.lead()
    await cluster.serving()
    async with cluster.writing():
        await until(lambda: len(cluster.world.acked) > 30)
        await cluster.migrations.start(MIGRATION, request_for(strategy, shards=shards))
        record = await ended(cluster)
        wrote = len(cluster.world.acked)
        await until(lambda: len(cluster.world.acked) >= wrote)
    assert_migrated(cluster, record)
    assert 0 < record.write_pause_seconds < 3.0
    assert cluster.in_force().generations[1].shard_count == (shards or 3)
    for node in cluster.nodes():
        await until(lambda node=node: node.routing is not None and node.routing.active == 1)
        assert node.reads_from[-1] == 1


async def test_rolling_adopts_every_node_before_writes_move(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    adopted: list[Mapping[str, int]] = []
    register = cluster.term.namespaces[NAMESPACE].register  # type: ignore[union-attr]
    swap = register.swap

    async def watch(before: Routing | None, after: Routing) -> Routing:
        routing = await swap(before, after)
        adopted.append(dict(routing.adopted))
        return routing

    register.swap = watch  # type: ignore[method-assign]
    await cluster.migrations.start(MIGRATION, request_for("rolling"))
    assert_migrated(cluster, await ended(cluster))
    assert [len(step) for step in adopted if step][:4] == [1, 2, 3, 3]


@pytest.mark.parametrize("strategy", ["in_place_upgrade", "rolling"])
async def test_a_leader_may_die_after_any_persisted_step(strategy: str) -> None:
    """Every step of the history and every routing swap, one run each, until a run has no such step."""
    survived = 0
    trail: list[str] = []
    for step in range(1, 60):
        cluster = Cluster()
        try:
            for name in ("a", "b", "c"):
                await cluster.node(name)
            cluster.lead()
            await cluster.serving()
            for key in ("x", "y", "z"):
                await cluster.world.write(key, "1", cluster.nodes()[0])
            await cluster.depose()
            first = Frozen(cluster.store, after=step)
            cluster.lead(first)
            await cluster.serving()
            starting = asyncio.create_task(cluster.migrations.start(MIGRATION, request_for(strategy, shards=4)))
            await until(
                lambda c=cluster, f=first: (
                    f.frozen.is_set() or ((r := c.record(MIGRATION)) is not None and r.state.is_terminal)
                )
            )
            if not first.frozen.is_set():
                trail = first.steps
                break
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await cluster.depose()
            cluster.lead()
            record = await ended(cluster)
            assert_migrated(cluster, record)
            over = [event.to_state.is_terminal for event in record.story if event.leader_epoch == 2]
            assert max(event.leader_epoch for event in record.story) == 3 or over[-1]
            # Writes flow, whatever happened.
            await asyncio.wait_for(cluster.world.write("after", "1", cluster.nodes()[1]), 5)
            survived += 1
        finally:
            await cluster.depose()
            for node in cluster.nodes():
                await node.kill()
            await cluster.pool.close()
    # Nine events (requested to completed) and four swaps (place, drain, commit, retire); rolling adopts three
    # nodes besides.
    assert survived == len(trail) == (13 if strategy == "in_place_upgrade" else 16)


async def test_a_stale_leader_changes_nothing(cluster: Cluster) -> None:
    stale = cluster.lead()
    stale_leader = cluster.leader
    assert stale_leader is not None
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade"))
    await until(lambda: (r := cluster.record(MIGRATION)) is not None and r.state is not State.PENDING)
    # The old one goes on beside the new one: it is fenced at its next write, and the new one finishes.
    old_task, cluster.task = cluster.task, None
    cluster.lead()
    record = await ended(cluster)
    assert_migrated(cluster, record)
    epochs = [event.leader_epoch for event in record.story]
    assert epochs == sorted(epochs)
    assert old_task is not None
    old_task.cancel()
    await asyncio.gather(old_task, return_exceptions=True)
    assert stale is not cluster.term


async def test_unequal_digests_abort_and_leave_the_source(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    cluster.world.lose = "lost"
    async with cluster.writing():
        await cluster.world.write("lost", "1", cluster.nodes()[0])
        await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade"))
        record = await ended(cluster)
    assert record.state is State.ABORTED
    assert "differ" in record.reason
    assert not record.digest_equal
    routing = cluster.in_force()
    assert (routing.active, routing.phase, routing.migration) == (0, "serving", None)
    assert set(routing.generations) == {0}
    assert cluster.world.state(routing)["lost"] == "1"


async def test_past_the_pause_cap_writes_go_on_and_it_is_tried_again(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    stuck = cluster.nodes()[2]
    async with cluster.writing():
        stuck.stuck = True
        await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade", cap=0.2))
        await until(lambda: (r := cluster.record(MIGRATION)) is not None and r.retries >= 1)
        await until(lambda: cluster.in_force().phase == "serving")
        assert cluster.in_force().active == 0
        stuck.stuck = False
        record = await ended(cluster)
    assert_migrated(cluster, record)
    assert Trigger.PAUSE_CAP_EXCEEDED in [event.trigger for event in record.story]


async def test_a_dead_owner_is_replaced_and_a_running_migration_goes_on(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    before = cluster.in_force()
    await cluster.node("d")
    victim = cluster.nodes()[0]
    victim.stuck = True
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade", cap=0.3))
    await until(lambda: (r := cluster.record(MIGRATION)) is not None and r.retries >= 1)
    await victim.kill()
    del cluster.world.nodes["a"]
    record = await ended(cluster, seconds=20)
    assert_migrated(cluster, record)
    routing = cluster.in_force()
    assert all("a" not in (w.owner, *w.replicas) for w in routing.generations[1].shards.values())
    assert before.generations[0].shards[0].epoch >= 1


async def test_an_abort_leads_back_and_after_the_commit_it_is_refused(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    cluster.nodes()[1].stuck = True
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade", cap=30.0))
    await until(lambda: cluster.in_force().phase == "draining")
    aborting = await asyncio.wait_for(cluster.migrations.abort(MIGRATION, by="ann"), 10)
    assert aborting.state is State.ABORTING
    cluster.nodes()[1].stuck = False
    record = await ended(cluster)
    assert record.state is State.ABORTED
    assert record.reason == "asked for by ann"
    assert await cluster.migrations.abort(MIGRATION, by="ann") == record
    assert (cluster.in_force().phase, set(cluster.in_force().generations)) == ("serving", {0})
    again = migration_id_for(NAMESPACE, "r2")
    await cluster.migrations.start(
        again, request_for("in_place_upgrade", key="r2").model_copy(update={"target_generation": 2})
    )
    await until(lambda: (r := cluster.record(again)) is not None and r.state is State.SUCCEEDED)
    with pytest.raises(PastPointOfNoReturnError):
        await cluster.migrations.abort(again, by="ann")


def live(servers: Sequence[CoordinatorServer]) -> list[CoordinatorServer]:
    return [s for s in servers if s.coordinator.leadership.is_leader]


@asynccontextmanager
async def coordinators(cluster: Cluster, count: int) -> AsyncIterator[list[CoordinatorServer]]:
    servers = [
        await CoordinatorServer.start(cluster.components(cluster.store), coordinator_id=f"c{i}") for i in range(count)
    ]
    alive = list(servers)

    async def heartbeat(request: membership_pb2.HeartbeatRequest) -> membership_pb2.HeartbeatResponse:
        for server in alive:
            stub = cluster.pool.stub(server.address, membership_pb2_grpc.MembershipServiceStub)
            try:
                return await call(stub.Heartbeat, request)
            except UnavailableError:
                continue
        raise UnavailableError("nobody leads")

    cluster.heartbeat = heartbeat  # type: ignore[method-assign]
    for node in cluster.nodes():
        node.heartbeat = heartbeat
    try:
        yield alive
    finally:
        for server in servers:
            await server.stop(0.0)


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

        async with asyncio.timeout(5):
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
        assert layout.spec(1) not in cluster.store._objects

        dry = migration_pb2.StartMigrationRequest()
        dry.CopyFrom(start)
        dry.validate_only = True
        await call(stub.StartMigration, dry)
        assert not [key for key in cluster.store._objects if key.startswith(layout.MIGRATIONS)]
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
        await until(lambda: len(live(servers)) == 1, seconds=5)


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
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade", cap=0.5))
    with pytest.raises(PreconditionError) as refused:
        await cluster.migrations.start("m-other", request_for("rolling", key="r9"))
    assert refused.value.reason == "MIGRATION_RUNNING"
    cluster.nodes()[0].stuck = False
    assert (await ended(cluster)).state is State.SUCCEEDED
