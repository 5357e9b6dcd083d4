"""What to do after the switch while a way back is kept, and on that way. Pure.

OBSERVING: the target is the truth, the source follows it. It ends in one of three ways: asked to complete, the time to
observe is over, or a rollback is wanted: somebody asked for it, or the target broke a limit (``watching``). A rollback
that is wanted begins once the source is close behind, and begins again after an attempt that had to be given up, as the
switch does.
"""

from __future__ import annotations

from brainy_coordinator.migration.actions import Release, Undrain
from brainy_coordinator.migration.cut_over import (
    Decision,
    backs_off,
    behind,
    comparing,
    taking_positions,
    unready_leaders,
)
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.reembedding import lag_limit, preparing
from brainy_coordinator.migration.state import Trigger
from brainy_coordinator.migration.watching import watching


def observing(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    """Decide in OBSERVING."""
    if seen.is_draining() and seen.routing.migration == record.id:
        return Decision(actions=(Undrain(record.leading, "left by an attempt that was given up"),))
    if seen.reachable - seen.facts.released:
        return Decision(actions=(Release(record.leading),))
    if record.paused:
        return Decision()
    if record.wants_rollback:
        if backs_off(record, seen, now) or behind(record, seen, lag_limit(record)) or unready_leaders(record, seen):
            return Decision()
        return preparing(record, seen) or Decision(trigger=Trigger.ROLLBACK_BEGUN)
    return watching(record, seen, now)


def rolling_back(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    """Decide in ROLLING_BACK: the steps of the switch with the roles changed, in one state."""
    attempt = seen.facts.cut_over
    if attempt is None or attempt.positions is None:
        return taking_positions(record, seen, now, interrupted=Trigger.ROLLBACK_INTERRUPTED)
    return comparing(record, seen, now, interrupted=Trigger.ROLLBACK_INTERRUPTED, unequal=Trigger.ROLLBACK_UNEQUAL)
