"""The search quality before the switch: what decides, what keeps, what the command takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_coordinator_decision import record, replicas, routing, see

from brainy.api.coordinator.v1 import quality_pb2
from brainy.cli.quality import thresholds_of
from brainy.errors import InvalidRequestError, PreconditionError
from brainy.sdk.quality import QualityThresholds, found_from_proto
from brainy.traffic.comparison import Comparison
from brainy.traffic.latencies import counted
from brainy_coordinator.migration import actions as act
from brainy_coordinator.migration import interventions
from brainy_coordinator.migration.cut_over import LAG_LIMIT
from brainy_coordinator.migration.decision import decide
from brainy_coordinator.migration.dry_run import DryRunExecutor, plan
from brainy_coordinator.migration.observation import Facts
from brainy_coordinator.migration.obstacles import obstacles
from brainy_coordinator.migration.planning.outcome import transitions_of
from brainy_coordinator.migration.quality import (
    LONGEST_SECONDS,
    Measured,
    QualityFound,
    QualityWish,
    complaint,
    verdict,
)
from brainy_coordinator.migration.record import Event, MigrationRecord
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.services.quality_messages import found_message, wish_value

S, T = State, Trigger
WISH = QualityWish(queries=10, min_overlap=0.9, min_recall=0.95, max_latency_ratio=2.0)
SHORT = "50.00% of the nearest neighbours are shared, 90.00% are wanted"
POOR = QualityFound(queries=10, overlap=0.5, reasons=(SHORT,))
GOOD = QualityFound(queries=10, overlap=1.0, source_recall=1.0, target_recall=1.0)


def ready(**changes: Any) -> MigrationRecord:
    made = record(S.READY)
    return replace(made, request=made.request.model_copy(update={"quality": WISH}), **changes)


def figures(queries: int = 10, *, shared: int = 10, found: int = 10, took: float = 0.001) -> Comparison:
    one = Comparison(
        asked=1,
        queries=1,
        hits_shared=shared,
        hits_wanted=10,
        recall_queries=1,
        source_found=10,
        source_exact=10,
        target_found=found,
        target_exact=10,
        source_latency=counted(0.001),
        target_latency=counted(took),
    )
    return Comparison.total([one] * queries)


def measured(comparison: Comparison, **fields: Any) -> Measured:
    return Measured(since=0.0, comparison=comparison, **fields)


@pytest.mark.parametrize(
    ("comparison", "reason"),
    [
        (figures(), ""),
        (figures(shared=8), "80.00% of the nearest neighbours"),
        (figures(found=9), "recall is 90.00% on the target (100.00% on the source)"),
        (figures(took=0.01), "the median of the target"),
        (figures(4), "4 queries were compared, 5 are wanted"),
        (Comparison(), "0 queries were compared"),
    ],
)
def test_each_threshold_has_its_reason(comparison: Comparison, reason: str) -> None:
    found = verdict(measured(comparison), WISH)
    assert found.passed is (not reason)
    assert reason in " ".join(found.reasons)
    assert found_from_proto(found_message(found) or quality_pb2.QualityFound()).passed is found.passed


def test_what_is_not_asked_for_never_fails_and_nothing_to_search_for_passes() -> None:
    assert verdict(measured(figures(shared=0, found=0, took=1.0)), QualityWish(queries=10)).passed
    empty = verdict(measured(Comparison(), empty=True), WISH)
    assert (empty.passed, empty.line) == (True, "there is nothing to search for")
    # A ratio of times below a millisecond says nothing of an index.
    quick = replace(figures(), source_latency=counted(0.0001), target_latency=counted(0.0009))
    assert verdict(measured(quick), WISH).passed


def test_nothing_moves_before_it_was_measured() -> None:
    wish = ready()
    action = act.MeasureQuality(0, 1)
    assert decide(wish, see(), 0.0).actions == (action,)
    partly = see(facts=Facts(quality=measured(figures(3))))
    assert decide(wish, partly, 0.0).actions == (action,)
    assert decide(replace(wish, held=True), partly, 0.0).actions == (action,)
    whole = decide(wish, see(facts=Facts(quality=measured(figures()))), 0.0)
    assert (whole.trigger, whole.quality and whole.quality.passed, whole.actions) == (T.QUALITY_MEASURED, True, ())
    # Nodes that do not answer do not hold it up for ever, and do not make it pass either.
    late = decide(wish, partly, LONGEST_SECONDS + 1.0)
    assert late.trigger is T.QUALITY_MEASURED
    assert late.quality is not None
    assert "3 queries were compared, 5 are wanted" in late.quality.reasons
    assert decide(record(S.READY), see(), 0.0).trigger is T.PROMOTED


def test_only_a_result_that_passes_or_is_accepted_lets_it_switch() -> None:
    assert decide(ready(quality=GOOD), see(), 0.0).trigger is T.PROMOTED
    poor = ready(quality=POOR)
    assert decide(poor, see(), 0.0).waits
    (told,) = obstacles(poor, see(), 0.0)
    assert "50.00% of the nearest neighbours" in told
    assert "brainy migrate quality --accept" in told
    with pytest.raises(PreconditionError) as refused:
        interventions.promote(replace(poor, held=True), see())
    assert "50.00%" in str(refused.value.remedy)
    assert decide(replace(poor, quality_accepted=True), see(), 0.0).trigger is T.PROMOTED
    # What falls behind meanwhile is looked after first.
    behind = see(what=replicas(applied=11 * LAG_LIMIT, cursor=0))
    assert decide(ready(), behind, 0.0).trigger is T.LAG_EXCEEDED


def test_what_may_be_accepted() -> None:
    assert interventions.accept_quality(ready(quality=POOR), see()) is T.QUALITY_ACCEPTED
    assert interventions.accept_quality(ready(quality=POOR, quality_accepted=True), see()) is None
    for refused in (ready(), ready(quality=GOOD), replace(ready(quality=POOR), state=S.CATCHING_UP)):
        with pytest.raises(PreconditionError):
            interventions.accept_quality(refused, see())
    assert interventions.measured(ready(), see()) is T.QUALITY_MEASURED
    assert interventions.measured(replace(ready(), state=S.OBSERVING), see()) is None


def test_the_history_tells_it_until_the_sides_change() -> None:
    def then(before: MigrationRecord, trigger: Trigger, to: State, **fields: Any) -> MigrationRecord:
        event = Event(
            sequence=before.sequence + 1,
            nonce="n",
            at=0.0,
            trigger=trigger,
            from_state=before.state,
            to_state=to,
            by="x",
            leader_epoch=1,
            **fields,
        )
        return before.apply(Event.decode(event.encode(), key="k"))

    poor = then(ready(), T.QUALITY_MEASURED, S.READY, quality=POOR)
    assert (poor.quality, poor.quality_accepted) == (POOR, False)
    accepted = then(poor, T.QUALITY_ACCEPTED, S.READY)
    assert (accepted.quality, accepted.quality_accepted) == (POOR, True)
    again = then(accepted, T.QUALITY_MEASURED, S.READY, quality=GOOD)
    assert (again.quality, again.quality_accepted) == (GOOD, False)
    switched = then(again, T.SWITCHED, S.OBSERVING)
    assert (switched.quality, switched.quality_accepted) == (None, False)
    assert complaint(WISH, switched.quality, accepted=switched.quality_accepted)
    assert transitions_of(again.story) == transitions_of(ready().story)


async def test_a_plan_says_what_will_be_asked() -> None:
    request = ready().request.model_copy(update={"strategy": "rolling"})
    executor = DryRunExecutor(routing(target=False), reachable=frozenset("ab"), shard_count=2, replication=2, checks=())
    steps = [step.action for step in await plan(executor, "plan", request)]
    assert steps.index("MeasureQuality") < steps.index("AdoptNode") < steps.index("Drain")
    (detail,) = [step.detail for step in executor.steps if step.action == "MeasureQuality"]
    assert "10 queries" in detail
    assert "overlap at least 90%" in detail
    assert executor.story[-1].to_state is S.SUCCEEDED


def test_thresholds_on_the_wire_and_on_the_command_line() -> None:
    assert wish_value(quality_pb2.QualityThresholds()) == QualityWish()
    for wrong in ({"min_overlap": 1.5}, {"min_recall": -0.1}, {"queries": 5000}, {"max_latency_ratio": -1.0}):
        with pytest.raises(InvalidRequestError):
            wish_value(quality_pb2.QualityThresholds(**wrong))  # type: ignore[arg-type]
    assert thresholds_of(False, None, None, None, None) is None
    assert thresholds_of(True, None, None, None, None) == QualityThresholds()
    assert thresholds_of(False, 80, None, 0, 20) == QualityThresholds(
        queries=20, min_overlap=0.8, min_recall=0.95, max_latency_ratio=0.0
    )
    with pytest.raises(InvalidRequestError, match="in percent"):
        thresholds_of(False, 0.9, None, None, None)
