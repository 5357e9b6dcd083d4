"""One suite for every lock provider: leases, fencing tokens, takeover without a clock in common.

``Backend`` is all that differs: a new store or provider is one more entry of ``BACKENDS``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from brainy.bucket import layout
from brainy.clock import Clock
from brainy.errors import (
    CorruptDataError,
    FencedError,
    InvalidRequestError,
    LeaseHeldError,
    OutcomeUnknownError,
    PreconditionError,
    UnavailableError,
)
from brainy.ids import Ids
from brainy.locks.base import Grant, LockProvider
from brainy.locks.object_store import ObjectStoreLocks
from brainy.store.base import ObjectStore, PutOutcome, PutState, StoredObject
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock


@dataclass
class Backend:
    """Providers of several processes over one shared backend."""

    store: ObjectStore = field(default_factory=MemoryStore)

    def provider(self, clock: Clock) -> LockProvider:
        return ObjectStoreLocks(self.store, clock, Ids())


BACKENDS: dict[str, Callable[[], Backend]] = {"object-store[memory]": Backend}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def take(locks: LockProvider, owner: str, *, name: str = "index/shard-3", ttl: float = 10.0) -> Grant:
    return await locks.grant(name, owner=owner, incarnation=f"{owner}-1", ttl_seconds=ttl, purpose="test")


async def test_grant_excludes_and_release_hands_over_with_a_higher_token(backend: Backend, clock: ManualClock) -> None:
    a, b = backend.provider(clock), backend.provider(clock)
    first = await take(a, "a")
    assert first.token == 1
    with pytest.raises(LeaseHeldError) as caught:
        await take(b, "b")
    assert caught.value.fields["holder"] == "a"
    await a.release(first)
    second = await take(b, "b")
    assert second.token == 2
    await b.release(second)
    assert (await take(a, "a")).token == 3


async def test_the_same_owner_is_excluded_too(backend: Backend, clock: ManualClock) -> None:
    locks = backend.provider(clock)
    await take(locks, "a")
    with pytest.raises(LeaseHeldError):
        await take(locks, "a")


async def test_a_crashed_holder_is_replaced_after_its_lease(backend: Backend, clock: ManualClock) -> None:
    holder = await take(backend.provider(clock), "a")
    waiter = backend.provider(clock)
    with pytest.raises(LeaseHeldError):
        await take(waiter, "b")
    await clock.advance(10.9)
    with pytest.raises(LeaseHeldError):
        await take(waiter, "b")
    await clock.advance(0.2)
    assert (await take(waiter, "b")).token == holder.token + 1


async def test_patience_counts_from_first_sight(backend: Backend, clock: ManualClock) -> None:
    await take(backend.provider(clock), "a")
    await clock.advance(1000)
    newcomer = backend.provider(clock)
    with pytest.raises(LeaseHeldError):
        await take(newcomer, "b")
    await clock.advance(11.1)
    assert (await take(newcomer, "b")).token == 2


async def test_renewal_keeps_the_lock_and_the_token(backend: Backend, clock: ManualClock) -> None:
    a, b = backend.provider(clock), backend.provider(clock)
    grant = await take(a, "a")
    for _ in range(10):
        await clock.advance(5)
        renewed = await a.renew(grant)
        assert renewed.token == grant.token
        assert renewed.deadline > grant.deadline
        grant = renewed
        with pytest.raises(LeaseHeldError):
            await take(b, "b")


async def test_a_provider_without_memory_can_renew_and_release(backend: Backend, clock: ManualClock) -> None:
    grant = await take(backend.provider(clock), "a")
    other = backend.provider(clock)
    grant = await other.renew(grant)
    await backend.provider(clock).release(grant)
    assert (await take(other, "b")).token == 2


async def test_concurrent_renewals_of_one_grant_all_succeed(backend: Backend, clock: ManualClock) -> None:
    locks = [backend.provider(clock) for _ in range(3)]
    grant = await take(locks[0], "a")
    renewed = await asyncio.gather(*(provider.renew(grant) for provider in locks))
    assert {item.token for item in renewed} == {1}


async def test_a_stale_holder_is_told_and_cannot_harm(backend: Backend, clock: ManualClock) -> None:
    slow_clock = ManualClock()  # a process that was stopped: its clock stood still
    a, b = backend.provider(slow_clock), backend.provider(clock)
    stale = await take(a, "a")
    with pytest.raises(LeaseHeldError):
        await take(b, "b")
    await clock.advance(11.1)
    current = await take(b, "b")
    with pytest.raises(FencedError) as caught:
        await a.renew(stale)
    assert caught.value.fields["current_token"] == "2"
    assert caught.value.fields["holder"] == "b"
    await a.release(stale)  # changes nothing
    assert (await b.renew(current)).token == 2


async def test_deadline_counts_from_before_sending_less_a_margin(backend: Backend, clock: ManualClock) -> None:
    asked = clock.monotonic()
    grant = await take(backend.provider(clock), "a")
    assert asked < grant.deadline <= asked + 10 * 0.9


async def test_renewing_after_the_deadline_is_refused(backend: Backend, clock: ManualClock) -> None:
    locks = backend.provider(clock)
    grant = await take(locks, "a")
    await clock.advance(9.5)
    with pytest.raises(FencedError):
        await locks.renew(grant)
    await locks.release(grant)
    assert (await take(locks, "a")).token == 2


async def test_wall_clocks_do_not_matter(backend: Backend) -> None:
    ahead, behind = ManualClock(wall=1e9), ManualClock(wall=1e9 - 86_400)
    a, b = backend.provider(ahead), backend.provider(behind)
    grant = await take(a, "a")
    behind.jump_wall(10 * 86_400)
    with pytest.raises(LeaseHeldError):
        await take(b, "b")
    ahead.jump_wall(-3 * 86_400)
    assert (await a.renew(grant)).token == 1


async def test_force_takes_over_at_once(backend: Backend, clock: ManualClock) -> None:
    a, b = backend.provider(clock), backend.provider(clock)
    grant = await take(a, "a")
    forced = await b.grant("index/shard-3", owner="b", incarnation="b-1", ttl_seconds=10, force=True)
    assert forced.token == grant.token + 1
    with pytest.raises(FencedError):
        await a.renew(grant)


async def test_acquire_waits_for_a_release(backend: Backend, clock: ManualClock) -> None:
    a, b = backend.provider(clock), backend.provider(clock)
    grant = await take(a, "a", name="x")
    waiting = asyncio.create_task(
        b.acquire("x", owner="b", incarnation="b-1", ttl_seconds=10, wait_until=clock.monotonic() + 30)
    )
    await clock.advance(3)
    assert not waiting.done()
    await a.release(grant)
    await clock.advance(0.5)
    assert waiting.done()
    assert (await waiting).token == 2


async def test_acquire_waits_out_a_dead_holder_and_gives_up_in_time(backend: Backend, clock: ManualClock) -> None:
    await take(backend.provider(clock), "a", name="x")
    patient = asyncio.create_task(
        backend.provider(clock).acquire(
            "x", owner="b", incarnation="b-1", ttl_seconds=10, wait_until=clock.monotonic() + 30
        )
    )
    hasty = asyncio.create_task(
        backend.provider(clock).acquire(
            "x", owner="c", incarnation="c-1", ttl_seconds=10, wait_until=clock.monotonic() + 2
        )
    )
    await clock.advance(2.1)
    with pytest.raises(LeaseHeldError):
        await hasty
    await clock.advance(9.4)
    assert patient.done()
    assert (await patient).token == 2


async def test_one_holder_per_token_with_many_contenders(backend: Backend, clock: ManualClock) -> None:
    tokens: list[int] = []
    inside = 0

    async def contender(number: int) -> None:
        nonlocal inside
        locks = backend.provider(clock)
        for _ in range(5):
            grant = await locks.acquire(
                "x", owner=str(number), incarnation="1", ttl_seconds=60, wait_until=clock.monotonic() + 10_000
            )
            inside += 1
            assert inside == 1
            tokens.append(grant.token)
            await asyncio.sleep(0)
            inside -= 1
            await locks.release(grant)

    tasks = [asyncio.create_task(contender(number)) for number in range(8)]
    for _ in range(400):
        if all(task.done() for task in tasks):
            break
        await clock.advance(0.5)
    await asyncio.gather(*tasks)
    assert tokens == list(range(1, 41))


async def test_describe_and_list(backend: Backend, clock: ManualClock) -> None:
    locks = backend.provider(clock)
    assert await locks.describe("x") is None
    grant = await take(locks, "a", name="jobs/b")
    await take(locks, "a", name="jobs/a")
    await take(locks, "a", name="other")
    await locks.renew(grant)
    await clock.advance(3)
    state = await locks.describe("jobs/b")
    assert state is not None
    assert (state.token, state.held, state.owner, state.renewals) == (1, True, "a", 1)
    assert (state.ttl_seconds, state.purpose) == (10.0, "test")
    assert [item.name for item in await locks.list("jobs/")] == ["jobs/a", "jobs/b"]
    assert len(await locks.list()) == 3
    await clock.advance(3)
    again = await locks.describe("jobs/b")
    assert again is not None
    assert again.unchanged_seconds >= 3


@pytest.mark.parametrize("name", ["", "/x", "x/", "a//b", "../x", "a/../b", "ü", "x" * 201, "a b"])
async def test_illegal_names(backend: Backend, clock: ManualClock, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        await take(backend.provider(clock), "a", name=name)


@pytest.mark.parametrize("ttl", [0, -1, 0.01, 100_000])
async def test_illegal_lengths(backend: Backend, clock: ManualClock, ttl: float) -> None:
    with pytest.raises(InvalidRequestError):
        await take(backend.provider(clock), "a", ttl=ttl)


# --- what only the object store can do wrong -----------------------------------------------------------------


class LyingStore(MemoryStore):
    """Conditional PUTs whose answers go wrong as told: landed or not, and what is said of it."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[tuple[bool, PutState | None]] = []
        self.reads_fail = 0
        self.puts = 0

    async def get(self, key: str) -> StoredObject | None:
        if self.reads_fail:
            self.reads_fail -= 1
            raise UnavailableError("away")
        return await super().get(key)

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        self.puts += 1
        landed, answer = self.script.pop(0) if self.script else (True, None)
        outcome = await super().put_if_absent(key, body) if landed else PutOutcome(state=PutState.LOST)
        return outcome if answer is None else PutOutcome(state=answer)

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        self.puts += 1
        landed, answer = self.script.pop(0) if self.script else (True, None)
        outcome = await super().put_if_match(key, body, etag) if landed else PutOutcome(state=PutState.LOST)
        return outcome if answer is None else PutOutcome(state=answer)


