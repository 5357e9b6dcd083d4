"""How both sides of a migration serve, as its leader sees it: out of heartbeats, and by asking where that is due."""

from __future__ import annotations

from collections.abc import Mapping

from brainy.clock import Clock
from brainy.traffic.comparison import Comparison
from brainy.traffic.serving import ServingFigures
from brainy_coordinator.migration.barrier import Barrier
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.serving_watch import ServingWatch
from brainy_coordinator.migration.state import State
from brainy_coordinator.view import NamespaceView

_ASK_EVERY_SECONDS = 2.0
_CALL_SECONDS = 2.0


class ServiceSeen:
    """Eyes of one leader, for one migration that keeps a way back; for others it sees nothing and costs nothing."""

    def __init__(self, view: NamespaceView, barrier: Barrier, *, clock: Clock) -> None:
        self._view = view
        self._barrier = barrier
        self._clock = clock
        self._watch = ServingWatch(view.namespace)
        self._compared: Comparison | None = None
        self._asked_at = float("-inf")

    def begin(self, generation: int) -> None:
        """Forget how a generation served until now."""
        self._watch.begin(generation)
        self._compared = None
        self._asked_at = float("-inf")

    async def look(self, record: MigrationRecord) -> Mapping[int, ServingFigures]:
        """Return how source and target were served lately."""
        request = record.request
        if not request.keep_way_back or record.state.is_terminal:
            return {}
        self._watch.look(self._view.spoken(), self._clock.monotonic())
        limits = request.rollback_if
        if limits is not None and limits.overlap is not None and record.state is State.OBSERVING:
            await self._compare(record)
        return {
            record.source: self._watch.figures(record.source, limits, None),
            record.target: self._watch.figures(record.target, limits, self._compared),
        }

    async def _compare(self, record: MigrationRecord) -> None:
        now = self._clock.monotonic()
        if now - self._asked_at < _ASK_EVERY_SECONDS:
            return
        self._asked_at = now
        self._compared = await self._barrier.comparisons(
            self._view.reachable(), source=record.leading, target=record.following, timeout=_CALL_SECONDS
        )
