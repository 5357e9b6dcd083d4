"""What our mirror wrote before its owner ended, and the next owner has never seen: no word of Brainy's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from both_ways import BothWays, said

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.items import Noun, Verb, noun_to_proto, verb_to_proto
from brainy.bucket.partition import shard_of
from brainy.changelog.reading import read_log
from brainy.legacy.dialect.dialects import SPLIT
from brainy.legacy.dialect.entries import Place
from brainy.legacy.dialect.rendering import (
    Bounds,
    Rendered,
    render_noun,
    render_noun_deletion,
    render_verb,
    render_verb_deletion,
)
from brainy_node.runtime.shard_mirror import SourceLog

PLACE = Place(shard=0, position=1, milliseconds=1)
BOUNDS = Bounds(dimensions=8)
DELETED = log_pb2.LogRecord(request_id="c-deleted/0", delete_noun="a")


def noun(number: float, metadata: dict[str, object] | None = None) -> Noun:
    body = None if metadata is None else orjson.dumps(metadata)
    return Noun(id="a", vector=np.full(8, number, "<f4").tobytes(), metadata=body)


def verb(number: float, kind: str) -> Verb:
    vector = np.full(8, number, "<f4").tobytes()
    return Verb(id="v", source_id="a", target_id="b", type=kind, vector=vector, metadata=orjson.dumps({"n": number}))


def upsert(item: Noun | Verb) -> log_pb2.LogRecord:
    if isinstance(item, Noun):
        return log_pb2.LogRecord(request_id=f"c-{item.digest().hex()}/0", upsert_noun=noun_to_proto(item))
    return log_pb2.LogRecord(request_id=f"c-{item.digest().hex()}/0", upsert_verb=verb_to_proto(item))


def rendered(item: Noun | Verb) -> Rendered:
    if isinstance(item, Noun):
        return render_noun(SPLIT, item, PLACE, BOUNDS)
    return render_verb(SPLIT, item, PLACE, BOUNDS)


GONE = render_noun_deletion(SPLIT, "a", PLACE, BOUNDS)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[BothWays]:
    made = BothWays(tmp_path)
    await made.put("a", 1)
    await made.put("b", 1)
    await made.open()
    yield made
    await made.bucket.close()


async def end_equal(both: BothWays, number: float | None) -> None:
    """The pass keeps our word, and then the mirror brings it into the tree."""
    await both.bucket.turn()
    assert both.served("a") == number
    async with both.mirrored():
        await both.written_back()
    await both.bucket.turn()
    assert (both.served("a"), await both.stored("a")) == (number, number)


async def test_an_older_state_of_ours_that_landed_before_a_crash_is_no_foreign_word(both: BothWays) -> None:
    await both.commit(said("a", 3))
    await both.commit(said("a", 4))
    await both.clock.advance(10)
    await both.put("a", 3)  # the mirror, which lags; it dies before the book is saved
    await both.die()
    await end_equal(both, 4)


@pytest.mark.parametrize("landed", [3, 4])
async def test_of_several_older_states_any_may_have_landed(both: BothWays, landed: float) -> None:
    for number in (3, 4, 5):
        await both.commit(said("a", number))
    await both.clock.advance(10)
    await both.put("a", landed)
    await both.die()
    await end_equal(both, 5)


async def test_an_older_state_that_landed_after_the_book_was_saved(both: BothWays) -> None:
    """The book's position is past both records: nothing says when our client spoke, but that the mirror was behind."""
    await both.commit(said("a", 3), said("a", 4))
    await both.bucket.turn()
    await both.clock.advance(10)
    await both.bucket.close()
    await both.put("a", 3)  # was under way
    await both.bucket.take_over(both.bases)
    both.choose()
    await end_equal(both, 4)


async def test_a_deletion_of_ours_that_landed_late_does_not_take_what_came_after_it(both: BothWays) -> None:
    await both.commit(DELETED)
    await both.commit(said("a", 4))
    await both.clock.advance(10)
    await both.written(GONE)
    await both.die()
    await end_equal(both, 4)


async def test_a_state_that_landed_late_does_not_bring_back_what_was_deleted_after_it(both: BothWays) -> None:
    await both.commit(said("a", 3))
    await both.commit(DELETED)
    await both.clock.advance(10)
    await both.put("a", 3)
    await both.die()
    await end_equal(both, None)


