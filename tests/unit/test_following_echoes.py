"""Which states of ours may be in the tree unknown to the book."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from brainy.api.common.v1 import common_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket.items import Noun, Verb
from brainy.bucket.partition import shard_of
from brainy.changelog.batch import Slot
from brainy.legacy.seen import Mirrored
from brainy_node.following.echoes import MOST_STATES, Echoes, OwnStates, halves_of


def upsert(number: float, *, item_id: str = "a", length: int = 8) -> log_pb2.LogRecord:
    vector = np.full(length, number, "<f4").tobytes()
    return log_pb2.LogRecord(upsert_noun=common_pb2.Noun(id=item_id, vector=vector, metadata=b"%d" % number))


def noun(number: float, length: int = 8) -> Noun:
    return Noun(id="a", vector=np.full(length, number, "<f4").tobytes(), metadata=b"%d" % number)


def slot(
    first: int, *records: log_pb2.LogRecord, generation: int = 0, source_cursor: dict[int, int] | None = None
) -> Slot:
    batch = log_pb2.LogBatch(
        generation=generation, first_position=first, records=records, source_cursor=source_cursor or {}
    )
    return Slot(batch=batch, body=b"")


@pytest.fixture
def echoes() -> Echoes:
    return Echoes(0, 1, dimensions=8, since=Mirrored(dialect="flat-split"))


def known(echoes: Echoes, *numbers: float) -> list[bool]:
    states = echoes.of(("noun", "a"))
    assert states is not None
    return [states.both_said(halves_of(noun(number))) for number in numbers]


def test_every_state_after_the_mirror_s_position_may_be_there_and_the_last_one_before(echoes: Echoes) -> None:
    echoes.take(slot(1, upsert(1), upsert(2), upsert(3), upsert(4)), mirrored=2, own=True)
    assert known(echoes, 1, 2, 3, 4, 5) == [False, True, True, True, False]


def test_a_state_the_tree_cannot_hold_leaves_the_one_before_it_there(echoes: Echoes) -> None:
    echoes.take(slot(1, upsert(1), upsert(2, length=0)), mirrored=2, own=True)
    assert known(echoes, 1) == [True]


def test_nothing_of_ours_is_written_over_a_word_of_brainys(echoes: Echoes) -> None:
    theirs = upsert(2)
    theirs.foreign_version = "f"
    echoes.take(slot(1, upsert(1), theirs), mirrored=0, own=True)
    assert echoes.of(("noun", "a")) is None
    echoes.take(slot(3, upsert(3)), mirrored=0, own=True)
    assert known(echoes, 1, 2, 3) == [False, False, True]


def test_halves_of_different_states_are_known(echoes: Echoes) -> None:
    deletion = log_pb2.LogRecord(delete_noun="a")
    echoes.take(slot(1, upsert(1), deletion, upsert(2)), mirrored=0, own=True)
    states = echoes.of(("noun", "a"))
    assert states is not None
    assert states.deleted
    mixed = Noun(id="a", vector=noun(2).vector, metadata=b"null")
    assert states.vector_said(halves_of(mixed)[0])
    assert states.companion_said(halves_of(mixed)[1])
    assert not states.both_said(halves_of(mixed))
    assert echoes.of(("verb", "a")) is None


def test_what_is_committed_after_following_began_is_told_to_the_book(echoes: Echoes) -> None:
    echoes.take(slot(1, upsert(1)), mirrored=0, own=True)
    echoes.until = 2
    echoes.take(slot(2, upsert(2)), mirrored=0, own=True)
    echoes.take(slot(2, upsert(2)), mirrored=0, own=True)
    echoes.take(slot(3, upsert(3), upsert(3, item_id="b")), mirrored=0, own=True)
    assert known(echoes, 1, 2, 3) == [True, True, False]
    assert len(echoes) == 1
    theirs = upsert(4)
    theirs.foreign_version = "f"
    echoes.take(slot(5, theirs), mirrored=0, own=True)
    assert len(echoes) == 0


def test_copies_and_other_shards_are_passed_over() -> None:
    ids = [f"n{number}" for number in range(40)]
    echoes = Echoes(1, 3, dimensions=8, since=Mirrored(dialect="flat-split"))
    echoes.take(slot(1, *(upsert(1, item_id=item_id) for item_id in ids)), mirrored=0, own=False)
    echoes.take(slot(1, upsert(1), generation=1, source_cursor={0: 1}), mirrored=0, own=True)
    assert echoes.position == 1
    assert len(echoes) == sum(shard_of(item_id, 3) == 1 for item_id in ids)


def test_what_was_followed_back_is_in_this_log_only(echoes: Echoes) -> None:
    back = slot(1, upsert(1), source_cursor={0: 1})
    back.batch.source_generation = 1
    echoes.take(back, mirrored=0, own=True)
    assert known(echoes, 1, 2) == [True, False]


def test_of_too_many_states_any_is_ours_until_the_mirror_is_past_them(echoes: Echoes) -> None:
    echoes.take(slot(1, *(upsert(number) for number in range(MOST_STATES))), mirrored=0, own=True)
    assert known(echoes, 0, MOST_STATES - 1, MOST_STATES) == [True, True, False]
    echoes.take(slot(MOST_STATES + 1, upsert(MOST_STATES)), mirrored=0, own=True)
    echoes.take(slot(MOST_STATES + 2, upsert(MOST_STATES + 1)), mirrored=0, own=True)
    assert known(echoes, 0, -5) == [True, True]
    echoes.take(slot(MOST_STATES + 3, upsert(7)), mirrored=MOST_STATES + 3, own=True)
    assert known(echoes, 7, 0) == [True, False]


def test_once_closed_nothing_is_kept(echoes: Echoes) -> None:
    echoes.take(slot(1, upsert(1)), mirrored=0, own=True)
    echoes.close()
    echoes.take(slot(2, upsert(2)), mirrored=0, own=True)
    assert (echoes.open, len(echoes), echoes.of(("noun", "a"))) == (False, 0, None)


def test_a_relation_says_the_same_beside_an_older_vector() -> None:
    vector = np.full(8, 1, "<f4").tobytes()
    own = Verb(id="v", source_id="a", target_id="b", type="knows", vector=vector, attributes=b'{"x":1}')
    half = Verb(
        id="v",
        source_id="a",
        target_id="b",
        type="knows",
        vector=np.full(8, 2, "<f4").tobytes(),
        attributes=orjson.dumps({"x": 1, "embedding": [1.0] * 8}),
    )
    assert halves_of(own)[1] == halves_of(half)[1]
    assert halves_of(own)[0] != halves_of(half)[0]
    odd = Verb(id="v", source_id="a", target_id="b", type="knows", attributes=b'["embedding"]')
    states = OwnStates(b"".join(halves_of(odd)))
    assert states.companion_said(halves_of(odd)[1])
    assert not states.companion_said(halves_of(own)[1])
