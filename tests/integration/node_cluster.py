"""Nodes with real servers on loopback and real shards, over a runtime whose bucket is a dictionary.

``World`` is the truth (routing record and logs); each ``FakeRuntime`` has the part of it its node has read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from brainy.api.common.v1.common_pb2 import Position
from brainy.api.node.v1 import (
    control_pb2,
    control_pb2_grpc,
    data_pb2_grpc,
    search_pb2_grpc,
    shard_pb2_grpc,
    vectors_pb2_grpc,
)
from brainy.api.storage.v1 import log_pb2
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.embedding import EmbeddingIdentity
from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement, Spec
from brainy.changelog.batch import Slot, encode_batch
from brainy.clock import Deadline, SystemClock
from brainy.config.settings import NodeSettings
from brainy.errors import NotFoundError, UnavailableError
from brainy.ids import Ids
from brainy.rpc.channel import ChannelPool
from brainy.rpc.server import RunningServer
from brainy_node.router.served import ServedBook
from brainy_node.runtime.held_vectors import HeldVectors
from brainy_node.runtime.namespace import includes
from brainy_node.server import build_node_server
from brainy_node.shard.base import Base
from brainy_node.shard.shard import Shard
from brainy_node.shard.writer import BaseWriter

NAMESPACE = "memory://world"


def refused(reason: str) -> UnavailableError:
    return UnavailableError("not here", reason=reason)


class World:
    """What the bucket holds."""

    def __init__(self, directory: Path, specs: Sequence[Spec], routing: Routing) -> None:
        self.directory = directory
        self.specs = {spec.generation: spec for spec in specs}
        self.routing = routing
        self.logs: dict[tuple[int, int], list[Slot]] = {}
        self.changed = asyncio.Condition()
        #: Empty bases, shared by all replicas: a base is immutable.
        self.bases: dict[tuple[int, int], Base] = {}

    def route(self, **changes: Any) -> None:
        """Swap the routing record."""
        self.routing = self.routing.model_copy(update={"epoch": self.routing.epoch + 1, **changes})

    def place(self, generation: int, shard: int, owner: str, *replicas: str) -> None:
        """Give a shard to a node."""
        placement = self.routing.generations[generation]
        old = placement.shards.get(shard)
        new = ShardPlacement(owner=owner, epoch=(old.epoch if old else 0) + 1, replicas=replicas)
        shards = {**placement.shards, shard: new}
        changed = placement.model_copy(update={"shards": shards})
        self.route(generations={**self.routing.generations, generation: changed})

    def records(self, generation: int, shard: int) -> list[log_pb2.LogRecord]:
        return [record for slot in self.logs.get((generation, shard), []) for record in slot.batch.records]


class FakeRuntime:
    """A NamespaceRuntime over a World."""

    def __init__(self, world: World, node_id: str) -> None:
        self.world = world
        self.ids = Ids()
        self.name = NAMESPACE
        self.node_id = node_id
        self.routing = world.routing
        self.metrics = {"get": 3}
        self.shards: dict[tuple[int, int], Shard] = {}
        self.vectors = HeldVectors(self.shard, self.shard)
        self.refreshes = 0
        self.refreshed = asyncio.Condition()
        #: Set to make the node fail or hang at this point.
        self.refuse_commits: str = ""
        self.commits_before_refusal = 0
        self.gate: asyncio.Event | None = None
        self.arrived = asyncio.Event()
        #: A replica that lags applies nothing until it is told to.
        self.lagging = False

    def hold_shard(self, generation: int, number: int) -> None:
        """Open a replica at the end of the log."""
        spec = self.world.specs[generation]
        base = self.world.bases.get((generation, number))
        if base is None:
            directory = self.world.directory / f"{generation}-{number}"
            BaseWriter(directory, spec=spec, shard=number).finish(position=0, threads=1)
            base = self.world.bases[generation, number] = Base.open(directory)
        self.shards[generation, number] = Shard.open(base, spec, threads=1)
        self.catch_up()

    def catch_up(self) -> None:
        for key, shard in self.shards.items():
            for slot in self.world.logs.get(key, []):
                shard.apply(slot.batch)

    async def spec(self, generation: int) -> Spec:
        if self.gate is not None:
            self.arrived.set()
            await self.gate.wait()
        return self.world.specs[generation]

    def shard(self, generation: int, shard: int) -> Shard | None:
        return self.shards.get((generation, shard))

    async def commit(self, generation: int, shard: int, records: Sequence[log_pb2.LogRecord]) -> int:
        if self.gate is not None:
            self.arrived.set()
            await self.gate.wait()
        if self.refuse_commits and self.commits_before_refusal == 0:
            raise refused(self.refuse_commits)
        self.commits_before_refusal -= 1
        placement = self.routing.generations.get(generation)
        if placement is None or generation != self.routing.write:
            raise refused("STALE_ROUTING")
        if placement.shards[shard].owner != self.node_id:
            raise refused("NOT_OWNER")
        replica = self.shards.get((generation, shard))
        if replica is None:
            raise refused("SHARD_NOT_READY")
        known = replica.position_of(records[-1].request_id)
        if known is not None:
            return known
        batch = log_pb2.LogBatch(
            format_version=1,
            generation=generation,
            shard=shard,
            epoch=placement.shards[shard].epoch,
            writer=log_pb2.Writer(node_id=self.node_id, incarnation="1", nonce=self.ids.nonce()),
            first_position=replica.applied + 1,
            records=records,
        )
        slot = Slot(batch=batch, body=encode_batch(batch))
        self.world.logs.setdefault((generation, shard), []).append(slot)
        replica.apply(batch)
        async with self.world.changed:
            self.world.changed.notify_all()
        return slot.last

    async def follow_log(self, generation: int, shard: int, from_position: int) -> AsyncIterator[Slot]:
        at = from_position
        while True:
            for slot in list(self.world.logs.get((generation, shard), [])):
                if slot.last >= at:
                    yield slot
                    at = slot.last + 1
            async with self.world.changed:
                await self.world.changed.wait()

    async def wait_applied(
        self,
        generation: int,
        shard: int,
        session: Sequence[Position],
        deadline: Deadline,
        *,
        besides: bool = False,
    ) -> None:
        replica = self.shards.get((generation, shard))
        if replica is None:
            raise refused("SHARD_NOT_READY")
        try:
            async with asyncio.timeout(deadline.remaining()):
                while True:
                    if not self.lagging:
                        self.catch_up()
                    if includes(replica, session):
                        return
                    if not besides and any(p.generation > generation for p in session):
                        raise refused("STALE_ROUTING")
                    async with self.world.changed:
                        await self.world.changed.wait()
        except TimeoutError:
            raise refused("SHARD_NOT_READY") from None

    async def refresh(self) -> None:
        self.refreshes += 1
        self.routing = self.world.routing
        async with self.refreshed:
            self.refreshed.notify_all()

    async def ensure_dimensions(self, dimensions: int) -> Spec:
        spec = self.world.specs[self.routing.write]
        if not spec.dimensions:
            spec = spec.model_copy(update={"dimensions": dimensions})
            self.world.specs[spec.generation] = spec
            for (generation, _), shard in self.shards.items():
                if generation == spec.generation:
                    shard.use_spec(spec)
        return spec

    async def embedding(self, generation: int) -> EmbeddingIdentity | None:
        return self.world.specs[generation].embedding

    async def ensure_embedding(self, embedding: EmbeddingIdentity) -> EmbeddingIdentity:
        spec = self.world.specs[self.routing.write]
        decided = spec.embedding or embedding
        self.world.specs[spec.generation] = spec.model_copy(update={"embedding": decided})
        return decided

    async def apply_routing(self, epoch: int) -> Sequence[Position]:
        await self.refresh()
        return [
            Position(generation=generation, shard=number, position=shard.applied)
            for (generation, number), shard in sorted(self.shards.items())
            if self.routing.phase == "draining"
        ]

    def replicas(self) -> list[control_pb2.ShardReplica]:
        return [
            control_pb2.ShardReplica(namespace=self.name, generation=g, shard=s, applied=shard.applied)
            for (g, s), shard in sorted(self.shards.items())
        ]

    async def digest(
        self, generation: int, shards: Sequence[int]
    ) -> tuple[MultisetDigest, int, int, Sequence[Position]]:
        digest, nouns, verbs, positions = MultisetDigest(), 0, 0, []
        for number in shards:
            shard = self.shards[generation, number]
            digest.merge(shard.digest())
            nouns += shard.statistics().nouns
            verbs += shard.statistics().verbs
            positions.append(Position(generation=generation, shard=number, position=shard.applied))
        return digest, nouns, verbs, positions


class OneNamespace:
    """Runtimes with one namespace."""

    def __init__(self, runtime: FakeRuntime) -> None:
        self._runtime = runtime

    def get(self, name: str) -> FakeRuntime:
        if name not in ("", NAMESPACE):
            raise NotFoundError("no such namespace", reason="UNKNOWN_NAMESPACE", namespace=name)
        return self._runtime


class Node:
    """A node with a server, and stubs to it."""

    def __init__(self, runtime: FakeRuntime, channels: ChannelPool, server: RunningServer, served: ServedBook) -> None:
        self.runtime = runtime
        #: How its front door has served.
        self.served = served
        self.channels = channels
        self.server = server
        self.drain_asked = asyncio.Event()
        self._client = ChannelPool()

    @property
    def node_id(self) -> str:
        return self.runtime.node_id

    def _stub(self, kind: Any) -> Any:
        return self._client.stub(self.server.address, kind)

    @property
    def search(self) -> Any:
        return self._stub(search_pb2_grpc.SearchServiceStub)

    @property
    def nouns(self) -> Any:
        return self._stub(data_pb2_grpc.NounServiceStub)

    @property
    def verbs(self) -> Any:
        return self._stub(data_pb2_grpc.VerbServiceStub)

    @property
    def statistics(self) -> Any:
        return self._stub(data_pb2_grpc.StatisticsServiceStub)

    @property
    def shard_service(self) -> Any:
        return self._stub(shard_pb2_grpc.ShardServiceStub)

    @property
    def vectors(self) -> Any:
        return self._stub(vectors_pb2_grpc.VectorServiceStub)

    @property
    def control(self) -> Any:
        return self._stub(control_pb2_grpc.ControlServiceStub)

    async def kill(self) -> None:
        """Stop at once: calls in flight break."""
        await self.server.drain(0)

    async def close(self) -> None:
        await self._client.close()
        await self.kill()
        await self.channels.close()


class Cluster:
    """Some nodes over one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: dict[str, Node] = {}

    def __getitem__(self, node_id: str) -> Node:
        return self.nodes[node_id]

    async def add(self, node_id: str, *, max_batch: int = 1000) -> Node:
        """Start a node and put its address in the routing record."""
        runtime = FakeRuntime(self.world, node_id)
        channels = ChannelPool()
        asked: list[asyncio.Event] = []
        served = ServedBook(clock=SystemClock())
        server = await build_node_server(
            OneNamespace(runtime),
            channels,
            settings=NodeSettings(listen="127.0.0.1:0", max_batch_records=max_batch),
            clock=SystemClock(),
            ids=Ids(),
            on_drain=lambda: asked[0].set(),
            served=served,
        )
        node = self.nodes[node_id] = Node(runtime, channels, server, served)
        asked.append(node.drain_asked)
        address = NodeAddress(address=server.address, incarnation="1")
        self.world.route(nodes={**self.world.routing.nodes, node_id: address})
        return node

    def settle(self) -> None:
        """Open the replicas the routing record names, and let every node know the record."""
        for node in self.nodes.values():
            runtime = node.runtime
            runtime.routing = self.world.routing
            for generation, placement in self.world.routing.generations.items():
                for number, placed in placement.shards.items():
                    holders = (placed.owner, *placed.replicas)
                    if node.node_id in holders and (generation, number) not in runtime.shards:
                        runtime.hold_shard(generation, number)
            if not runtime.lagging:
                runtime.catch_up()

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.close()


def spec(generation: int = 0, *, dimensions: int = 4, shards: int = 4, metric: str = "cos") -> Spec:
    return Spec(
        generation=generation,
        dimensions=dimensions,
        metric=metric,  # type: ignore[arg-type]
        scalar_kind="f32",
        shard_count=shards,
        source="empty",
    )


def world_of(directory: Path, *specs: Spec) -> World:
    generations = {s.generation: GenerationPlacement(state="serving", shard_count=s.shard_count) for s in specs}
    routing = Routing(
        namespace=NAMESPACE, epoch=1, nonce="n", leader_epoch=1, active=0, write=0, generations=generations
    )
    return World(directory, specs, routing)
