"""One shard's mirror beside Brainy processes and after another generation: whose word is written, and whose is not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import pytest
from mirrored_world import Log, Surroundings, Versions, World, noun

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.mirroring import MirrorCursor
from brainy.errors import FencedError
from brainy.store.memory import MemoryStore
from brainy.testing.faulty import Fault, FaultyStore
from brainy_node.runtime.host import Host
from brainy_node.runtime.mirror_claim import MirrorClaim
from brainy_node.runtime.shard_mirror import SourceLog


async def test_what_a_brainy_process_wrote_is_not_written_back() -> None:
    world = World()
    world.log.commit(noun("a", 1), noun("b", 1), noun("a", 7, foreign=True))
    async with world.running(world.mirror()):
        cursor = await world.until(3)
    assert (cursor.foreign, cursor.written) == (1, 1)
    assert await world.keys("nouns/") == ["nouns/b.json"]


def ended(*slots: Sequence[log_pb2.LogRecord], generation: int = 0, shard: int = 0) -> SourceLog:
    """A source's log that has an end."""
    log = Log(generation=generation)
    for records in slots:
        log.commit(*records)
    log.ended = True
    return SourceLog(
        generation=generation, shard=shard, follow=log.follow, wanted=lambda item_id, position: item_id != "other"
    )


