"""Latencies as counts in fixed buckets, so that those of many nodes can be added up."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Eight buckets an octave: a quantile is off by at most 9 %.
_STEPS = 8
_FIRST_SECONDS = 50e-6
#: Up to about 100 s; what takes longer is counted in the last one.
BUCKETS = 168


def bucket_of(seconds: float) -> int:
    """Return the bucket a duration is counted in; the first holds everything up to 50 microseconds."""
    if seconds <= _FIRST_SECONDS:
        return 0
    return min(BUCKETS - 1, math.ceil(_STEPS * math.log2(seconds / _FIRST_SECONDS)))


def counted(seconds: float) -> tuple[int, ...]:
    """Return the histogram of one call."""
    return (0,) * bucket_of(seconds) + (1,)


def added(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """Add two histograms of any length."""
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return tuple(count + (shorter[i] if i < len(shorter) else 0) for i, count in enumerate(longer))


def quantile(counts: Sequence[int], share: float) -> float:
    """Return the seconds that ``share`` (0 to 1) of the calls did not exceed; 0.0 without any.

    It is the upper bound of the bucket the call falls in.
    """
    total = sum(counts)
    if not total:
        return 0.0
    wanted = max(1, math.ceil(share * total))
    seen = 0
    for bucket, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            return _FIRST_SECONDS * math.pow(2.0, bucket / _STEPS)
    raise AssertionError("the counts add up to their sum")
