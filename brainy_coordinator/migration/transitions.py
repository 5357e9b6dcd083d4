"""The table of transitions; what is not in it is forbidden and raises with the story."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brainy.errors import PastPointOfNoReturnError, PreconditionError
from brainy_coordinator.migration.state import State, Trigger

_FORWARD: dict[tuple[State, Trigger], State] = {
    (State.PENDING, Trigger.BEGUN): State.PREFLIGHTING,
    (State.PREFLIGHTING, Trigger.PREFLIGHT_PASSED): State.COPYING,
    (State.PREFLIGHTING, Trigger.PREFLIGHT_FAILED): State.ABORTING,
    (State.COPYING, Trigger.COPY_DONE): State.CATCHING_UP,
    (State.CATCHING_UP, Trigger.LAG_IN_BOUNDS): State.READY,
    (State.CATCHING_UP, Trigger.QUARANTINE_EXCEEDED): State.ABORTING,
    (State.CATCHING_UP, Trigger.WITHOUT_TEXT_EXCEEDED): State.ABORTING,
    (State.READY, Trigger.WITHOUT_TEXT_EXCEEDED): State.ABORTING,
    (State.READY, Trigger.LAG_EXCEEDED): State.CATCHING_UP,
    (State.READY, Trigger.PROMOTED): State.CUTTING_OVER,
    (State.CUTTING_OVER, Trigger.DRAINED): State.VERIFYING,
    (State.CUTTING_OVER, Trigger.CUT_OVER_INTERRUPTED): State.CATCHING_UP,
    (State.CUTTING_OVER, Trigger.PAUSE_CAP_EXCEEDED): State.CATCHING_UP,
    (State.VERIFYING, Trigger.CUT_OVER_INTERRUPTED): State.CATCHING_UP,
    (State.VERIFYING, Trigger.PAUSE_CAP_EXCEEDED): State.CATCHING_UP,
    (State.VERIFYING, Trigger.DIGEST_UNEQUAL): State.ABORTING,
    (State.READY, Trigger.PROMOTE_REQUESTED): State.READY,
    (State.READY, Trigger.WAVE_BAKED): State.READY,
    (State.READY, Trigger.QUALITY_MEASURED): State.READY,
    (State.READY, Trigger.QUALITY_ACCEPTED): State.READY,
    (State.OBSERVING, Trigger.ROLLBACK_REQUESTED): State.OBSERVING,
    (State.OBSERVING, Trigger.OBSERVED_SO_FAR): State.OBSERVING,
    (State.OBSERVING, Trigger.ROLLBACK_BEGUN): State.ROLLING_BACK,
    (State.ROLLING_BACK, Trigger.ROLLBACK_INTERRUPTED): State.OBSERVING,
    (State.ROLLING_BACK, Trigger.PAUSE_CAP_EXCEEDED): State.OBSERVING,
    (State.ROLLING_BACK, Trigger.ROLLBACK_UNEQUAL): State.OBSERVING,
    (State.OBSERVING, Trigger.COMPLETE_REQUESTED): State.COMPLETING,
    (State.OBSERVING, Trigger.OBSERVED): State.COMPLETING,
    # The outcome of the swap back may have been unknown for a while.
    (State.ROLLING_BACK, Trigger.ROLLED_BACK): State.READY,
    (State.OBSERVING, Trigger.ROLLED_BACK): State.READY,
    (State.COMPLETING, Trigger.COMPLETED): State.SUCCEEDED,
    (State.ABORTING, Trigger.UNDONE): State.ABORTED,
}

#: States in which the routing record may turn out to be committed: it is believed, not the history. Only
#: VERIFYING commits; the others are reached when the outcome of that swap was unknown for a while.
_MAY_FIND_COMMIT = (State.VERIFYING, State.CATCHING_UP, State.READY, State.CUTTING_OVER, State.ABORTING)

_ABORTABLE = (
    State.PENDING,
    State.PREFLIGHTING,
    State.COPYING,
    State.CATCHING_UP,
    State.READY,
    State.CUTTING_OVER,
    State.VERIFYING,
)

#: States in which the switch can be put off: it has not begun.
POSTPONABLE = (State.PENDING, State.PREFLIGHTING, State.COPYING, State.CATCHING_UP, State.READY)

#: States in which a copy is under way, or may begin.
COPYABLE = (State.PENDING, State.PREFLIGHTING, State.COPYING)

TRANSITIONS: Mapping[tuple[State, Trigger], State] = {
    **_FORWARD,
    **{(state, Trigger.COMMITTED): State.COMPLETING for state in _MAY_FIND_COMMIT},
    **{(state, Trigger.SWITCHED): State.OBSERVING for state in _MAY_FIND_COMMIT},
    **{
        (state, trigger): state
        for state in State
        for trigger in (Trigger.PAUSE_REQUESTED, Trigger.RESUME_REQUESTED, Trigger.READS_SET)
        if not state.is_terminal
    },
    **{(state, Trigger.POSTPONE_REQUESTED): state for state in POSTPONABLE},
    **{(state, Trigger.COPY_RATE_SET): state for state in COPYABLE},
    **{(state, Trigger.ABORT_REQUESTED): State.ABORTING for state in _ABORTABLE},
    **{(state, Trigger.LEADER_CHANGED): state for state in State if not state.is_terminal},
}


def next_state(state: State | None, trigger: Trigger, *, story: Sequence[str] = ()) -> State:
    """Return the state that follows.

    Args:
        state: the state now; None before the first event.
        trigger: what happened.
        story: what happened before, one line an event, for the error.

    Raises:
        PastPointOfNoReturnError: an abort was asked for after the commit.
        PreconditionError: the table knows no such transition.
    """
    if state is None and trigger is Trigger.REQUESTED:
        return State.PENDING
    found = TRANSITIONS.get((state, trigger)) if state is not None else None
    if found is not None:
        return found
    name = "nothing" if state is None else state.value
    if state is not None and state.is_committed and trigger is Trigger.ABORT_REQUESTED:
        kept = state in (State.OBSERVING, State.ROLLING_BACK)
        raise PastPointOfNoReturnError(
            "the migration has switched; abort undoes only what has not"
            if kept
            else "the migration has committed; it can only go forward",
            remedy="roll it back (brainy migrate rollback); then it can be aborted"
            if kept
            else "start another migration to change the namespace again",
            state=name,
            story="; ".join(story),
        )
    raise PreconditionError(
        f"a migration in state {name} cannot take {trigger.value}",
        state=name,
        trigger=trigger.value,
        story="; ".join(story),
    )
