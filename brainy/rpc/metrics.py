"""Counts and times of the RPCs a server answered, by method."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

#: Upper bounds of the latency buckets, seconds; one more bucket takes the rest.
LATENCY_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(slots=True)
class MethodStats:
    """Figures of one method since the process started. Written by the event loop's thread alone."""

    count: int = 0
    #: Ended with an error other than the caller's cancellation.
    errors: int = 0
    #: Ended because the caller went away.
    cancelled: int = 0
    in_flight: int = 0
    total_seconds: float = 0.0
    #: Calls per latency bucket, parallel to ``LATENCY_BOUNDS`` plus one.
    buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    #: Told the seconds of every call that ended.
    listeners: list[Callable[[float], None]] = field(default_factory=list)

    def observe(self, seconds: float) -> None:
        """Count a call that ended."""
        self.count += 1
        self.total_seconds += seconds
        self.buckets[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        for listener in self.listeners:
            listener(seconds)

    @property
    def mean_seconds(self) -> float:
        """Average duration; 0 before the first call."""
        return self.total_seconds / self.count if self.count else 0.0


class RpcMetrics:
    """``MethodStats`` by full method name (``/package.Service/Method``)."""

    def __init__(self) -> None:
        self._methods: dict[str, MethodStats] = {}

    def of(self, method: str) -> MethodStats:
        """Return the figures of a method, made on first use."""
        stats = self._methods.get(method)
        if stats is None:
            stats = self._methods[method] = MethodStats()
        return stats

    @property
    def methods(self) -> Mapping[str, MethodStats]:
        """All methods called so far."""
        return self._methods
