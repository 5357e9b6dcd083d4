"""LeaseService as any gRPC client sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from lease_cluster import LeaseCluster, duration, lease_cluster, renew

from brainy.api.coordinator.v1 import lease_pb2
from brainy.bucket import layout
from brainy.errors import (
    BrainyError,
    CorruptDataError,
    FencedError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from brainy.rpc.errors import from_rpc_error
from brainy.store.local import LocalStore
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore

RENEWED = lease_pb2.KEEP_ALIVE_STATE_RENEWED
LOST = lease_pb2.KEEP_ALIVE_STATE_LOST
UNAVAILABLE = lease_pb2.KEEP_ALIVE_STATE_UNAVAILABLE


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "directory"])
async def cluster(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> AsyncIterator[LeaseCluster]:
    inner = MemoryStore(clock) if request.param == "memory" else LocalStore(tmp_path, durable=False)
    async with lease_cluster(FaultyStore(inner), clock) as made:
        yield made


@pytest.fixture
async def in_memory(clock: ManualClock) -> AsyncIterator[LeaseCluster]:
    async with lease_cluster(FaultyStore(MemoryStore(clock)), clock) as made:
        yield made


def wish(name: str = "job", **fields: object) -> lease_pb2.GrantRequest:
    given = {"ttl": duration(10), "holder": "anna", "request_id": "r-1", **fields}
    return lease_pb2.GrantRequest(name=name, **given)  # type: ignore[arg-type]


def revoke(lease: lease_pb2.Lease, **fields: object) -> lease_pb2.RevokeRequest:
    given = {"name": lease.name, "token": lease.token, "lease_id": lease.lease_id, **fields}
    return lease_pb2.RevokeRequest(**given)  # type: ignore[arg-type]


async def stored(cluster: LeaseCluster, name: str) -> bytes:
    found = await cluster.store.get(layout.lock(f"user/{name}"))
    assert found is not None
    return found.body


async def error_of(call: object) -> BrainyError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return from_rpc_error(caught.value)


async def test_a_lease_from_grant_to_release(cluster: LeaseCluster) -> None:
    one, two = cluster.stubs
    answer = await one.Grant(wish(purpose="nightly"))
    assert answer.acquired
    assert (answer.lease.token, answer.lease.holder, answer.lease.ttl.seconds) == (1, "anna", 10)
    refused = await two.Grant(wish(holder="bert", request_id="r-2"))
    assert not refused.acquired
    assert (refused.lock.holder, refused.lock.token, refused.lock.purpose) == ("anna", 1, "nightly")
    assert refused.lock.state == lease_pb2.LOCK_STATE_HELD
    assert refused.retry_after.seconds >= 10
    assert (await renew(two, [answer.lease]))["job"].state == RENEWED
    assert (await two.Get(lease_pb2.GetRequest(name="job"))).lock.renewals == 1
    assert (await two.Revoke(revoke(answer.lease))).lock.state == lease_pb2.LOCK_STATE_FREE
    # A repeat finds it given back.
    assert (await one.Revoke(revoke(answer.lease))).lock.token == 1
    second = await one.Grant(wish(holder="bert", request_id="r-2"))
    assert second.acquired
    assert second.lease.token == 2


async def test_an_uncontended_grant_costs_one_read_and_one_write(in_memory: LeaseCluster) -> None:
    store = in_memory.store
    assert isinstance(store, FaultyStore)
    lease = (await in_memory.stubs[0].Grant(wish())).lease
    assert [kind for kind, _ in store.journal.calls] == ["get", "put_if_absent"]
    store.journal.calls.clear()
    await renew(in_memory.stubs[0], [lease])
    assert [kind for kind, _ in store.journal.calls] == ["put_if_match"]
    store.journal.calls.clear()
    await in_memory.stubs[0].Revoke(revoke(lease))
    assert [kind for kind, _ in store.journal.calls] == ["get", "put_if_match"]


async def test_a_repeated_grant_finds_its_own_lease_through_any_coordinator(cluster: LeaseCluster) -> None:
    first = await cluster.stubs[0].Grant(wish())
    for stub in (*cluster.stubs, *cluster.stubs):
        again = await stub.Grant(wish())
        assert again.acquired
        assert again.lease == first.lease
    # The same request id in another's name is another request.
    assert not (await cluster.stubs[1].Grant(wish(holder="bert"))).acquired


async def test_a_grant_whose_write_got_no_answer_is_granted_once(in_memory: LeaseCluster) -> None:
    store = in_memory.store
    assert isinstance(store, FaultyStore)
    store.plan(kind="put_if_absent", fault=Fault.LANDED_UNKNOWN)
    answer = await in_memory.stubs[0].Grant(wish())
    assert answer.acquired
    assert answer.lease.token == 1


async def test_a_lease_that_ran_out_goes_to_the_next_and_is_lost_to_the_first(
    cluster: LeaseCluster, clock: ManualClock
) -> None:
    one, two = cluster.stubs
    first = (await one.Grant(wish())).lease
    other = wish(holder="bert", request_id="r-2")
    assert not (await two.Grant(other)).acquired
    await clock.advance(10.9)
    assert not (await two.Grant(other)).acquired
    await clock.advance(0.2)
    assert (await two.Get(lease_pb2.GetRequest(name="job"))).lock.state == lease_pb2.LOCK_STATE_EXPIRED
    second = await two.Grant(other)
    assert second.acquired
    assert second.lease.token == 2
    before = await stored(cluster, "job")
    assert (await renew(one, [first]))["job"].state == LOST
    error = await error_of(one.Revoke(revoke(first)))
    assert isinstance(error, FencedError)
    assert error.fields["current_token"] == "2"
    assert await stored(cluster, "job") == before


async def test_renewed_leases_do_not_run_out(in_memory: LeaseCluster, clock: ManualClock) -> None:
    one, two = in_memory.stubs
    lease = (await one.Grant(wish())).lease
    other = wish(holder="bert", request_id="r-2")
    for _ in range(4):
        assert not (await two.Grant(other)).acquired
        await clock.advance(5)
        assert (await renew(one, [lease], remaining=4.0))["job"].state == RENEWED


async def test_keep_alive_of_what_is_over_or_foreign_changes_nothing(cluster: LeaseCluster, clock: ManualClock) -> None:
    one, two = cluster.stubs
    lease = (await one.Grant(wish())).lease
    before = await stored(cluster, "job")
    result = (await renew(one, [lease], remaining=0.0))["job"]
    assert (result.state, result.reason) == (LOST, "FENCED")
    for change in ({"token": 2}, {"lease_id": "0" * 32}, {"holder": "bert"}):
        foreign = lease_pb2.Lease()
        foreign.CopyFrom(lease)
        for field, value in change.items():
            setattr(foreign, field, value)
        assert (await renew(two, [foreign]))["job"].state == LOST
    result = (await renew(two, [lease_pb2.Lease(name="job")]))["job"]
    assert (result.state, result.reason) == (LOST, "INVALID_ARGUMENT")
    assert (await renew(two, [lease_pb2.Lease(name="never", token=1, lease_id="x", holder="y")]))["never"].state == LOST
    assert await stored(cluster, "job") == before


async def test_many_leases_in_one_message(in_memory: LeaseCluster) -> None:
    one, two = in_memory.stubs
    granted = await asyncio.gather(
        *(one.Grant(wish(f"job-{number}", request_id=f"r-{number}")) for number in range(300))
    )
    leases = [answer.lease for answer in granted]
    await one.Revoke(revoke(leases[7]))
    results = await renew(two, leases)
    assert len(results) == 300
    assert {name for name, result in results.items() if result.state != RENEWED} == {"job-7"}
    error = await error_of(renew(two, [leases[0]] * 1001))
    assert error.reason == "BATCH_TOO_LARGE"
    assert await renew(one, []) == {}


async def test_a_slow_record_does_not_hold_up_the_others(in_memory: LeaseCluster, clock: ManualClock) -> None:
    store = in_memory.store
    assert isinstance(store, FaultyStore)
    stub = in_memory.stubs[0]
    slow, quick = [(await stub.Grant(wish(name, request_id=name))).lease for name in ("slow", "quick")]
    gate = asyncio.Event()
    store.plan(kind="put_if_match", key_prefix=layout.lock("user/slow"), gate=gate)
    call = stub.KeepAlive()
    await call.write(
        lease_pb2.KeepAliveRequest(leases=[lease_pb2.KeepAliveEntry(lease=lease) for lease in (slow, quick)])
    )
    answer = await call.read()
    assert [result.name for result in answer.results] == ["quick"]
    assert not answer.last
    gate.set()
    answer = await call.read()
    assert [result.name for result in answer.results] == ["slow"]
    assert answer.last
    call.cancel()


async def test_release_by_one_who_does_not_hold_it(cluster: LeaseCluster) -> None:
    lease = (await cluster.stubs[0].Grant(wish())).lease
    before = await stored(cluster, "job")
    for change in ({"token": 9}, {"lease_id": "0" * 32}):
        assert isinstance(await error_of(cluster.stubs[1].Revoke(revoke(lease, **change))), FencedError)
    assert isinstance(await error_of(cluster.stubs[1].Revoke(revoke(lease, name="other"))), NotFoundError)
    assert isinstance(await error_of(cluster.stubs[1].Revoke(revoke(lease, token=0))), InvalidRequestError)
    assert await stored(cluster, "job") == before


async def test_a_forced_release_raises_the_token_and_says_who_and_why(cluster: LeaseCluster) -> None:
    one, two = cluster.stubs
    first = (await one.Grant(wish())).lease
    order = lease_pb2.ForceReleaseRequest(name="job", token=1, by="olga", reason="host is gone", request_id="f-1")
    answer = await two.ForceRelease(order)
    assert answer.broken
    assert (answer.lock.token, answer.lock.holder, answer.lock.purpose) == (2, "olga", "host is gone")
    assert answer.lock.state == lease_pb2.LOCK_STATE_FREE
    assert (await one.ForceRelease(order)).broken  # a repeat
    assert (await renew(one, [first]))["job"].state == LOST
    second = await one.Grant(wish(holder="bert", request_id="r-2"))
    assert second.lease.token == 3
    # A repeat that arrives late does not hit the next holder.
    late = await two.ForceRelease(order)
    assert (late.broken, late.lock.token, late.lock.state) == (False, 3, lease_pb2.LOCK_STATE_HELD)
    assert (await renew(two, [second.lease]))["job"].state == RENEWED


async def test_a_forced_release_needs_a_lock_a_name_and_a_reason(in_memory: LeaseCluster) -> None:
    stub = in_memory.stubs[0]
    lease = (await stub.Grant(wish())).lease
    full = {"name": "job", "token": 1, "by": "olga", "reason": "why not"}
    for missing in ("by", "reason"):
        order = lease_pb2.ForceReleaseRequest(**{**full, missing: " "})  # type: ignore[arg-type]
        error = await error_of(stub.ForceRelease(order))
        assert (type(error), error.fields["field"]) == (InvalidRequestError, missing)
    order = lease_pb2.ForceReleaseRequest(**{**full, "name": "other"})  # type: ignore[arg-type]
    assert isinstance(await error_of(stub.ForceRelease(order)), NotFoundError)
    order = lease_pb2.ForceReleaseRequest(**{**full, "token": 5})  # type: ignore[arg-type]
    assert isinstance(await error_of(stub.ForceRelease(order)), FencedError)
    assert (await renew(stub, [lease]))["job"].state == RENEWED
    await stub.Revoke(revoke(lease))
    assert not (await stub.ForceRelease(lease_pb2.ForceReleaseRequest(**full))).broken  # type: ignore[arg-type]


async def test_a_grant_waits_until_the_lock_is_given_back(in_memory: LeaseCluster, clock: ManualClock) -> None:
    one, two = in_memory.stubs
    first = (await one.Grant(wish())).lease
    waiting = asyncio.ensure_future(two.Grant(wish(holder="bert", request_id="r-2", wait_for=duration(8)), timeout=30))
    await clock.wait_for_sleepers()
    await clock.advance(3)
    assert not waiting.done()
    await one.Revoke(revoke(first))
    await clock.advance(1)
    answer = await waiting
    assert answer.acquired
    # When the lease began is known to within a tenth of its length.
    assert 2 <= answer.granted_after.ToTimedelta().total_seconds() <= 4


async def test_a_grant_waits_no_longer_than_it_was_told_to(in_memory: LeaseCluster, clock: ManualClock) -> None:
    one, two = in_memory.stubs
    await one.Grant(wish())
    waiting = asyncio.ensure_future(two.Grant(wish(holder="bert", request_id="r-2", wait_for=duration(2)), timeout=30))
    await clock.wait_for_sleepers()
    await clock.advance(2.5)
    assert not (await waiting).acquired


async def test_watch_shows_each_change_of_hands(in_memory: LeaseCluster, clock: ManualClock) -> None:
    one, two = in_memory.stubs
    call = two.Watch(lease_pb2.WatchRequest(name="job"))

    async def seen() -> tuple[int, int, str]:
        answer = asyncio.ensure_future(call.read())
        while not answer.done():
            await clock.wait_for_sleepers()
            await clock.advance(0.5)
        lock = answer.result().lock
        return lock.token, lock.state, lock.holder

    first_answer = (await call.read()).lock
    assert (first_answer.token, first_answer.state) == (0, lease_pb2.LOCK_STATE_FREE)
    lease = (await one.Grant(wish(ttl=duration(2)))).lease
    assert await seen() == (1, lease_pb2.LOCK_STATE_HELD, "anna")
    assert await seen() == (1, lease_pb2.LOCK_STATE_EXPIRED, "anna")
    await one.Revoke(revoke(lease))
    assert await seen() == (1, lease_pb2.LOCK_STATE_FREE, "anna")
    call.cancel()


async def test_list_pages_by_name_and_shows_users_locks_only(cluster: LeaseCluster) -> None:
    stub = cluster.stubs[0]
    names = ["a/1", "a/2", "b", "coordinator", "shards/0"]
    for name in names:
        await stub.Grant(wish(name, request_id=name))
    # The cluster's own locks are others.
    assert await cluster.store.get(layout.lock("coordinator")) is None
    seen: list[str] = []
    token = ""
    while True:
        page = await stub.List(lease_pb2.ListRequest(page_size=2, page_token=token))
        assert len(page.locks) <= 2
        seen += [lock.name for lock in page.locks]
        token = page.next_page_token
        if not token:
            break
    assert seen == names
    assert [lock.name for lock in (await stub.List(lease_pb2.ListRequest(prefix="a/"))).locks] == ["a/1", "a/2"]


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "x" * 257},
        {"name": "a b"},
        {"name": "ä"},
        {"name": "/a"},
        {"name": "a//b"},
        {"name": "a/"},
        {"name": "../coordinator"},
        {"name": "a\n"},
        {"ttl": duration(0)},
        {"ttl": duration(0.999)},
        {"ttl": duration(86_401)},
        {"ttl": duration(-1)},
        {"holder": "x" * 257},
        {"purpose": "x" * 1025},
        {"request_id": "x" * 257},
    ],
    ids=str,
)
async def test_wrong_requests_are_refused_and_leave_nothing(in_memory: LeaseCluster, change: dict[str, object]) -> None:
    assert isinstance(await error_of(in_memory.stubs[0].Grant(wish(**change))), InvalidRequestError)
    assert [page async for page in in_memory.store.list("")] == []


async def test_the_longest_name_the_limits_and_the_default_are_taken(cluster: LeaseCluster) -> None:
    stub = cluster.stubs[0]
    for name, seconds in (("x" * 256, 1), ("y/" * 127 + "yz", 86_400)):
        answer = await stub.Grant(wish(name, ttl=duration(seconds)))
        assert (answer.acquired, answer.lease.ttl.seconds) == (True, seconds)
    assert (await stub.Grant(lease_pb2.GrantRequest(name="plain"))).lease.ttl.seconds == 30
    assert len((await stub.List(lease_pb2.ListRequest())).locks) == 3


async def test_an_unknown_namespace_is_not_found(in_memory: LeaseCluster) -> None:
    error = await error_of(in_memory.stubs[0].Grant(wish(namespace="memory://other")))
    assert error.reason == "UNKNOWN_NAMESPACE"


async def test_a_backend_that_does_not_answer_grants_nothing(in_memory: LeaseCluster) -> None:
    store = in_memory.store
    assert isinstance(store, FaultyStore)
    stub = in_memory.stubs[0]
    lease = (await stub.Grant(wish("held", request_id="h"))).lease
    before = await stored(in_memory, "held")
    store.plan(fault=Fault.UNAVAILABLE, times=-1)
    assert isinstance(await error_of(stub.Grant(wish())), UnavailableError)
    assert isinstance(await error_of(stub.Revoke(revoke(lease))), UnavailableError)
    result = (await renew(in_memory.stubs[1], [lease], remaining=5.0))["held"]
    assert (result.state, result.reason) == (UNAVAILABLE, "STORE_UNAVAILABLE")
    store.heal()
    assert await store.get(layout.lock("user/job")) is None
    assert await stored(in_memory, "held") == before


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda body: b"{", CorruptDataError),
        (lambda body: b"", CorruptDataError),
        (lambda body: json.dumps({**json.loads(body), "format_version": 99}).encode(), PreconditionError),
    ],
    ids=["broken", "empty", "newer"],
)
async def test_a_record_that_cannot_be_read_is_left_alone(in_memory: LeaseCluster, spoil, kind) -> None:  # type: ignore[no-untyped-def]
    one, two = in_memory.stubs
    lease = (await one.Grant(wish())).lease
    body = spoil(await stored(in_memory, "job"))
    await in_memory.store.put(layout.lock("user/job"), body)
    other = wish(holder="bert", request_id="r-2")
    force = lease_pb2.ForceReleaseRequest(name="job", by="olga", reason="x")
    for call in (two.Grant(other), two.Revoke(revoke(lease)), two.ForceRelease(force)):
        assert isinstance(await error_of(call), kind)
    assert (await renew(two, [lease]))["job"].state != RENEWED
    assert await stored(in_memory, "job") == body
