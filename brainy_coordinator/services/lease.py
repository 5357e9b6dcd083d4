"""LeaseService: locks for users' jobs, answered by any coordinator.

Protocol
--------
*Before.* A user's lock ``n`` is the provider's lock ``user/n``. A coordinator holds no state of its own: what it
must know of a lease is in the record, and what identifies a lease (its *lease id*) follows from the request.

*Grant.* 1. Ask the provider for the lock, with the lease id for incarnation. 2. Held: look at the record. It
names our lease id: an earlier send of this request was granted and its answer lost; begin that lease anew and
answer with it. 3. Otherwise wait, if asked to, and look again at the end.
*KeepAlive.* Renew each lease of a message, several at a time, the most urgent first. Answers go out as they are
there, at the latest each second, so that one slow record delays no other.
*Revoke.* 1. With the holder's name: release what the caller shows; that it is in force is for the provider to say.
Refused, or without the name: 2. Look. 3. Ours and held: release. Ours and free: an earlier send did it. Another's:
FENCED.
*ForceRelease.* 1. Look. 2. The lease named is in force: break it (token + 1, who and why in the record). A higher
token is there: done before, by this request or otherwise. A holder that takes the lock between 1 and 2 is hit as
well; it learns of it as any other would.

*After.* As ``LockProvider``: tokens rise, a lease ends by itself.
*Crash* of a coordinator at any step: the caller sends the same request to another one.
*Cancel safety.* A cancelled Grant may have been granted; unless it is repeated, the lease runs out by itself. A
request delayed until after its lease was given back is granted a lease nobody knows of; it too runs out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from brainy.api.coordinator.v1 import lease_pb2, lease_pb2_grpc
from brainy.errors import (
    BrainyError,
    FencedError,
    InvalidRequestError,
    LeaseHeldError,
    NotFoundError,
)
from brainy.locks import record
from brainy.locks.base import Grant, LockProvider, LockState
from brainy.rpc.deadlines import deadline_of
from brainy.rpc.interceptors import Context
from brainy.telemetry.logs import get_logger
from brainy_coordinator.control import Components
from brainy_coordinator.services import lease_messages as messages
from brainy_coordinator.services.namespaces import resolve

#: Renewals under way at a time, of all callers: enough to hide the store's latency, few enough not to flood it.
_PARALLEL: Final = 64
#: A watcher learns of a change within this time.
_WATCH_SECONDS: Final = 0.5
_FLUSH_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 30.0
_LONGEST_RENEWAL_SECONDS: Final = 10.0
_DEFAULT_PAGE: Final = 100
_LONGEST_PAGE: Final = 1000

_log = get_logger(__name__)


class LeaseServicer(lease_pb2_grpc.LeaseServiceServicer):
    """Stateless over the lock provider of each namespace."""

    def __init__(self, components: Components) -> None:
        self._components = components
        self._clock = components.clock
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def Grant(self, request: lease_pb2.GrantRequest, context: Context) -> lease_pb2.GrantResponse:
        """Take the lock, wait for it, or say who has it."""
        arrived = self._clock.monotonic()
        locks = self._locks(request.namespace)
        name = messages.stored_name(request.name)
        ttl = messages.ttl_seconds(request)
        holder = messages.text(request.holder, "holder", messages.MAX_HOLDER) or "anonymous"
        purpose = messages.text(request.purpose, "purpose", messages.MAX_PURPOSE)
        request_id = messages.text(request.request_id, "request_id", 256) or self._components.ids.uuid()
        lease_id = messages.lease_id(request.name, holder, request_id)
        wait = min(messages.seconds(request.wait_for), _LONGEST_WAIT_SECONDS)
        wait = min(wait, deadline_of(context, self._clock).remaining() - 1.0)

        try:
            grant = await locks.grant(name, owner=holder, incarnation=lease_id, ttl_seconds=ttl, purpose=purpose)
        except LeaseHeldError as held:
            state = await locks.describe(name)
            if _is(state, lease_id):
                return await self._again(locks, request.name, name, state, arrived)
            if wait <= 0:
                return _refused(request.name, state, held)
            try:
                grant = await locks.acquire(
                    name,
                    owner=holder,
                    incarnation=lease_id,
                    ttl_seconds=ttl,
                    wait_until=arrived + wait,
                    purpose=purpose,
                )
            except LeaseHeldError as still:
                state = await locks.describe(name)
                if _is(state, lease_id):
                    return await self._again(locks, request.name, name, state, arrived)
                return _refused(request.name, state, still)
        return _granted(request.name, grant, arrived)

    async def _again(
        self, locks: LockProvider, user_name: str, name: str, state: LockState | None, arrived: float
    ) -> lease_pb2.GrantResponse:
        """Answer a repeat: the lease of its first send, begun anew."""
        assert state is not None
        ttl = state.ttl_seconds
        try:
            grant = await locks.renew(
                _held_grant(name, state.owner, state.incarnation, state.token, ttl, self._clock.monotonic() + ttl)
            )
        except FencedError:
            # Lost between the look and the renewal; the caller may ask with a fresh request id.
            found = await locks.describe(name)
            return lease_pb2.GrantResponse(acquired=False, lock=messages.lock_message(user_name, found))
        _log.info("lease_found_again", lock=name, token=grant.token)
        return _granted(user_name, grant, arrived)

    async def KeepAlive(
        self, request_iterator: AsyncIterator[lease_pb2.KeepAliveRequest], context: Context
    ) -> AsyncIterator[lease_pb2.KeepAliveResponse]:
        """Renew the leases of one message after the other."""
        async for request in request_iterator:
            locks = self._locks(request.namespace)
            if len(request.leases) > messages.MAX_BATCH:
                raise InvalidRequestError(
                    "too many leases in one message",
                    reason="BATCH_TOO_LARGE",
                    remedy=f"send up to {messages.MAX_BATCH} at a time",
                    count=len(request.leases),
                )
            entries = sorted(request.leases, key=_urgency)
            pending = {asyncio.ensure_future(self._keep(locks, entry)) for entry in entries}
            try:
                while pending:
                    # All at once if they are quick; what is there if one is not.
                    done, pending = await asyncio.wait(pending, timeout=_FLUSH_SECONDS)
                    if done or not pending:
                        yield lease_pb2.KeepAliveResponse(
                            sequence=request.sequence, results=[task.result() for task in done], last=not pending
                        )
                if not entries:
                    yield lease_pb2.KeepAliveResponse(sequence=request.sequence, last=True)
            finally:
                for task in pending:
                    task.cancel()

    async def _keep(self, locks: LockProvider, entry: lease_pb2.KeepAliveEntry) -> lease_pb2.KeepAliveResult:
        asked = entry.lease
        now = self._clock.monotonic()
        state, ttl, reason, message = lease_pb2.KEEP_ALIVE_STATE_LOST, messages.seconds(asked.ttl), "", ""
        left = messages.seconds(entry.remaining) if entry.HasField("remaining") else ttl * (1 - record.DRIFT)
        limit = min(left, _LONGEST_RENEWAL_SECONDS)
        try:
            name = messages.stored_name(asked.name)
            if not asked.token or not asked.lease_id:
                raise InvalidRequestError("a lease without token or lease_id", remedy="send the lease as granted")
            if left <= 0:
                raise FencedError("the lease ran out before it was renewed", remedy="stop; ask for a new lease")
            grant = _held_grant(name, asked.holder, asked.lease_id, asked.token, ttl, now + left)
            async with asyncio.timeout(limit), self._slots:
                renewed = await locks.renew(grant)
        except (FencedError, InvalidRequestError) as error:
            reason, message = error.reason, str(error)
        except TimeoutError:
            state, reason = lease_pb2.KEEP_ALIVE_STATE_UNAVAILABLE, "STORE_UNAVAILABLE"
            message = "the backend did not answer in time"
        except BrainyError as error:
            state, reason, message = lease_pb2.KEEP_ALIVE_STATE_UNAVAILABLE, error.reason, str(error)
        else:
            state, ttl = lease_pb2.KEEP_ALIVE_STATE_RENEWED, renewed.ttl_seconds
        return lease_pb2.KeepAliveResult(
            name=asked.name,
            lease_id=asked.lease_id,
            state=state,
            ttl=messages.duration(ttl),
            reason=reason,
            message=message,
        )

    async def Revoke(self, request: lease_pb2.RevokeRequest, context: Context) -> lease_pb2.RevokeResponse:
        """Give a lease back, if it is the one in force."""
        locks = self._locks(request.namespace)
        name = messages.stored_name(request.name)
        if not request.token or not request.lease_id:
            raise InvalidRequestError("a lease without token or lease_id", remedy="send the lease as granted")
        if request.holder and await _released(locks, name, request):
            return lease_pb2.RevokeResponse(
                lock=lease_pb2.Lock(
                    name=request.name,
                    state=lease_pb2.LOCK_STATE_FREE,
                    token=request.token,
                    holder=request.holder,
                )
            )
        state = _known(request.name, await locks.describe(name))
        if state.token != request.token or state.incarnation != request.lease_id:
            raise FencedError(
                "this is not the lease in force",
                remedy="nothing to give back: it ended, or it was never granted",
                lock=request.name,
                token=request.token,
                current_token=state.token,
                holder=state.owner if state.held else "",
            )
        if state.held:
            until = self._clock.monotonic() + state.ttl_seconds
            await locks.release(
                _held_grant(name, state.owner, state.incarnation, state.token, state.ttl_seconds, until)
            )
        freed = messages.lock_message(request.name, state)
        freed.state = lease_pb2.LOCK_STATE_FREE
        return lease_pb2.RevokeResponse(lock=freed)

    async def Get(self, request: lease_pb2.GetRequest, context: Context) -> lease_pb2.GetResponse:
        """Return one lock."""
        locks = self._locks(request.namespace)
        state = _known(request.name, await locks.describe(messages.stored_name(request.name)))
        return lease_pb2.GetResponse(lock=messages.lock_message(request.name, state))

    async def List(self, request: lease_pb2.ListRequest, context: Context) -> lease_pb2.ListResponse:
        """Return the locks that were ever held, by name."""
        locks = self._locks(request.namespace)
        if request.page_size < 0:
            raise InvalidRequestError("a page cannot be smaller than nothing", field="page_size")
        size = min(request.page_size or _DEFAULT_PAGE, _LONGEST_PAGE)
        after = messages.stored_name(request.page_token) if request.page_token else ""
        states = [state for state in await locks.list(messages.stored_prefix(request.prefix)) if state.name > after]
        page = [messages.lock_message(_user_name(state), state) for state in states[:size]]
        return lease_pb2.ListResponse(locks=page, next_page_token=page[-1].name if len(states) > size else "")

    async def ForceRelease(
        self, request: lease_pb2.ForceReleaseRequest, context: Context
    ) -> lease_pb2.ForceReleaseResponse:
        """End another's lease; who and why stay in the record."""
        locks = self._locks(request.namespace)
        name = messages.stored_name(request.name)
        by = messages.text(request.by, "by", messages.MAX_HOLDER, required=True)
        reason = messages.text(request.reason, "reason", messages.MAX_PURPOSE, required=True)
        state = _known(request.name, await locks.describe(name))
        if request.token > state.token:
            raise FencedError(
                "no lease with this token was ever granted",
                remedy="read the lock and name the token in force",
                lock=request.name,
                token=request.token,
                current_token=state.token,
            )
        if not state.held or (request.token and state.token > request.token):
            # Broken by an earlier send of this request, or over in another way.
            ours = not state.held and state.token > request.token > 0 and (state.owner, state.purpose) == (by, reason)
            return lease_pb2.ForceReleaseResponse(lock=messages.lock_message(request.name, state), broken=ours)
        freed = await locks.force_release(name, by=by, reason=reason)
        return lease_pb2.ForceReleaseResponse(lock=messages.lock_message(request.name, freed), broken=True)

    async def Watch(self, request: lease_pb2.WatchRequest, context: Context) -> AsyncIterator[lease_pb2.WatchResponse]:
        """Stream a lock; renewals are no change."""
        locks = self._locks(request.namespace)
        name = messages.stored_name(request.name)
        last: tuple[int, int] | None = None
        while True:
            lock = messages.lock_message(request.name, await locks.describe(name))
            if (lock.token, lock.state) != last:
                last = (lock.token, lock.state)
                yield lease_pb2.WatchResponse(lock=lock)
            await self._clock.sleep(_WATCH_SECONDS)

    def _locks(self, namespace: str) -> LockProvider:
        return self._components.locks[resolve(namespace, self._components.stores)]