async def test_what_the_source_left_is_finished_first_and_its_copies_are_passed_over() -> None:
    world = World(generation=1)
    first = ended([noun("a", 1)], [noun("a", 2), noun("b", 2), noun("other", 2)], [noun("c", 2)])
    second = ended([noun("b", 3), noun("c", 3, foreign=True)], shard=1)
    world.log.commit(noun("a", 2), copied=True)
    world.log.commit(noun("a", 4), noun("c", 4))
    mirror = world.mirror(sources=[first, second])
    fresh = MirrorCursor(
        generation=1, shard=0, dialect="flat-split", epoch=1, nonce="", source={"0/0": 1, "0/1": 0}, milliseconds=7
    )
    task = asyncio.create_task(mirror.run(fresh))
    cursor = await world.until(3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert cursor.source == {"0/0": 4 + 1, "0/1": 2}
    assert [await world.first(name) for name in ("a", "b", "c", "other")] == [4, 3, 4, None]
    assert (cursor.foreign, cursor.written) == (1, 3)

    # Another owner begins where that one was.
    world.log.commit(noun("d", 5))
    async with world.running(world.mirror(2, sources=[first, second])):
        cursor = await world.until(4)
    assert cursor.written == 4


async def test_a_foreign_record_of_a_source_is_looked_out_for() -> None:
    world, book = World(generation=1), Versions()
    etag = await world.memory.put("nouns/a.json", b'{"id":"a","vector":[9,9,9],"connections":{}}')
    book.known["nouns/a.json"] = etag
    old = [[noun(f"n{number}", 1) for number in range(1000)] for _ in range(2)]
    source = ended([noun("a", 1)], *old, [noun("a", 9, foreign=True)])
    world.log.commit(noun("z", 1))
    async with world.running(world.mirror(sources=[source], seen=book)):
        await world.until(1)
    assert await world.first("a") == 9


async def test_a_frozen_cursor_stops_its_mirror_and_says_where_to_begin() -> None:
    world = World()
    world.log.commit(noun("a", 1))
    host = cast(Host, Surroundings(world.memory, world.clock))
    async with world.running(world.mirror(4)) as running:
        await world.until(1)
        frozen = await MirrorClaim(host, 0, 0, epoch=0, dialect="flat-split").freeze()
        assert (frozen.position, frozen.final, frozen.epoch) == (1, True, 5)
        world.clock.leaped += 60
        world.log.commit(noun("a", 2))
        with pytest.raises(FencedError):
            await running
    assert await world.first("a") == 1
    again = await MirrorClaim(host, 0, 0, epoch=0, dialect="flat-split").freeze()
    assert again == frozen
    other = await MirrorClaim(host, 0, 0, epoch=0, dialect="entity").freeze()
    assert (other.position, other.final, other.dialect) == (0, True, "entity")
    never = await MirrorClaim(host, 0, 1, epoch=0, dialect="entity").freeze()
    assert (never.position, never.final) == (0, True)


async def test_what_brainy_changed_meanwhile_is_not_overwritten_before_it_is_decided() -> None:
    world, book = World(), Versions()
    await world.memory.put("nouns/a.json", b'{"id":"a","vector":[9,9,9],"connections":{}}')
    world.log.commit(noun("a", 1), noun("b", 1))
    async with world.running(world.mirror(seen=book)):
        async with asyncio.timeout(60):
            while await world.first("b") is None:
                await asyncio.sleep(0.01)
        # Later commits go on; the cursor waits before the undecided one.
        world.log.commit(noun("c", 1))
        async with asyncio.timeout(60):
            while await world.first("c") is None:
                await asyncio.sleep(0.01)
        cursor = await world.cursor()
        assert cursor is not None
        assert (cursor.position, cursor.conflicts) == (0, 1)
        assert await world.first("a") == 9
        # The follower takes it over: Brainy's word is the later one.
        world.log.commit(noun("a", 9, foreign=True))
        cursor = await world.until(4)
    assert await world.first("a") == 9
    assert (cursor.conflicts, cursor.foreign, cursor.written) == (1, 1, 2)
    assert book.held == []


async def test_what_the_follower_kept_of_ours_replaces_what_it_saw() -> None:
    world, book = World(), Versions()
    etag = await world.memory.put("nouns/a.json", b'{"id":"a","vector":[9,9,9],"connections":{}}')
    world.log.commit(noun("a", 1))
    async with world.running(world.mirror(seen=book)):
        async with asyncio.timeout(60):
            while (cursor := await world.cursor()) is None or cursor.conflicts == 0:
                await asyncio.sleep(0.01)
        # Ours is the later word; what Brainy wrote before it was taken note of.
        book.known["nouns/a.json"] = etag
        await world.until(1)
    assert await world.first("a") == 1
    assert set(book.known) == {"nouns/a.json", "metadata/a.json"}


async def test_a_change_between_looking_and_writing_loses_to_brainy() -> None:
    world, book = World(), Versions()
    first = await world.memory.put("nouns/a.json", b'{"id":"a","vector":[9,9,9],"connections":{}}')
    book.known["nouns/a.json"] = first
    store = FaultyStore(world.memory)
    newer = b'{"id":"a","vector":[8,8,8],"connections":{}}'
    store.plan(kind="put_if_match", key_prefix="nouns/", before=lambda: overwrite(world.memory, newer))
    world.log.commit(noun("a", 1))
    async with world.running(world.mirror(store=store, seen=book)):
        async with asyncio.timeout(60):
            while "nouns/a.json" not in store.journal.keys("put_if_match"):
                await asyncio.sleep(0.01)
        world.log.commit(noun("a", 8, foreign=True))
        await world.until(2)
    assert await world.first("a") == 8
    assert await world.keys("metadata/") == []


def overwrite(memory: MemoryStore, body: bytes) -> None:
    with suppress(StopIteration):
        memory.put("nouns/a.json", body).send(None)


async def test_a_repeat_whose_condition_fails_knows_its_own_write() -> None:
    world, book = World(), Versions()
    store = FaultyStore(world.memory)
    store.plan(kind="put_if_absent", key_prefix="nouns/", fault=Fault.LANDED_LOST)
    store.plan(kind="put_if_absent", key_prefix="metadata/", fault=Fault.LANDED_UNKNOWN)
    world.log.commit(noun("a", 1))
    async with world.running(world.mirror(store=store, seen=book)):
        cursor = await world.until(1)
    assert (cursor.conflicts, cursor.written) == (0, 1)
