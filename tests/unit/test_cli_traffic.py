"""What ``brainy migrate compare`` prints."""

from __future__ import annotations

import orjson
import pytest

from brainy.cli import traffic
from brainy.cli.output import Output
from brainy.sdk.traffic import NodeComparison, ReadComparison, ReadShares
from brainy.traffic.comparison import Comparison, difference, overlap_counts
from brainy.traffic.judging import Thresholds, judge
from brainy.traffic.latencies import counted

SEEN = Comparison(
    asked=12,
    dropped=1,
    queries=10,
    queries_differing=2,
    hits_shared=95,
    hits_wanted=100,
    overlaps=overlap_counts(9, 10),
    source_latency=counted(0.004),
    target_latency=counted(0.008),
    items=3,
    items_differing=1,
    differences=(difference("noun", "[a]", "only on the source"),),
)


def found(comparison: Comparison = SEEN) -> ReadComparison:
    return ReadComparison(
        source_generation=0,
        target_generation=1,
        shares=ReadShares(weight=0.1, shadow=0.5),
        comparison=comparison,
        nodes=(
            NodeComparison(node_id="a", comparison=comparison, queries_recorded=5, problem=""),
            NodeComparison(node_id="b", comparison=Comparison(), queries_recorded=0, problem="gone (UNAVAILABLE)"),
        ),
    )


def test_people_see_figures_differences_silent_nodes_and_what_is_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    traffic._print(Output(), found(), judge(SEEN, Thresholds(min_overlap=0.99)))
    said = capsys.readouterr().out
    assert "10.0% answered by the target, 50.0% asked besides" in said
    assert "95.00%" in said
    assert "recall" in said
    assert "not measured source" in said
    assert "[a]" in said, "an id is printed as it is"
    assert "b is left out: gone (UNAVAILABLE)" in said
    assert "not kept: 95.00% of the nearest neighbours are shared, 99.00% are wanted" in said


def test_programs_get_figures_and_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    traffic._print(Output(json=True), found(), judge(SEEN, Thresholds(min_overlap=0.9)))
    said = orjson.loads(capsys.readouterr().out)
    assert said["passed"] is True
    assert said["figures"]["overlap"] == 0.95
    assert said["figures"]["target_p99_milliseconds"] == pytest.approx(8, rel=0.1)
    assert said["comparison"]["items_differing"] == 1
    assert said["nodes"][1]["problem"] == "gone (UNAVAILABLE)"
