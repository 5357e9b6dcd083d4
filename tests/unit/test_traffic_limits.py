"""Limits for rolling back: how they are written, what they say of figures, and counts that never go below zero."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brainy.errors import InvalidRequestError
from brainy.traffic.latencies import counted
from brainy.traffic.limits import (
    RollbackLimits,
    check_limits,
    judge_serving,
    limits_from_proto,
    limits_of,
    limits_to_proto,
)
from brainy.traffic.serving import Calls, Serving, ServingFigures, figures_from_proto, figures_to_proto

FINE = ServingFigures(
    calls=1000, failed=5, reads=800, read_p99_seconds=0.02, writes=200, write_p99_seconds=0.1, queries=60, overlap=0.97
)


def test_limits_are_written_as_people_say_them() -> None:
    texts = ["error-rate>1%", "p99>250ms", "p99 > 2x", "write-p99>1s", "write-p99>3x", "overlap<0.9"]
    read = limits_of(texts, min_calls=10)
    assert read == RollbackLimits(
        error_rate=0.01,
        p99_seconds=0.25,
        p99_factor=2.0,
        write_p99_seconds=1.0,
        write_p99_factor=3.0,
        overlap=0.9,
        min_calls=10,
    )
    assert read.texts == ("error-rate>0.01", "p99>0.25s", "p99>2x", "write-p99>1s", "write-p99>3x", "overlap<0.9")
    assert limits_of(read.texts, min_calls=10) == read
    assert limits_of(["worse"]) == RollbackLimits(error_rate=0.01, p99_factor=3.0)
    assert limits_of([]) is None
    assert limits_of(read) is read


@pytest.mark.parametrize(
    "text",
    [
        *("", "error-rate", "error-rate<0.01", "error-rate>2", "error-rate>0.01x", "latency>2x"),
        *("p99>2", "p99<2x", "p99>0x", "p99>1e999s", "p99>..x", "p99>2x p99>3x"),
        *("overlap>0.9", "overlap<90ms", "overlap<-0.1"),
    ],
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        limits_of([text])
    assert refused.value.remedy


def test_a_limit_is_given_once_and_there_is_one_at_least() -> None:
    with pytest.raises(InvalidRequestError, match="twice"):
        limits_of(["worse", "p99>2x"])
    with pytest.raises(InvalidRequestError):
        check_limits(RollbackLimits())
    with pytest.raises(InvalidRequestError):
        check_limits(RollbackLimits(error_rate=0.1, min_calls=0))


def test_limits_and_figures_survive_the_wire() -> None:
    limits = limits_of(["error-rate>0", "p99>2x", "overlap<0.5"], min_calls=7)
    sent = limits_to_proto(limits)
    assert sent is not None
    assert limits_from_proto(sent) == limits
    assert limits_to_proto(None) is None
    assert figures_from_proto(figures_to_proto(FINE)) == FINE
    assert figures_from_proto(figures_to_proto(ServingFigures())) == ServingFigures()


@pytest.mark.parametrize(
    ("limit", "breach"),
    [
        ("error-rate>0.005", ""),
        ("error-rate>0.004", "error-rate 0.005 > 0.004: 5 of 1,000 calls failed"),
        ("p99>20ms", ""),
        ("p99>19ms", "p99 20 ms > 19 ms of 800 reads"),
        ("p99>2x", ""),
        ("p99>1.9x", "p99 20 ms > 1.9 x 10 ms before the switch, of 800 reads"),
        ("write-p99>100ms", ""),
        ("write-p99>4x", "write-p99 100 ms > 4 x 20 ms before the switch, of 200 writes"),
        ("overlap<0.97", ""),
        ("overlap<0.98", "overlap 0.97 < 0.98 of 60 queries"),
    ],
)
def test_a_figure_is_held_against_its_limit(limit: str, breach: str) -> None:
    before = ServingFigures(calls=500, reads=400, read_p99_seconds=0.01, writes=100, write_p99_seconds=0.02)
    limits = limits_of([limit])
    assert limits is not None
    found = judge_serving(limits, FINE, before)
    assert (found.breaches, found.lacking) == ((breach,) if breach else (), ())
    assert found.healthy is not bool(breach)


@pytest.mark.parametrize(
    ("limit", "now", "before"),
    [
        ("error-rate>0", replace(FINE, calls=99, failed=99), FINE),
        ("p99>1ms", replace(FINE, reads=99), FINE),
        ("write-p99>1ms", replace(FINE, writes=99), FINE),
        ("p99>1x", FINE, None),
        ("p99>1x", FINE, replace(FINE, reads=99)),
        ("write-p99>1x", FINE, replace(FINE, writes=99)),
        ("overlap<1", replace(FINE, queries=49), FINE),
        ("overlap<1", replace(FINE, overlap=None), FINE),
        ("error-rate>0", ServingFigures(), None),
    ],
)
def test_too_few_calls_are_not_judged_and_that_is_said(
    limit: str, now: ServingFigures, before: ServingFigures | None
) -> None:
    limits = limits_of([limit])
    assert limits is not None
    found = judge_serving(limits, now, before)
    assert found.breaches == ()
    assert len(found.lacking) == 1
    assert not found.healthy


def test_a_multiple_of_next_to_nothing_is_no_breach() -> None:
    limits = limits_of(["p99>2x"])
    assert limits is not None
    before = replace(FINE, read_p99_seconds=0.0005)
    assert judge_serving(limits, replace(FINE, read_p99_seconds=0.004), before).healthy
    assert not judge_serving(limits, replace(FINE, read_p99_seconds=0.006), before).healthy


def calls(count: int, failed: int = 0, seconds: float = 0.01) -> Calls:
    total = Calls()
    for number in range(count):
        total += Calls(count=1, failed=number < failed, latency=counted(seconds))
    return total


def test_calls_add_up_and_what_came_since_is_their_difference() -> None:
    earlier, later = calls(3, 1), calls(2, 1, seconds=0.5)
    total = earlier + later
    assert (total.count, total.failed, sum(total.latency)) == (5, 2, 5)
    assert total.since(earlier) == replace(later, latency=total.since(earlier).latency)
    assert sum(total.since(earlier).latency) == 2
    assert total.since(total).count == 0
    assert 0.45 < total.p99_seconds < 0.6
    assert Calls().p99_seconds == 0.0
    both = Serving(reads=earlier, writes=later)
    assert both.both == total
    assert (both + both).since(both).both.count == 5


@pytest.mark.parametrize("before", [calls(9), calls(4, 4), calls(2, seconds=3.0)])
def test_a_count_that_fell_began_anew(before: Calls) -> None:
    assert calls(4, 1).since(before) == calls(4, 1)
