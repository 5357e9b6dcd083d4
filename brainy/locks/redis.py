"""Leases in Redis or Valkey: one round trip a grant, tokens that its loss cannot turn back.

Protocol (docs/protocols/lease.md; keys and scripts: ``brainy.locks.redis_scripts``)
------------------------------------------------------------------------------------
*Before.* A lock is absent, free or held in Redis; the bucket's record of the same name says which block of
tokens Redis may hand out (``brainy.locks.tokens``).

*Grant.*

1. One script: held → LEASE_HELD. Waiters queue and this is not the first → LEASE_HELD. Free or run out, and the
   block in Redis is the one this process knows as the bucket's, was put into this very server, and is not used up
   → the next token. Done: one round trip.
2. Otherwise: read the bucket's record. It names the block that is in Redis → step 1 with that one, then step 4.
3. Otherwise reserve a block (one GET, one conditional PUT; above both the record and what Redis last said), put it
   into Redis and take its first token in one script, which is sent once and never again.
4. Read the record once more: another block → give the lock back, begin anew. (While this process was stopped
   between reserve and step 3, others may have gone on to a later block and Redis may have forgotten it.)

The bucket comes first in every change of block, so a token exists only below what the bucket says. A process
reads the record at its first grant of a name and again ``recheck_seconds`` after it last did: that is how a
change of backend is noticed.

*Renew, release, break.* One script each; they compare token, owner and incarnation.

*Wait.* A waiter enters the lock's queue and listens on a channel of its process. A release tells the first; the
first asks again when the lease has run out; every waiter asks once a second, and counts as gone after three.

*Any failure of Redis* (down, full, read-only, loading): ``UnavailableError``. The lock is not acquired. A lease
that was written all the same ends by itself. Scripts are sent again once when the connection broke, with the same
nonce, which makes that harmless; the script of step 3 never is.

*After a grant.* Its token is above every earlier one's, across FLUSHALL, restart, failover and change of backend.
Exclusion in time holds while one Redis lives; after a loss two may believe they hold the lock, and the guarded
resource refuses the lower token. The same goes for a master that was cut off and still answers some: for
``recheck_seconds`` at most it hands out lower tokens than its successor.

*Cancel safety.* A cancelled grant may have been written: it ends by itself. A cancelled waiter leaves the queue,
or is left out of it after three seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio as aioredis  # noqa: TID251 - the one place that may
from redis import exceptions as failures  # noqa: TID251 - the one place that may
from redis.asyncio.retry import Retry  # noqa: TID251 - the one place that may
from redis.backoff import NoBackoff  # noqa: TID251 - the one place that may

from brainy.clock import Clock
from brainy.errors import (
    BrainyError,
    CorruptDataError,
    FencedError,
    InvalidRequestError,
    LeaseHeldError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from brainy.ids import Ids
from brainy.locks import record as lease
from brainy.locks import redis_scripts as scripts
from brainy.locks.base import Grant, LockState
from brainy.locks.redis_answers import cancellable, corrupt, lost, newer_version, state_of
from brainy.locks.redis_wakeups import Wakeups
from brainy.locks.tokens import TokenFloor
from brainy.telemetry.logs import get_logger

#: Rounds of a grant that keeps meeting other processes' changes of block.
_MAX_ROUNDS: Final = 16
_POLL_SECONDS: Final = 1.0
_WINDOW_MS: Final = 3000
_CONNECTIONS: Final = 32
_LIST_BATCH: Final = 500
#: Waited before a block that another process has reserved is taken for abandoned.
_PATIENCE: Final = (0.05, 0.15)

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """One grant that is asked for."""

    mode: str
    owner: str
    incarnation: str
    ttl_seconds: float
    purpose: str
    nonce: str
    waiter: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """A block that was in Redis while the bucket named it. It is put in once: if Redis loses it, it stays lost."""

    block: str
    #: When the bucket was asked, monotonic.
    read_at: float


class RedisLocks:
    """``LockProvider`` over Redis 7 or Valkey; see the module for the protocol.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        scope: locks of different scopes are different locks; the namespace's URI.
        floor: keeps tokens rising when Redis forgets. Without one they are as durable as Redis is.
        timeout_seconds: for a connection and for an answer.
        recheck_seconds: how long a process relies on what it read from the floor.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        ids: Ids,
        *,
        scope: str = "",
        floor: TokenFloor | None = None,
        timeout_seconds: float = 2.0,
        recheck_seconds: float = 60.0,
    ) -> None:
        """Prepare; nothing is connected.

        Raises:
            InvalidRequestError: not such a URL.
        """
        try:
            pool = aioredis.BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=timeout_seconds,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
                # A client that repeats by itself would put a block in twice.
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
                protocol=2,
            )
        except ValueError as error:
            raise InvalidRequestError(
                "not the address of a redis server", remedy="write redis://host:6379/0", setting="locks.redis_url"
            ) from error
        self._client = aioredis.Redis.from_pool(pool)
        self._grant_script = self._client.register_script(scripts.GRANT)
        self._renew_script = self._client.register_script(scripts.RENEW)
        self._release_script = self._client.register_script(scripts.RELEASE)
        self._leave_script = self._client.register_script(scripts.LEAVE)
        self._clock = clock
        self._ids = ids
        self._scope = scope
        self._floor = floor
        self._recheck = recheck_seconds
        self._known: dict[str, _Known] = {}
        self._wakeups = Wakeups(self._client, ids.nonce().hex(), _typed)

    async def grant(
        self,
        name: str,
        *,
        owner: str,
        incarnation: str,
        ttl_seconds: float,
        purpose: str = "",
        force: bool = False,
    ) -> Grant:
        """Take the lock if it is free or its lease ran out; see ``LockProvider``."""
        wanted = self._wanted(
            name, "force" if force else "grant", owner, incarnation, ttl_seconds=ttl_seconds, purpose=purpose
        )
        return await self._take(name, wanted)

    async def acquire(
        self,
        name: str,
        *,
        owner: str,
        incarnation: str,
        ttl_seconds: float,
        wait_until: float,
        purpose: str = "",
    ) -> Grant:
        """Wait for the lock, in the order of arrival, until ``wait_until``; see ``LockProvider``."""
        wanted = self._wanted(name, "grant", owner, incarnation, ttl_seconds=ttl_seconds, purpose=purpose)
        with contextlib.suppress(LeaseHeldError):
            return await self._take(name, wanted)
        async with self._wakeups.waiter(self._ids.nonce().hex()) as (waiter, woken):
            queued = self._wanted(
                name, "grant", owner, incarnation, ttl_seconds=ttl_seconds, purpose=purpose, waiter=waiter
            )
            granted = False
            try:
                while True:
                    woken.clear()
                    try:
                        grant = await self._take(name, queued)
                        granted = True
                        return grant
                    except LeaseHeldError as held:
                        left = wait_until - self._clock.monotonic()
                        if left <= 0:
                            raise
                        await self._pause(woken, min(left, float(held.fields["retry_after"]), _POLL_SECONDS))
            finally:
                if not granted:
                    await self._leave(name, waiter)

    async def renew(self, grant: Grant) -> Grant:
        """Begin the lease anew, with the same token; see ``LockProvider``."""
        nonce = self._ids.nonce().hex()
        sent_at = self._clock.monotonic()
        if sent_at >= grant.deadline:
            raise FencedError(
                "the lease ended before it was renewed",
                remedy="stop the guarded work; ask for a new grant",
                lock=grant.name,
                token=grant.token,
            )
        answer = await self._run(
            self._renew_script,
            grant.name,
            [grant.token, grant.owner, grant.incarnation, nonce, round(grant.ttl_seconds * 1000)],
        )
        if answer[0] == "LOST":
            raise lost(grant, answer)
        return Grant(
            name=grant.name,
            owner=grant.owner,
            incarnation=grant.incarnation,
            token=grant.token,
            nonce=nonce,
            ttl_seconds=grant.ttl_seconds,
            deadline=lease.deadline(sent_at, grant.ttl_seconds),
        )

    async def release(self, grant: Grant) -> None:
        """Give the lock back; see ``LockProvider``."""
        answer = await self._run(
            self._release_script,
            grant.name,
            [grant.token, grant.owner, grant.incarnation, self._ids.nonce().hex()],
        )
        if answer[0] == "LOST":
            raise lost(grant, answer)
        _log.info("lock_released", lock=grant.name, owner=grant.owner, token=grant.token)

    async def force_release(self, name: str, *, by: str, reason: str) -> LockState:
        """Take the lock from its holder and leave it free; see ``LockProvider``."""
        lease.check_breaker(by)
        wanted = self._wanted(name, "break", by, "", ttl_seconds=lease.DEFAULT_TTL_SECONDS, purpose=reason)
        await self._take(name, wanted)
        state = await self.describe(name)
        if state is None:
            raise UnavailableError("redis lost the lock while it was broken", remedy="look again", lock=name)
        return state

    async def describe(self, name: str) -> LockState | None:
        """Return a lock's state as Redis knows it; see ``LockProvider``. One round trip."""
        lease.check_name(name)
        return (await self._describe([name]))[0]

    async def list(self, prefix: str = "") -> Sequence[LockState]:
        """Return the state of every lock whose name starts with ``prefix``; see ``LockProvider``.

        Costs a pass over the keys of the whole database.
        """
        lease.check_prefix(prefix)
        pattern = f"{scripts.prefix(self._scope)}{prefix}*}}:state"
        with _typed():
            names = {scripts.name_of(self._scope, key) async for key in self._client.scan_iter(pattern, count=1000)}
        ordered = sorted(names)
        states: list[LockState | None] = []
        for start in range(0, len(ordered), _LIST_BATCH):
            states += await self._describe(ordered[start : start + _LIST_BATCH])
        return [state for state in states if state is not None]

    async def close(self) -> None:
        """Give back the connections; leases are left as they are."""
        await self._wakeups.close()
        with contextlib.suppress(failures.RedisError, OSError):
            await self._client.aclose()

    def _wanted(
        self,
        name: str,
        mode: str,
        owner: str,
        incarnation: str,
        *,
        ttl_seconds: float,
        purpose: str,
        waiter: str = "",
    ) -> _Wanted:
        lease.check_name(name)
        lease.check_ttl(ttl_seconds)
        return _Wanted(
            mode=mode,
            owner=owner,
            incarnation=incarnation,
            ttl_seconds=ttl_seconds,
            purpose=purpose,
            nonce=self._ids.nonce().hex(),
            waiter=waiter,
        )

    async def _take(self, name: str, wanted: _Wanted) -> Grant:
        """Carry out a grant or a break; the steps are the module's."""
        if self._floor is None:
            sent_at = self._clock.monotonic()
            return self._granted(name, wanted, await self._ask(name, wanted, "-"), sent_at)
        abandoned: str | None = None
        for _ in range(_MAX_ROUNDS):
            known = self._known.get(name)
            if known is not None and self._clock.monotonic() - known.read_at > self._recheck:
                known = None
            read_at = self._clock.monotonic() if known is None else known.read_at
            block = await self._floor.current(name) if known is None else known.block
            answer: Sequence[Any] = ()
            # Breaking a lock that nobody ever held must not reserve anything for it: ask even without a block.
            if block or wanted.mode == "break":
                sent_at = self._clock.monotonic()
                answer = await self._ask(name, wanted, block or "none")
                if answer[0] == "GRANTED":
                    grant = self._granted(name, wanted, answer, sent_at)
                    if known is None and not await self._confirmed(name, block, grant):
                        continue
                    self._known[name] = _Known(block, read_at)
                    return grant
                if answer[0] == "HELD" and answer[4] == block:
                    self._known[name] = _Known(block, read_at)
                if answer[0] != "BLOCK":
                    return self._granted(name, wanted, answer, sent_at)  # raises
            self._known.pop(name, None)
            named = block if known is None else await self._floor.current(name)
            in_use = known is not None and named == block
            if named and not in_use and named != abandoned:
                # Reserved by another process that has perhaps not yet put it into Redis, or in use already.
                abandoned = named
                if not answer or answer[1] != named:
                    await self._clock.sleep(self._ids.jitter(*_PATIENCE))
                continue
            first = await self._take_from_new_block(name, wanted, above=int(answer[2]) if answer else 0)
            if first is not None:
                return first
            abandoned = None
            await self._clock.sleep(self._ids.jitter(*_PATIENCE))
        raise LeaseHeldError("too many others want this lock", remedy="retry", lock=name, retry_after=0.1)

    async def _take_from_new_block(self, name: str, wanted: _Wanted, *, above: int) -> Grant | None:
        assert self._floor is not None
        read_at = self._clock.monotonic()
        block = await self._floor.reserve(name, above=above)
        if block is None:
            return None
        sent_at = self._clock.monotonic()
        answer = await self._ask(name, wanted, block.id, first=block.first, last=block.last)
        if answer[0] == "BLOCK":
            return None
        grant = self._granted(name, wanted, answer, sent_at)
        if not await self._confirmed(name, block.id, grant):
            return None
        self._known[name] = _Known(block.id, read_at)
        return grant

    async def _confirmed(self, name: str, block: str, grant: Grant) -> bool:
        """Whether the bucket still names the block a grant came from; if not, the grant is given back."""
        assert self._floor is not None
        if await self._floor.current(name) == block:
            return True
        _log.warning("lock_block_overtaken", lock=name, token=grant.token)
        with contextlib.suppress(FencedError):
            await self.release(grant)
        return False

    async def _ask(self, name: str, wanted: _Wanted, block: str, *, first: int = 0, last: int = 0) -> Sequence[Any]:
        arguments = [
            *(wanted.mode, wanted.nonce, wanted.owner, wanted.incarnation, round(wanted.ttl_seconds * 1000)),
            *(wanted.purpose, wanted.waiter, _WINDOW_MS, block, first, last),
        ]
        # A forced grant that ran twice would cost another holder its lease.
        repeat = last == 0 and wanted.mode == "grant"
        return await self._run(self._grant_script, name, arguments, repeat=repeat)

    def _granted(self, name: str, wanted: _Wanted, answer: Sequence[Any], sent_at: float) -> Grant:
        if answer[0] == "ABSENT":
            raise NotFoundError("nobody ever held this lock", remedy="check the name", lock=name)
        if answer[0] == "HELD":
            raise LeaseHeldError(
                "another holder has this lock",
                remedy="wait and retry",
                lock=name,
                holder=answer[3],
                token=answer[2],
                retry_after=f"{int(answer[1]) / 1000:.3f}",
            )
        token = int(answer[1])
        if wanted.mode == "break":
            _log.warning(
                "lock_broken", lock=name, by=wanted.owner, reason=wanted.purpose, from_owner=answer[2], token=token
            )
        else:
            if wanted.mode == "force" and answer[2]:
                _log.warning("lock_forced", lock=name, by=wanted.owner, from_owner=answer[2], token=token)
            _log.info("lock_granted", lock=name, owner=wanted.owner, token=token)
        return Grant(
            name=name,
            owner=wanted.owner,
            incarnation=wanted.incarnation,
            token=token,
            nonce=wanted.nonce,
            ttl_seconds=wanted.ttl_seconds,
            deadline=lease.deadline(sent_at, wanted.ttl_seconds),
        )

    async def _run(self, script: Any, name: str, arguments: Sequence[object], *, repeat: bool = True) -> Sequence[Any]:
        keys = scripts.keys(self._scope, name)
        with _typed():
            try:
                answer: Sequence[Any] = await cancellable(script(keys=keys, args=arguments))
            except failures.ConnectionError:
                # A pooled connection the server has closed since looks like this, too.
                if not repeat:
                    raise
                answer = await cancellable(script(keys=keys, args=arguments))
        if answer[0] == "CORRUPT":
            raise corrupt(keys[0])
        if answer[0] == "VERSION":
            raise newer_version(keys[0], answer[1])
        return answer

    async def _describe(self, names: Sequence[str]) -> Sequence[LockState | None]:
        keys = [scripts.keys(self._scope, name)[0] for name in names]
        with _typed():
            pipeline = self._client.pipeline(transaction=False)
            for key in keys:
                pipeline.hgetall(key)
            pipeline.time()
            *found, (seconds, micros) = await cancellable(pipeline.execute())
        now = seconds * 1000 + micros // 1000
        return [state_of(name, key, raw, now) for name, key, raw in zip(names, keys, found, strict=True)]

    async def _pause(self, woken: asyncio.Event, seconds: float) -> None:
        waits = {asyncio.ensure_future(woken.wait()), asyncio.ensure_future(self._clock.sleep(seconds))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _leave(self, name: str, waiter: str) -> None:
        # Out of courtesy: who does not leave is left out after a while.
        with contextlib.suppress(BrainyError):
            await self._run(self._leave_script, name, [waiter])


@contextlib.contextmanager
def _typed() -> Iterator[None]:
    """Turn what Redis and its client raise into errors of this product."""
    try:
        yield
    except (failures.RedisError, OSError) as error:
        said = str(error)
        refused = isinstance(error, (failures.AuthenticationError, failures.NoPermissionError))
        # A server that wants a password refuses a long command by its length, before it asks who we are.
        if refused or said.startswith("NOAUTH") or "unauthenticated multibulk" in said:
            raise PermissionDeniedError(
                "redis refuses this identity",
                remedy="check the credentials and the ACL: scripts, INFO, TIME, hashes, sorted sets, pub/sub, SCAN",
                detail=said[:200],
            ) from error
        if "WRONGTYPE Operation" in said:
            raise CorruptDataError(
                "a lock's key in redis holds something else",
                remedy="find out who writes under brainy:, then delete the key; its token is kept in the bucket",
                detail=said[:200],
            ) from error
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(
        "redis cannot answer; the lock is not acquired",
        remedy="check the redis server, its memory and its role; then try again",
        cause=type(error).__name__,
        detail=str(error)[:200],
    )
