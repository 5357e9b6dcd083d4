"""Nodes that obey the contract in miniature: real servers over loopback, data in a shared dictionary.

The *world* stands for the change logs in the bucket: durable, appended under an epoch, shared by all nodes. Nodes
hold no data of their own; what they hold is a view of the routing record, and that is what the coordinator is
tested on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from brainy.api.common.v1 import common_pb2
from brainy.api.coordinator.v1 import membership_pb2
from brainy.api.node.v1 import (
    control_pb2,
    control_pb2_grpc,
    serving_pb2,
    traffic_pb2,
    traffic_pb2_grpc,
    vectors_pb2,
    vectors_pb2_grpc,
)
from brainy.bucket import layout
from brainy.bucket.digest import digest_of
from brainy.bucket.partition import shard_of
from brainy.bucket.records import GenerationPlacement, Routing
from brainy.clock import SystemClock
from brainy.errors import BrainyError, PreconditionError
from brainy.ids import Ids
from brainy.rpc.server import RunningServer, Service, build_server
from brainy.store.base import ObjectStore
from brainy.traffic.comparison import Comparison, comparison_to_proto
from brainy.traffic.latencies import counted

NAMESPACE = "memory://test-space"
Heartbeat = Callable[[membership_pb2.HeartbeatRequest], Awaitable[membership_pb2.HeartbeatResponse]]


@dataclass
class Log:
    """One shard's change log: (id, value) pairs, "" for records without effect, and cursors."""

    records: list[tuple[str, str]] = field(default_factory=list)
    epoch: int = 0
    cursor: dict[int, int] = field(default_factory=dict)
    #: Of which generation these positions are.
    cursor_of: int | None = None
    copied: bool = False

    def items(self) -> dict[str, str]:
        return {key: value for key, value in self.records if key}


@dataclass
class World:
    """Everything that is durable besides the routing record."""

    logs: dict[tuple[int, int], Log] = field(default_factory=dict)
    acked: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, FakeNode] = field(default_factory=dict)
    #: Of ten neighbours, how many the target finds.
    neighbours: int = 10
    #: Set to lose one item on the way to the target.
    lose: str = ""

    def log(self, generation: int, shard: int) -> Log:
        return self.logs.setdefault((generation, shard), Log())

    def state(self, routing: Routing) -> dict[str, str]:
        """What the active generation holds."""
        found: dict[str, str] = {}
        for shard in range(routing.generations[routing.active].shard_count):
            found |= self.log(routing.active, shard).items()
        return found

    async def write(self, key: str, value: str, through: FakeNode) -> None:
        """Write through a node until it is acknowledged."""
        while True:
            if await through.write(key, value):
                break
            await asyncio.sleep(0.003)
        self.acked[key] = value


class FakeVectors(vectors_pb2_grpc.VectorServiceServicer):
    """What a fake node says of vectors, which it has none of."""

    def __init__(self, node: FakeNode) -> None:
        self._node = node
        #: Set what is answered.
        self.described = vectors_pb2.DescribeVectorsResponse(count=1, largest=1.0)
        self.cannot_embed = ""
        #: (generation, a model counts, it is expected), of each call.
        self.projected: list[tuple[int, bool, bool]] = []

    async def ProbeEmbedding(
        self, request: vectors_pb2.ProbeEmbeddingRequest, context: object
    ) -> vectors_pb2.ProbeEmbeddingResponse:
        if self.cannot_embed:
            raise PreconditionError(self.cannot_embed, remedy="install it")
        return vectors_pb2.ProbeEmbeddingResponse(texts_per_second=50.0)

    async def DescribeVectors(
        self, request: vectors_pb2.DescribeVectorsRequest, context: object
    ) -> vectors_pb2.DescribeVectorsResponse:
        return self.described

    async def GetProjection(
        self, request: vectors_pb2.GetProjectionRequest, context: object
    ) -> vectors_pb2.GetProjectionResponse:
        self.projected.append((request.generation, request.HasField("embedding"), request.expected))
        asked = control_pb2.GetDigestRequest(generation=request.generation, shards=request.shards)
        found = await self._node.GetDigest(asked, context)
        return vectors_pb2.GetProjectionResponse(
            digest=found.digest, noun_count=found.noun_count, positions=found.positions
        )


