"""Which node answers for which shards."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from brainy.bucket.records import GenerationPlacement, ShardPlacement
from brainy_node.router.placement import assign

NODES = ("a", "b", "c")


def placement(*holders: tuple[str, ...]) -> GenerationPlacement:
    shards = {
        number: ShardPlacement(owner=nodes[0], epoch=1, replicas=nodes[1:]) for number, nodes in enumerate(holders)
    }
    return GenerationPlacement(state="serving", shard_count=len(holders), shards=shards)


def test_a_ready_local_replica_is_preferred_even_to_the_owner() -> None:
    plan = assign(placement(("b", "a"), ("b", "a")), [0, 1], node_id="a", ready={0}, reachable=NODES)
    assert plan.local == (0,)
    assert dict(plan.remote) == {"b": (1,)}
    assert plan.missing == ()


def test_shards_of_one_peer_go_in_one_call() -> None:
    many = placement(*[("b", "c")] * 6)
    for rotation in range(6):
        plan = assign(many, range(6), node_id="a", ready=(), reachable=NODES, rotation=rotation)
        assert len(plan.remote) == 1


def test_rotation_spreads_calls_over_replicas() -> None:
    chosen: Counter[str] = Counter()
    for rotation in range(20):
        plan = assign(placement(("b", "c")), [0], node_id="a", ready=(), reachable=NODES, rotation=rotation)
        chosen.update(plan.remote.keys())
    assert chosen == {"b": 10, "c": 10}


def test_suspects_come_last_but_are_asked_rather_than_nobody() -> None:
    one = placement(("b", "c"))
    for rotation in range(4):
        plan = assign(one, [0], node_id="a", ready=(), reachable=NODES, suspects={"b"}, rotation=rotation)
        assert list(plan.remote) == ["c"]
    plan = assign(one, [0], node_id="a", ready=(), reachable=NODES, suspects={"b", "c"})
    assert len(plan.remote) == 1


def test_tried_nodes_are_not_asked_again_not_even_this_one() -> None:
    one = placement(("a", "b"))
    plan = assign(one, [0], node_id="a", ready={0}, reachable=NODES, tried={0: {"a"}})
    assert dict(plan.remote) == {"b": (0,)}
    plan = assign(one, [0], node_id="a", ready={0}, reachable=NODES, tried={0: {"a", "b"}})
    assert plan.missing == (0,)


def test_unplaced_shards_and_nodes_without_address_are_missing() -> None:
    plan = assign(placement(("b",)), [0, 7], node_id="a", ready=(), reachable=("c",))
    assert plan.missing == (0, 7)


node_sets = st.lists(st.sampled_from(NODES), min_size=1, max_size=3, unique=True).map(tuple)


@settings(deadline=None, max_examples=50)
@given(
    holders=st.lists(node_sets, min_size=1, max_size=8),
    ready=st.sets(st.integers(0, 7)),
    reachable=st.sets(st.sampled_from(NODES)),
    tried=st.dictionaries(st.integers(0, 7), st.sets(st.sampled_from(NODES))),
    suspects=st.sets(st.sampled_from(NODES)),
    rotation=st.integers(0, 1000),
)
def test_every_shard_is_in_exactly_one_place_and_only_holders_are_asked(
    holders: list[tuple[str, ...]],
    ready: set[int],
    reachable: set[str],
    tried: dict[int, set[str]],
    suspects: set[str],
    rotation: int,
) -> None:
    whole = placement(*holders)
    plan = assign(
        whole,
        range(len(holders)),
        node_id="a",
        ready=ready,
        reachable=reachable,
        tried=tried,
        suspects=suspects,
        rotation=rotation,
    )
    placed = [*plan.local, *plan.missing, *(shard for shards in plan.remote.values() for shard in shards)]
    assert sorted(placed) == list(range(len(holders)))
    for node, shards in plan.remote.items():
        assert node != "a"
        assert node in reachable
        for shard in shards:
            assert node in holders[shard]
            assert node not in tried.get(shard, set())
