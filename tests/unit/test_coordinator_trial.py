"""Reads tried on a target: the routing record that says so, when it may, and that nothing of it stays."""

from __future__ import annotations

import pytest
from test_coordinator_decision import ID, record, routing

from brainy.bucket.invariants import check_routing
from brainy.bucket.records import Routing
from brainy.bucket.trial import ReadTrial
from brainy.errors import CorruptDataError, PreconditionError
from brainy_coordinator.migration import edits
from brainy_coordinator.migration.state import State
from brainy_coordinator.migration.trial import require_triable, try_reads

READY = record(State.READY)


def trying(**changes: object) -> Routing:
    return routing(**changes).model_copy(  # type: ignore[arg-type]
        update={"reads": ReadTrial(generation=1, weight=0.25, shadow=0.5, round=3)}
    )


def test_without_a_trial_the_record_reads_as_it_always_did() -> None:
    assert b'"reads"' not in routing().encode()
    assert Routing.decode(routing().encode(), key="routing") == routing()


def test_a_trial_survives_the_bucket() -> None:
    assert Routing.decode(trying().encode(), key="routing") == trying()
    check_routing(trying())


@pytest.mark.parametrize("share", [-0.01, 1.01])
def test_a_share_out_of_bounds_is_no_record(share: float) -> None:
    wrong = trying().model_copy(update={"reads": ReadTrial.model_construct(generation=1, weight=share, shadow=0.0)})
    with pytest.raises(CorruptDataError):
        Routing.decode(wrong.encode(), key="routing")


def test_the_active_generation_is_not_tried() -> None:
    with pytest.raises(CorruptDataError, match="reads are tried only"):
        check_routing(routing().model_copy(update={"reads": ReadTrial(generation=0, weight=1.0)}))
    with pytest.raises(CorruptDataError, match="reads are tried only"):
        check_routing(routing().model_copy(update={"reads": ReadTrial(generation=9, weight=1.0)}))


def test_setting_is_idempotent_and_keeps_the_round_until_it_is_restarted() -> None:
    first = try_reads(routing(epoch=7), READY, weight=0.1, shadow=0.2)
    assert first.reads == ReadTrial(generation=1, weight=0.1, shadow=0.2, round=8)
    assert try_reads(first, READY, weight=0.1, shadow=0.2) is first
    more = try_reads(first, READY, weight=0.9, shadow=0.2)
    assert more.reads == ReadTrial(generation=1, weight=0.9, shadow=0.2, round=8)
    off = try_reads(more, READY, weight=0.0, shadow=0.0)
    assert off.reads == ReadTrial(generation=1, round=8), "what was found stays, and goes on when it is turned on again"
    later = off.model_copy(update={"epoch": 20})
    afresh = try_reads(later, READY, weight=0.0, shadow=0.2, restart=True)
    assert afresh.reads == ReadTrial(generation=1, shadow=0.2, round=21)
    assert try_reads(routing(), READY, weight=0.0, shadow=0.0) == routing(), "off is off already"


def test_a_trial_outlives_an_attempt_but_not_the_end_nor_an_abort() -> None:
    drained = trying(phase="draining")
    assert edits.undrain(drained, ID).reads == trying().reads, "a cut-over that gave up goes on trying"
    assert edits.retire_source(trying(), ID, source=0).reads is None
    assert edits.undo(trying(), ID, target=1).reads is None


@pytest.mark.parametrize("state", [s for s in State if s is not State.READY and not s.is_terminal])
def test_only_a_ready_target_is_tried(state: State) -> None:
    with pytest.raises(PreconditionError) as refused:
        require_triable(record(state), routing(), weight=0.0, shadow=0.5)
    assert refused.value.reason == "WRONG_PHASE"
    assert refused.value.remedy
    assert refused.value.fields["state"] == state.value.upper()
    require_triable(record(state), routing(), weight=0.0, shadow=0.0)


def test_a_ready_target_is_tried_unless_the_namespace_switches_or_has_none() -> None:
    require_triable(READY, routing(), weight=0.0, shadow=0.5)
    for now in (routing(phase="draining"), routing(target=False)):
        for shadow in (0.5, 0.0):
            with pytest.raises(PreconditionError):
                require_triable(READY, now, weight=0.0, shadow=shadow)
    other = routing().model_copy(update={"migration": "another"})
    with pytest.raises(PreconditionError):
        require_triable(READY, other, weight=0.0, shadow=0.0)
