"""Locks of the SDK against coordinators over real gRPC."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from lease_cluster import LeaseCluster, lease_cluster

from brainy import Brainy
from brainy.clock import SystemClock
from brainy.config.settings import LockSettings
from brainy.errors import FencedError, InvalidRequestError, LeaseHeldError, NotFoundError, UnavailableError
from brainy.sdk.loop_thread import LOOP
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def cluster(clock: ManualClock) -> AsyncIterator[LeaseCluster]:
    async with lease_cluster(FaultyStore(MemoryStore(clock)), clock) as made:
        yield made


def store_of(cluster: LeaseCluster) -> FaultyStore:
    assert isinstance(cluster.store, FaultyStore)
    return cluster.store


async def advance(clock: ManualClock, seconds: float, step: float = 0.25) -> None:
    """Let time pass, with the answers of real servers in between."""
    for _ in range(round(seconds / step)):
        await clock.advance(step)
        await asyncio.sleep(0.005)


async def test_a_lock_is_held_in_its_block_and_free_after(cluster: LeaseCluster) -> None:
    one, two = cluster.client(), cluster.client()
    async with one.lock("job", holder="anna", purpose="why") as lease:
        assert (lease.name, lease.token, lease.held, lease.lost.is_set()) == ("job", 1, True, False)
        lease.check()
        with pytest.raises(LeaseHeldError) as caught:
            await two.lock("job", wait=0).acquire()
        assert (caught.value.fields["holder"], caught.value.fields["token"]) == ("anna", "1")
        assert (await two.get_lock("job")).state == "held"
    with pytest.raises(FencedError):
        lease.check()
    assert not lease.lost.is_set()
    found = await two.list_locks()
    assert [(lock.name, lock.state, lock.holder, lock.purpose) for lock in found] == [("job", "free", "anna", "why")]
    async with two.lock("job") as next_lease:
        assert next_lease.token == 2


async def test_an_error_in_the_block_passes_and_frees_the_lock(cluster: LeaseCluster) -> None:
    client = cluster.client()
    with pytest.raises(ZeroDivisionError):
        async with client.lock("job"):
            raise ZeroDivisionError
    assert (await client.get_lock("job")).state == "free"


@pytest.mark.parametrize("method", ["Grant", "Revoke", "ForceRelease"])
async def test_a_lost_answer_changes_nothing(cluster: LeaseCluster, clock: ManualClock, method: str) -> None:
    client = cluster.client()
    for servicer in cluster.servicers:
        servicer.lose[method] = 1

    async def work() -> None:
        async with client.lock("job", ttl=60) as lease:
            assert lease.token == 1
        if method == "ForceRelease":
            await client.lock("job", ttl=60).acquire()
            after, broken = await client.break_lock("job", reason="test")
            assert (after.token, after.state, broken) == (3, "free", True)

    task = asyncio.ensure_future(work())
    while not task.done():
        await advance(clock, 0.25)
    await task
    assert (await client.get_lock("job")).state == "free"


async def test_leases_are_renewed_in_the_background(cluster: LeaseCluster, clock: ManualClock) -> None:
    client = cluster.client()
    async with client.lock("short", ttl=3) as short, client.lock("long", ttl=30) as long:
        await advance(clock, 40)
        assert short.held
        assert long.held
        assert short.renewals >= 35
        assert 2 <= long.renewals <= 5


async def test_lost_is_set_before_another_can_have_the_lock(cluster: LeaseCluster, clock: ManualClock) -> None:
    first, second = cluster.client(addresses=cluster.addresses[:1]), cluster.client(addresses=cluster.addresses[1:])
    lease = await first.lock("job", ttl=5).acquire()
    lost_at: list[float] = []
    lease.on_lost.append(lambda _: lost_at.append(clock.monotonic()))
    waiting = asyncio.ensure_future(second.lock("job", ttl=5, wait=60).acquire())
    await asyncio.sleep(0.05)
    await cluster.servers[0].drain(0.0)  # its only coordinator is gone
    started = clock.monotonic()
    while not waiting.done():
        await advance(clock, 0.25)
        assert lease.held or lease.lost.is_set()
    granted_at = clock.monotonic()
    assert (await waiting).token == 2
    assert lost_at
    assert lost_at[0] <= started + 5 * 0.9 + 0.25
    assert granted_at - lost_at[0] >= 5 * 0.2 - 0.5
    assert lease.lost_because
    with pytest.raises(FencedError):
        lease.check()


async def test_a_lease_outlives_the_coordinator_it_was_granted_by(cluster: LeaseCluster, clock: ManualClock) -> None:
    client = cluster.client()
    lease = await client.lock("job", ttl=10).acquire()
    await advance(clock, 10)
    renewals = lease.renewals
    await cluster.servers[0].drain(0.0)
    await advance(clock, 30)
    assert lease.held
    assert lease.renewals > renewals
    await cluster.servers[1].drain(0.0)
    while lease.held:
        await advance(clock, 0.25)
    assert lease.lost.is_set()
    with pytest.raises(FencedError):
        await lease.release()


async def test_a_broken_lock_is_lost_at_the_next_renewal_or_at_once_when_watched(
    cluster: LeaseCluster, clock: ManualClock
) -> None:
    holder, operator = cluster.client(), cluster.client()
    watched = await holder.lock("watched", ttl=60, watch=True).acquire()
    unwatched = await holder.lock("unwatched", ttl=60).acquire()
    await advance(clock, 1)
    for name in ("watched", "unwatched"):
        assert (await operator.break_lock(name, reason="test", by="olga"))[1]
    await advance(clock, 1.5)
    assert watched.lost.is_set()
    assert not unwatched.lost.is_set()
    await advance(clock, 30, step=1)
    assert unwatched.lost.is_set()
    assert (await operator.get_lock("watched")).holder == "olga"


async def test_a_block_that_was_no_longer_exclusive_says_so(cluster: LeaseCluster) -> None:
    client = cluster.client()
    with pytest.raises(FencedError) as caught:
        async with client.lock("job", ttl=60):
            await client.break_lock("job", reason="test")
    assert not caught.value.data_safe


async def test_a_backend_that_does_not_answer_gives_no_lock(cluster: LeaseCluster, clock: ManualClock) -> None:
    client = cluster.client()
    store_of(cluster).plan(fault=Fault.UNAVAILABLE, times=-1)
    task = asyncio.ensure_future(client.lock("job", wait=0).acquire())
    while not task.done():
        await advance(clock, 0.5)
    with pytest.raises(UnavailableError):
        await task


async def test_a_backend_that_comes_back_in_time_loses_no_lease(cluster: LeaseCluster, clock: ManualClock) -> None:
    client = cluster.client()
    async with client.lock("job", ttl=10) as lease:
        store_of(cluster).plan(fault=Fault.UNAVAILABLE, times=-1)
        await advance(clock, 6)
        assert lease.held
        store_of(cluster).heal()
        await advance(clock, 6)
        assert lease.held


async def test_a_closed_client_holds_nothing(cluster: LeaseCluster) -> None:
    client = cluster.client()
    lease = await client.lock("job").acquire()
    await client.close()
    assert lease.lost.is_set()
    assert not lease.held


async def test_wrong_names_and_unknown_locks(cluster: LeaseCluster) -> None:
    client = cluster.client()
    with pytest.raises(InvalidRequestError):
        await client.lock("a b").acquire()
    with pytest.raises(InvalidRequestError):
        await client.lock("job", ttl=0.5).acquire()
    for call in (client.get_lock("job"), client.break_lock("job", reason="x")):
        with pytest.raises(NotFoundError):
            await call


async def test_a_lease_released_by_another_process(cluster: LeaseCluster) -> None:
    one, two = cluster.client(), cluster.client()
    lease = await one.lock("job").acquire()
    with pytest.raises(FencedError):
        await two.release_lock("job", token=lease.token, lease_id="0" * 32)
    assert (await two.release_lock("job", token=lease.token, lease_id=lease.lease_id)).state == "free"


async def test_contenders_hold_it_one_at_a_time(cluster: LeaseCluster, clock: ManualClock) -> None:
    tokens: list[int] = []
    inside = 0

    async def contend() -> None:
        nonlocal inside
        client = cluster.client()
        async with client.lock("job", ttl=30, wait=600) as lease:
            inside += 1
            assert inside == 1
            tokens.append(lease.token)
            await clock.sleep(0.3)
            inside -= 1

    tasks = [asyncio.ensure_future(contend()) for _ in range(8)]
    while not all(task.done() for task in tasks):
        await advance(clock, 0.25)
    await asyncio.gather(*tasks)
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 8


@pytest.fixture
def blocking() -> Iterator[Brainy]:
    """A blocking client; its coordinators answer in the same background loop."""
    clock = SystemClock()

    async def start() -> LeaseCluster:
        made = LeaseCluster(MemoryStore(clock), clock, LockSettings())
        await made.add()
        return made

    cluster = LOOP.run(start())
    client = Brainy(LOOP.run(_client(cluster)))
    yield client
    client.close()
    LOOP.run(cluster.close())


async def _client(cluster: LeaseCluster):  # type: ignore[no-untyped-def]
    return cluster.client()


def test_the_blocking_client_locks_too(blocking: Brainy) -> None:
    with blocking.lock("job", ttl=30) as lease:
        assert lease.token == 1
        assert lease.held
        assert 20 < lease.remaining() <= 27
        assert isinstance(lease.lost, threading.Event)
        with pytest.raises(LeaseHeldError):
            blocking.lock("job", wait=0).acquire()
    assert blocking.get_lock("job").state == "free"


def test_the_blocking_lease_says_when_it_is_lost(blocking: Brainy) -> None:
    with pytest.raises(FencedError), blocking.lock("job", ttl=30, watch=True) as lease:
        blocking.break_lock("job", reason="test")
        assert lease.lost.wait(10)
        assert not lease.held
        assert lease.lost_because
