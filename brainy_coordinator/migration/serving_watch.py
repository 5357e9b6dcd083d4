"""How the clients of a namespace are served, generation by generation, as one leader sees it in heartbeats. No I/O.

Nodes say what they have counted since they began; what came since a node was heard last is added to the newest slot of
a generation. A node that begins anew (another incarnation, or a count that fell) has counted all it says since then.
What a node had counted when this leader heard it first is of a time that this leader did not watch, and is left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from brainy.traffic.comparison import Comparison
from brainy.traffic.limits import RollbackLimits, enough
from brainy.traffic.serving import Calls, Serving, ServingFigures
from brainy_coordinator.membership.registry import Report

#: Calls older than this count only where there are too few younger ones.
RECENT_SECONDS = 300.0
_SLOT_SECONDS = 10.0
#: Slots that are kept; what is older is added to the oldest of them.
_MOST_SLOTS = 360


@dataclass(slots=True)
class _Slot:
    began: float
    serving: Serving


class ServingWatch:
    """Watches one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        #: (Node, generation) -> incarnation, and what it said last.
        self._last: dict[tuple[str, int], tuple[str, Serving]] = {}
        #: Nodes heard before, whatever they had to say.
        self._heard: dict[str, str] = {}
        self._slots: dict[int, deque[_Slot]] = {}

    def look(self, reports: Iterable[Report], now: float) -> None:
        """Take in what nodes have said last; hearing the same again changes nothing."""
        for report in reports:
            before = self._heard.get(report.node_id)
            for (namespace, generation), serving in report.served.items():
                if namespace != self._namespace:
                    continue
                incarnation, last = self._last.get((report.node_id, generation), ("", Serving()))
                if before is not None:
                    came = serving.since(last) if incarnation == report.incarnation else serving
                    self._add(generation, came, now)
                self._last[report.node_id, generation] = (report.incarnation, serving)
            self._heard[report.node_id] = report.incarnation

    def begin(self, generation: int) -> None:
        """Forget how a generation was served until now."""
        self._slots.pop(generation, None)

    def figures(self, generation: int, limits: RollbackLimits | None, found: Comparison | None) -> ServingFigures:
        """Return how a generation was served lately: in the last five minutes, or as long as it takes to have enough.

        Args:
            generation: which.
            limits: say how many calls are enough.
            found: what was found when both sides were asked the same, since the switch.
        """
        both = self._recent(generation, lambda serving: serving.both, limits)
        reads = self._recent(generation, lambda serving: serving.reads, limits)
        writes = self._recent(generation, lambda serving: serving.writes, limits)
        return ServingFigures(
            calls=both.count,
            failed=both.failed,
            reads=reads.count,
            read_p99_seconds=reads.p99_seconds,
            writes=writes.count,
            write_p99_seconds=writes.p99_seconds,
            queries=found.queries if found is not None else 0,
            overlap=found.overlap if found is not None else None,
        )

    def _add(self, generation: int, came: Serving, now: float) -> None:
        if not came.both.count:
            return
        slots = self._slots.setdefault(generation, deque())
        if slots and now - slots[-1].began < _SLOT_SECONDS:
            slots[-1].serving += came
            return
        slots.append(_Slot(now, came))
        if len(slots) > _MOST_SLOTS:
            oldest = slots.popleft()
            slots[0].serving += oldest.serving

    def _recent(self, generation: int, part: Callable[[Serving], Calls], limits: RollbackLimits | None) -> Calls:
        slots = self._slots.get(generation, deque())
        total = Calls()
        for slot in reversed(slots):
            if slots[-1].began - slot.began >= RECENT_SECONDS and enough(limits, total):
                break
            total += part(slot.serving)
        return total
