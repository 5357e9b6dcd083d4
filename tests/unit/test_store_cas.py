"""The outcome table of a compare-and-swap register."""

from __future__ import annotations

import asyncio

import pytest

from brainy.errors import OutcomeUnknownError
from brainy.ids import Ids
from brainy.store.cas import CasRegister
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore

KEY = "cluster/routing.json"


class Cell:
    """A register of texts over a faulty store, with a clock that runs by itself."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.memory = MemoryStore(self.clock)
        self.store = FaultyStore(self.memory, clock=self.clock)
        self.ids = Ids()
        self.register: CasRegister[str] = CasRegister(
            self.store,
            KEY,
            encode=lambda value: value.encode() + b" " + self.ids.nonce(),
            decode=lambda body: body.split(b" ", 1)[0].decode(),
            clock=self.clock,
            ids=self.ids,
        )

    async def exchange(self, value: str, expected: str | None) -> str | None:
        task = asyncio.create_task(self.register.exchange(value, expected))
        while not task.done():
            await self.clock.advance(1.0)
        return await task

    async def value(self) -> str | None:
        loaded = await self.register.load()
        return None if loaded is None else loaded[0]


async def test_create_load_replace() -> None:
    cell = Cell()
    assert await cell.register.load() is None
    assert await cell.register.swap("one", None)
    loaded = await cell.register.load()
    assert loaded is not None
    value, etag = loaded
    assert value == "one"
    assert not await cell.register.swap("other", None)
    new_etag = await cell.register.exchange("two", etag)
    assert new_etag not in (None, etag)
    assert await cell.register.load() == ("two", new_etag)
    assert not await cell.register.swap("three", etag)
    assert await cell.value() == "two"


@pytest.mark.parametrize("fault", [Fault.LANDED_UNKNOWN, Fault.LANDED_LOST])
@pytest.mark.parametrize("create", [True, False])
async def test_a_write_that_landed_is_won(fault: Fault, create: bool) -> None:
    cell = Cell()
    expected = None if create else await cell.exchange("before", None)
    cell.store.journal.calls.clear()
    cell.store.plan(kind="put*", fault=fault)
    etag = await cell.exchange("mine", expected)
    assert await cell.register.load() == ("mine", etag)
    assert len(cell.store.journal.keys("put_if_absent" if create else "put_if_match")) == 1


@pytest.mark.parametrize("create", [True, False])
async def test_a_write_that_did_not_land_is_repeated(create: bool) -> None:
    cell = Cell()
    expected = None if create else await cell.exchange("before", None)
    cell.store.plan(kind="put*", fault=Fault.LOST_UNKNOWN, times=3)
    etag = await cell.exchange("mine", expected)
    assert etag is not None
    assert await cell.register.load() == ("mine", etag)


async def test_unknown_and_another_party_was_faster() -> None:
    cell = Cell()
    etag = await cell.exchange("before", None)
    assert etag is not None
    cell.store.plan(
        kind="put_if_match",
        fault=Fault.LOST_UNKNOWN,
        before=lambda: cell.memory._objects.pop(KEY),
    )
    other = FaultyStore(cell.memory)
    cell.store.plan(kind="get", before=lambda: asyncio.ensure_future(other.put_if_absent(KEY, b"other x")))
    assert await cell.exchange("mine", etag) is None


async def test_the_same_value_of_another_party_is_not_ours() -> None:
    cell = Cell()
    assert await cell.exchange("same", None) is not None
    assert await cell.exchange("same", None) is None


async def test_no_definite_answer_is_an_error() -> None:
    cell = Cell()
    cell.store.plan(kind="put*", fault=Fault.LOST_UNKNOWN, times=-1)
    with pytest.raises(OutcomeUnknownError) as caught:
        await cell.exchange("mine", None)
    assert caught.value.fields["key"] == KEY
    assert await cell.value() is None


async def test_cancelled_between_attempts_leaves_no_task() -> None:
    cell = Cell()
    cell.store.plan(kind="put*", fault=Fault.LOST_UNKNOWN, times=-1)
    task = asyncio.create_task(cell.register.exchange("mine", None))
    await cell.clock.wait_for_sleepers()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cell.clock.sleepers == 0
    assert await cell.value() is None
