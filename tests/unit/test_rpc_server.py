"""The conventions of every server, on loopback."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from brainy.api.coordinator.v1 import cluster_pb2, cluster_pb2_grpc, migration_pb2, migration_pb2_grpc
from brainy.clock import Deadline, SystemClock
from brainy.errors import BrainyError, InvalidRequestError, PreconditionError, UnavailableError
from brainy.ids import Ids
from brainy.rpc.channel import ChannelPool, call, stream
from brainy.rpc.errors import DETAILS_KEY
from brainy.rpc.server import RunningServer, Service, build_server

CLUSTER = "brainy.api.coordinator.v1.ClusterService"
WATCH = "/brainy.api.coordinator.v1.MigrationService/WatchMigration"


class Cluster(cluster_pb2_grpc.ClusterServiceServicer):
    """Does what the namespace's name says."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def ListNamespaces(self, request: Any, context: Any) -> cluster_pb2.ListNamespacesResponse:
        return cluster_pb2.ListNamespacesResponse(leader_id="me")

    async def GetRouting(self, request: Any, context: Any) -> cluster_pb2.GetRoutingResponse:
        if request.namespace == "refuse":
            raise PreconditionError("not now", remedy="wait", phase="draining")
        if request.namespace == "crash":
            raise KeyError("a bug")
        if request.namespace == "hold":
            self.entered.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return cluster_pb2.GetRoutingResponse(routing_json=request.namespace)


class Migrations(migration_pb2_grpc.MigrationServiceServicer):
    async def WatchMigration(self, request: Any, context: Any) -> AsyncIterator[migration_pb2.WatchMigrationResponse]:
        yield migration_pb2.WatchMigrationResponse(migration=migration_pb2.Migration(id=request.id))
        if request.id == "refuse":
            raise InvalidRequestError("no such stream", index=7)
        await asyncio.Event().wait()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def server(cluster: Cluster) -> AsyncIterator[RunningServer]:
    running = await build_server(services(cluster), "127.0.0.1:0", clock=SystemClock(), ids=Ids(), endless=[WATCH])
    yield running
    await running.drain(0)


@pytest.fixture
async def channels() -> AsyncIterator[ChannelPool]:
    pool = ChannelPool()
    yield pool
    await pool.close()


def services(cluster: Cluster) -> list[Service]:
    return [
        Service(
            cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"],
            cluster_pb2_grpc.add_ClusterServiceServicer_to_server,
            cluster,
        ),
        Service(
            migration_pb2.DESCRIPTOR.services_by_name["MigrationService"],
            migration_pb2_grpc.add_MigrationServiceServicer_to_server,
            Migrations(),
        ),
    ]


def routing(channels: ChannelPool, server: RunningServer) -> Any:
    return channels.stub(server.address, cluster_pb2_grpc.ClusterServiceStub).GetRouting


def watch(channels: ChannelPool, server: RunningServer) -> Any:
    return channels.stub(server.address, migration_pb2_grpc.MigrationServiceStub).WatchMigration


def ask(namespace: str) -> cluster_pb2.GetRoutingRequest:
    return cluster_pb2.GetRoutingRequest(namespace=namespace)


async def test_an_answer_and_its_figures(server: RunningServer, channels: ChannelPool) -> None:
    answer = await call(routing(channels, server), ask("fine"))
    assert answer.routing_json == "fine"
    stats = server.metrics.methods[f"/{CLUSTER}/GetRouting"]
    assert (stats.count, stats.errors, stats.in_flight) == (1, 0, 0)
    assert sum(stats.buckets) == 1
    assert 0 < stats.mean_seconds < 5


async def test_an_error_arrives_as_it_was_raised(server: RunningServer, channels: ChannelPool) -> None:
    with pytest.raises(PreconditionError) as caught:
        await call(routing(channels, server), ask("refuse"))
    assert caught.value.message == "not now"
    assert caught.value.remedy == "wait"
    assert caught.value.fields == {"phase": "draining"}
    assert server.metrics.methods[f"/{CLUSTER}/GetRouting"].errors == 1


async def test_message_and_code_of_the_details_equal_those_of_the_call(
    server: RunningServer, channels: ChannelPool
) -> None:
    from google.rpc import status_pb2

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await routing(channels, server)(ask("refuse"))
    body = dict(caught.value.trailing_metadata())[DETAILS_KEY]
    status = status_pb2.Status.FromString(body)
    assert status.code == caught.value.code().value[0]
    assert status.message == caught.value.details()


async def test_a_crash_is_internal_with_an_id_that_is_in_the_log(server: RunningServer, channels: ChannelPool) -> None:
    with capture_logs() as lines, pytest.raises(BrainyError) as caught:
        await call(routing(channels, server), ask("crash"))
    assert type(caught.value) is BrainyError
    assert caught.value.reason == "INTERNAL"
    assert "a bug" not in str(caught.value)
    crashed = next(line for line in lines if line["event"] == "rpc_crashed")
    assert crashed["error_id"] == caught.value.fields["error_id"]
    assert crashed["exc_info"]


async def test_a_stream_passes_on_messages_and_then_the_error(server: RunningServer, channels: ChannelPool) -> None:
    answers = stream(watch(channels, server), migration_pb2.WatchMigrationRequest(id="refuse"))
    assert (await anext(answers)).migration.id == "refuse"
    with pytest.raises(InvalidRequestError) as caught:
        await anext(answers)
    assert caught.value.fields["index"] == "7"


