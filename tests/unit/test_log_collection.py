"""Collecting a log, and the writer who slept through it."""

from __future__ import annotations

import asyncio
import math

import pytest

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.records import Collected, GenerationPlacement, Manifest, Routing, ShardPlacement
from brainy.changelog.batch import Slot
from brainy.changelog.collection import LogCollector, collected_position
from brainy.changelog.reading import read_log
from brainy.changelog.writing import LogWriter
from brainy.errors import CorruptDataError, FencedError, LogCollectedError, UnavailableError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore
from brainy_node.runtime.assignment import assignments
from brainy_node.runtime.collecting import held_by_followers
from brainy_node.runtime.host import Host
from brainy_node.runtime.routing_view import RoutingView

RETENTION = 3600.0
PROOF = RETENTION / 2


def writer(
    store: ObjectStore,
    clock: ManualClock,
    *,
    epoch: int,
    next_position: int = 1,
    node: str = "a",
    proof_seconds: float = PROOF,
) -> LogWriter:
    return LogWriter(
        store,
        generation=1,
        shard=0,
        epoch=epoch,
        writer_node=node,
        incarnation=f"{node}-1",
        ids=Ids(),
        clock=clock,
        next_position=next_position,
        proof_seconds=proof_seconds,
    )


def collector(store: ObjectStore, clock: ManualClock, *, epoch: int = 1) -> LogCollector:
    return LogCollector(store, generation=1, shard=0, epoch=epoch, retention_seconds=RETENTION, clock=clock, ids=Ids())


async def nobody() -> int | None:
    return None


def deletes(*names: str) -> list[log_pb2.LogRecord]:
    return [log_pb2.LogRecord(request_id=name, delete_noun=name) for name in names]


async def publish(store: ObjectStore, position: int, *, epoch: int, cursor: dict[int, int] | None = None) -> None:
    """What a fold leaves in the bucket: everything up to ``position`` is in a checkpoint."""
    manifest = Manifest(
        generation=1,
        shard=0,
        epoch=epoch,
        nonce=Ids().uuid(),
        position=position,
        source_cursor=cursor or {},
        noun_count=0,
        verb_count=0,
        indexed_count=0,
        digest="0" * 64,
    )
    await store.put(layout.manifest(1, 0), manifest.encode())


async def log_of(store: ObjectStore, from_position: int) -> list[Slot]:
    return [slot async for slot in read_log(store, 1, 0, from_position=from_position)]


async def firsts(store: ObjectStore) -> list[int]:
    pages = [page async for page in store.list(layout.log(1, 0))]
    parsed = [layout.parse_log_slot(meta.key) for page in pages for meta in page]
    return [found[2] for found in parsed if found is not None]


async def written(store: ObjectStore, clock: ManualClock, *commits: str) -> LogWriter:
    owner = writer(store, clock, epoch=1)
    await owner.fence()
    for name in commits:
        await owner.commit(deletes(name))
    return owner


async def test_only_what_is_old_and_covered_by_a_checkpoint_and_unneeded_goes() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    owner = await written(store, clock, "a", "b", "c")  # positions 2, 3, 4 after the fence at 1
    collects = collector(store, clock)
    collects.observe(3)
    await clock.advance(RETENTION / 2)
    collects.observe(4)
    assert await collects.collect(nobody) == 0  # nothing is old
    await clock.advance(RETENTION / 2)
    assert await collects.collect(nobody) == 0  # no checkpoint covers it
    await publish(store, 2, epoch=1)

    async def at_one() -> int | None:
        return 1

    assert await collects.collect(at_one) == 1  # a follower still needs position 2
    assert await firsts(store) == [2, 3, 4]
    assert await collects.collect(nobody) == 1  # the checkpoint ends at 2
    assert await firsts(store) == [3, 4]
    await publish(store, 4, epoch=1)
    assert await collects.collect(nobody) == 1  # 4 is too young
    assert await collected_position(store, 1, 0) == 3
    await clock.advance(RETENTION)
    assert await collects.collect(nobody) == 1
    assert await firsts(store) == []
    await owner.commit(deletes("d"))
    assert [slot.first for slot in await log_of(store, 5)] == [5]


