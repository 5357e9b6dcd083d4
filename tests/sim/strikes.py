"""Kills at the very moment at which a step of a migration has become durable, before anything follows from it."""

from __future__ import annotations

import random  # noqa: TID251 - seeded
from collections.abc import Callable, Sequence

from brainy.bucket import layout
from brainy.bucket.records import Routing
from brainy.testing.loop import SimLoop
from brainy_coordinator.migration.record import Event
from brainy_coordinator.migration.state import Trigger
from tests.sim.nemesis import Victim
from tests.sim.trace import Trace

#: Who dies: the coordinator that wrote the step, the owner of a shard of either side, or both at once.
WHO = ("coordinator", "node", "both")
_ONE_WAY = (
    Trigger.REQUESTED,
    Trigger.BEGUN,
    Trigger.PREFLIGHT_PASSED,
    Trigger.COPY_DONE,
    Trigger.LAG_IN_BOUNDS,
    Trigger.PROMOTED,
    Trigger.DRAINED,
)
STEPS = (*_ONE_WAY, Trigger.COMMITTED, Trigger.COMPLETED)
#: With a way back.
TURNING_STEPS = (
    *_ONE_WAY,
    Trigger.SWITCHED,
    Trigger.ROLLBACK_REQUESTED,
    Trigger.ROLLBACK_BEGUN,
    Trigger.ROLLED_BACK,
    Trigger.PROMOTE_REQUESTED,
    Trigger.COMPLETE_REQUESTED,
    Trigger.COMPLETED,
)
_RESTART_SECONDS = (0.1, 3.0)

Strike = tuple[str, str]


def drawn_strikes(seed: int, *, turning: bool) -> tuple[Strike, ...]:
    """Up to three steps, and who dies at each."""
    rng = random.Random(f"{seed}/strikes")
    steps = rng.sample(TURNING_STEPS if turning else STEPS, k=rng.choice((1, 2, 3)))
    return tuple((step.value, rng.choice(WHO)) for step in steps)


class Strikes:
    """Sees every event of a migration's history land, and kills at those it was told, once each."""

    def __init__(
        self,
        loop: SimLoop,
        strikes: Sequence[Strike],
        coordinators: Sequence[Victim],
        nodes: Sequence[Victim],
        routing: Callable[[], Routing | None],
        trace: Trace,
    ) -> None:
        self._loop = loop
        self._left = dict(strikes)
        self._rng = random.Random(f"{loop.seed}/struck")
        self._coordinators = coordinators
        self._nodes = nodes
        self._routing = routing
        self._trace = trace
        #: Nothing is started again once the world is judged.
        self.over = False

    def saw(self, kind: str, key: str, body: bytes | None, done: bool, who: str) -> None:
        """As the bucket's observer."""
        if not self._left or not done or body is None or layout.parse_migration_event(key) is None:
            return
        step = Event.decode(body, key=key).trigger.value
        if step not in self._left:
            return
        victim = self._left.pop(step)
        if victim in ("coordinator", "both"):
            for place in self._coordinators:
                if place.process.incarnation == who:
                    self._kill(place, step)
        if victim in ("node", "both"):
            owner = self._owner()
            for place in self._nodes:
                if place.name == owner:
                    self._kill(place, step)

    def _owner(self) -> str:
        routing = self._routing()
        if routing is None:
            return ""
        placed = routing.generations[self._rng.choice(sorted(routing.generations))]
        return placed.shards[self._rng.choice(sorted(placed.shards))].owner

    def _kill(self, place: Victim, step: str) -> None:
        if not place.process.alive:
            return
        self._trace.event("strike", process=place.process.incarnation, step=step)
        place.process.kill()

        def later() -> None:
            if not self.over and not place.process.alive:
                place.restart()

        self._loop.after(self._rng.uniform(*_RESTART_SECONDS), later)
