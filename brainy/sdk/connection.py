"""What every group of calls of the client stands on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

import grpc

from brainy.api.coordinator.v1 import membership_pb2
from brainy.bucket.namespace import Namespace
from brainy.clock import Clock, SystemClock
from brainy.errors import InvalidRequestError, PreconditionError
from brainy.ids import Ids
from brainy.sdk.caller import Caller
from brainy.sdk.endpoint import EndpointPool
from brainy.sdk.retry import READ, SCAN, WRITE
from brainy.sdk.session import Session

_REDISCOVER_SECONDS = 1.0
_DISCOVERY_SECONDS = 2.0


class Connection:
    """Endpoints, session and limits of one client. Use it in one event loop."""

    def __init__(
        self,
        endpoints: Iterable[str] | str = (),
        *,
        coordinators: Iterable[str] | str = (),
        namespace: str = "",
        read_only: bool = False,
        read_deadline_seconds: float = READ.deadline_seconds,
        write_deadline_seconds: float = WRITE.deadline_seconds,
        on_close: Callable[[], Awaitable[None]] | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        """Remember where to connect; the first call connects.

        Args:
            endpoints: ``host:port`` of nodes. May be empty if coordinators are given: they name the nodes.
            coordinators: ``host:port`` of coordinators. With them the client also finds nodes that join later,
                and migrations can be driven.
            namespace: a bucket and prefix in any accepted spelling; "" means the only one the cluster serves.
            read_only: refuse every call that would change something.
            read_deadline_seconds: for a read with all its retries.
            write_deadline_seconds: for a write with all its retries.
            on_close: awaited by ``close`` after the connections, such as to stop an embedded cluster.
            clock: source of time, for tests.
            ids: source of request ids and jitter, for tests.

        Raises:
            InvalidRequestError: no address at all, a malformed one, or an illegal namespace.
        """
        nodes, leaders = _addresses(endpoints), _addresses(coordinators)
        if not nodes and not leaders:
            raise InvalidRequestError(
                "no address to connect to",
                remedy="give endpoints=['host:port'] of a node or coordinators=['host:port']",
            )
        self.namespace = str(Namespace.parse(namespace)) if namespace else ""
        self._read_only = read_only
        self._frozen = False
        self._clock: Clock = clock or SystemClock()
        self._ids = ids or Ids()
        self._read = replace(READ, deadline_seconds=read_deadline_seconds)
        self._write = replace(WRITE, deadline_seconds=write_deadline_seconds)
        self._scan = replace(SCAN, deadline_seconds=max(SCAN.deadline_seconds, read_deadline_seconds))
        self._on_close = on_close
        self._session = Session(self._ids.short(16))
        self._node_pool = EndpointPool("node", nodes, clock=self._clock)
        self._coordinator_pool = EndpointPool("coordinator", leaders, clock=self._clock)
        self._discovered_at = -1e9
        self._discovery = asyncio.Lock()
        self._nodes = Caller(
            self._node_pool,
            clock=self._clock,
            ids=self._ids,
            rediscover=self._rediscover if leaders else None,
        )
        self._coordinators = Caller(self._coordinator_pool, clock=self._clock, ids=self._ids)

    def _changing(self) -> str:
        """Return a fresh request id for a call that changes something.

        Raises:
            PreconditionError: the client is read-only or frozen.
        """
        if self._frozen:
            raise PreconditionError("this client is frozen", remedy="call set_frozen(False) to change the namespace")
        if self._read_only:
            raise PreconditionError(
                "this client is read-only", remedy="call set_read_only(False) to change the namespace"
            )
        return self._ids.uuid()

    @property
    def is_read_only(self) -> bool:
        """Whether calls that would change something are refused."""
        return self._read_only or self._frozen

    @property
    def is_frozen(self) -> bool:
        """Whether the client is frozen."""
        return self._frozen

    def set_read_only(self, read_only: bool) -> None:
        """Refuse every call that would change the namespace, or accept them again.

        It is a flag of this client, as it was in Brainy: nothing is stored, and other clients are not affected. A
        call already under way ends as it would have; later ones raise ``PreconditionError`` before anything is
        sent. Locks can still be taken: they change no data.
        """
        self._read_only = read_only

    def set_frozen(self, frozen: bool) -> None:
        """Freeze the client, or thaw it.

        Frozen is read-only and more: in Brainy it also stopped the writing of statistics and the upkeep of indexes.
        Here neither is a client's business (figures are counted where the items are, indexes are kept by the shards'
        owners), so a frozen client differs from a read-only one in that ``set_read_only(False)`` alone does not
        make it write again. Thawed, it is as read-only as it was before.
        """
        self._frozen = frozen

    async def _rediscover(self) -> None:
        """Ask a coordinator which nodes are alive, at most once a second. Failing is no error: it is a hint."""
        async with self._discovery:
            if self._clock.monotonic() - self._discovered_at < _REDISCOVER_SECONDS:
                return
            for address in self._coordinator_pool.addresses:
                endpoint = self._coordinator_pool.at(address)
                try:
                    answer = await endpoint.membership.ListNodes(
                        membership_pb2.ListNodesRequest(), timeout=_DISCOVERY_SECONDS
                    )
                except grpc.aio.AioRpcError:
                    continue
                alive = [
                    node.address
                    for node in answer.nodes
                    if node.state == membership_pb2.NODE_STATE_ALIVE and node.address
                ]
                if alive:
                    self._node_pool.discover(alive)
                    break
            self._discovered_at = self._clock.monotonic()

    async def close(self) -> None:
        """Close the connections. Calls in flight end with ``UnavailableError`` or ``OutcomeUnknownError``."""
        await self._node_pool.close()
        await self._coordinator_pool.close()
        on_close, self._on_close = self._on_close, None
        if on_close:
            await on_close()


def _addresses(given: Iterable[str] | str) -> tuple[str, ...]:
    texts = given.split(",") if isinstance(given, str) else given
    addresses = tuple(text.strip() for text in texts if text.strip())
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or "/" in address:
            raise InvalidRequestError("not a host:port", remedy="write it as 127.0.0.1:7070", address=address)
    return addresses