async def test_a_reader_who_is_too_late_is_told_and_others_read_on() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    await written(store, clock, "a", "b", "c")
    await publish(store, 3, epoch=1)
    collects = collector(store, clock)
    collects.observe(3)
    await clock.advance(RETENTION)
    assert await collects.collect(nobody) == 3
    for position in (1, 2, 3):
        with pytest.raises(LogCollectedError) as caught:
            await log_of(store, position)
        assert caught.value.reason == "LOG_COLLECTED"
    assert [slot.first for slot in await log_of(store, 4)] == [4]
    assert await log_of(store, 5) == []


async def test_a_hole_is_corruption_unless_it_was_given_up() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    await written(store, clock, "a", "b", "c")
    await store.delete(layout.log_slot(1, 0, 3))
    with pytest.raises(CorruptDataError):
        await log_of(store, 2)


async def test_a_crash_between_giving_up_and_deleting_leaves_nothing_that_is_trusted() -> None:
    clock = ManualClock()
    store = FaultyStore(MemoryStore(clock))
    await written(store, clock, "a", "b")
    await publish(store, 3, epoch=1)
    first = collector(store, clock)
    first.observe(3)
    await clock.advance(RETENTION)
    store.plan(kind="delete", fault=Fault.UNAVAILABLE, times=-1)
    with pytest.raises(UnavailableError):
        await first.collect(nobody)
    assert await firsts(store) == [1, 2, 3]
    with pytest.raises(LogCollectedError):
        await log_of(store, 2)
    store.heal()
    assert await first.collect(nobody) == 3


async def overtaken(store: ObjectStore, clock: ManualClock) -> None:
    """Another owner fences behind position 2, writes, folds, and lets its retention pass."""
    other = writer(store, clock, epoch=2, next_position=3, node="b")
    await other.fence()
    await other.commit(deletes("theirs"))
    await publish(store, 4, epoch=2)
    collects = collector(store, clock, epoch=2)
    collects.observe(4)
    await clock.advance(RETENTION)
    await collects.collect(nobody)
    assert await firsts(store) == []


@pytest.mark.parametrize("proof_seconds", [PROOF, math.inf])
async def test_a_fence_that_was_collected_still_fences(proof_seconds: float) -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    stalled = writer(store, clock, epoch=1, proof_seconds=proof_seconds)
    await stalled.fence()
    await stalled.commit(deletes("mine"))
    await overtaken(store, clock)
    if proof_seconds == math.inf:
        # The naive writer trusts create-if-absent, which has forgotten the other's fence: it acknowledges a write
        # that no reader of the log will ever see.
        slot = await stalled.commit(deletes("lost"))
        assert slot.first == 3
    else:
        with pytest.raises(FencedError):
            await stalled.commit(deletes("lost"))
        with pytest.raises(FencedError):
            await stalled.commit(deletes("again"))
    # Either way the stray lies where nobody reads, and goes with the next collection.
    with pytest.raises(LogCollectedError):
        await log_of(store, 3)
    assert await log_of(store, 5) == []


async def test_an_uncollected_fence_needs_no_proof() -> None:
    clock = ManualClock()
    store = FaultyStore(MemoryStore(clock))
    stalled = writer(store, clock, epoch=1)
    await stalled.fence()
    await writer(store, clock, epoch=2, next_position=2, node="b").fence()
    await clock.advance(RETENTION * 3)
    with pytest.raises(FencedError):
        await stalled.commit(deletes("lost"))


async def test_a_healthy_owner_proves_itself_once_after_a_long_rest() -> None:
    clock = ManualClock()
    store = FaultyStore(MemoryStore(clock))
    owner = writer(store, clock, epoch=1)
    await owner.fence()
    key = layout.collected(1, 0)

    def proofs() -> int:
        return store.journal.keys("get").count(key)

    before = proofs()
    for number in range(5):
        await owner.commit(deletes(f"n{number}"))
    assert proofs() == before
    await clock.advance(PROOF)
    await owner.commit(deletes("late"))
    await owner.commit(deletes("next"))
    assert proofs() == before + 1


async def test_a_proof_that_cannot_be_read_is_waited_for() -> None:
    clock = ManualClock()
    store = FaultyStore(MemoryStore(clock))
    owner = writer(store, clock, epoch=1)
    await owner.fence()
    await clock.advance(PROOF)
    store.plan(kind="get", key_prefix=layout.collected(1, 0), fault=Fault.UNAVAILABLE, times=-1)
    commit = asyncio.create_task(owner.commit(deletes("late")))
    await clock.advance(5.0)
    assert not commit.done()
    store.heal()
    await clock.advance(5.0)
    assert (await commit).first == 2


