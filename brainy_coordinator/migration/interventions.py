"""What a person may ask of a running migration, and when it is refused. Pure.

Each rule returns what to persist, or None where that is so already, so that a repeat changes nothing. The record handed
in knows everything that the routing record knows (``decision.journal``).
"""

from __future__ import annotations

from collections.abc import Callable

from brainy.errors import PastPointOfNoReturnError, PreconditionError
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.obstacles import not_ready
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.transitions import COPYABLE, POSTPONABLE

#: What is asked for, as a function of what is.
Intervention = Callable[[MigrationRecord, Observation], Trigger | None]


def promote(record: MigrationRecord, seen: Observation) -> Trigger | None:
    """Let a migration that is held switch.

    Raises:
        PreconditionError: it is not ready to (WRONG_PHASE), with what is missing.
    """
    if not record.held and record.postponed is None and not record.state.is_terminal:
        return None
    missing = not_ready(record, seen) if record.state in (State.COPYING, State.CATCHING_UP, State.READY) else []
    if record.state is not State.READY or missing:
        raise _refused(
            record,
            "the migration is not ready to switch",
            remedy="; ".join(missing) or "wait until it is ready (brainy migrate show)",
        )
    return Trigger.PROMOTE_REQUESTED


def measured(record: MigrationRecord, seen: Observation) -> Trigger | None:
    """Keep what somebody had measured, where it counts for the switch: while the migration is READY."""
    return Trigger.QUALITY_MEASURED if record.state is State.READY else None


def accept_quality(record: MigrationRecord, seen: Observation) -> Trigger | None:
    """Let a migration switch though the target's search quality is below its thresholds.

    Raises:
        PreconditionError: there is no such result (WRONG_PHASE).
    """
    if record.quality_accepted:
        return None
    if record.state is not State.READY or record.quality is None or record.quality.passed:
        raise _refused(
            record,
            "there is no result below the thresholds to accept",
            remedy="wait until it is READY and was measured (brainy migrate show)",
        )
    return Trigger.QUALITY_ACCEPTED


def pause(record: MigrationRecord, seen: Observation) -> Trigger | None:
    """Take no further step. Writes that wait are let go first, by finishing or giving up what has begun.

    Raises:
        PreconditionError: it has ended (WRONG_PHASE).
    """
    if record.state.is_terminal:
        raise _refused(record, "the migration has ended", remedy="there is nothing to pause")
    return Trigger.PAUSE_REQUESTED


def resume(record: MigrationRecord, seen: Observation) -> Trigger | None:
    """Go on, whatever it was paused for."""
    return Trigger.RESUME_REQUESTED if record.paused and not record.state.is_terminal else None


def postpone(seconds: float) -> Intervention:
    """Return the rule that puts the switch off for so long from now; 0 for not any longer.

    Raises:
        PastPointOfNoReturnError: it has switched.
        PreconditionError: the switch is under way, or the migration has ended (WRONG_PHASE).
    """

    def rule(record: MigrationRecord, seen: Observation) -> Trigger | None:
        if record.state in POSTPONABLE:
            return Trigger.POSTPONE_REQUESTED if seconds or record.postponed is not None else None
        if record.state.is_committed:
            raise PastPointOfNoReturnError(
                "the migration has switched",
                remedy="roll it back (brainy migrate rollback) where a way back is kept",
                migration=record.id,
                state=record.state.value,
            )
        ended = record.state in (State.ABORTING, State.ABORTED)
        raise _refused(
            record,
            "the migration was aborted" if ended else "the switch is under way",
            remedy="there is nothing to postpone"
            if ended
            else "pause it (brainy migrate pause) to stop after this try",
        )

    return rule


def set_copy_rate(record: MigrationRecord, seen: Observation) -> Trigger | None:
    """Say how fast the copy may be. An entry of the history even where it says what is so already.

    Raises:
        PreconditionError: nothing is left to copy (WRONG_PHASE).
    """
    if record.state not in COPYABLE:
        raise _refused(record, "there is nothing left to copy", remedy="what is followed keeps up by itself")
    return Trigger.COPY_RATE_SET


def rollback(record: MigrationRecord, seen: Observation) -> Trigger | None:
    """Make the source active again.

    Raises:
        PastPointOfNoReturnError: no way back is kept, or not any more.
        PreconditionError: it has not switched (WRONG_PHASE).
    """
    if record.wants_rollback or record.state is State.ROLLING_BACK:
        return None
    if record.state is State.OBSERVING:
        return Trigger.ROLLBACK_REQUESTED
    if record.state.is_committed:
        raise PastPointOfNoReturnError(
            "the migration is complete: the source is not served and does not follow any more"
            if record.request.keep_way_back
            else "the migration has switched without a way back",
            remedy="start another migration with the former settings; with keep_way_back it can be rolled back",
            migration=record.id,
            state=record.state.value,
        )
    if record.rolled_back and not record.state.is_terminal:
        return None
    raise _refused(
        record,
        "the migration has not switched: there is nothing to roll back",
        remedy="abort it (brainy migrate abort) to undo what it has done",
    )


def complete(record: MigrationRecord, seen: Observation) -> Trigger | None:
    """Give up the way back.

    Raises:
        PreconditionError: it has not switched, or is being rolled back (WRONG_PHASE).
    """
    if record.state in (State.COMPLETING, State.SUCCEEDED):
        return None
    if record.state is not State.OBSERVING or seen.is_draining():
        raise _refused(
            record,
            "only a migration that has switched and is not being rolled back can be completed",
            remedy="wait until it is being observed, or abort it",
        )
    return Trigger.COMPLETE_REQUESTED


def _refused(record: MigrationRecord, message: str, *, remedy: str) -> PreconditionError:
    return PreconditionError(
        message, reason="WRONG_PHASE", remedy=remedy, migration=record.id, state=record.state.value
    )
