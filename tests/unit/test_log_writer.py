"""The outcome table of ``LogWriter``, row by row, and reading what it wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.changelog.batch import Slot, decode_slot
from brainy.changelog.reading import read_log, slot_holding
from brainy.changelog.writing import MAX_FENCE_LOSSES, LogWriter
from brainy.clock import Clock, SystemClock
from brainy.errors import (
    BrainyError,
    CorruptDataError,
    FencedError,
    InvalidRequestError,
    OutcomeUnknownError,
    PermissionDeniedError,
    PreconditionError,
    UnavailableError,
)
from brainy.ids import Ids
from brainy.store.base import PutOutcome, PutState, StoredObject
from brainy.store.memory import MemoryStore

LANDED_UNKNOWN = "landed, unknown"
LANDED_LOST = "landed, lost"  # a client library that retried by itself
LANDED_RAISED = "landed, raised"
DROPPED = "dropped, unknown"
REFUSED = "refused"


class ScriptedStore(MemoryStore):
    """A memory store whose conditional PUTs go wrong as told, one entry a call."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[str] = []
        self.get_failures = 0
        self.sent: list[tuple[str, bytes]] = []
        self.dropped = asyncio.Event()

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        self.sent.append((key, body))
        act = self.script.pop(0) if self.script else ""
        if act == REFUSED:
            raise PermissionDeniedError("no")
        if act == DROPPED:
            self.dropped.set()
            return PutOutcome(state=PutState.UNKNOWN)
        outcome = await super().put_if_absent(key, body)
        if act == LANDED_UNKNOWN:
            return PutOutcome(state=PutState.UNKNOWN)
        if act == LANDED_LOST:
            return PutOutcome(state=PutState.LOST)
        if act == LANDED_RAISED:
            raise UnavailableError("reset")
        return outcome

    async def get(self, key: str) -> StoredObject | None:
        if self.get_failures:
            self.get_failures -= 1
            raise UnavailableError("away")
        return await super().get(key)


