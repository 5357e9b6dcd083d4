"""The routing record: one writer at a time, and sentences that always hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from brainy.bucket.invariants import check_routing_swap
from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement
from brainy.clock import SystemClock
from brainy.errors import ConflictError, CorruptDataError, FencedError, UnavailableError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore
from brainy_coordinator.migration import edits
from brainy_coordinator.routing import RoutingRegister, open_register

ID = "m-1"


def register(store: ObjectStore, epoch: int = 1) -> RoutingRegister:
    return RoutingRegister(open_register(store, clock=SystemClock(), ids=Ids()), ids=Ids(), leader_epoch=lambda: epoch)


def shard(owner: str = "a", epoch: int = 1, replicas: tuple[str, ...] = ("b",)) -> ShardPlacement:
    return ShardPlacement(owner=owner, epoch=epoch, replicas=replicas)


def serving(**shards: ShardPlacement) -> GenerationPlacement:
    placed = {int(name.removeprefix("s")): where for name, where in shards.items()}
    return GenerationPlacement(state="serving", shard_count=len(placed), shards=placed)


FIRST = Routing(
    namespace="memory://x-y-z",
    epoch=0,
    nonce="",
    leader_epoch=0,
    active=0,
    write=0,
    nodes={n: NodeAddress(address=f"{n}:1", incarnation="1") for n in ("a", "b", "c")},
    generations={0: serving(s0=shard(), s1=shard("b", 1, ("a",)))},
)


async def test_each_swap_stamps_epoch_nonce_and_leader() -> None:
    store = MemoryStore(ManualClock())
    one = register(store, 3)
    assert await one.current() is None
    first = await one.swap(None, FIRST)
    second = await one.swap(first, first.model_copy(update={"leader_epoch": 99, "epoch": 99}))
    assert [(r.epoch, r.leader_epoch) for r in (first, second)] == [(1, 3), (2, 3)]
    assert first.nonce != second.nonce
    assert await register(store).load() == second


async def test_only_one_of_two_leaders_wins() -> None:
    store = MemoryStore(ManualClock())
    old, new = register(store, 1), register(store, 2)
    first = await old.swap(None, FIRST)
    await new.load()
    won = await new.swap(first, first)
    with pytest.raises(ConflictError):
        await old.swap(first, first)
    # It looks again, and learns that it is not the leader any more.
    assert await old.current() == won
    with pytest.raises(FencedError):
        await old.swap(won, won)
    with pytest.raises(ConflictError):
        await new.swap(first, first)


async def test_who_does_not_lead_writes_nothing() -> None:
    def nobody() -> int:
        raise UnavailableError("not the leader", reason="NOT_LEADER")

    store = MemoryStore(ManualClock())
    idle = RoutingRegister(open_register(store, clock=SystemClock(), ids=Ids()), ids=Ids(), leader_epoch=nobody)
    with pytest.raises(UnavailableError):
        await idle.swap(None, FIRST)
    assert await idle.load() is None


@pytest.mark.parametrize("fault", [Fault.LANDED_UNKNOWN, Fault.LOST_UNKNOWN, Fault.LANDED_LOST])
async def test_a_swap_is_definite_whatever_the_store_says(fault: Fault) -> None:
    store = FaultyStore(MemoryStore(ManualClock()))
    one = register(store)
    first = await one.swap(None, FIRST)
    store.plan(kind="put_if_match", fault=fault)
    second = await one.swap(first, first)
    assert await register(store.inner).load() == second
    assert (await one.swap(second, second)).epoch == 3


async def test_an_error_makes_it_read_the_bucket_again() -> None:
    store = FaultyStore(MemoryStore(ManualClock()))
    one = register(store)
    first = await one.swap(None, FIRST)
    store.plan(kind="put_if_match", fault=Fault.LANDED_UNKNOWN)
    store.plan(kind="get", fault=Fault.UNAVAILABLE)
    with pytest.raises(UnavailableError):
        await one.swap(first, first)
    found = await one.current()
    assert found is not None
    assert found.epoch == 2


def change(routing: Routing, **fields: object) -> Routing:
    return routing.model_copy(update=fields)


BASE = change(FIRST, epoch=1, leader_epoch=1, nonce="n")
TARGET = GenerationPlacement(state="building", shard_count=1, follows=0, shards={0: shard("c", 1, ())})
MIGRATING = change(BASE, migration=ID, generations={**BASE.generations, 1: TARGET})
DRAINING = change(MIGRATING, phase="draining")


def test_a_whole_migration_breaks_none() -> None:
    steps: list[Callable[[Routing], Routing]] = [
        lambda r: edits.place_target(r, ID, target=1, shards=TARGET.shards),
        lambda r: edits.adopt(r, ID, node_id="a", target=1),
        lambda r: edits.drain(r, ID),
        lambda r: edits.undrain(r, ID),
        lambda r: edits.drain(r, ID),
        lambda r: edits.commit(r, ID, leading=0, following=1, epoch=r.epoch),
        lambda r: edits.retire_source(r, ID, source=0),
    ]
    before = BASE
    for step in steps:
        after = change(step(before), epoch=before.epoch + 1, nonce=f"{before.nonce}n")
        check_routing_swap(before, after)
        before = after
    assert (before.active, set(before.generations), before.migration) == (1, {1}, None)


def test_forward_and_back_and_forward_again_break_none() -> None:
    steps: list[Callable[[Routing], Routing]] = [
        lambda r: edits.place_target(r, ID, target=1, shards=TARGET.shards),
        lambda r: edits.drain(r, ID),
        lambda r: edits.commit(r, ID, leading=0, following=1, epoch=r.epoch, follow_from={0: 5}),
        lambda r: edits.drain(r, ID),
        lambda r: edits.undrain(r, ID),
        lambda r: edits.drain(r, ID),
        lambda r: edits.commit(r, ID, leading=1, following=0, epoch=r.epoch, follow_from={0: 9, 1: 8}, back=True),
        lambda r: edits.drain(r, ID),
        lambda r: edits.commit(r, ID, leading=0, following=1, epoch=r.epoch, follow_from={0: 12}),
        lambda r: edits.retire_source(r, ID, source=0),
    ]
    shards = {0: shard("a", 1, ()), 1: shard("b", 1, ())}
    two = GenerationPlacement(state="serving", shard_count=2, shards=shards)
    before = change(BASE, generations={0: two})
    seen: list[tuple[str, str, int]] = []
    for step in steps:
        after = change(step(before), epoch=before.epoch + 1, nonce=f"{before.nonce}n")
        after = Routing.decode(after.encode(), key="routing")
        check_routing_swap(before, after)
        before = after
        if {0, 1} <= after.generations.keys():
            seen.append((after.generations[0].state, after.generations[1].state, after.rolled_back_from))
    assert seen == [
        ("serving", "building", 0),
        ("serving", "building", 0),
        *[("following", "serving", 0)] * 4,
        *[("serving", "building", 1)] * 2,
        ("following", "serving", 1),
    ]
    assert (before.active, set(before.generations), before.migration) == (1, {1}, None)


def test_a_commit_that_keeps_a_way_back_needs_every_position() -> None:
    drained = change(DRAINING, epoch=7)
    with pytest.raises(ConflictError):
        edits.commit(drained, ID, leading=0, following=1, epoch=7, follow_from={})
    kept = edits.commit(drained, ID, leading=0, following=1, epoch=7, follow_from={0: 4})
    assert kept.generations[0].follow_from == {0: 4}
    assert b"follow_from" not in DRAINING.encode()  # absent until it says something: older software reads the record


async def test_a_breach_is_refused_and_nothing_is_written() -> None:
    store = MemoryStore(ManualClock())
    one = register(store)
    first = await one.swap(None, FIRST)
    with pytest.raises(CorruptDataError) as refused:
        await one.swap(first, change(first, phase="draining"))
    assert "only while a migration is in charge" in refused.value.message
    assert await register(store).load() == first