LIES = [(True, PutState.UNKNOWN), (True, PutState.LOST)]


@pytest.mark.parametrize("lie", LIES)
async def test_a_landed_write_is_found_by_reading_back(lie: tuple[bool, PutState]) -> None:
    store, clock = LyingStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    store.script = [lie]
    grant = await take(locks, "a")
    store.script = [lie]
    grant = await locks.renew(grant)
    store.script = [lie]
    await locks.release(grant)
    assert store.puts == 3
    assert (await take(locks, "b")).token == 2


async def test_a_write_that_did_not_arrive_is_sent_again_with_one_token() -> None:
    store, clock = LyingStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    store.script = [(False, PutState.UNKNOWN)] * 3
    task = asyncio.create_task(take(locks, "a"))
    await clock.advance(5)
    grant = await task
    assert grant.token == 1
    # The lease counts from the first send, not from the one that landed.
    assert grant.deadline < clock.monotonic() + 5


async def test_an_outcome_that_stays_unknown_is_said() -> None:
    store, clock = LyingStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    store.script = [(False, PutState.UNKNOWN)] * 1000
    task = asyncio.create_task(take(locks, "a"))
    await clock.advance(30)
    with pytest.raises(OutcomeUnknownError):
        await task


async def test_an_unreachable_store_grants_nothing() -> None:
    store, clock = LyingStore(), ManualClock()
    store.reads_fail = 1
    with pytest.raises(UnavailableError):
        await take(ObjectStoreLocks(store, clock, Ids()), "a")
    assert store.puts == 0


