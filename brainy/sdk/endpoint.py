"""The processes a client may ask, and which one to ask next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc

from brainy.api.coordinator.v1 import (
    cluster_pb2_grpc,
    copy_rate_pb2_grpc,
    generation_pb2_grpc,
    lease_pb2_grpc,
    membership_pb2_grpc,
    migration_pb2_grpc,
    quality_pb2_grpc,
    traffic_pb2_grpc,
)
from brainy.api.node.v1 import data_pb2_grpc, search_pb2_grpc
from brainy.clock import Clock, Deadline
from brainy.errors import UnavailableError
from brainy.rpc.options import channel_arguments

_COOL_OFF_SECONDS = 0.5
_COOL_OFF_LIMIT_SECONDS = 8.0
_CLOSE_GRACE_SECONDS = 5.0


class Endpoint:
    """One address, its channel and its stubs. Create it inside the event loop that will use it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=channel_arguments())
        self.nouns = data_pb2_grpc.NounServiceStub(self.channel)
        self.verbs = data_pb2_grpc.VerbServiceStub(self.channel)
        self.statistics = data_pb2_grpc.StatisticsServiceStub(self.channel)
        self.search = search_pb2_grpc.SearchServiceStub(self.channel)
        self.cluster = cluster_pb2_grpc.ClusterServiceStub(self.channel)
        self.membership = membership_pb2_grpc.MembershipServiceStub(self.channel)
        self.migrations = migration_pb2_grpc.MigrationServiceStub(self.channel)
        self.generations = generation_pb2_grpc.GenerationServiceStub(self.channel)
        self.copies = copy_rate_pb2_grpc.CopyServiceStub(self.channel)
        self.traffic = traffic_pb2_grpc.TrafficServiceStub(self.channel)
        self.quality = quality_pb2_grpc.QualityServiceStub(self.channel)
        self.leases = lease_pb2_grpc.LeaseServiceStub(self.channel)
        self.failures = 0
        #: Monotonic time before which another endpoint is preferred.
        self.avoid_until = 0.0

    async def connected(self, deadline: Deadline) -> bool:
        """Say whether a connection stands, opening one if need be.

        Asking first makes the difference between a call that certainly was not sent and one that may have been.
        """
        state = self.channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                return False
            try:
                await asyncio.wait_for(self.channel.wait_for_state_change(state), deadline.remaining())
            except TimeoutError:
                return False
            state = self.channel.get_state(try_to_connect=True)
        return True


class EndpointPool:
    """Endpoints used in turn; those that failed lately are left alone for a while.

    *Fixed* addresses are the caller's and stay; *discovered* ones are replaced as a whole by ``discover``.
    """

    def __init__(self, kind: str, addresses: Iterable[str], *, clock: Clock) -> None:
        #: What the processes are, for messages: node or coordinator.
        self.kind = kind
        self._clock = clock
        self._fixed = tuple(dict.fromkeys(addresses))
        self._wanted = self._fixed
        self._open: dict[str, Endpoint] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._turn = 0
        #: Asked first while it is in good standing; "" for nobody.
        self.preferred = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses in use."""
        return self._wanted

    def discover(self, addresses: Iterable[str]) -> None:
        """Use these besides the fixed ones. Channels no longer named are closed once their calls are over."""
        self._wanted = tuple(dict.fromkeys((*self._fixed, *addresses)))
        for address in [known for known in self._open if known not in self._wanted]:
            task = asyncio.get_running_loop().create_task(self._open.pop(address).channel.close(_CLOSE_GRACE_SECONDS))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def choose(self, *, not_this: Endpoint | None = None) -> Endpoint:
        """Return the next endpoint in turn that is in good standing, or else the one soonest back in it.

        Raises:
            UnavailableError: no address is known.
        """
        if not self._wanted:
            raise UnavailableError(
                f"no address of a {self.kind} is known",
                remedy=f"name a {self.kind}'s host:port, or wait until one has joined",
            )
        now = self._clock.monotonic()
        self._turn += 1
        candidates = [self.at(address) for address in self._wanted]
        if not_this is not None and len(candidates) > 1:
            candidates = [endpoint for endpoint in candidates if endpoint is not not_this]
        if self.preferred and not (not_this is not None and not_this.address == self.preferred):
            leader = self.at(self.preferred)
            if leader.avoid_until <= now:
                return leader
        good = [endpoint for endpoint in candidates if endpoint.avoid_until <= now]
        if good:
            return good[self._turn % len(good)]
        return min(candidates, key=lambda endpoint: endpoint.avoid_until)

    def prefer(self, address: str) -> None:
        """Ask this address first from now on: it is said to lead. "" means that nobody knows who leads."""
        self.preferred = address
        if address and address not in self._wanted:
            self._wanted = (*self._wanted, address)

    def failed(self, endpoint: Endpoint) -> None:
        """Leave an unreachable endpoint alone, longer each time it fails in a row."""
        pause = min(_COOL_OFF_SECONDS * 2**endpoint.failures, _COOL_OFF_LIMIT_SECONDS)
        endpoint.failures = min(endpoint.failures + 1, 10)
        endpoint.avoid_until = self._clock.monotonic() + pause

    def answered(self, endpoint: Endpoint) -> None:
        """Restore an endpoint's good standing."""
        if endpoint.failures:
            endpoint.failures = 0
            endpoint.avoid_until = 0.0

    async def close(self) -> None:
        """Close every channel at once; calls in flight are cancelled."""
        channels = [endpoint.channel for endpoint in self._open.values()]
        self._open.clear()
        self._wanted = ()
        await asyncio.gather(*(channel.close() for channel in channels), *self._closing)

    def at(self, address: str) -> Endpoint:
        """Return the endpoint of an address, the same one each time."""
        endpoint = self._open.get(address)
        if endpoint is None:
            endpoint = self._open[address] = Endpoint(address)
        return endpoint
