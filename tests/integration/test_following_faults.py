"""A followed bucket whose store fails or moves under a pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from live_bucket import FaultyBucket

from brainy.bucket.partition import key_hash
from brainy.errors import UnavailableError
from brainy.testing.faulty import Fault


@pytest.fixture
async def faulty(tmp_path: Path) -> AsyncIterator[FaultyBucket]:
    made = FaultyBucket(tmp_path)
    await made.put("a", 1)
    await made.put("b", 1)
    made.bases = await made.bucket.bases()
    await made.bucket.open(made.bases)
    yield made
    await made.bucket.close()


@pytest.mark.parametrize("transferred", [False, True])
@pytest.mark.parametrize("kind", ["list", "get_many", "get"])
async def test_a_pass_that_fails_is_made_good_by_the_next(faulty: FaultyBucket, kind: str, transferred: bool) -> None:
    if transferred:
        await faulty.bucket.turn()
    await faulty.clock.advance(10)
    await faulty.put("a", 2)
    await faulty.store.delete("nouns/b.json")
    await faulty.put("c", 3)
    faulty.faulty.plan(kind=kind, fault=Fault.UNAVAILABLE, times=-1)
    with suppress(UnavailableError):
        await faulty.bucket.turn()
    faulty.faulty.heal()
    await faulty.bucket.turn()
    assert [faulty.value(item_id) for item_id in "abc"] == [2, None, 3]


@pytest.mark.parametrize("fault", [Fault.LANDED_UNKNOWN, Fault.LOST_UNKNOWN, Fault.LANDED_LOST])
async def test_a_commit_whose_answer_is_lost_is_one_record(faulty: FaultyBucket, fault: Fault) -> None:
    await faulty.bucket.turn()
    records = await faulty.bucket.log_records()
    await faulty.clock.advance(10)
    await faulty.put("a", 2)
    faulty.faulty.plan(kind="put_if_absent", fault=fault)
    await faulty.bucket.turn()
    await faulty.bucket.turn()
    assert faulty.value("a") == 2
    assert await faulty.bucket.log_records() == records + 1


async def test_what_changes_between_the_listing_and_the_reading_is_not_missed(faulty: FaultyBucket) -> None:
    await faulty.bucket.turn()
    await faulty.clock.advance(10)
    await faulty.put("a", 2)
    await faulty.put("b", 2)
    gate = asyncio.Event()
    faulty.faulty.plan(kind="get_many", gate=gate)
    passing = asyncio.create_task(faulty.bucket.turn())
    while not any("nouns/a.json" in key for key in faulty.faulty.journal.keys("get_many")):
        await asyncio.sleep(0.01)
    await faulty.clock.advance(10)
    await faulty.put("a", 3)
    await faulty.store.delete("nouns/b.json")
    await faulty.put("c", 1)
    gate.set()
    await passing
    assert [faulty.value(item_id) for item_id in "ab"] == [3, None]
    await faulty.bucket.turn()
    assert [faulty.value(item_id) for item_id in "abc"] == [3, None, 1]


async def test_a_listing_older_than_the_book_undoes_nothing(faulty: FaultyBucket) -> None:
    """A hint was taken while a pass was listing: what the pass has listed is not the latest any more."""
    await faulty.bucket.turn()
    await faulty.clock.advance(10)
    await faulty.put("a", 2)
    await faulty.bucket.turn()
    followed = faulty.bucket.follower.followed(0, 0)
    assert followed is not None
    assert followed.book is not None
    comparison = followed.book.compare()  # begun before, ended after the next change was taken over
    await faulty.clock.advance(10)
    await faulty.store.delete("nouns/a.json")
    await faulty.bucket.turn()
    await faulty.clock.advance(10)
    await faulty.put("a", 4)
    await faulty.bucket.turn()
    assert faulty.value("a") == 4
    assert key_hash("a") in comparison.missing("nouns/").tolist()
    assert comparison.may_hold("nouns/", key_hash("a"))  # so it is asked for, and found unchanged
