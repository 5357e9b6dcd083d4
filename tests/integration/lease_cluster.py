"""Coordinators that answer LeaseService over real gRPC, on one store and on clocks a test moves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from google.protobuf import duration_pb2

from brainy.api.coordinator.v1 import lease_pb2, lease_pb2_grpc
from brainy.clock import Clock, SystemClock
from brainy.config.settings import CoordinatorSettings, LockSettings
from brainy.ids import Ids
from brainy.locks.base import LockProvider
from brainy.locks.opening import open_locks
from brainy.rpc.channel import ChannelPool
from brainy.rpc.interceptors import Context
from brainy.rpc.server import RunningServer, Service, build_server
from brainy.sdk.client import AsyncBrainy
from brainy.store.base import ObjectStore
from brainy_coordinator.control import Components
from brainy_coordinator.nodes import GrpcNodeCalls
from brainy_coordinator.services.lease import LeaseServicer

NAMESPACE = "memory://leases"
SERVICE = "/brainy.api.coordinator.v1.LeaseService"
ENDLESS = (f"{SERVICE}/KeepAlive", f"{SERVICE}/Watch")


class LosingServicer(LeaseServicer):
    """Acts, then loses the answer, as often as ``lose`` says for the method."""

    def __init__(self, components: Components) -> None:
        super().__init__(components)
        self.lose: Counter[str] = Counter()

    async def _end(self, method: str, context: Context) -> None:
        if self.lose[method]:
            self.lose[method] -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")

    async def Grant(self, request: lease_pb2.GrantRequest, context: Context) -> lease_pb2.GrantResponse:
        answer = await super().Grant(request, context)
        await self._end("Grant", context)
        return answer

    async def Revoke(self, request: lease_pb2.RevokeRequest, context: Context) -> lease_pb2.RevokeResponse:
        answer = await super().Revoke(request, context)
        await self._end("Revoke", context)
        return answer

    async def ForceRelease(
        self, request: lease_pb2.ForceReleaseRequest, context: Context
    ) -> lease_pb2.ForceReleaseResponse:
        answer = await super().ForceRelease(request, context)
        await self._end("ForceRelease", context)
        return answer


class LeaseCluster:
    """Any number of coordinators; each has memory of its own and none of the others'."""

    def __init__(self, store: ObjectStore, clock: Clock, locks: LockSettings) -> None:
        self.store = store
        self.clock = clock
        self._settings = locks
        self.pool = ChannelPool()
        self.servers: list[RunningServer] = []
        self.servicers: list[LosingServicer] = []
        self.stubs: list[lease_pb2_grpc.LeaseServiceStub] = []
        self.clients: list[AsyncBrainy] = []
        self.locks: list[LockProvider] = []

    @property
    def addresses(self) -> list[str]:
        return [server.address for server in self.servers]

    async def add(self) -> None:
        ids = Ids()
        components = Components(
            stores={NAMESPACE: self.store},
            locks={NAMESPACE: self._open_locks(ids)},
            nodes=GrpcNodeCalls(self.pool, clock=self.clock),
            settings=CoordinatorSettings(),
            clock=self.clock,
            ids=ids,
        )
        servicer = LosingServicer(components)
        service = Service(
            lease_pb2.DESCRIPTOR.services_by_name["LeaseService"],
            lease_pb2_grpc.add_LeaseServiceServicer_to_server,
            servicer,
        )
        server = await build_server([service], "127.0.0.1:0", clock=SystemClock(), ids=ids, endless=ENDLESS)
        self.servers.append(server)
        self.servicers.append(servicer)
        self.stubs.append(self.pool.stub(server.address, lease_pb2_grpc.LeaseServiceStub))

    def _open_locks(self, ids: Ids) -> LockProvider:
        made = open_locks(self._settings, self.store, self.clock, ids, scope=NAMESPACE)
        self.locks.append(made)
        return made

    def client(self, *, clock: Clock | None = None, addresses: list[str] | None = None) -> AsyncBrainy:
        made = AsyncBrainy(coordinators=addresses or self.addresses, clock=clock or self.clock)
        self.clients.append(made)
        return made

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self.clients))
        await self.pool.close()
        await asyncio.gather(*(server.drain(0.0) for server in self.servers))
        await asyncio.gather(*(locks.close() for locks in self.locks))


@asynccontextmanager
async def lease_cluster(
    store: ObjectStore, clock: Clock, *, coordinators: int = 2, locks: LockSettings | None = None
) -> AsyncIterator[LeaseCluster]:
    cluster = LeaseCluster(store, clock, locks or LockSettings())
    try:
        for _ in range(coordinators):
            await cluster.add()
        yield cluster
    finally:
        await cluster.close()


def duration(seconds: float) -> duration_pb2.Duration:
    made = duration_pb2.Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


async def renew(
    stub: lease_pb2_grpc.LeaseServiceStub, leases: list[lease_pb2.Lease], remaining: float | None = None
) -> dict[str, lease_pb2.KeepAliveResult]:
    """Send one keep-alive message; returns lease name -> result."""
    call = stub.KeepAlive()
    entries = [
        lease_pb2.KeepAliveEntry(lease=lease, remaining=None if remaining is None else duration(remaining))
        for lease in leases
    ]
    await call.write(lease_pb2.KeepAliveRequest(sequence=7, leases=entries))
    await call.done_writing()
    results: dict[str, lease_pb2.KeepAliveResult] = {}
    last = False
    async for answer in call:
        assert answer.sequence == 7
        assert not last
        last = answer.last
        results.update({result.name: result for result in answer.results})
    assert last
    return results
