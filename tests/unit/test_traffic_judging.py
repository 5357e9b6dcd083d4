"""The verdict on a comparison: every threshold, and that silence proves nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brainy.traffic.comparison import Comparison
from brainy.traffic.judging import Thresholds, judge
from brainy.traffic.latencies import counted

GOOD = Comparison(
    asked=100,
    queries=90,
    hits_shared=890,
    hits_wanted=900,
    recall_queries=5,
    source_found=50,
    source_exact=50,
    target_found=49,
    target_exact=50,
    source_latency=counted(0.002),
    target_latency=counted(0.002),
    items=40,
    distance_difference=0.001,
)

STRICT = Thresholds(
    min_queries=50,
    min_items=10,
    min_overlap=0.95,
    max_error_share=0.01,
    max_p99_ratio=1.5,
    max_recall_loss=0.05,
    max_items_differing=0,
    max_distance_difference=0.01,
)


def test_a_good_target_passes_every_threshold() -> None:
    judgement = judge(GOOD, STRICT)
    assert judgement.passed
    assert judgement.reasons == ()


@pytest.mark.parametrize(
    ("worse", "says"),
    [
        (replace(GOOD, queries=49), "49 queries were compared, 50 are wanted"),
        (replace(GOOD, items=9), "9 items were compared"),
        (replace(GOOD, hits_shared=800), "88.89% of the nearest neighbours are shared"),
        (replace(GOOD, failed=2), "did not answer 2.00% of the calls"),
        (replace(GOOD, reads_answered=90, reads_fallen_back=10), "did not answer 5.00% of the calls"),
        (replace(GOOD, target_latency=counted(0.02)), "times as long, 1.50 times are allowed"),
        (replace(GOOD, target_found=40), "recall is 80.00% on the target"),
        (replace(GOOD, items_differing=1), "1 items differ, 0 may"),
        (replace(GOOD, distance_difference=0.5), "distances differ by up to 0.5"),
    ],
)
def test_each_fault_alone_is_named_alone(worse: Comparison, says: str) -> None:
    judgement = judge(worse, STRICT)
    assert not judgement.passed
    assert len(judgement.reasons) == 1
    assert says in judgement.reasons[0]


def test_figures_that_were_never_taken_do_not_pass() -> None:
    thresholds = Thresholds(min_overlap=0.0, max_p99_ratio=100.0, max_recall_loss=1.0)
    assert judge(Comparison(), thresholds).reasons == (
        "no nearest neighbours were compared",
        "no latency was measured",
        "recall was not measured",
    )


def test_what_is_not_asked_for_is_not_judged() -> None:
    assert judge(replace(GOOD, failed=100, items_differing=40), Thresholds()).passed


def test_dropped_calls_are_no_errors() -> None:
    assert replace(GOOD, dropped=50, failed=1).error_share == 1 / 50
    assert Comparison().error_share == 0.0
    assert Comparison(asked=5, dropped=5).error_share == 0.0
