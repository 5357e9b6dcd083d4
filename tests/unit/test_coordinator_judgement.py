"""When what clients see after a switch is bad enough."""

from __future__ import annotations

import pytest

from brainy_coordinator.migration.judgement import Thresholds, Window, judge

STRICT = Thresholds(max_error_rate=0.01, max_p99_milliseconds=50.0, least_calls=100)


@pytest.mark.parametrize(
    ("calls", "errors", "p99", "thresholds", "word"),
    [
        (1000, 10, 50.0, STRICT, ""),
        (1000, 11, 10.0, STRICT, "1.10% of 1,000 calls failed, 1.00% are accepted"),
        (1000, 0, 50.1, STRICT, "took 50.1 ms or more, 50.0 ms are accepted"),
        # Too few to say anything, or nobody asked.
        (99, 99, 999.0, STRICT, ""),
        (0, 0, 0.0, Thresholds(max_error_rate=0.01, least_calls=0), ""),
        (1000, 1000, 9999.0, Thresholds(), ""),
    ],
)
def test_judging(calls: int, errors: int, p99: float, thresholds: Thresholds, word: str) -> None:
    found = judge(Window(calls=calls, errors=errors, p99_milliseconds=p99), thresholds)
    assert found.endswith(word)
    assert bool(found) is bool(word)
