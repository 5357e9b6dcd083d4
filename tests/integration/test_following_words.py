"""Who has the last word in a followed bucket: Brainy, our clients, and what a crash repeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from followed_bucket import FollowedBucket, spec_of, tree_digest
from live_bucket import LiveBucket, said, stored

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.follow import FollowChoice
from brainy.errors import FencedError


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveBucket]:
    made = LiveBucket(tmp_path)
    await made.put("a", 1)
    await made.put("b", 1)
    made.bases = await made.bucket.bases()
    await made.bucket.open(made.bases)
    yield made
    await made.bucket.close()


async def test_the_later_word_counts_whoever_spoke_it(live: LiveBucket) -> None:
    await live.bucket.turn()
    await live.clock.advance(10)
    await live.put("a", 2)  # Brainy first, our client later
    await live.clock.advance(10)
    await live.commit(said("a", 3), said("b", 3))
    await live.clock.advance(10)
    await live.put("b", 4)  # our client first, Brainy later
    await live.bucket.turn()
    assert (live.value("a"), live.value("b")) == (3, 4)
    assert live.conflicts == 1
    await live.bucket.turn()
    assert (live.value("a"), live.value("b")) == (3, 4)
    assert live.conflicts == 1


async def test_in_the_same_second_the_acknowledged_write_stays(live: LiveBucket) -> None:
    await live.bucket.turn()
    await live.commit(said("a", 3))
    await live.put("a", 2)
    await live.bucket.turn()
    assert live.value("a") == 3


async def test_words_from_before_the_last_pass_need_no_comparison(live: LiveBucket) -> None:
    await live.commit(said("a", 3))
    await live.bucket.turn()
    await live.bucket.turn()
    await live.put("a", 2)  # seen for the first time after a pass that began after the commit
    await live.bucket.turn()
    assert live.value("a") == 2


async def test_without_a_book_our_own_items_stay_and_the_tree_fills_in_the_rest(live: LiveBucket) -> None:
    """First enabling: what only our clients wrote stays, what Brainy deleted meanwhile goes, what it added comes."""
    await live.clock.advance(10)
    await live.commit(said("mine", 7), said("a", 3))
    await live.store.delete("nouns/b.json")
    await live.clock.advance(10)
    await live.put("new", 5)
    await live.bucket.turn()
    assert [live.value(item_id) for item_id in ("mine", "a", "b", "new")] == [7, 3, None, 5]
    assert live.conflicts == 1  # "a": the tree still says 1, said before our client


async def test_a_deletion_by_our_client_is_not_undone_by_an_older_object(live: LiveBucket) -> None:
    await live.clock.advance(10)
    await live.commit(log_pb2.LogRecord(request_id="client-delete/0", delete_noun="a"))
    await live.bucket.turn()
    assert live.value("a") is None
    await live.clock.advance(10)
    await live.put("a", 2)
    await live.bucket.turn()
    assert live.value("a") == 2


async def test_a_foreign_deletion_does_not_take_what_our_client_wrote_since_the_last_pass(live: LiveBucket) -> None:
    await live.bucket.turn()
    await live.store.delete("nouns/a.json")
    await live.commit(said("a", 3))
    await live.store.delete("nouns/b.json")
    await live.bucket.turn()
    assert (live.value("a"), live.value("b")) == (3, None)


async def test_an_item_our_client_is_just_writing_is_left_to_the_next_pass(live: LiveBucket) -> None:
    await live.bucket.turn()
    await live.clock.advance(10)
    await live.put("a", 2)
    commits = live.bucket.owned[0].commits
    await commits.pause()
    waiting = asyncio.create_task(live.commit(said("a", 3)))
    await asyncio.sleep(0)
    await live.bucket.turn()
    figures = live.bucket.follower.figures(0, 0)
    assert figures is not None
    assert figures.open_items == 1
    commits.resume()
    await waiting
    await live.bucket.turn()
    assert live.value("a") == 3
    assert figures.open_items == 0


async def test_own_writes_into_the_tree_are_not_taken_for_foreign_ones(live: LiveBucket) -> None:
    watch = live.bucket.follower.watch(0, 0)
    key, body = stored("a", 99)  # as lossy as a dialect may be
    live.bucket.follower.choice = FollowChoice(follow=True)
    assert watch.watches
    assert not watch.unchanged(key, await live.store.get(key))  # nobody has compared it yet
    await live.bucket.turn()
    assert watch.unchanged(key, await live.store.get(key))
    assert watch.unchanged("nouns/nothing.json", None)
    await live.commit(said("a", 3))
    watch.hold(key)
    etag = await live.store.put(key, body)
    await live.bucket.turn()
    assert live.value("a") == 3
    watch.wrote(key, etag)
    await live.clock.advance(60)
    await live.bucket.turn()
    await live.bucket.turn()
    assert live.value("a") == 3
    assert live.conflicts == 0
    await live.put("a", 5)
    assert not watch.unchanged(key, await live.store.get(key))


async def test_an_unreadable_object_takes_nothing_away(live: LiveBucket) -> None:
    await live.bucket.turn()
    await live.store.put("nouns/a.json", b"<html>gateway timeout</html>")
    await live.bucket.turn()
    assert live.value("a") == 1
    await live.put("a", 2)
    await live.bucket.turn()
    assert live.value("a") == 2


# --- owners come and go -----------------------------------------------------------------------------------------


async def test_a_new_owner_starts_from_the_book_and_reads_only_what_changed(live: LiveBucket) -> None:
    for number in range(200):
        await live.put(f"n{number}", 1)
    await live.bucket.turn()
    await live.bucket.close()
    await live.clock.advance(10)
    await live.put("n7", 2)
    await live.store.delete("nouns/n8.json")
    await live.bucket.take_over(live.bases)
    before = live.store.calls["get"]
    await live.bucket.turn()
    assert (live.value("n7"), live.value("n8"), live.value("n9")) == (2, None, 1)
    assert live.store.calls["get"] - before < 20


@pytest.mark.parametrize("book", ["kept", "lost", "damaged"])
async def test_a_crash_between_commit_and_book_only_repeats_work(live: LiveBucket, book: str) -> None:
    await live.bucket.turn()
    await live.bucket.follower.let_go(save=True)
    await live.clock.advance(10)
    await live.put("a", 2)
    await live.commit(said("mine", 7))
    await live.bucket.turn()
    await live.bucket.close(save=False)
    key = layout.seen_book(0, 0)
    if book == "lost":
        await live.store.delete(key)
    elif book == "damaged":
        found = await live.store.get(key)
        assert found is not None
        await live.store.put(key, found.body[:-1] + bytes([found.body[-1] ^ 1]))
    await live.bucket.take_over(live.bases)
    records = await live.bucket.log_records()
    await live.bucket.turn()
    assert await live.bucket.log_records() == records
    assert (live.value("a"), live.value("b"), live.value("mine")) == (2, 1, 7)
    await live.put("b", 5)
    await live.clock.advance(10)
    await live.bucket.turn()
    assert live.value("b") == 5


async def test_a_stale_owner_cannot_apply_anything(live: LiveBucket) -> None:
    await live.bucket.turn()
    stale = live.bucket.owned
    live.bucket.owned = []
    await live.bucket.open(live.bases)
    fresh, live.bucket.owned = live.bucket.owned, stale
    await live.put("a", 2)
    with pytest.raises(FencedError):
        await live.bucket.turn()
    assert stale[0].shard.get_nouns(["a"])[0].vector != np.full(8, 2, "<f4").tobytes()
    await live.bucket.close(save=False)
    live.bucket.owned = fresh
    await live.bucket.turn()
    assert live.value("a") == 2


async def test_the_next_generation_starts_from_the_books_of_the_one_before(live: LiveBucket) -> None:
    for number in range(100):
        await live.put(f"n{number}", 1)
    await live.bucket.turn()
    await live.bucket.close()
    await live.clock.advance(10)
    await live.put("n3", 2)
    following = FollowedBucket(live.store, spec_of(3, generation=1, source="0"), live.bucket.directory / "next")
    following.earlier = live.bucket.spec
    await following.open(await following.bases(live.bases.values()))
    try:
        before = live.store.calls["get"]
        await following.turn()
        found = [noun for owned in following.owned for noun in owned.shard.get_nouns(["n3"])]
        assert [float(np.frombuffer(noun.vector, "<f4")[0]) for noun in found] == [2]
        assert live.store.calls["get"] - before < 45  # of three shards, the records of mirrors included
    finally:
        await following.close()


async def test_what_came_and_went_around_the_end_of_an_owner_is_gone(live: LiveBucket) -> None:
    """Neither the saved book nor the tree knows of it; what is served does."""
    await live.bucket.turn()
    await live.put("c", 2)
    await live.bucket.turn()
    assert live.value("c") == 2
    await live.bucket.close(save=False)
    await live.store.delete("nouns/c.json")
    await live.bucket.take_over(live.bases)
    await live.bucket.turn()
    assert live.value("c") is None


async def test_a_delete_entry_of_before_takes_nothing_from_our_clients(live: LiveBucket) -> None:
    """A new owner reads the last hours of Brainy's change log anew; the objects tell that nothing has happened."""
    await live.bucket.turn()
    for item_id in ("a", "b"):
        await live.store.delete(f"nouns/{item_id}.json")
        entry = {"timestamp": int(1000 * live.clock.wall()), "operation": "delete", "entityType": "noun"}
        name = f"change-log/{entry['timestamp']}-{item_id}.json"
        await live.store.put(name, orjson.dumps(entry | {"entityId": item_id, "instanceId": 7}))
    await live.put("b", 2)  # Brainy has it again
    await live.bucket.turn()
    assert (live.value("a"), live.value("b")) == (None, 2)
    await live.clock.advance(10)
    await live.commit(said("a", 3), said("b", 3))
    for _ in range(2):
        await live.bucket.turn()
    await live.bucket.close()
    await live.bucket.take_over(live.bases)
    await live.bucket.turn()
    assert (live.value("a"), live.value("b")) == (3, 3)


