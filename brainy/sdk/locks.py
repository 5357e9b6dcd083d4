"""Locks for users' jobs: ``async with client.lock("name") as lease``."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import TracebackType

import grpc
from google.protobuf import duration_pb2

from brainy.api.coordinator.v1 import lease_pb2
from brainy.errors import BrainyError, FencedError, LeaseHeldError, NotFoundError, UnavailableError
from brainy.locks import record
from brainy.sdk.connection import Connection
from brainy.sdk.endpoint import Endpoint
from brainy.sdk.lease import Lease
from brainy.sdk.lease_keeper import LeaseKeeper
from brainy.sdk.retry import CONTROL, LEASE_CHANGE, WATCH, Limits

#: One request waits for a held lock at most this long, so that it can be sent again through another coordinator.
_WAIT_AT_ONCE_SECONDS = 10.0
_GRANT_PATIENCE_SECONDS = 15.0
_ANSWER_SECONDS = 5.0
_PAGE = 500
#: A watched lock that nobody touches says nothing.
_SILENCE_SECONDS = 3600.0
#: Grants that came too late to be of use, before giving up.
_LATE_GRANTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LockInfo:
    """A lock, as anybody sees it."""

    name: str
    #: free, held, or expired: not renewed in time, so free for the next who asks.
    state: str
    #: Fencing token of the latest lease.
    token: int
    #: Of the latest lease, also after it ended.
    holder: str
    purpose: str
    ttl_seconds: float
    renewals: int
    #: How long the coordinator that answered has seen the record unchanged.
    unchanged_seconds: float


class LockCalls(Connection):
    """Needs ``coordinators``; without them every call raises ``UnavailableError``."""

    _keeper: LeaseKeeper | None = None

    def lock(
        self,
        name: str,
        *,
        ttl: float = 30.0,
        wait: float | None = None,
        holder: str = "",
        purpose: str = "",
        watch: bool = False,
    ) -> Lock:
        """Return a lock to be taken, with ``async with``. Nothing is asked of the cluster yet.

        Args:
            name: 1 to 256 of A-Z a-z 0-9 . _ - in parts joined by '/'.
            ttl: seconds after which the lock of a holder that died is free: 1 to 86,400.
            wait: seconds to wait while another holds it; None for as long as it takes, 0 not at all.
            holder: who, for people; user, host and process if left out.
            purpose: what for, for people.
            watch: notice a forced release within about a second instead of at the next renewal. Costs the
                coordinator a read of the record each half second.
        """
        return Lock(self, name, ttl=ttl, wait=wait, holder=holder or default_holder(), purpose=purpose, watch=watch)

    async def get_lock(self, name: str) -> LockInfo:
        """Read a lock.

        Raises:
            NotFoundError: nobody ever held it.
        """
        request = lease_pb2.GetRequest(namespace=self.namespace, name=name)
        return _info((await self._coordinators.unary(lambda one: one.leases.Get, request, CONTROL)).lock)

    async def list_locks(self, prefix: str = "") -> list[LockInfo]:
        """List the locks that were ever held, by name."""
        found: list[LockInfo] = []
        token = ""
        while True:
            request = lease_pb2.ListRequest(namespace=self.namespace, prefix=prefix, page_size=_PAGE, page_token=token)
            answer = await self._coordinators.unary(lambda one: one.leases.List, request, CONTROL)
            found.extend(map(_info, answer.locks))
            token = answer.next_page_token
            if not token:
                return found

    async def watch_lock(self, name: str) -> AsyncGenerator[LockInfo, None]:
        """Yield a lock now and each time its token or state changes, for ever.

        Survives the coordinator: the stream is taken up again with another one.

        Raises:
            UnavailableError: no coordinator answered for two minutes.
        """
        request = lease_pb2.WatchRequest(namespace=self.namespace, name=name)
        last: tuple[int, str] | None = None
        while True:
            answers = self._coordinators.stream(
                lambda one: one.leases.Watch, request, WATCH, silence_seconds=_SILENCE_SECONDS
            )
            async with contextlib.aclosing(answers):
                async for answer in answers:
                    seen = _info(answer.lock)
                    if (seen.token, seen.state) != last:
                        last = (seen.token, seen.state)
                        yield seen
            await self._clock.sleep(self._ids.jitter(0.2, 0.5))

    async def release_lock(self, name: str, *, token: int, lease_id: str) -> LockInfo:
        """Give back a lease taken by another process.

        Raises:
            FencedError: it is not the lease in force; nothing was changed.
            NotFoundError: nobody ever held the lock.
        """
        request = lease_pb2.RevokeRequest(
            namespace=self.namespace, name=name, token=token, lease_id=lease_id, request_id=self._ids.uuid()
        )
        return _info((await self._coordinators.unary(lambda one: one.leases.Revoke, request, LEASE_CHANGE)).lock)

    async def break_lock(self, name: str, *, reason: str, by: str = "", token: int = 0) -> tuple[LockInfo, bool]:
        """End another's lease, whoever has it. Who and why are kept in the lock's record, and logged.

        Args:
            name: the lock.
            reason: why, for people.
            by: who, for people; user, host and process if left out.
            token: the lease to end; the one in force now if 0.

        Returns:
            The lock afterwards, and whether a lease was ended (False: there was none, or it was over).

        Raises:
            NotFoundError: nobody ever held the lock.
        """
        request = lease_pb2.ForceReleaseRequest(
            namespace=self.namespace,
            name=name,
            token=token or (await self.get_lock(name)).token,
            by=by or default_holder(),
            reason=reason,
            request_id=self._ids.uuid(),
        )
        answer = await self._coordinators.unary(lambda one: one.leases.ForceRelease, request, LEASE_CHANGE)
        return _info(answer.lock), answer.broken

    async def close(self) -> None:
        """Close the connections. Leases still held are lost to this client."""
        if self._keeper is not None:
            await self._keeper.close()
        await super().close()

    # --- for Lock

    async def _acquire(self, lock: Lock) -> Lease:
        clock = self._clock
        started = clock.monotonic()
        request = lease_pb2.GrantRequest(
            namespace=self.namespace,
            name=lock.name,
            ttl=_duration(lock.ttl),
            holder=lock.holder,
            purpose=lock.purpose,
            request_id=self._ids.uuid(),
        )
        late = 0
        while True:
            left = float("inf") if lock.wait is None else max(0.0, lock.wait - (clock.monotonic() - started))
            # Not longer than the lease: the longer the wait, the less is known about when the lease began.
            patience = min(left, _WAIT_AT_ONCE_SECONDS, lock.ttl)
            request.wait_for.CopyFrom(_duration(patience))
            sent_at = clock.monotonic()

            def grant(
                one: Endpoint,
            ) -> grpc.aio.UnaryUnaryMultiCallable[lease_pb2.GrantRequest, lease_pb2.GrantResponse]:
                # Each attempt that is granted begins the lease anew, so the last one's time counts.
                nonlocal sent_at
                sent_at = clock.monotonic()
                return one.leases.Grant

            limits = Limits(
                deadline_seconds=patience + _GRANT_PATIENCE_SECONDS, attempt_seconds=patience + _ANSWER_SECONDS
            )
            asked_at = clock.monotonic()
            answer = await self._coordinators.unary(grant, request, limits)
            if answer.acquired:
                ttl = answer.lease.ttl.ToNanoseconds() / 1e9
                waited = answer.granted_after.ToNanoseconds() / 1e9
                begun = sent_at + waited * (1 - record.DRIFT)
                if record.deadline(begun, ttl) > clock.monotonic():
                    return self._keep(lock, answer.lease, record.deadline(begun, ttl))
                late += 1
                if late >= _LATE_GRANTS:
                    raise UnavailableError(
                        "leases are granted too slowly to be of use", remedy="ask for a longer ttl", lock=lock.name
                    )
                continue
            if lock.wait is not None and clock.monotonic() - started >= lock.wait:
                raise LeaseHeldError(
                    "another holder has this lock",
                    remedy="wait longer, or see who holds it with brainy lock show",
                    lock=lock.name,
                    holder=answer.lock.holder,
                    token=answer.lock.token,
                    waited_seconds=f"{clock.monotonic() - started:.1f}",
                )
            if clock.monotonic() - asked_at < patience / 2:
                # A server that does not wait as long as it was asked to must not be asked without pause.
                await clock.sleep(self._ids.jitter(0.05, 0.2))

    def _keep(self, lock: Lock, message: lease_pb2.Lease, deadline: float) -> Lease:
        if self._keeper is None:
            self._keeper = LeaseKeeper(
                self._coordinator_pool, namespace=self.namespace, clock=self._clock, ids=self._ids
            )
        lease = Lease(message, deadline=deadline, clock=self._clock, release=self._release)
        self._keeper.keep(lease)
        return lease

    async def _release(self, lease: Lease) -> None:
        if self._keeper is not None:
            self._keeper.drop(lease)
        lost = lease.lost_because
        if lost:
            # Nothing is left to give back, and most likely nobody to give it to.
            raise _lost(lease, lost)
        request = lease_pb2.RevokeRequest(
            namespace=self.namespace,
            name=lease.name,
            token=lease.token,
            lease_id=lease.lease_id,
            request_id=self._ids.uuid(),
            holder=lease.holder,
        )
        sends = 0

        def revoke(
            one: Endpoint,
        ) -> grpc.aio.UnaryUnaryMultiCallable[lease_pb2.RevokeRequest, lease_pb2.RevokeResponse]:
            nonlocal sends
            sends += 1
            return one.leases.Revoke

        limits = Limits(deadline_seconds=max(2.0, min(lease.ttl, 15.0)), attempt_seconds=2.0, fenced_is_final=True)
        try:
            await self._coordinators.unary(revoke, request, limits)
        except (FencedError, NotFoundError) as error:
            # After a send whose answer was lost, the next holder's lease may be what stands there.
            if sends == 1 and not lost:
                lost = error.message
        finally:
            lease.released()
        if lost:
            lease.lost_because = lost
            raise _lost(lease, lost)

    async def _watch_lease(self, lease: Lease) -> None:
        """Lose the lease as soon as its record says that it is over."""
        while not lease.lost.is_set():
            with contextlib.suppress(BrainyError):
                async with contextlib.aclosing(self.watch_lock(lease.name)) as changes:
                    async for seen in changes:
                        over = seen.token > lease.token or (seen.token == lease.token and seen.state == "free")
                        if over and self._keeper is not None:
                            self._keeper.lose(lease, f"the lock is {seen.state}, its token {seen.token}")
                            return
            await self._clock.sleep(1.0)


class Lock:
    """A lock to be taken with ``async with``; may be taken again afterwards, not twice at a time.

    Usage::

        async with client.lock("nightly-report", ttl=30, wait=60) as lease:
            while not lease.lost.is_set():
                await write_a_page(token=lease.token)
    """

    def __init__(
        self, client: LockCalls, name: str, *, ttl: float, wait: float | None, holder: str, purpose: str, watch: bool
    ) -> None:
        """Made by ``client.lock``."""
        self._client = client
        self._lease: Lease | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.name = name
        self.ttl = ttl
        self.wait = wait
        self.holder = holder
        self.purpose = purpose
        self.watch = watch

    async def acquire(self) -> Lease:
        """Take the lock, waiting for it as long as was said.

        Raises:
            LeaseHeldError: another has it; fields ``holder`` and ``token``.
            UnavailableError: no coordinator, or not its backend, could be asked. The lock is not held.
            InvalidRequestError: the name or the length is not allowed.
        """
        lease = await self._client._acquire(self)
        if self.watch:
            self._watcher = asyncio.get_running_loop().create_task(self._client._watch_lease(lease))
            lease.on_lost.append(lambda _: self._stop_watching())
        self._lease = lease
        return lease

    async def release(self) -> None:
        """Give the lock back; see ``Lease.release``."""
        lease, self._lease = self._lease, None
        self._stop_watching()
        if lease is not None:
            await lease.release()

    def _stop_watching(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None and watcher is not asyncio.current_task():
            watcher.cancel()

    async def __aenter__(self) -> Lease:
        """Take the lock; see ``acquire``."""
        return await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back.

        Raises:
            FencedError: the lease was lost while the block ran and the block did not fail for another reason.
        """
        try:
            await self.release()
        except UnavailableError:
            # It runs out by itself; the block's own work was done under the lease.
            pass
        except FencedError:
            if error is None:
                raise


def default_holder() -> str:
    """Return user, host and process, for people."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"[:256]


def _lost(lease: Lease, because: str) -> FencedError:
    return FencedError(
        "the lease was lost before it was released",
        remedy="what was done since then was not exclusive: check it",
        data_safe=False,
        lock=lease.name,
        token=lease.token,
        because=because,
    )


def _info(message: lease_pb2.Lock) -> LockInfo:
    return LockInfo(
        name=message.name,
        state=lease_pb2.LockState.Name(message.state).removeprefix("LOCK_STATE_").lower(),
        token=message.token,
        holder=message.holder,
        purpose=message.purpose,
        ttl_seconds=message.ttl.ToNanoseconds() / 1e9,
        renewals=message.renewals,
        unchanged_seconds=message.unchanged_for.ToNanoseconds() / 1e9,
    )


def _duration(seconds: float) -> duration_pb2.Duration:
    made = duration_pb2.Duration()
    made.FromNanoseconds(round(max(-1e9, min(seconds, 1e9)) * 1e9))
    return made