async def test_two_owners_die_one_after_the_other(both: BothWays) -> None:
    """What the second one has not settled it must not take for known either."""
    await both.commit(said("a", 3))
    await both.commit(said("a", 4))
    await both.clock.advance(10)
    await both.put("a", 3)
    await both.die()
    both.bucket.owned[0].may_commit = False
    await both.bucket.turn()
    await both.bucket.close()  # saved, with nothing settled
    await both.bucket.take_over(both.bases)
    both.choose()
    await end_equal(both, 4)


# --- one of an item's two objects -------------------------------------------------------------------------------


async def test_half_of_a_noun_is_no_word(both: BothWays) -> None:
    state = noun(3, {"n": 3})
    await both.store.put("metadata/a.json", b'{"n": 1}')
    await both.bucket.turn()
    await both.bucket.close()
    await both.bucket.take_over(both.bases)
    both.choose()
    await both.bucket.turn()
    await both.commit(upsert(state))
    await both.clock.advance(10)
    await both.written(rendered(state), objects=1)  # dies between vector and metadata
    await both.die()
    await both.bucket.turn()
    assert both.bucket.owned[0].shard.get_nouns(["a"]) == [state]
    async with both.mirrored():
        await both.written_back()
    stored = await both.store.get("metadata/a.json")
    assert stored is not None
    assert orjson.loads(stored.body) == {"n": 3}


@pytest.mark.parametrize("objects", [1, 2])
async def test_half_of_an_older_verb_is_no_word(both: BothWays, objects: int) -> None:
    first, last = verb(3, "knows"), verb(4, "likes")
    await both.commit(upsert(first))
    await both.commit(upsert(last))
    await both.clock.advance(10)
    await both.written(rendered(first), objects=objects)
    await both.die()
    await both.bucket.turn()
    assert both.bucket.owned[0].shard.get_verbs(["v"]) == [last]


async def test_half_of_a_changed_verb_is_no_word(both: BothWays) -> None:
    """The relation is written first; beside the older vector it shows the copy of its own."""
    before, after = verb(1, "knows"), verb(3, "likes")
    await both.written(rendered(before))
    await both.bucket.turn()
    await both.bucket.close()
    await both.bucket.take_over(both.bases)
    both.choose()
    await both.bucket.turn()
    await both.commit(upsert(after))
    await both.clock.advance(10)
    await both.written(rendered(after), objects=1)
    await both.die()
    await both.bucket.turn()
    assert both.bucket.owned[0].shard.get_verbs(["v"]) == [after]


async def test_a_late_deletion_of_a_verb_does_not_take_the_next_one(both: BothWays) -> None:
    state = verb(3, "knows")
    await both.commit(log_pb2.LogRecord(request_id="c/0", delete_verb="v"), upsert(state))
    await both.clock.advance(10)
    await both.written(rendered(state))
    await both.written(render_verb_deletion(SPLIT, "v", PLACE, BOUNDS))
    await both.die()
    await both.bucket.turn()
    assert both.bucket.owned[0].shard.get_verbs(["v"]) == [state]


# --- Brainy's word ----------------------------------------------------------------------------------------------


async def test_what_brainy_wrote_meanwhile_is_heard(both: BothWays) -> None:
    await both.commit(said("a", 3))
    await both.commit(said("a", 4))
    await both.clock.advance(10)
    await both.put("a", 2)
    await both.die()
    await end_equal(both, 2)


async def test_metadata_of_brainys_beside_a_vector_of_ours_is_heard(both: BothWays) -> None:
    await both.commit(upsert(noun(3, {"n": 3})))
    await both.commit(upsert(noun(4, {"n": 4})))
    await both.clock.advance(10)
    await both.written(rendered(noun(3, {"n": 3})))
    await both.clock.advance(10)
    await both.store.put("metadata/a.json", b'{"n":"theirs"}')
    await both.die()
    await both.bucket.turn()
    assert both.bucket.owned[0].shard.get_nouns(["a"]) == [noun(3, {"n": "theirs"})]


async def test_brainy_restores_a_state_that_the_mirror_had_left_behind(both: BothWays) -> None:
    async with both.mirrored():
        for number in (3, 4):
            await both.commit(said("a", number))
            await both.written_back()
    await both.clock.advance(10)
    await both.put("a", 3)
    await both.die()  # the book is older than all of it, the mirror's cursor is not
    await end_equal(both, 3)


async def test_brainy_restores_an_older_state_while_the_mirror_is_behind(both: BothWays) -> None:
    """Nothing tells it from an echo: ours stays, and the tree gets it."""
    await both.commit(said("a", 3))
    async with both.mirrored():
        await both.written_back()
    await both.commit(said("a", 4))
    await both.clock.advance(10)
    await both.put("a", 2)
    await both.put("a", 3)
    await both.die()
    await end_equal(both, 4)


