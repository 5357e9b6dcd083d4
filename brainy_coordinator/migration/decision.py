"""What to do next: a function of the record, what is seen, and the time. Pure; reads no clock, does no I/O.

A decision names the transition to persist, if any, and then the actions to take. Everything a leader learnt
only by acting (``Facts``) may be missing: a new leader decides rightly from the history and the routing
record alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from brainy_coordinator.migration.actions import (
    CountQuarantine,
    CreateTarget,
    MeasureQuality,
    PlaceTarget,
    Release,
    RetireSource,
    RunPreflight,
    Undo,
    Undrain,
)
from brainy_coordinator.migration.cut_over import (
    LAG_EXCEEDED_LIMIT,
    LAG_LIMIT,
    Decision,
    backs_off,
    behind,
    comparing,
    retry_delay,
    taking_positions,
    unready_leaders,
)
from brainy_coordinator.migration.observation import Observation, ReplicaState, count_quarantined
from brainy_coordinator.migration.observing import observing, rolling_back
from brainy_coordinator.migration.postponing import postponed_for
from brainy_coordinator.migration.quality import complaint, verdict
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.reembedding import lag_limit, preparing, without_text
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.strategies import STRATEGIES
from brainy_coordinator.migration.waves import finished_wave, wave_text

__all__ = ["LAG_EXCEEDED_LIMIT", "LAG_LIMIT", "Decision", "decide", "journal", "retry_delay"]

_WAIT = Decision()
#: States in which a pause holds everything; elsewhere what has begun is finished first.
_PAUSABLE = (State.PENDING, State.PREFLIGHTING, State.COPYING, State.CATCHING_UP, State.READY)


def decide(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    """Return the next step.

    Args:
        record: the migration, folded from its history.
        seen: the cluster as it is.
        now: monotonic seconds, on the clock of ``seen.facts``.
    """
    if record.state.is_terminal:
        return _WAIT
    happened = journal(record, seen)
    if happened is not None:
        return happened
    if record.paused and record.state in _PAUSABLE:
        # Writes are let go whatever anybody wants.
        return _flowing(record, seen) or _WAIT
    return _DECIDERS[record.state](record, seen, now)


def journal(record: MigrationRecord, seen: Observation) -> Decision | None:
    """Return what the routing record says has happened and the history does not know yet, or None."""
    pause = seen.facts.write_pause_seconds
    if seen.routing.active == record.target and not record.state.is_committed:
        trigger = Trigger.SWITCHED if record.request.keep_way_back else Trigger.COMMITTED
        return Decision(trigger=trigger, write_pause_seconds=pause)
    if seen.routing.active == record.source and record.state in (State.OBSERVING, State.ROLLING_BACK):
        return Decision(trigger=Trigger.ROLLED_BACK, write_pause_seconds=pause)
    return None


def _pending(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    return Decision(trigger=Trigger.BEGUN)


def _preflighting(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    if seen.facts.checks is None:
        return Decision(actions=(RunPreflight(),))
    failed = [check for check in seen.facts.checks if not check.passed]
    if failed:
        detail = "; ".join(f"{check.name}: {check.detail}" for check in failed)
        return Decision(trigger=Trigger.PREFLIGHT_FAILED, detail=detail)
    return Decision(trigger=Trigger.PREFLIGHT_PASSED)


def _copying(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    early = _restore_order(record, seen)
    if early is not None:
        return early
    copied = (ReplicaState.REPLAYING, ReplicaState.READY)
    owners = seen.owners(record.target).values()
    if all(owner is not None and owner.state in copied for owner in owners):
        return Decision(trigger=Trigger.COPY_DONE)
    return _WAIT


def _catching_up(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    early = _restore_order(record, seen)
    if early is not None:
        return early
    if behind(record, seen, LAG_LIMIT):
        return _WAIT
    # What the target could not read never changes once it is filled, so it is counted here, before anything moves.
    if count_quarantined(seen.routing, record.target, seen.replicas) > record.request.quarantine_limit:
        check = seen.facts.quarantine
        if check is None:
            return Decision(actions=(CountQuarantine(record.target),))
        if not check.passed:
            return Decision(
                trigger=Trigger.QUARANTINE_EXCEEDED,
                detail=f"{check.reason}: {check.detail}; the source goes on serving: mend and replay the objects "
                "(brainy quarantine), or raise quarantine_limit",
            )
    return without_text(record, seen) or Decision(trigger=Trigger.LAG_IN_BOUNDS)


def _ready(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    early = _restore_order(record, seen)
    if early is not None:
        return early
    problem = behind(record, seen, LAG_EXCEEDED_LIMIT)
    if problem:
        return Decision(trigger=Trigger.LAG_EXCEEDED, detail=problem)
    quality = _quality(record, seen, now)
    if quality is not None:
        return quality
    if record.held or postponed_for(record, seen):
        return _WAIT
    baked = finished_wave(record, seen)
    if baked:
        return Decision(trigger=Trigger.WAVE_BAKED, detail=wave_text(record, baked), nodes=baked)
    moves = STRATEGIES[record.request.strategy].before_promotion(record, seen)
    if moves:
        return Decision(actions=moves)
    if seen.facts.elsewhere:
        return _WAIT
    if backs_off(record, seen, now) or behind(record, seen, lag_limit(record)) or unready_leaders(record, seen):
        return _WAIT
    early = without_text(record, seen) or preparing(record, seen)
    if early is not None:
        return early
    limits = record.request.rollback_if
    return Decision(trigger=Trigger.PROMOTED, served=seen.facts.served.get(record.source) if limits else None)


def _quality(record: MigrationRecord, seen: Observation, now: float) -> Decision | None:
    """Measure what the target finds before anything moves, and wait for a person where that is too little."""
    wish, measured = record.request.quality, seen.facts.quality
    if wish is None or not complaint(wish, record.quality, accepted=record.quality_accepted):
        return None
    if record.quality is not None:
        return _WAIT
    if measured is None or not measured.ended(wish, now):
        return Decision(actions=(MeasureQuality(record.source, record.target),))
    found = verdict(measured, wish)
    return Decision(trigger=Trigger.QUALITY_MEASURED, detail=found.line, quality=found)


def _cutting_over(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    return taking_positions(record, seen, now, interrupted=Trigger.CUT_OVER_INTERRUPTED)


def _verifying(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    return comparing(record, seen, now, interrupted=Trigger.CUT_OVER_INTERRUPTED, unequal=Trigger.DIGEST_UNEQUAL)


def _completing(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    if record.source not in seen.routing.generations:
        return Decision(trigger=Trigger.COMPLETED, write_pause_seconds=seen.facts.write_pause_seconds)
    if seen.reachable - seen.facts.released:
        return Decision(actions=(Release(record.target),))
    return Decision(actions=(RetireSource(record.source),))


def _aborting(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    if seen.routing.migration == record.id or seen.facts.fenced_elsewhere:
        return Decision(actions=(Undo(record.target),))
    return Decision(trigger=Trigger.UNDONE)


_DECIDERS: Mapping[State, Callable[[MigrationRecord, Observation, float], Decision]] = {
    State.PENDING: _pending,
    State.PREFLIGHTING: _preflighting,
    State.COPYING: _copying,
    State.CATCHING_UP: _catching_up,
    State.READY: _ready,
    State.CUTTING_OVER: _cutting_over,
    State.VERIFYING: _verifying,
    State.OBSERVING: observing,
    State.ROLLING_BACK: rolling_back,
    State.COMPLETING: _completing,
    State.ABORTING: _aborting,
}


def _restore_order(record: MigrationRecord, seen: Observation) -> Decision | None:
    """What every state between preflight and cut-over insists on: writes flow, and the target is placed."""
    flowing = _flowing(record, seen)
    if flowing is not None:
        return flowing
    if record.target not in seen.routing.generations:
        return Decision(actions=(CreateTarget(record.target), PlaceTarget(record.target, record.source)))
    return None


def _flowing(record: MigrationRecord, seen: Observation) -> Decision | None:
    if seen.is_draining() and seen.routing.migration == record.id:
        return Decision(actions=(Undrain(record.source, "left by an attempt that was given up"),))
    if seen.facts.fenced_elsewhere and not seen.is_draining():
        return Decision(actions=(Undrain(record.source, "the other namespace still waits for one"),))
    if record.rolled_back and seen.reachable - seen.facts.released:
        return Decision(actions=(Release(record.source),))
    return None
