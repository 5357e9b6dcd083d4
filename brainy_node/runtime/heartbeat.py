"""The node's heartbeat: tell the leading coordinator how the replicas are, learn of newer routing records.

Without any coordinator the node goes on serving from the routing record it has; the loop just keeps trying.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, TypeVar

import psutil

from brainy.api.coordinator.v1 import membership_pb2, membership_pb2_grpc
from brainy.api.node.v1 import serving_pb2
from brainy.clock import Clock, Deadline
from brainy.errors import BrainyError, UnavailableError
from brainy.rpc.channel import ChannelPool, call
from brainy.rpc.protocol import PROTOCOL_VERSION, SOFTWARE_VERSION
from brainy.telemetry.logs import get_logger
from brainy_node.runtime.namespaces import HostedNamespaces

if TYPE_CHECKING:  # exists in the generated stubs only
    from brainy.api.coordinator.v1.membership_pb2_grpc import MembershipServiceAsyncStub as _Stub

_log = get_logger(__name__)
_RPC_TIMEOUT_SECONDS = 2.0
#: How long one coordinator is waited for before the next is asked as well.
_STAGGER_SECONDS = 0.25
_DRAINING_INTERVAL_SECONDS = 0.1

T = TypeVar("T")


class Heartbeat:
    """Sends heartbeats to whoever leads."""

    def __init__(
        self,
        *,
        node_id: str,
        incarnation: str,
        address: Callable[[], str],
        pool: str = "",
        coordinators: Sequence[str],
        namespaces: HostedNamespaces,
        peers: ChannelPool,
        clock: Clock,
        disk_free: Callable[[], int] | None = None,
        served: Callable[[str, Collection[int]], Sequence[serving_pb2.ServedCalls]] | None = None,
    ) -> None:
        self._node_id = node_id
        self._incarnation = incarnation
        self._address = address
        self._pool = pool
        self._coordinators = list(coordinators)
        self._namespaces = namespaces
        self._peers = peers
        self._clock = clock
        #: Bytes free where the bases are; None where that is not told.
        self._disk_free = disk_free
        #: How the front door served the generations of a namespace; None where that is not told.
        self._served = served
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
            for namespace in self._namespaces.all():
                namespace.order_copies(answer.copy_orders)
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
            pool=self._pool,
            version=SOFTWARE_VERSION,
            protocol_version=PROTOCOL_VERSION,
            disk_free_bytes=self._disk_free() if self._disk_free is not None else None,
            store_calls=[
                membership_pb2.StoreCalls(namespace=namespace.name, calls=namespace.metrics)
                for namespace in self._namespaces.all()
            ],
            served=self._figures(),
        )
        return await self._leader(
            lambda stub, deadline: call(stub.Heartbeat, request, deadline=deadline), _RPC_TIMEOUT_SECONDS
        )

    def _figures(self) -> list[serving_pb2.ServedCalls]:
        if self._served is None:
            return []
        placed = {namespace.name: namespace.placed for namespace in self._namespaces.all()}
        return [each for name, generations in placed.items() for each in self._served(name, generations)]

    async def _leader(self, ask: Callable[[_Stub, Deadline], Awaitable[T]], timeout: float) -> T:
        """Ask every coordinator, the last leader first, the others a moment later, until one answers as leader.

        Raises:
            BrainyError: none of them leads or can be reached.
        """
        deadline = Deadline.after(self._clock, timeout)
        waiting = deque(self._coordinators)
        asked: dict[asyncio.Task[T], str] = {}
        failure: BrainyError = UnavailableError("no coordinator is named", remedy="set node.coordinators")
        try:
            while waiting or asked:
                if waiting:
                    address = waiting.popleft()
                    stub = self._peers.stub(address, membership_pb2_grpc.MembershipServiceStub)
                    asked[asyncio.ensure_future(ask(stub, deadline))] = address
                # One that is stopped or cut off must not keep the node from the one that leads now.
                timeout = _STAGGER_SECONDS if waiting else max(deadline.remaining(), _STAGGER_SECONDS)
                done, _ = await asyncio.wait(asked, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if not done and not waiting:
                    break
                for task in done:
                    address = asked.pop(task)
                    try:
                        answer = task.result()
                    except BrainyError as error:
                        failure = error
                        continue
                    self._coordinators.remove(address)
                    self._coordinators.insert(0, address)
                    return answer
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise failure

    async def relieved(self, longest_seconds: float) -> None:
        """Go on beating as a draining node until the leader says that nothing is lost by leaving.

        Returns as well when no leader answers, or after ``longest_seconds``: then the others take over when they
        notice.
        """
        self.draining = True
        deadline = Deadline.after(self._clock, longest_seconds)
        while not deadline.passed:
            try:
                answer = await self.beat()
            except BrainyError as error:
                _log.info("heartbeat_unanswered", reason=error.reason, cause=str(error))
                return
            if answer.may_leave:
                return
            for name, epoch in answer.routing_epochs.items():
                await self._refresh(name, epoch)
            await self._clock.sleep(_DRAINING_INTERVAL_SECONDS)
        _log.warning("not_relieved_in_time", seconds=longest_seconds)

    async def leave(self) -> None:
        """Say good-bye, so that the shards move at once."""
        request = membership_pb2.LeaveRequest(node_id=self._node_id, incarnation=self._incarnation)
        try:
            await self._leader(
                lambda stub, deadline: call(stub.Leave, request, deadline=deadline), _RPC_TIMEOUT_SECONDS
            )
        except BrainyError as error:
            _log.info("leave_unanswered", reason=error.reason)
