"""Whether what clients have seen since the switch is bad enough to go back. Pure.

Nodes do not report errors and latencies by generation yet, so nothing calls this from the loop; it is the rule that an
automatic rollback, or whoever watches from outside, has to apply.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What is not accepted; 0 switches a threshold off."""

    #: Share of calls, 0 to 1, that failed and were not the caller's fault.
    max_error_rate: float = 0.0
    max_p99_milliseconds: float = 0.0
    #: Fewer calls than this say nothing.
    least_calls: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Calls that one generation answered in a stretch of time, summed over nodes."""

    calls: int
    #: Of these.
    errors: int
    #: Of those that succeeded; 0 where there were none.
    p99_milliseconds: float


def judge(window: Window, thresholds: Thresholds) -> str:
    """Return why to roll back, or "" for no reason."""
    if window.calls < max(1, thresholds.least_calls):
        return ""
    rate = window.errors / window.calls
    if 0.0 < thresholds.max_error_rate < rate:
        return f"{rate:.2%} of {window.calls:,} calls failed, {thresholds.max_error_rate:.2%} are accepted"
    if 0.0 < thresholds.max_p99_milliseconds < window.p99_milliseconds:
        return (
            f"the slowest hundredth of {window.calls:,} calls took {window.p99_milliseconds:.1f} ms or more, "
            f"{thresholds.max_p99_milliseconds:.1f} ms are accepted"
        )
    return ""
