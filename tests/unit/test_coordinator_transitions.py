"""The whole product of states and triggers, so that neither can be half wired."""

from __future__ import annotations

import itertools

import pytest

from brainy.errors import PastPointOfNoReturnError, PreconditionError
from brainy_coordinator.migration.decision import _DECIDERS
from brainy_coordinator.migration.stages import STAGES
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.transitions import TRANSITIONS, next_state

S, T = State, Trigger

#: Written out by hand, not derived: state -> trigger -> state.
ALLOWED = {
    S.PENDING: {T.BEGUN: S.PREFLIGHTING, T.ABORT_REQUESTED: S.ABORTING},
    S.PREFLIGHTING: {
        T.PREFLIGHT_PASSED: S.COPYING,
        T.PREFLIGHT_FAILED: S.ABORTING,
        T.ABORT_REQUESTED: S.ABORTING,
    },
    S.COPYING: {T.COPY_DONE: S.CATCHING_UP, T.ABORT_REQUESTED: S.ABORTING},
    S.CATCHING_UP: {
        T.LAG_IN_BOUNDS: S.READY,
        T.QUARANTINE_EXCEEDED: S.ABORTING,
        T.WITHOUT_TEXT_EXCEEDED: S.ABORTING,
        T.COMMITTED: S.COMPLETING,
        T.ABORT_REQUESTED: S.ABORTING,
    },
    S.READY: {
        T.LAG_EXCEEDED: S.CATCHING_UP,
        T.WITHOUT_TEXT_EXCEEDED: S.ABORTING,
        T.PROMOTED: S.CUTTING_OVER,
        T.PROMOTE_REQUESTED: S.READY,
        T.WAVE_BAKED: S.READY,
        T.QUALITY_MEASURED: S.READY,
        T.QUALITY_ACCEPTED: S.READY,
        T.COMMITTED: S.COMPLETING,
        T.ABORT_REQUESTED: S.ABORTING,
    },
    S.CUTTING_OVER: {
        T.DRAINED: S.VERIFYING,
        T.CUT_OVER_INTERRUPTED: S.CATCHING_UP,
        T.PAUSE_CAP_EXCEEDED: S.CATCHING_UP,
        T.COMMITTED: S.COMPLETING,
        T.ABORT_REQUESTED: S.ABORTING,
    },
    S.VERIFYING: {
        T.CUT_OVER_INTERRUPTED: S.CATCHING_UP,
        T.PAUSE_CAP_EXCEEDED: S.CATCHING_UP,
        T.DIGEST_UNEQUAL: S.ABORTING,
        T.COMMITTED: S.COMPLETING,
        T.ABORT_REQUESTED: S.ABORTING,
    },
    S.OBSERVING: {
        T.ROLLBACK_REQUESTED: S.OBSERVING,
        T.ROLLBACK_BEGUN: S.ROLLING_BACK,
        T.ROLLED_BACK: S.READY,
        T.COMPLETE_REQUESTED: S.COMPLETING,
        T.OBSERVED: S.COMPLETING,
        T.OBSERVED_SO_FAR: S.OBSERVING,
    },
    S.ROLLING_BACK: {
        T.ROLLED_BACK: S.READY,
        T.ROLLBACK_INTERRUPTED: S.OBSERVING,
        T.PAUSE_CAP_EXCEEDED: S.OBSERVING,
        T.ROLLBACK_UNEQUAL: S.OBSERVING,
    },
    S.COMPLETING: {T.COMPLETED: S.SUCCEEDED},
    S.ABORTING: {T.UNDONE: S.ABORTED, T.COMMITTED: S.COMPLETING},
    S.SUCCEEDED: {},
    S.ABORTED: {},
}
for _state in S:
    if _state not in (S.SUCCEEDED, S.ABORTED):
        ALLOWED[_state] |= dict.fromkeys((T.LEADER_CHANGED, T.PAUSE_REQUESTED, T.RESUME_REQUESTED, T.READS_SET), _state)
    if _state in (S.PENDING, S.PREFLIGHTING, S.COPYING, S.CATCHING_UP, S.READY):
        ALLOWED[_state][T.POSTPONE_REQUESTED] = _state
    if _state in (S.PENDING, S.PREFLIGHTING, S.COPYING):
        ALLOWED[_state][T.COPY_RATE_SET] = _state
    if T.COMMITTED in ALLOWED[_state]:
        # The same discovery, where a way back is kept.
        ALLOWED[_state][T.SWITCHED] = S.OBSERVING


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(State, Trigger)))
def test_every_pair_is_allowed_or_refused_with_the_story(state: State, trigger: Trigger) -> None:
    expected = ALLOWED[state].get(trigger)
    if expected is not None:
        assert next_state(state, trigger) is expected
        return
    with pytest.raises(PreconditionError) as refused:
        next_state(state, trigger, story=("1 requested: - -> pending",))
    assert refused.value.fields["story"] == "1 requested: - -> pending"
    committed = state in (S.OBSERVING, S.ROLLING_BACK, S.COMPLETING, S.SUCCEEDED)
    assert isinstance(refused.value, PastPointOfNoReturnError) is (committed and trigger is T.ABORT_REQUESTED)


def test_a_history_begins_with_a_request_and_nothing_else() -> None:
    assert next_state(None, T.REQUESTED) is S.PENDING
    for trigger in set(T) - {T.REQUESTED}:
        with pytest.raises(PreconditionError):
            next_state(None, trigger)


def test_the_table_says_no_more() -> None:
    assert dict(TRANSITIONS) == {(state, trigger): to for state, row in ALLOWED.items() for trigger, to in row.items()}


def test_nothing_but_a_rollback_leads_back_over_the_commit() -> None:
    for (state, trigger), to in TRANSITIONS.items():
        assert to.is_committed or not state.is_committed or trigger is T.ROLLED_BACK


def test_what_is_kept_is_rolled_back_and_not_aborted() -> None:
    for state, word in ((S.OBSERVING, "roll"), (S.ROLLING_BACK, "roll"), (S.COMPLETING, "another migration")):
        with pytest.raises(PastPointOfNoReturnError) as refused:
            next_state(state, T.ABORT_REQUESTED)
        assert word in refused.value.remedy


def test_every_state_is_decided_on_and_every_stage_has_a_state() -> None:
    assert _DECIDERS.keys() == {state for state in State if not state.is_terminal}
    assert [stage.state for stage in STAGES] == [
        S.PREFLIGHTING,
        S.COPYING,
        S.CATCHING_UP,
        S.READY,
        S.CUTTING_OVER,
        S.VERIFYING,
        S.OBSERVING,
        S.ROLLING_BACK,
        S.COMPLETING,
    ]