async def test_an_owner_opens_behind_a_wholly_collected_log() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    await written(store, clock, "a")
    await overtaken(store, clock)
    with pytest.raises(LogCollectedError):  # its base is older than what was given up
        await writer(store, clock, epoch=3, next_position=3, node="c").fence()
    with pytest.raises(FencedError):  # the manifest remembers the epoch that the log has forgotten
        await writer(store, clock, epoch=1, next_position=5, node="a").fence()
    (fence,) = await writer(store, clock, epoch=3, next_position=5, node="c").fence()
    assert fence.first == 5


async def test_a_stray_that_spans_the_end_of_what_was_collected_misleads_nobody() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    stalled = writer(store, clock, epoch=1)
    await stalled.fence()
    await stalled.commit(deletes("mine"))
    await overtaken(store, clock)
    with pytest.raises(FencedError):
        await stalled.commit(deletes("x", "y", "z"))  # 3 to 5, over the end at 4
    owner = writer(store, clock, epoch=3, next_position=5, node="c")
    (fence,) = await owner.fence()
    assert fence.first == 5
    assert [slot.first for slot in await log_of(store, 5)] == [5]


async def test_a_fence_in_a_place_that_was_given_up_is_none() -> None:
    clock = ManualClock()
    store = FaultyStore(MemoryStore(clock))
    await written(store, clock, "a")
    late = writer(store, clock, epoch=3, next_position=3, node="c")
    entered, go = asyncio.Event(), asyncio.Event()
    store.plan(kind="put_if_absent", gate=go, before=entered.set)
    fencing = asyncio.create_task(late.fence())
    await entered.wait()
    await overtaken(store.inner, clock)
    go.set()
    with pytest.raises(LogCollectedError):
        await fencing


async def held(store: ObjectStore, shard: int, **targets: GenerationPlacement) -> int | None:
    """Ask on behalf of the owner of a shard of generation 0."""
    source = GenerationPlacement(
        state="serving", shard_count=2, shards={n: ShardPlacement(owner="a", epoch=1) for n in range(2)}
    )
    generations = {0: source, **{int(name[1:]): placement for name, placement in targets.items()}}
    routing = Routing(
        namespace="memory://x", epoch=1, nonce="n", leader_epoch=1, active=0, write=0, generations=generations
    )
    await store.put(layout.ROUTING, routing.encode())
    host = object.__new__(Host)  # only its store and its view of the routing record are asked
    object.__setattr__(host, "store", store)
    object.__setattr__(host, "view", RoutingView(store, lambda routing: None))
    return await held_by_followers(host, assignments(routing, "a")[0, shard])


async def test_followers_hold_what_their_manifests_have_not_reached() -> None:
    store = MemoryStore(ManualClock())
    assert await held(store, 0) is None
    same = GenerationPlacement(state="building", shard_count=2, follows=0)
    assert await held(store, 0, g1=same) == 0  # still being filled
    await publish(store, 9, epoch=1, cursor={0: 7})
    assert await held(store, 0, g1=same) == 7
    fewer = GenerationPlacement(state="building", shard_count=1, follows=0)
    assert await held(store, 1, g1=fewer) == 0  # its cursor says nothing of shard 1


async def test_a_kept_source_holds_from_where_it_begins() -> None:
    store = MemoryStore(ManualClock())
    follow_from = {0: 40, 1: 50}
    back = GenerationPlacement(state="following", shard_count=2, follows=0, follow_from=follow_from)
    assert await held(store, 0, g1=back) == 40
    # A cursor that does not say of what is of the generation it was made of, not of this one.
    await publish(store, 9, epoch=1, cursor={0: 70})
    assert await held(store, 0, g1=back) == 40
    # After a rollback the target follows the one it was made of again.
    again = back.model_copy(update={"state": "building"})
    assert await held(store, 0, g1=again) == 70


def test_the_record() -> None:
    record = Collected(generation=1, shard=2, epoch=3, nonce="n", position=4)
    assert Collected.decode(record.encode(), key="k") == record