async def test_hints_are_seen_at_once_and_lies_do_no_harm(live: LiveBucket) -> None:
    await live.bucket.turn()
    await live.bucket.follower.take_hints()
    await live.clock.advance(10)
    await live.put("a", 2)
    await live.put("b", 2)
    entries = [
        {"operation": "add", "entityType": "noun", "entityId": "a"},
        {"operation": "delete", "entityType": "noun", "entityId": "b"},  # it is still there
        {"operation": "add", "entityType": "noun", "entityId": "never"},
    ]
    now = int(1000 * live.clock.wall())
    for number, entry in enumerate(entries):
        await live.store.put(f"change-log/{now:013d}-{number}.json", orjson.dumps({"timestamp": now, **entry}))
    await live.store.put(f"change-log/{now:013d}-x.json", b"nonsense")
    ahead = now + 3_600_000
    await live.store.put(f"change-log/{ahead:013d}-y.json", orjson.dumps({"timestamp": ahead, **entries[0]}))
    await live.bucket.follower.take_hints()
    assert (live.value("a"), live.value("b"), live.value("never")) == (2, 2, None)
    before = dict(live.store.calls)
    await live.bucket.follower.take_hints()
    spent = {kind: count - before[kind] for kind, count in live.store.calls.items() if count != before[kind]}
    assert spent == {"list": 2}  # the present, and what is stamped ahead of it


async def test_a_delete_entry_that_comes_late_buries_a_zombie(live: LiveBucket) -> None:
    """A buffer flushed after a delete stored the noun again; the log, an hour behind, is all that tells."""
    body = orjson.dumps({"id": "z", "vector": [1.0] * 8, "connections": {}})
    await live.store.put("entities/nouns/vectors/z.json", body)
    await live.store.put("entities/nouns/metadata/z.json", b"null")
    await live.bucket.turn()
    assert live.value("z") == 1
    stamp = int(1000 * live.clock.wall()) - 3_600_000
    entry = {"timestamp": stamp, "operation": "delete", "entityType": "noun", "entityId": "z"}
    await live.store.put(f"change-log/{stamp:013d}-a.json", orjson.dumps(entry))
    await live.bucket.turn()
    assert live.value("z") is None
    expected, _, _ = await tree_digest(live.store)
    assert live.bucket.digest().differing(expected) == []
