"""A migration's reads are set through the coordinator: when, by whom, and how they end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from coordinator_cluster import MIGRATION, Cluster, request_for
from coordinator_fakes import NAMESPACE, until

from brainy.api.coordinator.v1 import membership_pb2, membership_pb2_grpc, traffic_pb2, traffic_pb2_grpc
from brainy.bucket.trial import ReadTrial
from brainy.errors import InvalidRequestError, NotFoundError, PreconditionError
from brainy.rpc.channel import call
from brainy_coordinator.control import NamespaceControl
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.server import CoordinatorServer


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    found = Cluster()
    for name in ("a", "b", "c"):
        await found.node(name)
    yield found
    await found.close()


@asynccontextmanager
async def leading(cluster: Cluster) -> AsyncIterator[tuple[Any, NamespaceControl]]:
    """One coordinator with its server: a stub of its TrafficService, and its control of the namespace."""
    server = await CoordinatorServer.start(cluster.components(cluster.store), coordinator_id="c0")

    async def heartbeat(request: membership_pb2.HeartbeatRequest) -> membership_pb2.HeartbeatResponse:
        return await call(
            cluster.pool.stub(server.address, membership_pb2_grpc.MembershipServiceStub).Heartbeat, request
        )

    cluster.heartbeat = heartbeat  # type: ignore[method-assign]
    for node in cluster.nodes():
        node.heartbeat = heartbeat
    try:
        await until(lambda: server.coordinator.term_or_none() is not None)
        term = server.coordinator.term()
        await until(lambda: NAMESPACE in term.ready and cluster.routing() is not None)
        control = term.namespaces[NAMESPACE]
        await until(lambda: len(control.view.replicas()) >= 6)
        yield cluster.pool.stub(server.address, traffic_pb2_grpc.TrafficServiceStub), control
    finally:
        await server.stop(0.0)


def wish(weight: float = 0.0, shadow: float = 0.0, **fields: Any) -> traffic_pb2.SetReadsRequest:
    shares = traffic_pb2.ReadShares(weight=weight, shadow=shadow)
    return traffic_pb2.SetReadsRequest(**{"namespace": NAMESPACE, "migration_id": MIGRATION, "shares": shares} | fields)


async def ready_for_a_while(cluster: Cluster, control: NamespaceControl) -> None:
    """Start a migration whose first cut-over fails, so that it is READY until the back-off is over."""
    cluster.nodes()[0].stuck = True
    await control.migrations.start(MIGRATION, request_for("in_place_upgrade", cap=1.0))
    await until(lambda: control.migrations.get(MIGRATION).retries >= 2, seconds=90.0)
    cluster.nodes()[0].stuck = False
    await until(lambda: control.migrations.get(MIGRATION).state is State.READY, seconds=90.0)


async def test_reads_are_set_while_ready_and_go_with_the_commit(cluster: Cluster) -> None:
    async with leading(cluster) as (stub, control):
        await ready_for_a_while(cluster, control)
        answer = await call(stub.SetReads, wish(0.1, 0.5, requested_by="ann"))
        assert (answer.shares.weight, answer.shares.shadow, answer.target_generation) == (0.1, 0.5, 1)
        routing = cluster.in_force()
        assert routing.epoch == answer.routing_epoch
        assert routing.reads == ReadTrial(generation=1, weight=0.1, shadow=0.5, round=routing.epoch)
        for node in cluster.nodes():
            assert node.routing is not None
            assert node.routing.epoch >= answer.routing_epoch, "in force at every node when the call returns"

        again = await call(stub.SetReads, wish(0.1, 0.5))
        assert again.routing_epoch == answer.routing_epoch, "repeating it changes nothing"
        more = await call(stub.SetReads, wish(1.0, 0.5))
        reads = cluster.in_force().reads
        assert reads is not None
        assert (reads.weight, reads.round) == (1.0, routing.epoch), "more of the same goes on counting"
        afresh = await call(stub.SetReads, wish(1.0, 0.5, restart=True))
        reads = cluster.in_force().reads
        assert reads is not None
        assert reads.round == afresh.routing_epoch > more.routing_epoch

        seen = await call(
            stub.CompareReads, traffic_pb2.CompareReadsRequest(namespace=NAMESPACE, migration_id=MIGRATION)
        )
        assert (seen.source_generation, seen.target_generation, seen.shares.weight) == (0, 1, 1.0)
        assert [node.node_id for node in seen.nodes] == ["a", "b", "c"]
        assert all(node.problem for node in seen.nodes), "these nodes do not know the service, and are named"

        await until(lambda: control.migrations.get(MIGRATION).state is State.SUCCEEDED, seconds=90.0)
        told = [e for e in control.migrations.get(MIGRATION).story if e.trigger is Trigger.READS_SET]
        assert [(event.by, event.detail) for event in told] == [
            ("ann", "10.0% of the reads answered by the side that follows, 50.0% asked of it besides"),
            *[("c0", "100.0% of the reads answered by the side that follows, 50.0% asked of it besides")] * 2,
        ], "who changed what, and nothing of what changed nothing"
        routing = cluster.in_force()
        assert (routing.active, routing.reads) == (1, None)
        with pytest.raises(PreconditionError) as refused:
            await call(stub.SetReads, wish(0.1))
        assert refused.value.reason == "WRONG_PHASE"
        assert "over" in refused.value.remedy


async def test_what_cannot_be_set_is_refused_with_a_reason(cluster: Cluster) -> None:
    async with leading(cluster) as (stub, control):
        with pytest.raises(NotFoundError):
            await call(stub.SetReads, wish(0.1))
        for weight in (-0.1, 1.1, float("nan")):
            with pytest.raises(InvalidRequestError):
                await call(stub.SetReads, wish(weight))
        await ready_for_a_while(cluster, control)
        await call(stub.SetReads, wish(0.5))
        with pytest.raises(InvalidRequestError):
            await call(
                stub.CompareReads,
                traffic_pb2.CompareReadsRequest(namespace=NAMESPACE, migration_id=MIGRATION, sampled=True, limit=257),
            )
        await control.migrations.abort(MIGRATION, by="ann")
        await until(lambda: control.migrations.get(MIGRATION).state is State.ABORTED)
        assert cluster.in_force().reads is None
        with pytest.raises(PreconditionError) as refused:
            await call(
                stub.CompareReads,
                traffic_pb2.CompareReadsRequest(namespace=NAMESPACE, migration_id=MIGRATION, sampled=True),
            )
        assert refused.value.reason == "WRONG_PHASE"
