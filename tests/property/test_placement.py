"""Placement keeps its rules whatever nodes come and go, and comes to rest."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from brainy_coordinator.placement import Assignment, place

NODES = ["n0", "n1", "n2", "n3", "n4", "n5"]
some_nodes = st.sets(st.sampled_from(NODES), min_size=1)
shard_counts = st.integers(1, 12)
replications = st.integers(1, 4)


def everybody_ready(placement: dict[int, Assignment]) -> dict[int, dict[str, int]]:
    return {shard: dict.fromkeys(a.holders, 1) for shard, a in placement.items()}


def settle(placement: dict[int, Assignment], nodes: set[str], shards: int, replication: int) -> dict[int, Assignment]:
    """Apply again and again, every replica becoming ready in between."""
    for _ in range(200):
        after = place(
            nodes=nodes,
            current=placement,
            shard_count=shards,
            replication=replication,
            ready=everybody_ready(placement),
        )
        check(after, nodes, shards, replication)
        if after == placement:
            return after
        placement = after
    raise AssertionError(f"does not come to rest: {placement}")


def check(placement: dict[int, Assignment], nodes: set[str], shards: int, replication: int) -> None:
    wanted = min(replication, len(nodes))
    assert set(placement) == set(range(shards))
    for assignment in placement.values():
        assert len(set(assignment.holders)) == len(assignment.holders)
        assert set(assignment.holders) <= nodes
        assert wanted <= len(assignment.holders) <= wanted + 1


@settings(deadline=None)
@given(some_nodes, shard_counts, replications)
def test_a_fresh_placement_is_balanced_and_needs_no_surplus(nodes: set[str], shards: int, replication: int) -> None:
    fresh = place(nodes=nodes, current={}, shard_count=shards, replication=replication, ready={})
    check(fresh, nodes, shards, replication)
    assert all(len(a.holders) == min(replication, len(nodes)) for a in fresh.values())
    owned = Counter(dict.fromkeys(nodes, 0)) + Counter(a.owner for a in fresh.values())
    counts = [owned[node] for node in nodes]
    assert max(counts) - min(counts) <= 1


@settings(max_examples=60, deadline=None)
@given(some_nodes, st.lists(some_nodes, max_size=4), shard_counts, replications)
def test_it_comes_to_rest_after_any_change(
    nodes: set[str], changes: list[set[str]], shards: int, replication: int
) -> None:
    placement = settle(
        place(nodes=nodes, current={}, shard_count=shards, replication=replication, ready={}),
        nodes,
        shards,
        replication,
    )
    for changed in changes:
        placement = settle(placement, changed, shards, replication)
    assert all(len(a.holders) == min(replication, len(changes[-1] if changes else nodes)) for a in placement.values())


@settings(deadline=None)
@given(some_nodes, some_nodes, shard_counts, replications)
def test_owners_that_can_serve_stay_without_ready_replicas(
    nodes: set[str], joined: set[str], shards: int, replication: int
) -> None:
    before = place(nodes=nodes, current={}, shard_count=shards, replication=replication, ready={})
    after = place(nodes=nodes | joined, current=before, shard_count=shards, replication=replication, ready={})
    assert {s: a.owner for s, a in after.items()} == {s: a.owner for s, a in before.items()}
    assert all(set(before[s].replicas) <= set(after[s].replicas) for s in before)


@settings(deadline=None)
@given(some_nodes, st.data(), shard_counts, st.integers(2, 4))
def test_a_dead_owners_shard_goes_to_the_ready_replica_with_most_applied(
    nodes: set[str], data: st.DataObject, shards: int, replication: int
) -> None:
    before = place(nodes=nodes, current={}, shard_count=shards, replication=replication, ready={})
    dead = data.draw(st.sampled_from(sorted(nodes)))
    left = nodes - {dead}
    ready = {
        shard: {node: data.draw(st.integers(0, 3)) for node in a.replicas if data.draw(st.booleans())}
        for shard, a in before.items()
    }
    after = place(nodes=left, current=before, shard_count=shards, replication=replication, ready=ready, rebalance=False)
    if not left:
        assert after == before
        return
    for shard, a in before.items():
        heirs = [n for n in a.replicas if n in ready[shard]]
        if a.owner != dead:
            assert after[shard].owner == a.owner
        elif heirs:
            assert after[shard].owner in heirs
            assert ready[shard][after[shard].owner] == max(ready[shard][n] for n in heirs)
        elif a.replicas:
            assert after[shard].owner in a.replicas


@settings(deadline=None)
@given(some_nodes, shard_counts, st.integers(1, 3))
def test_a_leaving_owner_keeps_its_shard_until_a_replica_is_ready(
    nodes: set[str], shards: int, replication: int
) -> None:
    before = place(nodes=nodes, current={}, shard_count=shards, replication=replication, ready={})
    leaving = min(nodes)
    left = nodes - {leaving}
    if not left:
        return
    during = place(nodes=left, leaving={leaving}, current=before, shard_count=shards, replication=replication, ready={})
    for shard, a in before.items():
        assert during[shard].owner == a.owner
        assert sum(node in left for node in during[shard].holders) >= 1
    after = place(
        nodes=left,
        leaving={leaving},
        current=during,
        shard_count=shards,
        replication=replication,
        ready=everybody_ready(during),
    )
    assert all(leaving not in a.holders for a in after.values())


def test_a_joining_node_takes_its_share_once_its_replicas_are_ready() -> None:
    alone = place(nodes={"a"}, current={}, shard_count=4, replication=2, ready={})
    joined = place(nodes={"a", "b"}, current=alone, shard_count=4, replication=2, ready=everybody_ready(alone))
    assert {a.owner for a in joined.values()} == {"a"}
    assert all(a.replicas == ("b",) for a in joined.values())
    later = place(nodes={"a", "b"}, current=joined, shard_count=4, replication=2, ready=everybody_ready(joined))
    assert Counter(a.owner for a in later.values()) == {"a": 2, "b": 2}
