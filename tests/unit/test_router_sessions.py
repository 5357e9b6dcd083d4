"""Which positions of a session bind a shard."""

import pytest

from brainy.api.common.v1.common_pb2 import Position
from brainy.bucket.records import GenerationPlacement, Routing
from brainy.errors import UnavailableError
from brainy_node.router.sessions import outstanding


def routing(*, follows: int | None) -> Routing:
    return Routing(
        namespace="memory://name",
        epoch=5,
        nonce="n",
        leader_epoch=1,
        active=1,
        write=0,
        generations={
            0: GenerationPlacement(state="serving", shard_count=2),
            1: GenerationPlacement(state="building", shard_count=2, follows=follows),
        },
    )


def position(generation: int, shard: int, at: int) -> Position:
    return Position(generation=generation, shard=shard, position=at)


def test_positions_of_the_same_generation_bind_their_own_shard() -> None:
    session = [position(1, 0, 7), position(1, 1, 9)]
    assert outstanding(routing(follows=None), 1, 1, session) == [position(1, 1, 9)]
    assert outstanding(routing(follows=None), 1, 0, session) == [position(1, 0, 7)]


@pytest.mark.parametrize("follows", [0, None])
def test_older_positions_bind_also_after_the_cut_over(follows: int | None) -> None:
    # The cut-over waits for owners; a replica may still be behind.
    session = [position(0, 0, 7), position(0, 1, 9)]
    assert outstanding(routing(follows=follows), 1, 0, session) == session


def test_newer_positions_mean_that_the_record_here_is_old() -> None:
    with pytest.raises(UnavailableError) as caught:
        outstanding(routing(follows=None), 0, 0, [position(1, 0, 1)])
    assert caught.value.reason == "STALE_ROUTING"


def test_positions_of_a_generation_that_was_rolled_back_from_bind() -> None:
    back = routing(follows=0).model_copy(update={"active": 0, "rolled_back_from": 1})
    session = [position(1, 0, 7), position(0, 1, 3)]
    assert outstanding(back, 0, 0, session) == [position(1, 0, 7)]
    assert outstanding(back, 0, 1, session) == session
    with pytest.raises(UnavailableError):
        outstanding(back, 0, 0, [position(2, 0, 1)])


def test_a_generation_that_follows_is_bound_by_the_one_in_service_only_if_it_is_asked_besides() -> None:
    before = routing(follows=None)
    generations = {
        0: before.generations[0].model_copy(update={"state": "following", "follows": 1}),
        1: before.generations[1].model_copy(update={"state": "serving"}),
    }
    switched = before.model_copy(update={"write": 1, "generations": generations})
    session = [position(1, 0, 7), position(0, 1, 3)]
    assert outstanding(switched, 0, 0, session, besides=True) == [position(1, 0, 7)]
    with pytest.raises(UnavailableError):
        outstanding(switched, 0, 0, session)
    with pytest.raises(UnavailableError):
        outstanding(switched, 0, 0, [position(2, 0, 1)], besides=True)
    with pytest.raises(UnavailableError):
        outstanding(before, 0, 0, session, besides=True)  # has not heard of the switch