class SwiftClock(SystemClock):
    """Sleeps end at once."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def writer(
    store: MemoryStore, *, epoch: int = 1, next_position: int = 1, node: str = "n", clock: Clock | None = None
) -> LogWriter:
    return LogWriter(
        store,
        generation=1,
        shard=0,
        epoch=epoch,
        writer_node=node,
        incarnation=f"{node}-1",
        ids=Ids(),
        clock=clock or SwiftClock(),
        next_position=next_position,
    )


def deletes(*names: str) -> list[log_pb2.LogRecord]:
    return [log_pb2.LogRecord(request_id=name, delete_noun=name) for name in names]


async def log_of(store: MemoryStore, from_position: int = 1) -> list[Slot]:
    return [slot async for slot in read_log(store, 1, 0, from_position=from_position)]


def names(slots: Sequence[Slot]) -> list[str]:
    return [record.delete_noun for slot in slots for record in slot.batch.records if record.delete_noun]


async def test_fence_then_commits_are_dense() -> None:
    store = MemoryStore()
    owner = writer(store)
    (fence,) = await owner.fence()
    assert fence.batch.records[0].fence.owner == "n"
    first = await owner.commit(deletes("a", "b"))
    second = await owner.commit(deletes("c"), {0: 5})
    assert (first.first, first.last, second.first) == (2, 3, 4)
    assert owner.next_position == 5
    assert dict(second.batch.source_cursor) == {0: 5}
    slots = await log_of(store)
    assert [(s.first, s.last) for s in slots] == [(1, 1), (2, 3), (4, 4)]
    assert [s.body for s in slots[1:]] == [first.body, second.body]


async def test_a_cursor_alone_is_an_advance_record() -> None:
    store = MemoryStore()
    owner = writer(store)
    await owner.fence()
    slot = await owner.commit([], {2: 9})
    assert [record.WhichOneof("operation") for record in slot.batch.records] == ["advance"]
    with pytest.raises(InvalidRequestError):
        await owner.commit([])
    assert owner.closed is None


async def test_commit_before_fence_is_refused() -> None:
    with pytest.raises(PreconditionError):
        await writer(MemoryStore()).commit(deletes("a"))


@pytest.mark.parametrize("act", [LANDED_UNKNOWN, LANDED_LOST, LANDED_RAISED])
async def test_own_landed_put_is_won_by_reading_back(act: str) -> None:
    store = ScriptedStore()
    owner = writer(store)
    await owner.fence()
    store.script = [act]
    slot = await owner.commit(deletes("a"))
    assert slot.first == 2
    assert len(store.sent) == 2
    assert names(await log_of(store)) == ["a"]


async def test_absent_after_unknown_sends_the_same_bytes_until_definite() -> None:
    store = ScriptedStore()
    owner = writer(store)
    await owner.fence()
    store.sent.clear()
    store.script = [DROPPED, DROPPED, LANDED_UNKNOWN]
    store.get_failures = 2
    await owner.commit(deletes("a"))
    assert len({body for _, body in store.sent}) == 1
    assert len(store.sent) >= 3
    assert names(await log_of(store)) == ["a"]


async def test_every_put_has_a_fresh_nonce() -> None:
    store = ScriptedStore()
    owner = writer(store)
    await owner.fence()
    for _ in range(20):
        await owner.commit(deletes("same"))
    nonces = {decode_slot(body, key=key).batch.writer.nonce for key, body in store.sent}
    assert len(nonces) == 21


async def test_an_old_owner_is_fenced_for_good() -> None:
    store = MemoryStore()
    old = writer(store, epoch=1, node="old")
    await old.fence()
    await old.commit(deletes("a"))
    new = writer(store, epoch=2, node="new", next_position=3)
    await new.fence()
    for _ in range(2):
        with pytest.raises(FencedError) as caught:
            await old.commit(deletes("stale"))
        assert caught.value.fields["current_epoch"] == "2"
        assert caught.value.fields["current_owner"] == "new"
    assert isinstance(old.closed, FencedError)
    await new.commit(deletes("b"))
    assert names(await log_of(store)) == ["a", "b"]


async def test_fence_returns_the_slots_it_passed() -> None:
    store = MemoryStore()
    old = writer(store, epoch=1, node="old")
    await old.fence()
    new = writer(store, epoch=2, node="new", next_position=2)
    await old.commit(deletes("a", "b"))
    await old.commit(deletes("c"))
    passed = await new.fence()
    assert names(passed) == ["a", "b", "c"]
    assert [slot.first for slot in passed] == [2, 4, 5]
    assert passed[-1].batch.records[0].WhichOneof("operation") == "fence"


async def test_a_stale_owner_cannot_fence() -> None:
    store = MemoryStore()
    await writer(store, epoch=5, node="new").fence()
    with pytest.raises(FencedError):
        await writer(store, epoch=4).fence()
    # Not even one whose replay began above the newer fence and so never saw its epoch.
    with pytest.raises(FencedError):
        await writer(store, epoch=4, next_position=2).fence()
    assert len(await log_of(store)) == 1


async def test_the_same_epoch_opened_twice_leaves_one_writer() -> None:
    store = MemoryStore()
    first = writer(store, epoch=3)
    await first.fence()
    second = writer(store, epoch=3, next_position=2)
    await second.fence()
    with pytest.raises(FencedError):
        await first.commit(deletes("stale"))
    await second.commit(deletes("a"))
    assert names(await log_of(store)) == ["a"]


async def test_fencing_is_bounded() -> None:
    store = MemoryStore()
    old = writer(store, epoch=1, node="old")
    await old.fence()
    for number in range(MAX_FENCE_LOSSES + 1):
        await old.commit(deletes(str(number)))
    new = writer(store, epoch=2, next_position=2)
    with pytest.raises(UnavailableError):
        await new.fence()
    with pytest.raises(UnavailableError):
        await new.commit(deletes("x"))


async def test_a_batch_below_the_epoch_behind_the_fence_stops_the_writer() -> None:
    store = MemoryStore()
    owner = writer(store, epoch=4)
    await owner.fence()
    intruder = log_pb2.LogBatch(
        format_version=1,
        generation=1,
        epoch=3,
        first_position=2,
        writer=log_pb2.Writer(node_id="x", nonce=b"x" * 16),
        records=deletes("x"),
    )
    from brainy.changelog.batch import encode_batch

    await store.put(layout.log_slot(1, 0, 2), encode_batch(intruder))
    with pytest.raises(CorruptDataError):
        await owner.commit(deletes("a"))
    with pytest.raises(CorruptDataError):
        await log_of(store)


async def test_a_wrong_end_of_log_is_refused() -> None:
    store = MemoryStore()
    owner = writer(store)
    await owner.fence()
    await owner.commit(deletes("a", "b"))
    for wrong in (3, 6):
        with pytest.raises(CorruptDataError):
            await writer(store, epoch=2, next_position=wrong).fence()


async def test_a_definite_refusal_leaves_the_writer_usable() -> None:
    store = ScriptedStore()
    owner = writer(store)
    await owner.fence()
    store.script = [REFUSED]
    with pytest.raises(PermissionDeniedError):
        await owner.commit(deletes("a"))
    await owner.commit(deletes("b"))
    store.script = [DROPPED, REFUSED]
    with pytest.raises(OutcomeUnknownError):
        await owner.commit(deletes("c"))
    with pytest.raises(OutcomeUnknownError):
        await owner.commit(deletes("d"))


async def test_cancellation_closes_the_writer() -> None:
    store = ScriptedStore()
    owner = writer(store, clock=SystemClock())
    await owner.fence()
    store.script = [DROPPED] * 1000
    task = asyncio.create_task(owner.commit(deletes("a")))
    await store.dropped.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(OutcomeUnknownError):
        await owner.commit(deletes("b"))


async def test_reading_from_any_position() -> None:
    store = MemoryStore()
    owner = writer(store)
    await owner.fence()
    for start in range(0, 2600, 2):
        await owner.commit(deletes(str(start), str(start + 1)))
    assert len(names(await log_of(store))) == 2600
    for position in (2, 4, 5, 1000, 2001, 2599):
        slots = await log_of(store, position)
        assert slots[0].first <= position <= slots[0].last
        assert slots[-1].last == 2601
        found = await slot_holding(store, 1, 0, position)
        assert found is not None
        assert found.first <= position <= found.last
    assert await log_of(store, 2602) == []
    assert await slot_holding(store, 1, 0, 2602) is None
    assert await slot_holding(store, 1, 0, 0) is None


async def test_holes_and_damage_are_errors() -> None:
    store = MemoryStore()
    owner = writer(store)
    await owner.fence()
    for name in "abcd":
        await owner.commit(deletes(name))
    await store.delete(layout.log_slot(1, 0, 3))
    with pytest.raises(CorruptDataError):
        await log_of(store)
    with pytest.raises(CorruptDataError):
        await log_of(store, 3)
    assert names(await log_of(store, 4)) == ["c", "d"]
    found = await store.get(layout.log_slot(1, 0, 4))
    assert found is not None
    await store.put(found.key, found.body[:-1])
    with pytest.raises(BrainyError):
        await log_of(store, 4)
