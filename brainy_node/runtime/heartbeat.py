"""The node's heartbeat: tell the leading coordinator how the replicas are, learn of newer routing records.

Without any coordinator the node goes on serving from the routing record it has; the loop just keeps trying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psutil

from brainy.api.coordinator.v1 import membership_pb2, membership_pb2_grpc
from brainy.clock import Clock, Deadline
from brainy.errors import BrainyError
from brainy.rpc.channel import ChannelPool, call
from brainy.telemetry.logs import get_logger
from brainy_node.runtime.namespace import HostedNamespaces

_log = get_logger(__name__)
_RPC_TIMEOUT_SECONDS = 2.0


class Heartbeat:
    """Sends heartbeats to whoever leads."""

    def __init__(
        self,
        *,
        node_id: str,
        incarnation: str,
        address: Callable[[], str],
        coordinators: Sequence[str],
        namespaces: HostedNamespaces,
        peers: ChannelPool,
        clock: Clock,
    ) -> None:
        self._node_id = node_id
        self._incarnation = incarnation
        self._address = address
        self._coordinators = list(coordinators)
        self._namespaces = namespaces
        self._peers = peers
        self._clock = clock
        self._process = psutil.Process()
        #: Seconds since the last answer of a leader; the loop's lag.
        self.last_answer = clock.monotonic()
        self.draining = False

    async def run(self) -> None:
        """Beat until cancelled."""
        interval = 0.5
        while True:
            try:
                answer = await self.beat()
            except BrainyError as error:
                _log.info("heartbeat_unanswered", reason=error.reason, cause=str(error))
                await self._clock.sleep(min(interval, 0.5))
                continue
            self.last_answer = self._clock.monotonic()
            for name, epoch in answer.routing_epochs.items():
                await self._refresh(name, epoch)
            interval = answer.interval.ToTimedelta().total_seconds() or interval
            await self._clock.sleep(interval)

    async def _refresh(self, name: str, epoch: int) -> None:
        for namespace in self._namespaces.all():
            if namespace.name == name:
                try:
                    await namespace.refresh_to(epoch)
                except BrainyError as error:
                    _log.warning("routing_unreadable", namespace=name, cause=str(error))

    async def beat(self) -> membership_pb2.HeartbeatResponse:
        """Send one heartbeat, trying each coordinator until the leader answers.

        Raises:
            BrainyError: none of them leads or can be reached.
        """
        request = membership_pb2.HeartbeatRequest(
            node_id=self._node_id,
            incarnation=self._incarnation,
            address=self._address(),
            replicas=[replica for namespace in self._namespaces.all() for replica in namespace.replicas()],
            draining=self.draining,
            memory_bytes=self._process.memory_info().rss,
        )
        failure: BrainyError | None = None
        for address in list(self._coordinators):
            stub = self._peers.stub(address, membership_pb2_grpc.MembershipServiceStub)
            try:
                deadline = Deadline.after(self._clock, _RPC_TIMEOUT_SECONDS)
                answer = await call(stub.Heartbeat, request, deadline=deadline)
            except BrainyError as error:
                failure = error
                continue
            # Ask this one first from now on.
            self._coordinators.remove(address)
            self._coordinators.insert(0, address)
            return answer
        assert failure is not None
        raise failure

    async def leave(self) -> None:
        """Say good-bye, so that the shards move at once."""
        stub = self._peers.stub(self._coordinators[0], membership_pb2_grpc.MembershipServiceStub)
        request = membership_pb2.LeaveRequest(node_id=self._node_id, incarnation=self._incarnation)
        try:
            await call(stub.Leave, request, deadline=Deadline.after(self._clock, _RPC_TIMEOUT_SECONDS))
        except BrainyError as error:
            _log.info("leave_unanswered", reason=error.reason)