async def test_a_record_that_cannot_be_read_is_never_overwritten() -> None:
    store, clock = MemoryStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    await store.put(layout.lock("x"), b"{")
    with pytest.raises(CorruptDataError):
        await take(locks, "a", name="x")
    await store.put(layout.lock("x"), b'{"format_version": 2}')
    for force in (False, True):
        with pytest.raises(PreconditionError) as caught:
            await locks.grant("x", owner="a", incarnation="1", ttl_seconds=10, force=force)
        assert caught.value.reason == "UNSUPPORTED_FORMAT"


async def test_a_deleted_record_is_noticed_and_does_not_lower_the_token() -> None:
    store, clock = MemoryStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    grant = await take(locks, "a", name="x")
    await store.delete(layout.lock("x"))
    with pytest.raises(FencedError):
        await locks.renew(grant)
    assert (await take(locks, "b", name="x")).token == 2


async def test_every_write_changes_the_etag() -> None:
    store, clock = MemoryStore(), ManualClock()
    locks = ObjectStoreLocks(store, clock, Ids())
    etags = set()
    for _ in range(3):
        grant = await take(locks, "a", name="x")
        etags.add((await store.get(layout.lock("x"))).etag)  # type: ignore[union-attr]
        await locks.release(grant)
        etags.add((await store.get(layout.lock("x"))).etag)  # type: ignore[union-attr]
    assert len(etags) == 6
