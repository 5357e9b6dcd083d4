"""Calls from the coordinator to nodes, behind one interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from brainy.api.node.v1 import (
    control_pb2,
    control_pb2_grpc,
    shard_pb2,
    shard_pb2_grpc,
    traffic_pb2,
    traffic_pb2_grpc,
    vectors_pb2,
    vectors_pb2_grpc,
)
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.embedding import EmbeddingIdentity, embedding_to_proto
from brainy.bucket.projection import Projection
from brainy.clock import Clock, Deadline
from brainy.errors import BrainyError, CorruptDataError
from brainy.rpc.channel import ChannelPool, call, stream

#: What gRPC says of a connection that was refused; there is no code for it.
_REFUSED = "Connection refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """A node's answer to the barrier."""

    #: Epoch of the routing record in force at the node.
    epoch: int
    #: (generation, shard) -> final position, of the shards it owns; empty unless the record drains.
    positions: dict[tuple[int, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestSeen:
    """The sum over the shards asked for."""

    digest: MultisetDigest
    nouns: int
    verbs: int
    #: (generation, shard) -> position it includes.
    positions: dict[tuple[int, int], int]


class NodeCalls(Protocol):
    """What the coordinator asks of nodes. All raise ``BrainyError``; addresses are host:port."""

    async def apply_routing(self, address: str, namespace: str, *, epoch: int, timeout: float) -> Ack:
        """Barrier: wait until the node has ``epoch`` in force (docs/protocols/switch.md)."""

    async def list_shard_states(
        self, address: str, namespace: str, *, timeout: float
    ) -> Sequence[control_pb2.ShardReplica]:
        """State of every replica on the node."""

    async def get_digest(
        self,
        address: str,
        namespace: str,
        *,
        generation: int,
        shards: Sequence[int],
        timeout: float,
        projection: Projection | None = None,
    ) -> DigestSeen:
        """Sum of the digests of shards the node owns; under a projection, of their items without vectors."""

    async def list_quarantine(
        self, address: str, namespace: str, *, generation: int, shards: Sequence[int], timeout: float
    ) -> Sequence[tuple[str, str]]:
        """(Key, reason) of what shards on the node could not read of their source."""

    async def get_comparison(
        self, address: str, request: traffic_pb2.GetComparisonRequest, *, timeout: float
    ) -> traffic_pb2.GetComparisonResponse:
        """What the node's front door found when it asked two generations the same."""

    async def replay_queries(
        self, address: str, request: traffic_pb2.ReplayQueriesRequest, *, timeout: float
    ) -> traffic_pb2.ReplayQueriesResponse:
        """Let the node ask two generations the queries it remembers."""

    async def probe_embedding(
        self, address: str, identity: EmbeddingIdentity, endpoint: str, *, timeout: float
    ) -> float:
        """Texts a second that the node embeds with a model; raises what keeps it from doing so."""

    async def describe_vectors(
        self, address: str, request: vectors_pb2.DescribeVectorsRequest, *, timeout: float
    ) -> vectors_pb2.DescribeVectorsResponse:
        """Bounds of the vectors of shards held at the node."""

    async def refuses(self, address: str, *, timeout: float) -> bool:
        """Whether the connection is refused, so that no process listens there. Never raises ``BrainyError``."""

    async def drain(self, address: str, *, timeout: float) -> None:
        """Tell the node to finish what is in flight and exit."""


class GrpcNodeCalls:
    """``NodeCalls`` over a pool of channels."""

    def __init__(self, pool: ChannelPool, *, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    def _stub(self, address: str) -> control_pb2_grpc.ControlServiceAsyncStub:
        stub: control_pb2_grpc.ControlServiceAsyncStub = self._pool.stub(address, control_pb2_grpc.ControlServiceStub)
        return stub

    def _vectors(self, address: str) -> vectors_pb2_grpc.VectorServiceAsyncStub:
        stub: vectors_pb2_grpc.VectorServiceAsyncStub = self._pool.stub(address, vectors_pb2_grpc.VectorServiceStub)
        return stub

    async def apply_routing(self, address: str, namespace: str, *, epoch: int, timeout: float) -> Ack:
        """See ``NodeCalls``."""
        answer = await call(
            self._stub(address).ApplyRouting,
            control_pb2.ApplyRoutingRequest(namespace=namespace, routing_epoch=epoch),
            deadline=Deadline.after(self._clock, timeout),
        )
        positions = {(p.generation, p.shard): p.position for p in answer.positions}
        return Ack(epoch=answer.routing_epoch, positions=positions)

    async def list_shard_states(
        self, address: str, namespace: str, *, timeout: float
    ) -> Sequence[control_pb2.ShardReplica]:
        """See ``NodeCalls``."""
        answer = await call(
            self._stub(address).ListShardStates,
            control_pb2.ListShardStatesRequest(namespace=namespace),
            deadline=Deadline.after(self._clock, timeout),
        )
        return list(answer.replicas)

    async def get_digest(
        self,
        address: str,
        namespace: str,
        *,
        generation: int,
        shards: Sequence[int],
        timeout: float,
        projection: Projection | None = None,
    ) -> DigestSeen:
        """See ``NodeCalls``."""
        answer: control_pb2.GetDigestResponse | vectors_pb2.GetProjectionResponse
        deadline = Deadline.after(self._clock, timeout)
        if projection is None:
            request = control_pb2.GetDigestRequest(namespace=namespace, generation=generation, shards=shards)
            answer = await call(self._stub(address).GetDigest, request, deadline=deadline)
        else:
            asked = vectors_pb2.GetProjectionRequest(
                namespace=namespace,
                generation=generation,
                shards=shards,
                embedding=embedding_to_proto(projection.embedding) if projection.embedding else None,
                expected=projection.expected,
            )
            answer = await call(self._vectors(address).GetProjection, asked, deadline=deadline)
        try:
            digest = MultisetDigest.decode(answer.digest)
        except ValueError as error:
            raise CorruptDataError(f"a node sent no digest: {error}", address=address) from error
        positions = {(p.generation, p.shard): p.position for p in answer.positions}
        return DigestSeen(digest=digest, nouns=answer.noun_count, verbs=answer.verb_count, positions=positions)

    async def list_quarantine(
        self, address: str, namespace: str, *, generation: int, shards: Sequence[int], timeout: float
    ) -> Sequence[tuple[str, str]]:
        """See ``NodeCalls``."""
        stub: shard_pb2_grpc.ShardServiceAsyncStub = self._pool.stub(address, shard_pb2_grpc.ShardServiceStub)
        request = shard_pb2.ListShardQuarantineRequest(namespace=namespace, generation=generation, shards=shards)
        listed: list[tuple[str, str]] = []
        async for part in stream(stub.ListShardQuarantine, request, deadline=Deadline.after(self._clock, timeout)):
            listed += zip(part.keys, part.reasons, strict=True)
        return listed

    async def get_comparison(
        self, address: str, request: traffic_pb2.GetComparisonRequest, *, timeout: float
    ) -> traffic_pb2.GetComparisonResponse:
        """See ``NodeCalls``."""
        stub: traffic_pb2_grpc.TrafficServiceAsyncStub = self._pool.stub(address, traffic_pb2_grpc.TrafficServiceStub)
        return await call(stub.GetComparison, request, deadline=Deadline.after(self._clock, timeout))

    async def replay_queries(
        self, address: str, request: traffic_pb2.ReplayQueriesRequest, *, timeout: float
    ) -> traffic_pb2.ReplayQueriesResponse:
        """See ``NodeCalls``."""
        stub: traffic_pb2_grpc.TrafficServiceAsyncStub = self._pool.stub(address, traffic_pb2_grpc.TrafficServiceStub)
        return await call(stub.ReplayQueries, request, deadline=Deadline.after(self._clock, timeout))

    async def probe_embedding(
        self, address: str, identity: EmbeddingIdentity, endpoint: str, *, timeout: float
    ) -> float:
        """See ``NodeCalls``."""
        request = vectors_pb2.ProbeEmbeddingRequest(identity=embedding_to_proto(identity), endpoint=endpoint)
        deadline = Deadline.after(self._clock, timeout)
        return (await call(self._vectors(address).ProbeEmbedding, request, deadline=deadline)).texts_per_second

    async def describe_vectors(
        self, address: str, request: vectors_pb2.DescribeVectorsRequest, *, timeout: float
    ) -> vectors_pb2.DescribeVectorsResponse:
        """See ``NodeCalls``."""
        return await call(
            self._vectors(address).DescribeVectors, request, deadline=Deadline.after(self._clock, timeout)
        )

    async def drain(self, address: str, *, timeout: float) -> None:
        """See ``NodeCalls``."""
        await call(self._stub(address).Drain, control_pb2.DrainRequest(), deadline=Deadline.after(self._clock, timeout))

    async def refuses(self, address: str, *, timeout: float) -> bool:
        """See ``NodeCalls``."""
        try:
            await call(
                self._stub(address).ListShardStates,
                control_pb2.ListShardStatesRequest(),
                deadline=Deadline.after(self._clock, timeout),
            )
        except BrainyError as error:
            return _REFUSED in error.message
        return False
