"""A coordinator without its server, nodes in miniature around it, and writers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from coordinator_fakes import NAMESPACE, FakeNode, World, until

from brainy.api.coordinator.v1 import membership_pb2, membership_pb2_grpc
from brainy.bucket import layout
from brainy.bucket.records import Routing
from brainy.clock import SystemClock
from brainy.config.settings import CoordinatorSettings
from brainy.errors import UnavailableError
from brainy.ids import Ids
from brainy.locks.object_store import ObjectStoreLocks
from brainy.rpc.channel import ChannelPool, call
from brainy.store.base import ObjectStore, PutOutcome, StoredObject
from brainy.store.memory import MemoryStore
from brainy.traffic.serving import served_from_proto
from brainy_coordinator.control import Components, Term
from brainy_coordinator.membership.registry import Report
from brainy_coordinator.migration.record import MigrationRecord, Request, TargetWish, migration_id_for
from brainy_coordinator.migration.state import State
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

    async def close(self) -> None:
        await self.depose()
        await asyncio.gather(*(node.kill() for node in self.nodes()))
        await self.pool.close()

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
                pool=request.pool,
                served=served_from_proto(request.served),
            ),
            SystemClock().monotonic(),
        )
        return membership_pb2.HeartbeatResponse()

    async def node(self, node_id: str, pool: str = "") -> FakeNode:
        node = FakeNode(node_id, self.world, self.store, self.heartbeat, pool)
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
    async def writing(self, *, through: str = "") -> AsyncIterator[None]:
        """Write all the time, through every node, or those whose one-letter names are given."""

        async def writer(number: int, node: FakeNode) -> None:
            count = 0
            while not done.is_set():
                await self.world.write(f"w{number}-{count % 50}", str(count), node)
                count += 1
                await asyncio.sleep(0.002)

        done = asyncio.Event()
        tasks = [
            asyncio.create_task(writer(i, node))
            for i, node in enumerate(self.nodes())
            if node.node_id in (through or node.node_id)
        ]
        try:
            yield
        finally:
            done.set()
            await asyncio.wait_for(asyncio.gather(*tasks), 10)


def request_for(strategy: str, *, shards: int = 0, cap: float = 3.0, key: str = "r1") -> Request:
    return Request(
        request_id=key,
        namespace=NAMESPACE,
        strategy=strategy,  # type: ignore[arg-type]
        source_generation=0,
        target_generation=1,
        target=TargetWish(shard_count=shards, pool="green" if strategy == "blue_green" else ""),
        pause_cap_seconds=cap,
        writers_stopped=strategy == "coordinated",
    )


MIGRATION = migration_id_for(NAMESPACE, "r1")


async def ended(cluster: Cluster, *, seconds: float = 90.0) -> MigrationRecord:
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


def live(servers: Sequence[CoordinatorServer]) -> list[CoordinatorServer]:
    return [s for s in servers if s.coordinator.leadership.is_leader]


@asynccontextmanager
async def coordinators(
    cluster: Cluster, count: int, store: ObjectStore | None = None, settings: CoordinatorSettings = SETTINGS
) -> AsyncIterator[list[CoordinatorServer]]:
    """Coordinators as servers, with another way to the store for all but their locks; yields those that live."""
    servers = [
        await CoordinatorServer.start(
            replace(cluster.components(cluster.store, settings), stores={NAMESPACE: store or cluster.store}),
            coordinator_id=f"c{i}",
        )
        for i in range(count)
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
