from brainy.bucket.records import GenerationPlacement, Routing, ShardPlacement
from brainy_node.runtime.assignment import assignments, followed_shards, start_cursor


def routing(source_shards: int = 2, target_shards: int = 2) -> Routing:
    return Routing(
        namespace="memory://abc",
        epoch=7,
        nonce="n",
        leader_epoch=1,
        active=0,
        write=0,
        generations={
            0: GenerationPlacement(
                state="serving",
                shard_count=source_shards,
                shards={
                    n: ShardPlacement(owner="a" if n % 2 == 0 else "b", epoch=n + 1, replicas=("c",))
                    for n in range(source_shards)
                },
            ),
            1: GenerationPlacement(
                state="building",
                shard_count=target_shards,
                follows=0,
                shards={n: ShardPlacement(owner="c", epoch=9, replicas=("a",)) for n in range(target_shards)},
            ),
        },
    )


def test_a_node_serves_what_it_owns_and_what_it_replicates():
    mine = assignments(routing(), "a")
    assert {(key, a.is_owner, a.follows) for key, a in mine.items()} == {
        ((0, 0), True, None),
        ((1, 0), False, 0),
        ((1, 1), False, 0),
    }
    assert mine[0, 0].epoch == 1
    assert assignments(routing(), "stranger") == {}


def test_equal_shard_counts_follow_one_shard_and_others_follow_all():
    assert followed_shards(routing(), 1, 1) == (1,)
    assert followed_shards(routing(target_shards=3), 1, 2) == (0, 1)
    assert followed_shards(routing(), 0, 1) == ()


def test_a_kept_source_follows_from_where_the_swap_says_or_its_own_log():
    turned = routing(target_shards=3)
    kept = turned.generations[0].model_copy(
        update={"state": "following", "follows": 1, "follow_from": {0: 10, 1: 20, 2: 30}}
    )
    serving = turned.generations[1].model_copy(update={"state": "serving", "follows": None})
    turned = turned.model_copy(update={"active": 1, "write": 1, "generations": {0: kept, 1: serving}})
    assert assignments(turned, "a")[0, 0].follows == 1
    assert assignments(turned, "a")[1, 0].follows is None
    # What the shard has persisted counts if it is of the generation followed now, and is further on.
    own = {0: 15, 1: 5}
    assert start_cursor(turned, 0, 0, reached=own, reached_in=1) == {0: 15, 1: 20, 2: 30}
    assert start_cursor(turned, 0, 0, reached={0: 99}, reached_in=7) == {0: 10, 1: 20, 2: 30}
    # A target that was never active begins where its base says.
    assert start_cursor(routing(), 1, 1, reached={1: 6}, reached_in=0) == {1: 6}