async def test_the_server_ends_a_call_that_takes_too_long(cluster: Cluster, channels: ChannelPool) -> None:
    server = await build_server(
        services(cluster), "127.0.0.1:0", clock=SystemClock(), ids=Ids(), max_deadline_seconds=0.05
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await routing(channels, server)(ask("hold"))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(UnavailableError) as typed:
        await call(routing(channels, server), ask("hold"))
    assert typed.value.reason == "OUTCOME_UNKNOWN"
    assert not typed.value.data_safe
    assert cluster.cancelled.is_set()
    await server.drain(0)


async def test_the_clients_deadline_reaches_the_handler(
    server: RunningServer, channels: ChannelPool, cluster: Cluster
) -> None:
    with pytest.raises(UnavailableError):
        await call(routing(channels, server), ask("hold"), deadline=Deadline.after(SystemClock(), 0.1))
    await asyncio.wait_for(cluster.cancelled.wait(), 15)


async def test_the_clients_cancellation_reaches_the_handler(
    server: RunningServer, channels: ChannelPool, cluster: Cluster
) -> None:
    task = asyncio.create_task(call(routing(channels, server), ask("hold")))
    await asyncio.wait_for(cluster.entered.wait(), 15)
    task.cancel()
    await asyncio.wait_for(cluster.cancelled.wait(), 15)
    await server.drain(5)
    stats = server.metrics.methods[f"/{CLUSTER}/GetRouting"]
    assert (stats.cancelled, stats.errors) == (1, 0)


async def test_health_by_service_and_in_all(server: RunningServer, channels: ChannelPool) -> None:
    health = health_pb2_grpc.HealthStub(channels.get(server.address))
    state = health_pb2.HealthCheckResponse.ServingStatus
    for name in ("", CLUSTER):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == state.SERVING
    await server.set_serving(False)
    assert (await health.Check(health_pb2.HealthCheckRequest(service=CLUSTER))).status == state.NOT_SERVING
    await server.set_serving(True, CLUSTER)
    assert (await health.Check(health_pb2.HealthCheckRequest(service=CLUSTER))).status == state.SERVING
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == state.NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="unknown"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services(server: RunningServer, channels: ChannelPool) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channels.get(server.address))
    asked = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answer = await asked.read()
    names = {service.name for service in answer.list_services_response.service}
    asked.cancel()
    assert {CLUSTER, "grpc.health.v1.Health"} <= names


async def test_an_unknown_method_is_unimplemented(server: RunningServer, channels: ChannelPool) -> None:
    method = channels.get(server.address).unary_unary(f"/{CLUSTER}/Nothing")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_port_in_use_and_a_wrong_address_are_typed(server: RunningServer, cluster: Cluster) -> None:
    with pytest.raises(UnavailableError) as caught:
        await build_server(services(cluster), server.address, clock=SystemClock(), ids=Ids())
    assert caught.value.fields["listen"] == server.address
    for listen in ("nonsense", "127.0.0.1", "127.0.0.1:99999", ""):
        with pytest.raises(InvalidRequestError):
            await build_server(services(cluster), listen, clock=SystemClock(), ids=Ids())


async def test_a_drain_lets_a_call_in_flight_finish(
    server: RunningServer, channels: ChannelPool, cluster: Cluster
) -> None:
    health = health_pb2_grpc.HealthStub(channels.get(server.address))
    watching = health.Watch(health_pb2.HealthCheckRequest())
    state = health_pb2.HealthCheckResponse.ServingStatus
    assert (await watching.read()).status == state.SERVING
    in_flight = asyncio.create_task(call(routing(channels, server), ask("hold")))
    await asyncio.wait_for(cluster.entered.wait(), 15)
    draining = asyncio.create_task(server.drain(10))
    assert (await asyncio.wait_for(watching.read(), 15)).status == state.NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError):  # from here on nothing new is accepted
        await asyncio.wait_for(watching.read(), 15)
    late = ChannelPool()
    with pytest.raises(UnavailableError):
        await call(routing(late, server), ask("fine"), deadline=Deadline.after(SystemClock(), 5))
    await late.close()
    assert not draining.done()
    cluster.release.set()
    assert (await asyncio.wait_for(in_flight, 15)).routing_json == "hold"
    await asyncio.wait_for(draining, 15)


async def test_a_drain_ends_endless_streams_with_a_typed_error(server: RunningServer, channels: ChannelPool) -> None:
    answers = stream(watch(channels, server), migration_pb2.WatchMigrationRequest(id="on"))
    assert (await anext(answers)).migration.id == "on"
    draining = asyncio.create_task(server.drain(30))
    with pytest.raises(UnavailableError) as caught:
        await asyncio.wait_for(anext(answers), 15)
    assert caught.value.reason == "DRAINING"
    await asyncio.wait_for(draining, 15)
    assert server.draining


async def test_a_drain_cuts_off_what_outlasts_its_grace(
    server: RunningServer, channels: ChannelPool, cluster: Cluster
) -> None:
    in_flight = asyncio.create_task(call(routing(channels, server), ask("hold"), write=True))
    await asyncio.wait_for(cluster.entered.wait(), 15)
    await server.drain(0.05)
    with pytest.raises(UnavailableError) as caught:
        await in_flight
    assert caught.value.reason == "OUTCOME_UNKNOWN"
    await asyncio.wait_for(server.wait(), 15)


async def test_a_pool_keeps_one_channel_per_address(channels: ChannelPool, server: RunningServer) -> None:
    first = channels.get(server.address)
    assert channels.get(server.address) is first
    stub = channels.stub(server.address, cluster_pb2_grpc.ClusterServiceStub)
    assert channels.stub(server.address, cluster_pb2_grpc.ClusterServiceStub) is stub
    await channels.retain([])
    assert channels.get(server.address) is not first
    assert (await call(routing(channels, server), ask("again"))).routing_json == "again"
