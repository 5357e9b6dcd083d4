"""Comparisons of many nodes add up, in whatever order, and the verdict on them is fair."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from brainy.api.common.v1.common_pb2 import Position
from brainy.traffic.comparison import (
    Comparison,
    Difference,
    comparison_from_proto,
    comparison_to_proto,
    overlap_counts,
)
from brainy.traffic.judging import Thresholds, judge
from brainy.traffic.latencies import BUCKETS, added, bucket_of, counted, quantile
from brainy_node.router.trials import Spread, place_of

COUNTS = st.integers(0, 1 << 40)
HISTOGRAMS = st.lists(st.integers(0, 1000), max_size=12).map(tuple)
DIFFERENCES = st.builds(Difference, st.sampled_from(["noun", "verb", "search"]), st.text(max_size=3), st.just("x"))
COMPARISONS = st.builds(
    Comparison,
    asked=COUNTS,
    dropped=COUNTS,
    failed=COUNTS,
    queries=COUNTS,
    hits_shared=COUNTS,
    hits_wanted=COUNTS,
    items_differing=COUNTS,
    overlaps=HISTOGRAMS,
    source_latency=HISTOGRAMS,
    target_latency=HISTOGRAMS,
    distance_difference=st.floats(0, 1e6),
    differences=st.lists(DIFFERENCES, max_size=10, unique=True).map(lambda found: tuple(sorted(found))),
)


@settings(deadline=None)
@given(COMPARISONS, COMPARISONS, COMPARISONS)
def test_parts_add_up_in_any_order_and_grouping(a: Comparison, b: Comparison, c: Comparison) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Comparison() == a
    assert Comparison.total([a, b, c]) == Comparison.total([c, a, b])
    assert len((a + b + c).differences) <= 10


@settings(deadline=None)
@given(COMPARISONS)
def test_a_comparison_survives_the_wire(comparison: Comparison) -> None:
    assert comparison_from_proto(comparison_to_proto(comparison)) == comparison


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 90), min_size=1, max_size=200), st.floats(0.01, 1))
def test_quantiles_are_off_by_at_most_a_bucket(durations: list[float], share: float) -> None:
    counts: tuple[int, ...] = ()
    for seconds in durations:
        counts = added(counts, counted(seconds))
    true = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert true <= quantile(counts, share) * (1 + 1e-9)
    assert quantile(counts, share) <= max(50e-6, true * 2 ** (1 / 8)) * (1 + 1e-9)
    assert len(counts) <= BUCKETS


@settings(deadline=None)
@given(st.floats(0, 1e9))
def test_every_duration_has_a_bucket(seconds: float) -> None:
    assert 0 <= bucket_of(seconds) < BUCKETS


@settings(deadline=None)
@given(st.integers(0, 100), st.integers(0, 100))
def test_an_overlap_is_counted_once_among_eleven_tenths(shared: int, more: int) -> None:
    counts = overlap_counts(shared, shared + more)
    assert len(counts) == 11
    assert sum(counts) == 1
    assert bool(counts[10]) == (more == 0)


@settings(deadline=None)
@given(COMPARISONS, COMPARISONS, st.floats(0, 1), st.integers(0, 1000))
def test_two_nodes_that_pass_pass_together(a: Comparison, b: Comparison, share: float, most: int) -> None:
    thresholds = Thresholds(min_overlap=share, max_items_differing=most, max_distance_difference=1e3)
    if judge(a, thresholds).passed and judge(b, Thresholds(min_overlap=share, max_items_differing=0)).passed:
        together = judge(a + b, Thresholds(min_overlap=share - 1e-9, max_items_differing=most))
        assert together.passed, together.reasons


@settings(deadline=None)
@given(COMPARISONS, st.floats(0, 1), st.floats(0, 1))
def test_a_stricter_threshold_never_passes_what_a_milder_one_refuses(
    comparison: Comparison, one: float, other: float
) -> None:
    strict, mild = max(one, other), min(one, other)
    if judge(comparison, Thresholds(min_overlap=strict)).passed:
        assert judge(comparison, Thresholds(min_overlap=mild)).passed
    if judge(comparison, Thresholds(max_error_share=mild)).passed:
        assert judge(comparison, Thresholds(max_error_share=strict)).passed


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 500))
def test_calls_are_chosen_evenly(share: float, calls: int) -> None:
    spread = Spread()
    chosen = sum(spread.chooses(share) for _ in range(calls))
    assert abs(chosen - share * calls) <= 4
    if share == 1.0:
        assert chosen == calls


@settings(deadline=None)
@given(st.text(min_size=1))
def test_a_session_keeps_its_place_whatever_it_writes(session_id: str) -> None:
    place = place_of(session_id, ())
    assert place is not None
    assert 0 <= place < 1
    assert place == place_of(session_id, [Position(generation=1, shard=2, position=3)])


def test_sessions_are_spread_over_the_share() -> None:
    below = sum((place_of(f"session-{n}", ()) or 0.0) < 0.25 for n in range(4000))
    assert 900 < below < 1100
    assert place_of("", ()) is None
