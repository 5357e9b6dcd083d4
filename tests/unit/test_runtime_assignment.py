from brainy.bucket.records import GenerationPlacement, Routing, ShardPlacement
from brainy_node.runtime.assignment import assignments, followed_shards


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
