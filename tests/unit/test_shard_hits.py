"""Merging the hits of several shards."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainy_node.shard import Hits, merge_hits


def hits(*queries: list[tuple[float, str]], metadata: bool = True) -> Hits:
    flat = [pair for query in queries for pair in query]
    return Hits(
        counts=np.array([len(query) for query in queries], np.uint32),
        ids=[item_id for _, item_id in flat],
        distances=np.array([distance for distance, _ in flat], np.float32),
        metadata=[item_id.encode() for _, item_id in flat] if metadata else None,
    )


def listed(merged: Hits) -> list[list[tuple[float, str]]]:
    flat = list(zip(merged.distances.tolist(), merged.ids, strict=True))
    edges = [0, *np.cumsum(merged.counts).tolist()]
    return [flat[a:b] for a, b in pairwise(edges)]


found = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 50)), max_size=8)


@given(parts=st.lists(st.tuples(found, found), min_size=1, max_size=4), k=st.integers(1, 6))
def test_a_merge_is_the_sorted_union(parts, k):
    named = [
        hits(
            *(
                sorted((d, f"p{number}-{name:02d}") for d, name in {n: (d, n) for d, n in query}.values())
                for query in part
            )
        )
        for number, part in enumerate(parts)
    ]
    merged = merge_hits(named, k)
    expected = [sorted(pair for part in named for pair in listed(part)[query])[:k] for query in range(2)]
    assert listed(merged) == expected
    assert merged.metadata == [item_id.encode() for item_id in merged.ids]
    assert merged.distances.dtype == np.float32
    assert merged.counts.dtype == np.uint32


def test_rows_of_a_merge_say_where_each_hit_came_from():
    merged = merge_hits([hits([(0.1, "a"), (0.3, "b")]), hits([(0.2, "c")], metadata=False)], 2)
    assert merged.ids == ["a", "c"]
    assert merged.rows.tolist() == [0, 2]
    assert merged.metadata is None


def test_a_shard_asked_twice_counts_once():
    assert merge_hits([hits([(0.1, "a"), (0.3, "b")]), hits([(0.1, "a"), (0.4, "c")])], 3).ids == ["a", "b", "c"]


def test_nothing_found_is_an_answer():
    assert listed(merge_hits([Hits.none(3), Hits.none(3)], 5)) == [[], [], []]
    one = hits([(0.1, "a")], [])
    assert merge_hits([one], 1) is one
    with pytest.raises(ValueError, match="nothing to merge"):
        merge_hits([], 5)


def test_columns_of_a_message_become_hits():
    distances = np.array([0.5, 0.75], "<f4").tobytes()
    read = Hits.from_columns([1, 1], ["a", "b"], distances, [b"{}", b""])
    assert listed(read) == [[(0.5, "a")], [(0.75, "b")]]
    assert (read.metadata, read.queries) == ([b"{}", b""], 2)
