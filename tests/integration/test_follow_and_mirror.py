"""A bucket that is followed and mirrored: whichever word is kept, the tree and the cluster end with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from both_ways import BothWays, said

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.follow import FollowChoice
from brainy.bucket.partition import shard_of
from brainy.ids import Ids
from brainy.legacy.seen import SeenBook
from brainy_node.following.books import BookShelf


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[BothWays]:
    made = BothWays(tmp_path)
    await made.put("a", 1)
    await made.put("b", 1)
    await made.open()
    yield made
    await made.bucket.close()


async def test_a_word_kept_in_the_same_second_gets_back_into_the_tree(both: BothWays) -> None:
    async with both.mirrored():
        await both.commit(said("a", 3))
        await both.written_back()
        await both.put("a", 2)
        await both.bucket.turn()
        await both.written_back()
    assert (both.served("a"), await both.stored("a")) == (3, 3)


async def test_a_deletion_kept_in_the_same_second_is_repeated_in_the_tree(both: BothWays) -> None:
    async with both.mirrored():
        await both.commit(log_pb2.LogRecord(request_id="c/0", delete_noun="a"))
        await both.written_back()
        assert await both.stored("a") is None
        await both.put("a", 2)
        await both.store.put("metadata/a.json", b'{"n": 2}')
        assert await both.stored("a") == 2
        await both.bucket.turn()
        await both.written_back()
    assert (both.served("a"), await both.stored("a")) == (None, None)


async def test_what_brainy_deletes_and_we_keep_is_written_again(both: BothWays) -> None:
    async with both.mirrored():
        await both.commit(said("a", 3))
        await both.written_back()
        await both.store.delete("nouns/a.json")
        await both.bucket.turn()
        await both.written_back()
    assert (both.served("a"), await both.stored("a")) == (3, 3)


async def test_a_restated_word_is_no_younger(both: BothWays) -> None:
    async with both.mirrored():
        await both.commit(said("a", 3))
        await both.written_back()
        await both.put("a", 2)
        await both.clock.advance(10)
        await both.bucket.turn()
        await both.written_back()
        await both.put("a", 5)  # in the second of the restatement, long after our client's word
        await both.bucket.turn()
        await both.written_back()
    assert (both.served("a"), await both.stored("a")) == (5, 5)


async def test_what_the_mirror_is_still_to_write_is_not_said_twice(both: BothWays) -> None:
    await both.put("a", 2)
    await both.clock.advance(10)
    await both.commit(said("a", 3), said("mine", 4))
    records = await both.bucket.log_records()
    await both.bucket.turn()
    assert (both.served("a"), both.served("mine")) == (3, 4)
    assert await both.bucket.log_records() == records
    async with both.mirrored():
        await both.written_back()
    assert (await both.stored("a"), await both.stored("mine")) == (3, 4)


async def test_nothing_is_restated_where_nothing_is_mirrored(both: BothWays) -> None:
    both.bucket.follower.choice = FollowChoice(follow=True)
    await both.commit(said("a", 3))
    await both.put("a", 2)
    records = await both.bucket.log_records()
    await both.bucket.turn()
    assert both.served("a") == 3
    assert await both.bucket.log_records() == records


# --- another shard count ----------------------------------------------------------------------------------------


async def test_a_copied_word_is_as_old_as_it_was(both: BothWays) -> None:
    await both.commit(said("a", 3))
    await both.bucket.turn()  # the book has it
    await both.clock.advance(10)
    await both.put("a", 2)
    await both.clock.advance(10)
    await both.resharded(said("a", 3))
    await both.bucket.turn()
    assert both.served("a") == 2


async def test_a_word_after_the_cut_over_is_the_last_one(both: BothWays) -> None:
    await both.commit(said("a", 3))  # after the book's position: the source's log is read as well
    await both.clock.advance(10)
    await both.put("a", 2)
    await both.clock.advance(10)
    await both.resharded(said("a", 3))
    await both.commit(said("a", 4), at=shard_of("a", 3))
    await both.bucket.turn()
    assert both.served("a") == 4


async def test_an_owner_whose_book_is_older_than_the_cut_over_asks_the_source(both: BothWays) -> None:
    await both.commit(said("a", 3))
    spoken = int(both.clock.wall())
    await both.clock.advance(10)
    owned = await both.resharded(said("a", 3))
    prefixes = ["nouns/"]

    async def read_spec(generation: int) -> object:
        return both.bucket.spec if generation else both.bucket.earlier

    shelf = BookShelf(both.store, prefixes, read_spec, both.clock, Ids())  # type: ignore[arg-type]
    assert await shelf.save(owned, SeenBook(prefixes))
    words = (await shelf.begin(owned)).words
    await words.look_up(both.store, ("noun", "a"))
    assert words.known_time(("noun", "a")) == spoken
    assert words.earliest_time(("noun", "a")) == spoken
    assert words.position == owned.shard.applied
