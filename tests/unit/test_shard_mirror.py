"""One shard's mirror: last states only, what is Brainy's own, who may write, and what a crash leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from mirrored_world import World, gone, noun

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.records import Collected
from brainy.errors import FencedError
from brainy.legacy.dialect.dialects import ENTITIES
from brainy.testing.brainy_reader import BrainyReader
from brainy.testing.faulty import Fault, FaultyStore


async def test_only_the_last_state_of_an_id_is_written() -> None:
    world = World()
    world.log.commit(noun("a", 1), noun("b", 1), noun("a", 2))
    world.log.commit(noun("a", 3), gone("b"))
    async with world.running(world.mirror()):
        cursor = await world.until(5)
    assert await world.first("a") == 3
    assert await world.keys() == [
        *(await world.keys("change-log/")),
        "metadata/a.json",
        "metadata/b.json",
        "nouns/a.json",
    ]
    assert len(await world.keys("change-log/")) == 4
    assert (cursor.written, cursor.position, cursor.counts.nouns) == (2, 5, {})
    reader = BrainyReader(world.memory, "0.46.0")
    assert list(await reader.nouns()) == ["a"]


async def test_later_commits_follow_and_a_fence_moves_the_cursor() -> None:
    world = World()
    async with world.running(world.mirror()):
        world.log.commit(log_pb2.LogRecord(fence=log_pb2.Fence(owner="n")))
        assert (await world.until(1)).written == 0
        world.log.commit(noun("a", 1))
        await world.until(2)
        world.log.commit(noun("a", 2, None))
        await world.until(3)
    assert await world.first("a") == 2
    assert await world.memory.get("metadata/a.json") is None


@pytest.mark.parametrize("landed", range(12))
async def test_a_crash_after_any_write_leaves_nothing_out_and_nothing_double(landed: int) -> None:
    records = [[noun("a", 1), noun("b", 2)], [gone("a")], [noun("c", 3), noun("a", 4)]]
    whole, broken = World(), World()
    for world in (whole, broken):
        for part in records:
            world.log.commit(*part)
    async with whole.running(whole.mirror()):
        await whole.until(5)
    store = FaultyStore(broken.memory)
    # So many of the twelve writes land, then the store is gone for this owner.
    store.plan(kind="put", times=landed)
    store.plan(kind="put", fault=Fault.UNAVAILABLE, times=-1)
    async with broken.running(broken.mirror(store=store)), asyncio.timeout(60):
        while len(store.journal.keys("put")) <= landed:
            await asyncio.sleep(0.01)
    async with broken.running(broken.mirror(2)):
        cursor = await broken.until(5)
    assert cursor.epoch == 2
    assert await bodies(broken) == await bodies(whole)


async def bodies(world: World) -> dict[str, bytes]:
    found = await world.memory.get_many(await world.keys())
    return {item.key: item.body for item in found if item is not None and not isinstance(item, Exception)}


async def test_a_paused_owner_that_wakes_up_writes_nothing_more() -> None:
    world = World()
    world.log.commit(noun("a", 1), noun("b", 1))
    store, gate = FaultyStore(world.memory), asyncio.Event()
    store.plan(kind="put", key_prefix="nouns/a", gate=gate)
    store.plan(kind="put", key_prefix="nouns/b", gate=gate)
    async with world.running(world.mirror(1, store=store)) as paused:
        async with asyncio.timeout(60):
            while len(store.journal.keys("put")) < 2:
                await asyncio.sleep(0.01)
        world.log.commit(noun("a", 2), gone("b"))
        async with world.running(world.mirror(2)):
            await world.until(4)
        assert (await world.first("a"), await world.first("b")) == (2, None)
        world.clock.leaped += 60.0
        # The two requests that had left when it was paused still land: the limit that is stated.
        gate.set()
        with pytest.raises(FencedError):
            await paused
    assert [key for key in store.journal.keys("put") if not key.startswith("nouns/")] == []
    assert (await world.until(4)).epoch == 2


async def test_an_older_owner_is_not_let_in() -> None:
    world = World()
    async with world.running(world.mirror(3)):
        world.log.commit(noun("a", 1))
        await world.until(1)
    with pytest.raises(FencedError):
        await world.mirror(2).run()


async def test_a_failing_store_is_shown_and_nothing_is_skipped() -> None:
    world = World()
    store = FaultyStore(world.memory)
    store.plan(kind="put", key_prefix="nouns/", fault=Fault.UNAVAILABLE, times=2)
    world.log.commit(noun("a", 1))
    problems = set()
    async with world.running(world.mirror(store=store)), asyncio.timeout(60):
        while (cursor := await world.cursor()) is None or cursor.position < 1:
            problems.add(cursor.problem if cursor is not None else "")
            await asyncio.sleep(0.01)
    assert any(problem.startswith("STORE_UNAVAILABLE") for problem in problems)
    assert cursor.problem == ""
    assert await world.first("a") == 1


async def test_limits_are_counted_and_shown() -> None:
    world = World()
    world.log.commit(*(noun("x" * 1020 + str(number), 1) for number in range(3)), noun("ünï", 1))
    async with world.running(world.mirror()):
        cursor = await world.until(4)
    assert cursor.limits == {"key-too-long": 3, "log-header": 4 - 3}
    assert [limit.withheld for limit in cursor.newest_limits] == [True, True, True, False]
    assert await world.keys("nouns/") == ["nouns/ünï.json"]


async def test_what_was_collected_before_it_was_mirrored_is_said() -> None:
    world = World(generation=2)
    world.log.commit(*(noun(f"old-{number}", 1) for number in range(5)))
    world.log.commit(noun("new", 1))
    record = Collected(generation=2, shard=0, epoch=1, position=5, nonce="n")
    await world.memory.put(layout.collected(2, 0), record.encode())
    async with world.running(world.mirror()):
        cursor = await world.until(6)
    assert await world.keys("nouns/") == ["nouns/new.json"]
    assert cursor.limits == {"log-collected": 5}


async def test_another_dialect_begins_at_the_beginning() -> None:
    world = World()
    world.log.commit(noun("a", 1))
    async with world.running(world.mirror()):
        before = await world.until(1)
    async with world.running(world.mirror(dialect=ENTITIES)), asyncio.timeout(60):
        while (cursor := await world.cursor()) is None or cursor.dialect != "entity" or cursor.position < 1:
            await asyncio.sleep(0.01)
    assert await world.keys("entities/nouns/vectors/") == ["entities/nouns/vectors/a.json"]
    assert cursor.milliseconds > before.milliseconds
    assert names_rise(await world.keys("change-log/"))


def names_rise(keys: Sequence[str]) -> bool:
    return list(keys) == sorted(set(keys))