async def test_brainy_restores_an_older_state_after_the_new_owner_has_caught_up(both: BothWays) -> None:
    await both.commit(said("a", 3))
    await both.commit(said("a", 4))
    await both.clock.advance(10)
    await both.put("a", 3)
    await both.die()
    await end_equal(both, 4)
    followed = both.bucket.follower.followed(0, 0)
    assert followed is not None
    assert not followed.echoes.open
    await both.clock.advance(10)
    await both.put("a", 3)
    await both.bucket.turn()
    assert both.served("a") == 3


async def test_brainy_restores_an_older_state_where_nobody_mirrors_any_more(both: BothWays) -> None:
    await both.commit(said("a", 3))
    async with both.mirrored():
        await both.written_back()
    await both.commit(said("a", 4))
    await both.die()
    both.choose(mirror="")
    await both.bucket.turn()
    assert both.served("a") == 4
    await both.clock.advance(70)
    await both.bucket.turn()
    await both.bucket.close()  # the book says that nobody mirrors
    await both.bucket.take_over(both.bases)
    both.choose(mirror="")
    await both.put("a", 3)
    await both.bucket.turn()
    assert both.served("a") == 3


# --- a cut-over -------------------------------------------------------------------------------------------------


@pytest.fixture
async def four(tmp_path: Path) -> AsyncIterator[BothWays]:
    made = BothWays(tmp_path, shards=4)
    await made.put("a", 1)
    await made.open()
    yield made
    await made.bucket.close()


async def cut_over(four: BothWays, *records: log_pb2.LogRecord) -> None:
    """To three shards. The pass keeps our word; the new shard's mirror brings it into the tree."""
    source, target = shard_of("a", 4), shard_of("a", 3)
    await four.resharded(records[-1], of=source)
    await four.bucket.turn()
    before = SourceLog(
        generation=0,
        shard=source,
        follow=lambda position: read_log(four.store, 0, source, from_position=position),
        wanted=lambda item_id, position: True,
    )
    served = four.served("a")
    async with four.mirrored(target, [before]):
        await four.written_back(target)
    await four.bucket.turn()
    assert four.served("a") == await four.stored("a") == served


@pytest.mark.parametrize("passed", [False, True])
async def test_an_older_state_that_landed_before_a_cut_over(four: BothWays, passed: bool) -> None:
    at = shard_of("a", 4)
    await four.commit(said("a", 3), at=at)
    await four.commit(said("a", 4), at=at)
    if passed:
        await four.bucket.turn()  # the source's books are past both
    await four.clock.advance(10)
    await four.put("a", 3)
    await cut_over(four, said("a", 3), said("a", 4))
    assert four.served("a") == 4


async def test_a_deletion_that_landed_before_a_cut_over(four: BothWays) -> None:
    at = shard_of("a", 4)
    await four.commit(DELETED, at=at)
    await four.commit(said("a", 4), at=at)
    await four.clock.advance(10)
    await four.written(GONE)
    await cut_over(four, DELETED, said("a", 4))
    assert four.served("a") == 4


async def test_what_the_source_s_mirror_wrote_late_is_older_than_a_word_after_the_cut_over(four: BothWays) -> None:
    source, target = shard_of("a", 4), shard_of("a", 3)
    await four.commit(said("a", 3), at=source)
    await four.resharded(said("a", 3), of=source)
    await four.commit(said("a", 4), at=target)
    await four.clock.advance(10)
    await four.put("a", 3)  # the mirror of the source, on its way out
    await four.bucket.turn()
    assert four.served("a") == 4


async def test_the_first_owner_after_a_cut_over_dies_too(four: BothWays) -> None:
    at = shard_of("a", 4)
    await four.commit(said("a", 3), at=at)
    await four.commit(said("a", 4), at=at)
    await four.clock.advance(10)
    await four.resharded(said("a", 4), of=at)
    await four.bucket.turn()  # the book of the new shard is saved
    await four.clock.advance(10)
    await four.put("a", 3)
    await four.die()
    await four.bucket.turn()
    assert four.served("a") == 4


async def test_what_brainy_wrote_before_a_cut_over_is_heard(four: BothWays) -> None:
    at = shard_of("a", 4)
    await four.commit(said("a", 3), at=at)
    await four.commit(said("a", 4), at=at)
    await four.clock.advance(10)
    await four.put("a", 2)
    await four.clock.advance(10)
    await cut_over(four, said("a", 3), said("a", 4))
    assert four.served("a") == 2
