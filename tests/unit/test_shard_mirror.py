"""One shard's mirror: last states only, what is Brainy's own, who may write, and what a crash leaves."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest

from brainy.api.common.v1 import common_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.mirroring import MirrorCursor
from brainy.bucket.records import Collected
from brainy.changelog.batch import Slot
from brainy.clock import SystemClock
from brainy.errors import FencedError, UnavailableError
from brainy.ids import Ids
from brainy.legacy.dialect.dialects import ENTITIES, SPLIT
from brainy.legacy.dialect.rendering import Bounds
from brainy.legacy.mirror import Mirror
from brainy.legacy.seen_objects import NothingSeen, SeenObjects
from brainy.store.base import ObjectStore, StoredObject
from brainy.store.memory import MemoryStore
from brainy.testing.brainy_reader import BrainyReader
from brainy.testing.faulty import Fault, FaultyStore
from brainy_node.runtime.host import Host
from brainy_node.runtime.mirror_claim import MirrorClaim
from brainy_node.runtime.shard_mirror import ShardMirror, SourceLog

DIMENSIONS = 3


class Leaping(SystemClock):
    """The machine's clock, and a pause that can be had at once."""

    def __init__(self) -> None:
        self.leaped = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.leaped

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.02))


class Log:
    """A shard's log that grows."""

    def __init__(self, *, generation: int = 0) -> None:
        self.slots: list[Slot] = []
        self.ended = False
        self._generation = generation
        self._grown = asyncio.Event()

    @property
    def last(self) -> int:
        return self.slots[-1].last if self.slots else 0

    def commit(self, *records: log_pb2.LogRecord, copied: bool = False) -> None:
        for record in records:
            record.written_at.FromMilliseconds(1_700_000_000_000 + self.last)
        batch = log_pb2.LogBatch(
            format_version=1,
            generation=self._generation,
            shard=0,
            epoch=1,
            first_position=self.last + 1,
            records=records,
            source_cursor={0: 1} if copied else {},
        )
        self.slots.append(Slot(batch=batch, body=b""))
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    async def follow(self, position: int) -> AsyncIterator[Slot]:
        at = 0
        while True:
            grown = self._grown
            for slot in self.slots[at:]:
                if slot.last >= position:
                    yield slot
            at = len(self.slots)
            if self.ended:
                return
            await grown.wait()


def noun(item_id: str, value: float, metadata: str | None = "{}", *, foreign: bool = False) -> log_pb2.LogRecord:
    item = common_pb2.Noun(
        id=item_id,
        vector=struct.pack("<3f", value, 1, 2),
        metadata=None if metadata is None else metadata.encode(),
    )
    return log_pb2.LogRecord(request_id="follow:1" if foreign else "", upsert_noun=item)


def gone(item_id: str) -> log_pb2.LogRecord:
    return log_pb2.LogRecord(delete_noun=item_id)


class World:
    """A bucket, a log, and owners of its one shard."""

    def __init__(self, memory: MemoryStore | None = None, *, generation: int = 0) -> None:
        self.clock = Leaping()
        self.memory = memory or MemoryStore(self.clock)
        self.generation = generation
        self.log = Log(generation=generation)

    def mirror(
        self,
        epoch: int = 1,
        *,
        store: ObjectStore | None = None,
        seen: SeenObjects | None = None,
        dialect: Any = SPLIT,
        sources: Sequence[SourceLog] = (),
    ) -> ShardMirror:
        used = store or self.memory
        host = cast(Host, _Surroundings(used, self.clock))
        watcher = seen or NothingSeen()

        def make(claim: MirrorClaim) -> Mirror:
            return Mirror(
                used,
                dialect,
                seen=watcher,
                change_log=True,
                bounds=Bounds(dimensions=DIMENSIONS),
                guard=claim.guard,
            )

        return ShardMirror(
            host,
            MirrorClaim(host, self.generation, 0, epoch=epoch, dialect=dialect.name),
            make,
            follow=self.log.follow,
            sources=sources,
            seen=watcher,
            applied=lambda: self.log.last,
        )

    @asynccontextmanager
    async def running(self, mirror: ShardMirror) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(mirror.run())
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, FencedError, UnavailableError):
                await task

    async def cursor(self) -> MirrorCursor | None:
        key = layout.mirror_cursor(self.generation, 0)
        found = await self.memory.get(key)
        return None if found is None else MirrorCursor.decode(found.body, key=key)

    async def until(self, position: int) -> MirrorCursor:
        async with asyncio.timeout(60):
            while True:
                cursor = await self.cursor()
                if cursor is not None and cursor.position >= position:
                    return cursor
                await asyncio.sleep(0.01)

    async def keys(self, prefix: str = "") -> list[str]:
        return [meta.key async for page in self.memory.list(prefix) for meta in page if "cluster/" not in meta.key]

    async def first(self, item_id: str) -> Any:
        found = await self.memory.get(f"nouns/{item_id}.json")
        return None if found is None else json.loads(found.body)["vector"][0]


class _Surroundings:
    """What a mirror uses of its node."""

    def __init__(self, store: ObjectStore, clock: SystemClock) -> None:
        self.store = store
        self.clock = clock
        self.ids = Ids()


class Versions:
    """A follower's book: the ETags that were taken over last."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.held: list[str] = []
        self.position = 0

    @property
    def watches(self) -> bool:
        return True

    def unchanged(self, key: str, found: StoredObject | None) -> bool:
        return self.known.get(key) == (None if found is None else found.etag)

    def hold(self, key: str) -> None:
        self.held.append(key)

    def release(self, key: str) -> None:
        self.held.remove(key)

    def wrote(self, key: str, etag: str) -> None:
        self.known[key] = etag
        self.held.remove(key)

    def deleted(self, key: str) -> None:
        self.known.pop(key, None)
        self.held.remove(key)

    def reached(self, position: int) -> None:
        self.position = position


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
    host = cast(Host, _Surroundings(world.memory, world.clock))
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
