"""How long a node's own searches take, by the second, for those who would disturb them."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from brainy.clock import Clock
from brainy.rpc.metrics import RpcMetrics
from brainy.traffic.latencies import bucket_of

#: What a client waits for: its own call, and a node's part in the call of another one.
SEARCHES: Final = (
    "/brainy.api.node.v1.SearchService/Search",
    "/brainy.api.node.v1.ShardService/SearchShards",
)
_KEPT_SECONDS: Final = 120


class Foreground:
    """Counts searches by bucket of ``brainy.traffic.latencies``; of one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, Counter[int]]] = deque(maxlen=_KEPT_SECONDS)

    def listen(self, metrics: RpcMetrics) -> None:
        """Count the searches of a server from now on."""
        for method in SEARCHES:
            metrics.of(method).listeners.append(self.observe)

    def observe(self, seconds: float) -> None:
        """Count a search that ended now."""
        now = int(self._clock.monotonic())
        if not self._seconds or self._seconds[-1][0] != now:
            self._seconds.append((now, Counter()))
        self._seconds[-1][1][bucket_of(seconds)] += 1

    def during(self, begin: float, end: float) -> Counter[int]:
        """Return the searches that ended in the whole seconds from ``begin`` up to ``end``, by bucket."""
        counts: Counter[int] = Counter()
        for second, part in self._seconds:
            if int(begin) <= second < int(end):
                counts += part
        return counts
