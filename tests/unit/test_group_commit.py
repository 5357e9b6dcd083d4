"""Many writers, few PUTs; repeats, pauses, cancellation and the ways it ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from brainy.api.common.v1 import common_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.changelog.batch import Slot
from brainy.changelog.commits import GroupCommit, GroupLimits, digest_of, item_of
from brainy.changelog.reading import read_log
from brainy.changelog.writing import LogWriter
from brainy.clock import SystemClock
from brainy.errors import (
    BrainyError,
    FencedError,
    InvalidRequestError,
    OutcomeUnknownError,
    PermissionDeniedError,
    UnavailableError,
)
from brainy.ids import Ids
from brainy.store.base import PutOutcome
from brainy.store.memory import MemoryStore


class GatedStore(MemoryStore):
    """Counts PUTs and holds them at a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.puts = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.refuse = False

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        if self.refuse:
            raise PermissionDeniedError("no")
        self.puts += 1
        self.entered.set()
        await asyncio.sleep(0)
        await self.gate.wait()
        return await super().put_if_absent(key, body)


class Shard:
    """The part of a shard that group commit needs."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.positions: dict[str, int] = {}

    def apply(self, slot: Slot) -> None:
        self.slots.append(slot)
        for position, record in enumerate(slot.batch.records, slot.first):
            self.positions.setdefault(record.request_id, position)

    def known(self, request_id: str) -> int | None:
        return self.positions.get(request_id)


@asynccontextmanager
async def opened(
    store: MemoryStore,
    *,
    limits: GroupLimits | None = None,
    on_slot: Callable[[Slot], None] | None = None,
) -> AsyncIterator[tuple[GroupCommit, Shard, asyncio.Task[BrainyError]]]:
    shard = Shard()
    writer = log_writer(store, 1, 1)
    await writer.fence()
    commits = GroupCommit(
        writer,
        known=shard.known,
        on_slot=on_slot or shard.apply,
        clock=SystemClock(),
        limits=limits or GroupLimits(),
    )
    task = asyncio.create_task(commits.run())
    try:
        yield commits, shard, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def log_writer(store: MemoryStore, epoch: int, next_position: int) -> LogWriter:
    return LogWriter(
        store,
        generation=1,
        shard=0,
        epoch=epoch,
        writer_node="n",
        incarnation="i",
        ids=Ids(),
        clock=SystemClock(),
        next_position=next_position,
    )


def deletes(request_id: str, *names: str) -> list[log_pb2.LogRecord]:
    return [log_pb2.LogRecord(request_id=request_id, delete_noun=name) for name in names or (request_id,)]


async def committed(
    commits: GroupCommit, records: list[log_pb2.LogRecord], source_cursor: dict[int, int] | None = None
) -> int:
    return await commits.commit(records, source_cursor)


async def test_64_writers_share_puts() -> None:
    store = GatedStore()
    async with opened(store) as (commits, shard, _):
        store.puts = 0
        answers: list[int] = []

        async def client(number: int) -> None:
            for index in range(20):
                answers.append(await commits.commit(deletes(f"{number}-{index}")))

        await asyncio.gather(*(client(number) for number in range(64)))
        assert len(answers) == len(set(answers)) == 64 * 20
        assert 64 * 20 / store.puts >= 20
        assert sorted(answers) == list(range(2, 64 * 20 + 2))
        assert commits.durable_position == 64 * 20 + 1
        assert shard.slots[0].first == 2


async def test_a_lone_write_waits_for_nobody() -> None:
    store = GatedStore()
    async with opened(store) as (commits, _, _):
        assert await commits.commit(deletes("a")) == 2
        assert await commits.commit(deletes("b", "x", "y")) == 4
        assert store.puts == 3


async def test_a_request_is_never_split_and_batches_are_bounded() -> None:
    store = GatedStore()
    async with opened(store, limits=GroupLimits(batch_records=10)) as (commits, shard, _):
        store.gate.clear()
        tasks = [asyncio.create_task(committed(commits, deletes("first")))]
        await asyncio.sleep(0)
        for number in range(4):
            names = [f"{number}.{index}" for index in range(6)]
            tasks.append(asyncio.create_task(committed(commits, deletes(str(number), *names))))
        tasks.append(asyncio.create_task(committed(commits, deletes("big", *map(str, range(50))))))
        store.gate.set()
        await asyncio.gather(*tasks)
        assert [len(slot.batch.records) for slot in shard.slots] == [1, 6, 6, 6, 6, 50]


async def test_a_repeat_has_one_effect_while_waiting_in_flight_and_later() -> None:
    store = GatedStore()
    async with opened(store) as (commits, shard, _):
        store.entered.clear()
        store.gate.clear()
        tasks = [asyncio.create_task(committed(commits, deletes("in-flight")))]
        await store.entered.wait()
        tasks += [asyncio.create_task(committed(commits, deletes("in-flight"))) for _ in range(3)]
        tasks += [asyncio.create_task(committed(commits, deletes("waiting"))) for _ in range(3)]
        await asyncio.sleep(0)
        store.gate.set()
        assert await asyncio.gather(*tasks) == [2, 2, 2, 2, 3, 3, 3]
        assert await commits.commit(deletes("in-flight")) == 2
        assert sum(len(slot.batch.records) for slot in shard.slots) == 2


async def test_a_repeat_finds_its_request_in_every_batch_that_waits() -> None:
    store = GatedStore()
    async with opened(store, limits=GroupLimits(batch_records=2)) as (commits, shard, _):
        store.entered.clear()
        store.gate.clear()
        tasks = [asyncio.create_task(committed(commits, deletes("flying")))]
        await store.entered.wait()
        names = ["a", "b", "c", "d", "e"]
        tasks += [asyncio.create_task(committed(commits, deletes(name))) for name in names]
        tasks += [asyncio.create_task(committed(commits, deletes(name))) for name in [*names, "flying"]]
        everything = [record for name in ["flying", *names] for record in deletes(name)]
        tasks.append(asyncio.create_task(committed(commits, [*everything, *deletes("new")])))
        await asyncio.sleep(0)
        assert [record.request_id for record in commits.unsettled()] == ["flying", *names, "new"]
        assert commits.waiting == 6
        for task in tasks[1:3]:  # what its repeats wait for stays
            task.cancel()
        store.gate.set()
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer) for answer in told[1:3]] == [asyncio.CancelledError] * 2
        assert told[:1] + told[3:] == [2, 5, 6, 7, 3, 4, 5, 6, 7, 2, 8]
        assert [len(slot.batch.records) for slot in shard.slots] == [1, 2, 2, 2]
        assert list(commits.unsettled()) == []
        assert commits.waiting == 0


async def test_a_failure_reaches_every_batch_that_waits() -> None:
    store = GatedStore()
    async with opened(store, limits=GroupLimits(batch_records=2, waiting_bytes=100)) as (commits, _, _):
        await commits.commit(deletes("a"))
        await log_writer(store, 2, 3).fence()
        store.gate.clear()
        store.entered.clear()
        tasks = [asyncio.create_task(committed(commits, deletes("flying")))]
        await store.entered.wait()
        tasks += [asyncio.create_task(committed(commits, deletes(f"w{number}"))) for number in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError) as caught:
            await commits.commit(deletes("too-many", "x" * 90))
        assert caught.value.reason == "BUFFER_FULL"
        store.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [FencedError] * 6
        assert list(commits.unsettled()) == []


async def test_copies_with_a_cursor_are_never_repeats() -> None:
    store = GatedStore()
    async with opened(store) as (commits, shard, _):
        store.entered.clear()
        store.gate.clear()
        tasks = [
            asyncio.create_task(committed(commits, deletes("r", "a"), {0: 5})),
            asyncio.create_task(committed(commits, deletes("r", "b"), {0: 7, 1: 2})),
            asyncio.create_task(committed(commits, [], {1: 3})),
        ]
        await store.entered.wait()
        store.gate.set()
        assert await asyncio.gather(*tasks) == [2, 3, 3]
        (slot,) = shard.slots
        assert dict(slot.batch.source_cursor) == {0: 7, 1: 3}


async def test_slots_are_applied_before_callers_are_answered() -> None:
    applied: list[int] = []
    async with opened(GatedStore(), on_slot=lambda slot: applied.append(slot.last)) as (commits, _, _):
        position = await commits.commit(deletes("a"))
        assert applied == [position]


async def test_pause_waits_for_what_is_in_flight_and_keeps_the_rest() -> None:
    store = GatedStore()
    async with opened(store) as (commits, _, _):
        store.entered.clear()
        store.gate.clear()
        first = asyncio.create_task(committed(commits, deletes("a")))
        await store.entered.wait()
        pausing = asyncio.create_task(commits.pause())
        later = asyncio.create_task(committed(commits, deletes("b")))
        await asyncio.sleep(0)
        assert not pausing.done()
        store.gate.set()
        assert await pausing == 2
        assert await first == 2
        puts = store.puts
        for _ in range(20):
            await asyncio.sleep(0)
        assert store.puts == puts
        assert commits.waiting == 1
        assert not later.done()
        assert await commits.pause() == 2
        commits.resume()
        assert await later == 3


async def test_closing_while_paused_sends_the_waiting_elsewhere() -> None:
    async with opened(GatedStore()) as (commits, _, task):
        await commits.pause()
        waiting = asyncio.create_task(committed(commits, deletes("a")))
        await asyncio.sleep(0)
        moved = UnavailableError("moved", reason="STALE_ROUTING")
        commits.close(moved)
        with pytest.raises(UnavailableError, match="moved"):
            await waiting
        assert await task is moved
        with pytest.raises(UnavailableError, match="moved"):
            await commits.commit(deletes("b"))


async def test_a_cancelled_caller_does_not_cancel_the_put() -> None:
    store = GatedStore()
    async with opened(store) as (commits, shard, _):
        store.entered.clear()
        store.gate.clear()
        leaving = asyncio.create_task(committed(commits, deletes("a")))
        staying = asyncio.create_task(committed(commits, deletes("b")))
        await store.entered.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        store.gate.set()
        assert await staying == 3
        assert shard.known("a") == 2


async def test_fenced_fails_everyone_and_stays() -> None:
    store = GatedStore()
    async with opened(store) as (commits, _, task):
        await commits.commit(deletes("a"))
        await log_writer(store, 2, 3).fence()
        store.gate.clear()
        store.entered.clear()
        tasks = [asyncio.create_task(committed(commits, deletes(f"w{number}"))) for number in range(3)]
        await store.entered.wait()
        tasks.append(asyncio.create_task(committed(commits, deletes("queued"))))
        await asyncio.sleep(0)
        store.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [FencedError] * 4
        assert isinstance(await task, FencedError)
        assert isinstance(commits.failure, FencedError)
        with pytest.raises(FencedError):
            await commits.commit(deletes("z"))
        with pytest.raises(FencedError):
            await commits.pause()
        log = [slot async for slot in read_log(store, 1, 0, from_position=1)]
        assert [slot.epoch for slot in log] == [1, 1, 2]


async def test_stopping_tells_who_may_have_been_written() -> None:
    store = GatedStore()
    async with opened(store) as (commits, _, task):
        store.gate.clear()
        store.entered.clear()
        flying = asyncio.create_task(committed(commits, deletes("a")))
        await store.entered.wait()
        queued = asyncio.create_task(committed(commits, deletes("b")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(OutcomeUnknownError):
            await flying
        with pytest.raises(UnavailableError):
            await queued


async def test_a_slot_that_cannot_be_applied_closes_it() -> None:
    def broken(slot: Slot) -> None:
        raise ValueError("shard is broken")

    store = GatedStore()
    async with opened(store, on_slot=broken) as (commits, _, _):
        with pytest.raises(UnavailableError) as caught:
            await commits.commit(deletes("a"))
        assert caught.value.reason == "SHARD_NOT_READY"
        assert commits.failure is caught.value


async def test_a_definite_refusal_fails_only_its_batch() -> None:
    store = GatedStore()
    async with opened(store) as (commits, _, _):
        store.refuse = True
        with pytest.raises(PermissionDeniedError):
            await commits.commit(deletes("a"))
        store.refuse = False
        assert await commits.commit(deletes("a")) == 2


async def test_limits() -> None:
    store = GatedStore()
    async with opened(store, limits=GroupLimits(waiting_bytes=200)) as (commits, _, _):
        with pytest.raises(InvalidRequestError):
            await commits.commit([])
        await commits.pause()
        waiting = [asyncio.create_task(committed(commits, deletes(f"{n}", "x" * 80))) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError) as caught:
            await commits.commit(deletes("c", "x" * 80))
        assert caught.value.reason == "BUFFER_FULL"
        commits.resume()
        await asyncio.gather(*waiting)


async def test_conditions_see_everything_before_them_and_are_never_stored() -> None:
    store = GatedStore()
    held: dict[str, bytes] = {}
    slots: list[Slot] = []

    def apply(slot: Slot) -> None:
        slots.append(slot)
        for record in slot.batch.records:
            held[item_of(record)[1]] = digest_of(record)

    writer = log_writer(store, 1, 1)
    await writer.fence()
    commits = GroupCommit(
        writer,
        known=lambda _: None,
        on_slot=apply,
        clock=SystemClock(),
        in_place=lambda record: held.get(item_of(record)[1], b""),
    )
    task = asyncio.create_task(commits.run())

    def upsert(request_id: str, name: str, vector: bytes, expected: bytes | None = None) -> log_pb2.LogRecord:
        noun = common_pb2.Noun(id=name, vector=vector)
        return log_pb2.LogRecord(request_id=request_id, upsert_noun=noun, expected=expected)

    try:
        first, again = b"\1\0\0\0", b"\2\0\0\0"
        # Absent: written. Present: left out, without a PUT, and answered.
        assert await commits.commit([upsert("1", "a", first, b"")]) == 2
        puts = store.puts
        refused = upsert("2", "a", again, b"")
        assert await commits.commit([refused]) == 2
        assert store.puts == puts
        assert refused.expected == b""
        # What must be in place is: replaced.
        assert await commits.commit([upsert("3", "a", again, held["a"])]) == 3
        # Several of one id in one batch: each sees the one before it.
        store.gate.clear()
        store.entered.clear()
        blocker = asyncio.create_task(committed(commits, deletes("blocker")))
        await store.entered.wait()
        tasks = [
            asyncio.create_task(committed(commits, [upsert(f"b{number}", "b", first, b"")])) for number in range(4)
        ]
        tasks.append(asyncio.create_task(committed(commits, [upsert("c1", "c", first), upsert("c2", "c", again, b"")])))
        # Answered with the last of what was kept of it.
        tasks.append(asyncio.create_task(committed(commits, [upsert("c4", "e", first), upsert("c5", "e", first, b"")])))
        tasks.append(asyncio.create_task(committed(commits, deletes("d", "c"))))
        tasks.append(asyncio.create_task(committed(commits, [upsert("c3", "c", again, b"")])))
        await asyncio.sleep(0)
        store.gate.set()
        await asyncio.gather(blocker, *tasks)
        stored = [record for slot in slots for record in slot.batch.records]
        assert [record.request_id for record in stored if record.request_id] == [
            "1", "3", "blocker", "b0", "c1", "c4", "d", "c3",
        ]  # fmt: skip
        assert not any(record.HasField("expected") for record in stored)
        positions = [place for slot in slots for place in range(slot.first, slot.last + 1)]
        assert positions == list(range(2, 2 + len(stored)))
        # Of those of which nothing was kept, the last of the object; it names all of it.
        assert [await task for task in tasks] == [5, 9, 9, 9, 6, 7, 8, 9]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_log_that_knows_no_items_takes_no_conditions() -> None:
    async with opened(GatedStore()) as (commits, shard, _):
        with pytest.raises(InvalidRequestError, match="no conditions"):
            await commits.commit([log_pb2.LogRecord(request_id="r", delete_noun="a", expected=b"")])
        assert shard.slots == []


async def test_who_waits_for_another_callers_record_does_not_leave_with_it() -> None:
    store = GatedStore()
    async with opened(store) as (commits, shard, _):
        store.entered.clear()
        store.gate.clear()
        flying = [asyncio.create_task(committed(commits, deletes("a"))) for _ in range(3)]
        await store.entered.wait()
        queued = [asyncio.create_task(committed(commits, deletes("b"))) for _ in range(3)]
        both = asyncio.create_task(committed(commits, [*deletes("a"), *deletes("b"), *deletes("c")]))
        await asyncio.sleep(0)
        for task in (flying[0], flying[2], queued[0], queued[2]):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        again = asyncio.create_task(committed(commits, deletes("a")))
        await asyncio.sleep(0)
        store.gate.set()
        assert list(await asyncio.gather(flying[1], again, queued[1], both)) == [2, 2, 3, 4]
        assert [len(slot.batch.records) for slot in shard.slots] == [1, 2]


async def test_nobody_left_to_be_told_an_error_is_no_complaint() -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    store = GatedStore()
    async with opened(store) as (commits, _, _):
        await commits.pause()
        leaving = asyncio.create_task(committed(commits, deletes("a")))
        sharing = asyncio.create_task(committed(commits, [*deletes("b"), *deletes("a")]))
        drained = asyncio.create_task(commits.drain())
        await asyncio.sleep(0)
        leaving.cancel()
        sharing.cancel()
        await asyncio.gather(leaving, sharing, return_exceptions=True)
        staying = asyncio.create_task(committed(commits, deletes("b")))
        await asyncio.sleep(0)
        moved = UnavailableError("moved", reason="STALE_ROUTING")
        commits.close(moved)
        for task in (staying, drained):
            with pytest.raises(UnavailableError, match="moved"):
                await task
    del leaving, sharing, staying, drained, task, commits
    gc.collect()
    assert complaints == []


async def test_a_cancelled_drain_leaves_what_waits() -> None:
    store = GatedStore()
    async with opened(store) as (commits, _, _):
        store.entered.clear()
        store.gate.clear()
        tasks = [asyncio.create_task(committed(commits, deletes("a")))]
        await store.entered.wait()
        tasks.append(asyncio.create_task(committed(commits, deletes("b"))))
        await asyncio.sleep(0)
        draining = asyncio.create_task(commits.drain())
        await asyncio.sleep(0)
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        draining = asyncio.create_task(commits.drain())
        await asyncio.sleep(0)
        store.gate.set()
        assert await asyncio.gather(*tasks) == [2, 3]
        assert await draining == 3


async def test_what_is_stored_is_what_was_handed_in() -> None:
    store = GatedStore()
    async with opened(store) as (commits, shard, _):
        await commits.pause()
        (record,) = deletes("a")
        waiting = asyncio.create_task(committed(commits, [record]))
        await asyncio.sleep(0)
        record.delete_noun = "changed"
        commits.resume()
        await waiting
        (slot,) = shard.slots
        assert slot.batch.records[0].delete_noun == "a"
        assert [found.body async for found in read_log(store, 1, 0, from_position=2)] == [slot.body]