class FakeNode(control_pb2_grpc.ControlServiceServicer, traffic_pb2_grpc.TrafficServiceServicer):
    """A node: heartbeats, the barrier, ownership, following."""

    def __init__(self, node_id: str, world: World, store: ObjectStore, heartbeat: Heartbeat, pool: str = "") -> None:
        self.node_id = node_id
        self.pool = pool
        self.incarnation = Ids().uuid()
        self.world = world
        self.store = store
        self.heartbeat = heartbeat
        self.routing: Routing | None = None
        self.in_flight = 0
        self.draining = False
        #: Never let the barrier pass while set.
        self.stuck = False
        #: Never gets on with a copy unless set.
        self.copies = True
        self.version = "1.0"
        self.protocol_version = 1
        self.disk_free: int | None = None
        self.quarantined = 0
        #: Generation -> (reads, failed reads, seconds each took) that its front door says it has served.
        self.served: dict[int, tuple[int, int, float]] = {}
        #: Nouns of a target that its owner says cannot be searched.
        self.unindexed = 0
        self.vectors = FakeVectors(self)
        self.server: RunningServer | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.reads_from: list[int] = []
        #: Source, target and part of what it was asked to replay.
        self.replayed: list[tuple[int, int, int]] = []
        world.nodes[node_id] = self

    async def start(self) -> None:
        service = Service(
            control_pb2.DESCRIPTOR.services_by_name["ControlService"],
            control_pb2_grpc.add_ControlServiceServicer_to_server,
            self,
        )
        traffic = Service(
            traffic_pb2.DESCRIPTOR.services_by_name["TrafficService"],
            traffic_pb2_grpc.add_TrafficServiceServicer_to_server,
            self,
        )
        vectors = Service(
            vectors_pb2.DESCRIPTOR.services_by_name["VectorService"],
            vectors_pb2_grpc.add_VectorServiceServicer_to_server,
            self.vectors,
        )
        self.server = await build_server([service, traffic, vectors], "127.0.0.1:0", clock=SystemClock(), ids=Ids())
        self.tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._work())]

    async def kill(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.server is not None:
            await self.server.drain(0.0)

    async def _beat(self) -> None:
        while True:
            assert self.server is not None
            request = membership_pb2.HeartbeatRequest(
                node_id=self.node_id,
                incarnation=self.incarnation,
                address=self.server.address,
                replicas=self.replicas(),
                draining=self.draining,
                pool=self.pool,
                version=self.version,
                protocol_version=self.protocol_version,
                disk_free_bytes=self.disk_free,
                served=[
                    serving_pb2.ServedCalls(
                        namespace=NAMESPACE,
                        generation=generation,
                        reads=serving_pb2.CallCounts(
                            count=count, failed=failed, latency=[count * one for one in counted(seconds)]
                        ),
                    )
                    for generation, (count, failed, seconds) in self.served.items()
                ],
            )
            with contextlib.suppress(BrainyError):
                await self.heartbeat(request)
            await self.refresh()
            await asyncio.sleep(0.03)

    async def refresh(self) -> None:
        found = await self.store.get(layout.ROUTING)
        if found is None:
            return
        routing = Routing.decode(found.body, key=found.key)
        if self.routing is None or routing.epoch > self.routing.epoch:
            self.routing = routing
            self.reads_from.append(routing.read_generation(self.node_id))
            for number, placed in routing.generations.items():
                for shard, where in placed.shards.items():
                    log = self.world.log(number, shard)
                    if where.owner == self.node_id and where.epoch > log.epoch:
                        log.epoch = where.epoch
                        if routing.phase == "serving":
                            log.records.append(("", ""))

    async def _work(self) -> None:
        """Follow, as the owner of target shards."""
        while True:
            routing = self.routing
            for number, placed in routing.generations.items() if routing else ():
                if placed.state != "serving" and placed.follows is not None:
                    for shard, where in placed.shards.items():
                        if where.owner == self.node_id:
                            self._follow(number, shard, placed, placed.follows)
            await asyncio.sleep(0.004)

    def _follow(self, number: int, shard: int, placed: GenerationPlacement, source: int) -> None:
        assert self.routing is not None
        count, log = placed.shard_count, self.world.log(number, shard)
        if not log.copied and not self.copies:
            return
        if log.cursor_of != source:
            log.cursor, log.cursor_of = {}, source
        source_count = self.routing.generations[source].shard_count
        followed = [shard] if source_count == count else range(source_count)
        for from_shard in followed:
            origin = self.world.log(source, from_shard)
            reached = max(log.cursor.get(from_shard, 0), placed.follow_from.get(from_shard, 0))
            for key, value in origin.records[reached:]:
                if key and key != self.world.lose and shard_of(key, count) == shard:
                    log.records.append((key, value))
            log.cursor[from_shard] = len(origin.records)
        log.copied = True

    async def write(self, key: str, value: str) -> bool:
        """One attempt through this node's front door."""
        routing = self.routing
        if routing is None or routing.phase == "draining":
            return False
        placed = routing.generations[routing.write]
        shard = shard_of(key, placed.shard_count)
        where = placed.shards[shard]
        return await self.world.nodes[where.owner].commit(routing.write, shard, where.epoch, key, value)

    async def commit(self, generation: int, shard: int, epoch: int, key: str, value: str) -> bool:
        """As the owner."""
        routing = self.routing
        if routing is None or routing.phase == "draining" or routing.write != generation:
            return False
        where = routing.generations[generation].shards[shard]
        if where.owner != self.node_id or where.epoch != epoch:
            return False
        self.in_flight += 1
        try:
            await asyncio.sleep(0.002)
            log = self.world.log(generation, shard)
            if log.epoch != epoch:
                return False
            log.records.append((key, value))
            return True
        finally:
            self.in_flight -= 1

    def replicas(self) -> list[control_pb2.ShardReplica]:
        routing = self.routing
        found = []
        for number, placed in routing.generations.items() if routing else ():
            for shard, where in placed.shards.items():
                if self.node_id not in (where.owner, *where.replicas):
                    continue
                log = self.world.log(number, shard)
                copying = placed.state == "building" and not log.copied and not placed.follow_from
                owner = where.owner == self.node_id
                found.append(
                    control_pb2.ShardReplica(
                        namespace=NAMESPACE,
                        generation=number,
                        shard=shard,
                        role=control_pb2.SHARD_ROLE_OWNER if owner else control_pb2.SHARD_ROLE_REPLICA,
                        state=control_pb2.SHARD_STATE_COPYING if copying else control_pb2.SHARD_STATE_READY,
                        epoch=where.epoch,
                        applied=len(log.records),
                        source_cursor=log.cursor,
                        source_generation=log.cursor_of,
                        copied=len(log.records),
                        total=len(log.records),
                        noun_count=len(log.items()),
                        quarantined=self.quarantined if owner else 0,
                        unindexed_count=self.unindexed if placed.state == "building" else 0,
                    )
                )
        return found

    async def ApplyRouting(
        self, request: control_pb2.ApplyRoutingRequest, context: object
    ) -> control_pb2.ApplyRoutingResponse:
        while self.stuck or self.routing is None or self.routing.epoch < request.routing_epoch:
            await self.refresh()
            await asyncio.sleep(0.002)
        positions = []
        if self.routing.phase == "draining":
            await until(lambda: not self.in_flight)
            for shard, where in self.routing.generations[self.routing.write].shards.items():
                if where.owner == self.node_id:
                    log = self.world.log(self.routing.write, shard)
                    positions.append(
                        common_pb2.Position(generation=self.routing.write, shard=shard, position=len(log.records))
                    )
        return control_pb2.ApplyRoutingResponse(routing_epoch=self.routing.epoch, positions=positions)

    async def ListShardStates(
        self, request: control_pb2.ListShardStatesRequest, context: object
    ) -> control_pb2.ListShardStatesResponse:
        return control_pb2.ListShardStatesResponse(replicas=self.replicas())

    async def GetDigest(self, request: control_pb2.GetDigestRequest, context: object) -> control_pb2.GetDigestResponse:
        items: dict[str, str] = {}
        positions = []
        for shard in request.shards:
            log = self.world.log(request.generation, shard)
            items |= log.items()
            positions.append(common_pb2.Position(generation=request.generation, shard=shard, position=len(log.records)))
        digest = digest_of((key, hashlib.sha256(f"{key}={value}".encode()).digest()) for key, value in items.items())
        return control_pb2.GetDigestResponse(
            digest=digest.encode(), noun_count=len(items), verb_count=0, positions=positions
        )

    async def ReplayQueries(
        self, request: traffic_pb2.ReplayQueriesRequest, context: object
    ) -> traffic_pb2.ReplayQueriesResponse:
        count = request.limit
        self.replayed.append((request.source_generation, request.target_generation, request.part))
        found = Comparison(
            asked=count,
            queries=count,
            hits_shared=self.world.neighbours * count,
            hits_wanted=10 * count,
            recall_queries=count,
            source_found=10 * count,
            source_exact=10 * count,
            target_found=self.world.neighbours * count,
            target_exact=10 * count,
        )
        return traffic_pb2.ReplayQueriesResponse(
            node_id=self.node_id, comparison=comparison_to_proto(found), sampled=count
        )


async def until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
