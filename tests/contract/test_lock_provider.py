"""One suite for every lock provider: leases, fencing tokens, takeover without a clock in common.

``Backend`` is all that differs: a new store or provider is one more entry of ``BACKENDS``. In memory and over
object stores leases are measured by the provider's clock, which tests move by hand; Redis measures them itself,
so there a lease is short and a test waits until the lock is seen to be free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from brainy.bucket.namespace import Namespace
from brainy.clock import Clock, SystemClock
from brainy.config.settings import LockSettings, StoreSettings
from brainy.errors import FencedError, InvalidRequestError, LeaseHeldError, NotFoundError
from brainy.ids import Ids
from brainy.locks.base import Grant, LockProvider
from brainy.locks.memory import LockTable, MemoryLocks
from brainy.locks.opening import open_locks
from brainy.store.base import ObjectStore
from brainy.store.memory import MemoryStore
from brainy.store.opening import open_store
from brainy.testing.clock import ManualClock
from brainy.testing.linearizability import History, check

#: Made by the fixtures that start the servers.
BUCKET = "brainy-tests"
BACKENDS = ("memory", "store[memory]", "store[local]", "store[seaweedfs]", "store[ministack]", "redis", "valkey")
#: Processes that want one lock, and how often each gets it. Conditional writes that collide are slow on SeaweedFS.
CONTENDERS = {
    "memory": (64, 3),
    "store[memory]": (64, 2),
    "store[local]": (64, 1),
    "store[seaweedfs]": (8, 2),
    "store[ministack]": (64, 1),
    "redis": (64, 3),
    "valkey": (64, 3),
}
T = TypeVar("T")


class Backend:
    """Providers of several processes over one shared backend."""

    def __init__(self, name: str, store: ObjectStore, settings: LockSettings) -> None:
        self.name = name
        self.store = store
        self.settings = settings
        self.scope = Ids().uuid()
        self.real_time = settings.provider == "redis"
        self.manual = ManualClock()
        self.clock: Clock = SystemClock() if self.real_time else self.manual
        self.ttl = 0.6 if self.real_time else 10.0
        self.tables: dict[int, LockTable] = {}
        self.opened: list[LockProvider] = []

    def provider(self, clock: Clock | None = None, *, table_clock: Clock | None = None) -> LockProvider:
        clock = clock or self.clock
        if self.name == "memory":
            table_clock = table_clock or self.clock
            table = self.tables.setdefault(id(table_clock), LockTable(table_clock))
            return MemoryLocks(table, clock, Ids())
        locks = open_locks(self.settings, self.store, clock, Ids(), scope=self.scope)
        self.opened.append(locks)
        return locks

    async def finish(self, call: Awaitable[T], *, within: float) -> T:
        """Await a call that waits, moving the clock for it if it stands still."""
        task = asyncio.ensure_future(call)
        start = self.clock.monotonic()
        while not task.done():
            assert self.clock.monotonic() - start < within
            if not self.real_time:
                await self.manual.advance(0.1)
            await asyncio.wait([task], timeout=0.002)
        return await task

    async def pass_time(self, leases: float) -> None:
        """Let so many lengths of a lease go by on every clock."""
        if not self.real_time:
            await self.manual.advance(leases * self.ttl)
            return
        end = self.clock.monotonic() + leases * self.ttl
        while (left := end - self.clock.monotonic()) > 0:
            await asyncio.sleep(left)

    async def close(self) -> None:
        for locks in self.opened:
            await locks.close()


@pytest.fixture(params=BACKENDS)
async def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Backend]:
    name = request.param
    store: ObjectStore = MemoryStore()
    settings = LockSettings()
    if name in ("redis", "valkey"):
        server = request.getfixturevalue("redis_server_7" if name == "redis" else "valkey_server")
        settings = LockSettings(provider="redis", redis_url=server.url)
    elif name == "store[local]":
        store = real_store(f"file://{tmp_path}")
    elif name not in ("memory", "store[memory]"):
        server = request.getfixturevalue(name[6:-1] + "_server")
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        store = real_store(f"s3://{BUCKET}/{Ids().short(10)}")
    backend = Backend(name, store, settings)
    yield backend
    await backend.close()
    await store.close()


def real_store(uri: str) -> ObjectStore:
    return open_store(Namespace.parse(uri), StoreSettings(), clock=SystemClock(), ids=Ids())


async def take(locks: LockProvider, owner: str, backend: Backend, *, name: str = "index/shard-3", **more: Any) -> Grant:
    return await locks.grant(
        name, **{"owner": owner, "incarnation": f"{owner}-1", "ttl_seconds": backend.ttl, "purpose": "test", **more}
    )


async def wait_for(
    locks: LockProvider, owner: str, backend: Backend, *, leases: float, name: str = "index/shard-3"
) -> Grant:
    clock = backend.clock
    return await locks.acquire(
        name,
        owner=owner,
        incarnation=f"{owner}-1",
        ttl_seconds=backend.ttl,
        wait_until=clock.monotonic() + leases * backend.ttl,
    )


async def test_grant_excludes_and_release_hands_over_with_a_higher_token(backend: Backend) -> None:
    a, b = backend.provider(), backend.provider()
    first = await take(a, "a", backend, ttl_seconds=60)
    assert first.token == 1
    with pytest.raises(LeaseHeldError) as caught:
        await take(b, "b", backend)
    assert caught.value.fields["holder"] == "a"
    assert 0 < float(caught.value.fields["retry_after"]) <= 66
    await a.release(first)
    second = await take(b, "b", backend)
    assert second.token == 2
    await b.release(second)
    assert (await take(a, "a", backend)).token == 3


async def test_the_same_owner_is_excluded_too(backend: Backend) -> None:
    locks = backend.provider()
    await take(locks, "a", backend)
    with pytest.raises(LeaseHeldError):
        await take(locks, "a", backend)


async def test_a_crashed_holder_is_replaced_after_its_lease_and_not_before(backend: Backend) -> None:
    asked = backend.clock.monotonic()
    holder = await take(backend.provider(), "a", backend)
    successor = await backend.finish(wait_for(backend.provider(), "b", backend, leases=20), within=20 * backend.ttl)
    assert successor.token == holder.token + 1
    waited = (successor.deadline - 0.9 * backend.ttl) - asked
    assert waited >= backend.ttl * 0.99
    if backend.name in ("memory", "store[memory]"):  # elsewhere the hand-moved clock runs ahead of real calls
        assert waited <= backend.ttl * 1.1 + 0.5


async def test_renewal_keeps_the_lock_and_the_token(backend: Backend) -> None:
    a, b = backend.provider(), backend.provider()
    grant = await take(a, "a", backend, ttl_seconds=3 * backend.ttl)
    for _ in range(4):
        await backend.pass_time(1)
        renewed = await a.renew(grant)
        assert renewed.token == grant.token
        assert renewed.deadline > grant.deadline
        grant = renewed
        with pytest.raises(LeaseHeldError):
            await take(b, "b", backend)


async def test_a_provider_without_memory_can_renew_and_release(backend: Backend) -> None:
    grant = await take(backend.provider(), "a", backend)
    other = backend.provider()
    grant = await other.renew(grant)
    await backend.provider().release(grant)
    assert (await take(other, "b", backend)).token == 2


async def test_concurrent_renewals_of_one_grant_all_succeed(backend: Backend) -> None:
    locks = [backend.provider(SystemClock()) for _ in range(3)]
    grant = await take(locks[0], "a", backend, ttl_seconds=30)
    renewed = await asyncio.gather(*(provider.renew(grant) for provider in locks))
    assert {item.token for item in renewed} == {1}


async def test_a_stale_holder_is_told_and_cannot_harm(backend: Backend) -> None:
    stopped = ManualClock()  # a process that was stopped: its clock stood still
    a, b = backend.provider(stopped), backend.provider()
    stale = await take(a, "a", backend)
    current = await backend.finish(wait_for(b, "b", backend, leases=20), within=20 * backend.ttl)
    with pytest.raises(FencedError) as caught:
        await a.renew(stale)
    assert caught.value.fields["current_token"] == "2"
    assert caught.value.fields["holder"] == "b"
    with pytest.raises(FencedError):
        await a.release(stale)
    assert (await b.renew(current)).token == 2


async def test_deadline_counts_from_before_sending_less_a_margin(backend: Backend) -> None:
    clock = ManualClock()
    asked = clock.monotonic()
    grant = await take(backend.provider(clock), "a", backend)
    assert asked < grant.deadline <= asked + backend.ttl * 0.9


async def test_renewing_after_the_deadline_is_refused(backend: Backend) -> None:
    clock = ManualClock()
    locks = backend.provider(clock)
    grant = await take(locks, "a", backend, ttl_seconds=10)
    await clock.advance(9.5)
    with pytest.raises(FencedError):
        await locks.renew(grant)
    state = await locks.describe(grant.name)
    assert state is not None
    assert (state.token, state.renewals) == (1, 0)
    await locks.release(grant)
    assert (await take(locks, "a", backend)).token == 2


async def test_renewing_a_lease_that_ran_out_is_refused(backend: Backend) -> None:
    stopped = ManualClock()
    locks = backend.provider(stopped)
    grant = await take(locks, "a", backend)
    if backend.real_time:
        await backend.pass_time(1.05)  # the server's clock goes on
    else:
        await stopped.advance(1.05 * backend.ttl)
    with pytest.raises(FencedError):
        await locks.renew(grant)


async def test_wall_clocks_do_not_matter(backend: Backend) -> None:
    ahead, behind = ManualClock(wall=1e9), ManualClock(wall=1e9 - 86_400)
    a, b = backend.provider(ahead), backend.provider(behind)
    grant = await take(a, "a", backend, ttl_seconds=30)
    behind.jump_wall(10 * 86_400)
    with pytest.raises(LeaseHeldError):
        await take(b, "b", backend)
    ahead.jump_wall(-3 * 86_400)
    assert (await a.renew(grant)).token == 1


async def test_force_takes_over_at_once(backend: Backend) -> None:
    a, b = backend.provider(), backend.provider()
    grant = await take(a, "a", backend)
    forced = await take(b, "b", backend, force=True)
    assert forced.token == grant.token + 1
    with pytest.raises(FencedError):
        await a.renew(grant)


async def test_breaking_frees_the_lock_one_token_higher_and_says_who(backend: Backend) -> None:
    a, b = backend.provider(), backend.provider()
    with pytest.raises(NotFoundError):
        await b.force_release("index/shard-3", by="op", reason="stuck")
    grant = await take(a, "a", backend)
    with pytest.raises(InvalidRequestError):
        await b.force_release("index/shard-3", by=" ", reason="stuck")
    state = await b.force_release("index/shard-3", by="op", reason="stuck since noon")
    assert (state.held, state.token, state.owner, state.purpose) == (False, 2, "op", "stuck since noon")
    assert await a.describe("index/shard-3") is not None
    with pytest.raises(FencedError):
        await a.renew(grant)
    with pytest.raises(FencedError):
        await a.release(grant)
    assert (await take(b, "b", backend)).token == 3


async def test_release_twice_is_harmless_and_by_another_refused(backend: Backend) -> None:
    a, b = backend.provider(), backend.provider()
    first = await take(a, "a", backend)
    await a.release(first)
    await a.release(first)
    await b.release(first)
    second = await take(b, "b", backend, ttl_seconds=60)
    before = await b.describe("index/shard-3")
    with pytest.raises(FencedError):
        await a.release(first)
    forged = Grant(
        name=second.name,
        owner="mallory",
        incarnation="1",
        token=second.token,
        nonce=second.nonce,
        ttl_seconds=60,
        deadline=second.deadline,
    )
    with pytest.raises(FencedError):
        await a.release(forged)
    with pytest.raises(FencedError):
        await a.renew(forged)
    after = await b.describe("index/shard-3")
    assert before is not None
    assert after is not None
    assert (after.token, after.held, after.owner, after.renewals) == (before.token, True, "b", 0)


async def test_acquire_waits_for_a_release(backend: Backend) -> None:
    a, b = backend.provider(), backend.provider()
    grant = await take(a, "a", backend, name="x", ttl_seconds=60)
    waiting = asyncio.ensure_future(wait_for(b, "b", backend, leases=20, name="x"))
    await backend.pass_time(0.3)
    assert not waiting.done()
    await a.release(grant)
    assert (await backend.finish(waiting, within=3.0)).token == 2


async def test_acquire_gives_up_in_time(backend: Backend) -> None:
    await take(backend.provider(), "a", backend, name="x", ttl_seconds=60)
    hasty = backend.provider()
    with pytest.raises(LeaseHeldError):
        await backend.finish(wait_for(hasty, "b", backend, leases=0.5, name="x"), within=3 * backend.ttl)


async def test_a_cancelled_waiter_is_in_nobodys_way(backend: Backend) -> None:
    a, b = backend.provider(), backend.provider()
    grant = await take(a, "a", backend, name="x", ttl_seconds=60)
    gone = asyncio.ensure_future(wait_for(b, "b", backend, leases=100, name="x"))
    await backend.pass_time(0.3)
    stays = asyncio.ensure_future(wait_for(b, "c", backend, leases=100, name="x"))
    await backend.pass_time(0.3)
    gone.cancel()
    await asyncio.wait([gone])
    await a.release(grant)
    successor = await backend.finish(stays, within=3.0)
    assert (successor.owner, successor.token) == ("c", 2)


async def test_waiters_are_served_in_order_where_the_backend_can(backend: Backend) -> None:
    if backend.name.startswith("store"):
        return  # any waiter may be next
    a, b = backend.provider(), backend.provider()
    grant = await take(a, "a", backend, name="x", ttl_seconds=60)
    waiting = []
    for number in range(5):
        waiting.append(asyncio.ensure_future(wait_for((a, b)[number % 2], str(number), backend, leases=100, name="x")))
        await backend.pass_time(0.15)
    served = []
    await a.release(grant)
    for task in waiting:
        with pytest.raises(LeaseHeldError):  # nobody pushes in
            await take(a, "pushy", backend, name="x")
        grant = await backend.finish(task, within=3.0)
        served.append(grant.owner)
        await a.release(grant)
    assert served == ["0", "1", "2", "3", "4"]


async def test_contenders_leave_the_history_of_a_lock(backend: Backend) -> None:
    clock = SystemClock()
    history = History(clock)
    contenders, rounds = CONTENDERS[backend.name]
    inside = 0

    async def contender(number: int) -> None:
        nonlocal inside
        locks = history.recorded(backend.provider(clock, table_clock=clock), str(number))
        for life in range(rounds):
            grant = await locks.acquire(
                "x", owner=str(number), incarnation=str(life), ttl_seconds=30, wait_until=clock.monotonic() + 100
            )
            inside += 1
            assert inside == 1
            if number % 4 == 0:
                grant = await locks.renew(grant)
            inside -= 1
            await locks.release(grant)

    await asyncio.gather(*(contender(number) for number in range(contenders)))
    grants = [call for call in history.calls if call.kind == "grant"]
    assert len(grants) == contenders * rounds
    verdict = check(history.calls)
    assert verdict, str(verdict)


async def test_describe_and_list(backend: Backend) -> None:
    locks = backend.provider()
    assert await locks.describe("x") is None
    assert await locks.list() == []
    grant = await take(locks, "a", backend, name="jobs/b", ttl_seconds=30)
    await take(locks, "a", backend, name="jobs/a")
    await take(locks, "a", backend, name="other")
    await locks.renew(grant)
    state = await locks.describe("jobs/b")
    assert state is not None
    assert (state.token, state.held, state.owner, state.renewals) == (1, True, "a", 1)
    assert (state.ttl_seconds, state.purpose, state.incarnation) == (30.0, "test", "a-1")
    assert [item.name for item in await locks.list("jobs/")] == ["jobs/a", "jobs/b"]
    assert [item.name for item in await locks.list("jobs/a")] == ["jobs/a"]
    assert len(await locks.list()) == 3
    await backend.pass_time(0.3)
    again = await locks.describe("jobs/b")
    assert again is not None
    assert again.unchanged_seconds >= 0.29 * backend.ttl
    await locks.release(grant)
    freed = await locks.describe("jobs/b")
    assert freed is not None
    assert (freed.held, freed.owner, freed.token) == (False, "a", 1)


@pytest.mark.parametrize("name", ["", "/x", "x/", "a//b", "../x", "a/../b", "ü", "x" * 257, "a b", "a*", "{x}"])
async def test_illegal_names(backend: Backend, name: str) -> None:
    locks = backend.provider()
    with pytest.raises(InvalidRequestError):
        await take(locks, "a", backend, name=name)
    with pytest.raises(InvalidRequestError):
        await locks.describe(name)
    with pytest.raises(InvalidRequestError):
        await locks.force_release(name, by="op", reason="")


async def test_a_long_name(backend: Backend) -> None:
    locks = backend.provider()
    name = "/".join(["n" * 100, "a" * 100, "m.e_" * 13 + "-9"])
    assert len(name) == 256
    grant = await take(locks, "a", backend, name=name)
    assert [state.name for state in await locks.list(name[:150])] == [name]
    await locks.release(grant)


async def test_an_illegal_prefix(backend: Backend) -> None:
    with pytest.raises(InvalidRequestError):
        await backend.provider().list("jobs*")


@pytest.mark.parametrize("ttl", [0, -1, 0.01, 100_000, float("nan")])
async def test_illegal_lengths(backend: Backend, ttl: float) -> None:
    with pytest.raises(InvalidRequestError):
        await take(backend.provider(), "a", backend, ttl_seconds=ttl)