def _is(state: LockState | None, lease_id: str) -> bool:
    return state is not None and state.held and state.incarnation == lease_id


def _known(user_name: str, state: LockState | None) -> LockState:
    if state is None:
        raise NotFoundError("nobody ever held this lock", remedy="check the name", lock=user_name)
    return state


def _user_name(state: LockState) -> str:
    return state.name.removeprefix(record.USERS)


def _urgency(entry: lease_pb2.KeepAliveEntry) -> float:
    return messages.seconds(entry.remaining) if entry.HasField("remaining") else 0.0


async def _released(locks: LockProvider, name: str, request: lease_pb2.RevokeRequest) -> bool:
    """Give back the lease that the caller shows; False if it is not the one in force."""
    # The caller's word for the length is not needed: a lease in force bounds how long its release is tried.
    ttl = record.DEFAULT_TTL_SECONDS
    try:
        await locks.release(_held_grant(name, request.holder, request.lease_id, request.token, ttl, 0.0))
    except FencedError:
        return False
    return True


def _held_grant(name: str, owner: str, lease_id: str, token: int, ttl: float, deadline: float) -> Grant:
    """The provider's view of a lease known from a message or a record."""
    return Grant(
        name=name, owner=owner, incarnation=lease_id, token=token, nonce="", ttl_seconds=ttl, deadline=deadline
    )


def _granted(user_name: str, grant: Grant, arrived: float) -> lease_pb2.GrantResponse:
    # No provider's deadline lies behind its sending time + ttl, so this never says too much.
    after = max(0.0, grant.deadline - grant.ttl_seconds - arrived)
    return lease_pb2.GrantResponse(
        acquired=True, lease=messages.lease_message(user_name, grant), granted_after=messages.duration(after)
    )


def _refused(user_name: str, state: LockState | None, held: LeaseHeldError) -> lease_pb2.GrantResponse:
    return lease_pb2.GrantResponse(
        acquired=False,
        lock=messages.lock_message(user_name, state),
        retry_after=messages.duration(float(held.fields.get("retry_after", "0") or 0)),
    )
