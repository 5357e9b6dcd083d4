"""Keeps a client's leases alive, all of them with one stream."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import grpc
from google.protobuf import duration_pb2

from brainy.api.coordinator.v1 import lease_pb2
from brainy.clock import Clock, Deadline
from brainy.errors import BrainyError, UnavailableError
from brainy.ids import Ids
from brainy.rpc.errors import from_rpc_error
from brainy.sdk.endpoint import Endpoint, EndpointPool
from brainy.sdk.lease import Lease

#: Leases due within this share of their length go along with the first that is due.
_TOGETHER_SHARE = 0.1
_MOST_AT_ONCE = 500
#: The clock may count time in which this process was suspended, which no timer does: look this often.
_LOOK_SECONDS = 1.0
_LONGEST_ATTEMPT_SECONDS = 5.0
_SHORTEST_ATTEMPT_SECONDS = 0.2
_AGAIN_SECONDS = 0.3

Stream: TypeAlias = (
    "grpc.aio.StreamStreamCall[lease_pb2.KeepAliveRequest, lease_pb2.KeepAliveResponse]"  # generic in its stubs only
)


class LeaseKeeper:
    """Renews leases and says when one is lost.

    Before: each lease was granted to this client.
    Steps: 1. wait until a lease is due; 2. send it, with others due soon, to one coordinator; 3. a lease that was
    renewed counts from *before* the sending; one that is another's is lost; 4. no answer within a third of the
    shortest time left: the same again through another coordinator.
    Beside that a second task sets ``lost`` the moment a lease's time is over, whatever the first is waiting for.
    After: every lease is renewed, released or lost.
    Crash at any step: leases run out by themselves.
    """

    def __init__(self, pool: EndpointPool, *, namespace: str, clock: Clock, ids: Ids) -> None:
        self._pool = pool
        self._namespace = namespace
        self._clock = clock
        self._ids = ids
        self._leases: dict[str, Lease] = {}
        self._woken = (asyncio.Event(), asyncio.Event())
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._endpoint: Endpoint | None = None
        self._stream: Stream | None = None
        self._sequence = 0
        #: What went wrong last, for people.
        self._trouble = ""

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Leases that are kept."""
        return tuple(self._leases.values())

    def keep(self, lease: Lease) -> None:
        """Renew a lease from now on."""
        self._leases[lease.lease_id] = lease
        for event in self._woken:
            event.set()
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = (loop.create_task(self._renewing()), loop.create_task(self._guarding()))

    def drop(self, lease: Lease) -> None:
        """Renew it no more."""
        self._leases.pop(lease.lease_id, None)

    async def close(self) -> None:
        """Stop. Leases still kept are lost to this client and run out by themselves."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = ()
        self._hang_up()
        for lease in self.leases:
            self.drop(lease)
            lease.lose("the client was closed")

    async def _guarding(self) -> None:
        while True:
            now = self._clock.monotonic()
            for lease in self.leases:
                if lease.deadline <= now:
                    self.lose(lease, f"it could not be renewed in time: {self._trouble or 'no answer'}")
            first = min((lease.deadline for lease in self.leases), default=now + _LOOK_SECONDS)
            await self._pause(min(first - now, _LOOK_SECONDS), self._woken[0])

    async def _renewing(self) -> None:
        while True:
            now = self._clock.monotonic()
            if not any(lease.renew_at <= now for lease in self.leases):
                first = min((lease.renew_at for lease in self.leases), default=now + _LOOK_SECONDS)
                await self._pause(first - now, self._woken[1])
                continue
            due = [lease for lease in self.leases if lease.renew_at - _TOGETHER_SHARE * lease.ttl <= now]
            due.sort(key=lambda lease: lease.deadline)
            try:
                await self._renew(due[:_MOST_AT_ONCE])
            except Exception as error:
                # Whatever it was, the other leases depend on this loop.
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "leases could not be renewed", "exception": error}
                )
                self._hang_up()
                await self._clock.sleep(_AGAIN_SECONDS)

    async def _renew(self, batch: list[Lease]) -> None:
        waiting = {lease.lease_id: lease for lease in batch}
        shortest = min(lease.remaining() for lease in batch)
        limit = min(max(shortest / 3, _SHORTEST_ATTEMPT_SECONDS), _LONGEST_ATTEMPT_SECONDS)
        try:
            async with asyncio.timeout(limit):
                stream = await self._connected(limit)
            self._sequence += 1
            sent_at = self._clock.monotonic()
            request = lease_pb2.KeepAliveRequest(
                namespace=self._namespace,
                sequence=self._sequence,
                leases=[
                    lease_pb2.KeepAliveEntry(lease=lease.message(), remaining=_duration(lease.remaining()))
                    for lease in batch
                ],
            )
            async with asyncio.timeout(limit):
                await stream.write(request)
            last = False
            while not last:
                async with asyncio.timeout(limit):
                    answer = await stream.read()
                if not isinstance(answer, lease_pb2.KeepAliveResponse):
                    raise UnavailableError("the coordinator ended the stream")
                if answer.sequence != self._sequence:
                    continue
                last = answer.last
                for result in answer.results:
                    lease = waiting.pop(result.lease_id, None)
                    if lease is not None:
                        self._take(lease, result, sent_at)
            if self._endpoint is not None:
                self._pool.answered(self._endpoint)
        except (grpc.aio.AioRpcError, TimeoutError, BrainyError, asyncio.InvalidStateError) as error:
            self._trouble = str(from_rpc_error(error) if isinstance(error, grpc.aio.AioRpcError) else error)
            if self._endpoint is not None:
                self._pool.failed(self._endpoint)
            self._hang_up()
        for lease in waiting.values():
            lease.again_in(self._ids.jitter(_AGAIN_SECONDS / 4, _AGAIN_SECONDS))

    def _take(self, lease: Lease, result: lease_pb2.KeepAliveResult, sent_at: float) -> None:
        if result.state == lease_pb2.KEEP_ALIVE_STATE_RENEWED:
            lease.renewed(sent_at, result.ttl.ToNanoseconds() / 1e9)
        elif result.state == lease_pb2.KEEP_ALIVE_STATE_LOST:
            self.lose(lease, result.message or "another holds the lock")
        else:
            lease.again_in(self._ids.jitter(_AGAIN_SECONDS / 2, _AGAIN_SECONDS))

    def lose(self, lease: Lease, because: str) -> None:
        """Say that a lease is over, if it is one that is kept."""
        if self._leases.pop(lease.lease_id, None) is not None:
            lease.lose(because)

    async def _connected(self, limit: float) -> Stream:
        if self._stream is not None:
            return self._stream
        endpoint = self._endpoint = self._pool.choose(not_this=self._endpoint)
        if not await endpoint.connected(Deadline.after(self._clock, limit)):
            raise UnavailableError("cannot connect to the coordinator", address=endpoint.address)
        self._stream = endpoint.leases.KeepAlive()
        return self._stream

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    async def _pause(self, seconds: float, woken: asyncio.Event) -> None:
        """Wait, but not longer than until a lease is added."""
        tasks = [asyncio.ensure_future(self._clock.sleep(max(seconds, 0.0))), asyncio.ensure_future(woken.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        woken.clear()


def _duration(seconds: float) -> duration_pb2.Duration:
    made = duration_pb2.Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made
