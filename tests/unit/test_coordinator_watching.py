"""What a leader makes of how the target serves: figures out of heartbeats, verdicts, and time that outlives leaders."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_coordinator_way_back import EVERY, ID, SWITCHED, record, replicas, see

from brainy.bucket.trial import ReadTrial
from brainy.errors import PreconditionError
from brainy.traffic.comparison import Comparison
from brainy.traffic.latencies import counted
from brainy.traffic.limits import RollbackLimits, limits_of
from brainy.traffic.serving import Calls, Serving, ServingFigures
from brainy_coordinator.membership.registry import Report
from brainy_coordinator.migration import actions as act
from brainy_coordinator.migration.decision import decide
from brainy_coordinator.migration.observation import Facts
from brainy_coordinator.migration.obstacles import obstacles
from brainy_coordinator.migration.record import AUTOMATIC, Event, MigrationRecord
from brainy_coordinator.migration.serving_watch import ServingWatch
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.trial import setting

S, T = State, Trigger
NAMESPACE = "memory://x-y-z"
FINE = ServingFigures(calls=200, failed=1, reads=200, read_p99_seconds=0.01)
BAD = replace(FINE, failed=50)


def limited(*texts: str, observe: float = 0.0, **fields: object) -> MigrationRecord:
    found = record(S.OBSERVING, observe=observe, **fields)
    limits = limits_of(texts or ("error-rate>0.01",))
    return replace(found, request=found.request.model_copy(update={"rollback_if": limits}))


def facts(figures: ServingFigures | None = FINE, *, since: float | None = 0.0, before: float = 0.0) -> Facts:
    served = {} if figures is None else {1: figures}
    return Facts(released=EVERY, observing_since=since, observed_before=before, served=served)


# --- the verdict ------------------------------------------------------------------------------------


def test_a_broken_limit_asks_for_the_rollback_and_says_why() -> None:
    decision = decide(limited(), see(facts=facts(BAD)), 1.0)
    assert (decision.trigger, decision.by, decision.served) == (T.ROLLBACK_REQUESTED, AUTOMATIC, BAD)
    assert decision.detail == "error-rate 0.25 > 0.01: 50 of 200 calls failed"
    assert decision.actions == ()
    assert decide(limited(), see(facts=facts()), 1.0).waits


@pytest.mark.parametrize(
    ("found", "seen"),
    [
        # A pause holds it, a difference that a rollback found does, and without limits nothing is judged.
        (limited(paused=("lunch",)), facts(BAD)),
        (limited(differs=True), facts(BAD)),
        (record(S.OBSERVING), facts(BAD)),
        (limited(), facts(None)),
        (limited(), facts(replace(BAD, calls=99, failed=99))),
    ],
)
def test_what_holds_it(found: MigrationRecord, seen: Facts) -> None:
    assert decide(found, see(facts=seen), 1e9).waits


def test_nodes_are_told_of_the_switch_before_anything_is_judged() -> None:
    seen = replace(facts(BAD), released=frozenset({"a"}))
    assert decide(limited(), see(facts=seen), 1.0).actions == (act.Release(1),)


def test_the_story_of_a_rollback_by_itself_ends_paused_with_the_reason() -> None:
    found = limited()
    steps = [
        (T.ROLLBACK_REQUESTED, S.OBSERVING, AUTOMATIC, "too slow"),
        (T.ROLLBACK_BEGUN, S.ROLLING_BACK, "c1", ""),
        (T.ROLLBACK_INTERRUPTED, S.OBSERVING, "c1", ""),
        (T.ROLLBACK_BEGUN, S.ROLLING_BACK, "c1", ""),
        (T.ROLLED_BACK, S.READY, "c1", ""),
        (T.RESUME_REQUESTED, S.READY, "ann", ""),
    ]
    seen = []
    for trigger, to, by, detail in steps:
        found = found.apply(event(found, trigger, to, by=by, detail=detail))
        seen.append((found.breach, found.held, found.paused))
    assert seen == [
        ("too slow", False, ()),
        ("too slow", False, ()),
        ("too slow", False, ()),
        ("too slow", False, ()),
        ("", True, ("rolled back by itself: too slow",)),
        ("", True, ()),
    ]


def test_a_rollback_that_somebody_asks_for_is_not_paused_afterwards() -> None:
    found = limited()
    for trigger, to, by in (
        (T.ROLLBACK_REQUESTED, S.OBSERVING, "ann"),
        (T.ROLLBACK_BEGUN, S.ROLLING_BACK, "c1"),
        (T.ROLLED_BACK, S.READY, "c1"),
    ):
        found = found.apply(event(found, trigger, to, by=by))
    assert (found.held, found.paused, found.breach) == (True, (), "")


def event(found: MigrationRecord, trigger: Trigger, to: State, *, by: str = "x", **fields: object) -> Event:
    return Event.model_validate(
        {
            "sequence": found.sequence + 1,
            "nonce": "n",
            "at": 0.0,
            "trigger": trigger,
            "from_state": found.state,
            "to_state": to,
            "by": by,
            "leader_epoch": 1,
            **fields,
        }
    )


# --- the time ---------------------------------------------------------------------------------------


def test_what_was_watched_is_written_down_and_the_next_leader_goes_on_from_there() -> None:
    found = limited(observe=100.0)
    assert decide(found, see(facts=facts()), 4.9).waits
    noted = decide(found, see(facts=facts()), 5.0)
    assert (noted.trigger, noted.observed_seconds, noted.served) == (T.OBSERVED_SO_FAR, 5.0, FINE)
    assert noted.detail.startswith("5 s of 100 s: 200 calls, 0.50% failed")
    found = found.apply(event(found, T.OBSERVED_SO_FAR, S.OBSERVING, observed_seconds=5.0, served=FINE))
    assert found.observed_seconds == 5.0
    assert decide(found, see(facts=facts()), 9.9).waits
    # Another leader, by another clock: what is left is 95 seconds of its own.
    other = facts(since=7000.0, before=5.0)
    assert decide(found, see(facts=other), 7004.9).waits
    assert decide(found, see(facts=other), 7005.0).observed_seconds == 10.0
    late = replace(found, observed_seconds=95.0)
    last = facts(since=9000.0, before=95.0)
    assert decide(late, see(facts=last), 9004.9).waits
    ended = decide(late, see(facts=last), 9005.0)
    assert (ended.trigger, ended.observed_seconds) == (T.OBSERVED, 100.0)
    # Forward again after a rollback it begins anew.
    verifying = replace(found, state=S.VERIFYING)
    assert verifying.apply(event(verifying, T.SWITCHED, S.OBSERVING)).observed_seconds == 0.0


def test_time_passes_without_limits_too_and_never_before_this_leader_has_begun_to_watch() -> None:
    found = record(S.OBSERVING, observe=100.0)
    assert decide(found, see(facts=facts(None)), 5.0).trigger is T.OBSERVED_SO_FAR
    assert decide(found, see(facts=facts(None)), 100.0).trigger is T.OBSERVED
    assert decide(found, see(facts=facts(None, since=None)), 1e9).waits
    assert decide(record(S.OBSERVING), see(facts=facts(None)), 1e9).waits


def test_too_few_calls_keep_it_from_completing_and_it_says_so() -> None:
    found = limited(observe=100.0)
    few = facts(replace(FINE, calls=3))
    # The time is over: it is neither healthy nor broken, so it waits, for calls or for somebody.
    assert decide(replace(found, observed_seconds=99.0), see(facts=few), 100.0).waits
    told = obstacles(found, see(facts=few), 100.0)
    assert told[0].startswith(
        "the time to observe is over, but it cannot be judged: 3 calls of the 100 that are needed"
    )
    assert obstacles(found, see(facts=few), 5.0)[0].startswith("not judged yet: 3 calls")
    assert decide(found, see(facts=facts()), 100.0).trigger is T.OBSERVED


def test_a_broken_limit_is_told_until_the_rollback_begins() -> None:
    told = obstacles(limited(), see(facts=facts(BAD)), 1.0)
    assert told[0] == "error-rate 0.25 > 0.01: 50 of 200 calls failed (it rolls back by itself)"
    wanted = limited(wants_rollback=True, breach="too slow")
    assert obstacles(wanted, see(facts=facts(BAD)), 1.0)[0] == "it rolls back by itself: too slow (wait)"


# --- what both sides answer -------------------------------------------------------------------------


def test_with_a_limit_on_the_overlap_the_source_is_asked_besides() -> None:
    found = limited("overlap<0.9")
    assert decide(found, see(facts=facts()), 1.0).actions == (act.ShadowReads(0, 0.05),)
    tried = SWITCHED.model_copy(update={"reads": ReadTrial(generation=0, shadow=0.05)})
    assert decide(found, see(tried, facts()), 1.0).waits
    # Somebody who ended it is not overruled.
    ended = SWITCHED.model_copy(update={"reads": ReadTrial(generation=0)})
    assert decide(found, see(ended, facts()), 1.0).waits
    differing = replace(FINE, queries=50, overlap=0.5)
    assert decide(found, see(tried, facts(differing)), 1.0).trigger is T.ROLLBACK_REQUESTED


def test_reads_are_tried_on_the_source_while_it_follows_and_it_never_answers() -> None:
    found, seen = record(S.OBSERVING), see()
    assert setting(weight=0.0, shadow=0.5, restart=False)(found, seen) is T.READS_SET
    assert setting(weight=0.0, shadow=0.0, restart=False)(found, seen) is None
    with pytest.raises(PreconditionError) as refused:
        setting(weight=0.1, shadow=0.5, restart=False)(found, seen)
    assert "besides" in refused.value.remedy
    assert SWITCHED.migration == ID


# --- figures out of heartbeats ----------------------------------------------------------------------


def calls(count: int, *, failed: int = 0, seconds: float = 0.01) -> Calls:
    return Calls(count=count, failed=failed, latency=tuple(count * one for one in counted(seconds)))


def said(node: str, count: int, *, incarnation: str = "i", generation: int = 1, failed: int = 0) -> Report:
    served = {
        (NAMESPACE, generation): Serving(reads=calls(count, failed=failed)),
        ("memory://other", generation): Serving(reads=calls(1000)),
    }
    return Report(node_id=node, incarnation=incarnation, address=node, served=served)


LIMITS = RollbackLimits(error_rate=0.1, min_calls=50)


def counted_calls(watch: ServingWatch, generation: int = 1) -> tuple[int, int]:
    found = watch.figures(generation, LIMITS, None)
    return found.calls, found.failed


def test_only_what_came_while_this_leader_watched_counts() -> None:
    watch = ServingWatch(NAMESPACE)
    watch.look([said("a", 1000, failed=900)], 0.0)
    assert counted_calls(watch) == (0, 0)
    for _ in range(2):  # hearing the same again changes nothing
        watch.look([said("a", 1010, failed=901), said("b", 70)], 1.0)
        assert counted_calls(watch) == (10, 1)
    watch.look([said("a", 1010, failed=901), said("b", 75)], 2.0)
    assert counted_calls(watch) == (15, 1)
    assert counted_calls(watch, generation=0) == (0, 0)


def test_a_node_that_began_anew_has_counted_all_it_says_since() -> None:
    watch = ServingWatch(NAMESPACE)
    watch.look([said("a", 1000)], 0.0)
    watch.look([said("a", 7, incarnation="j", failed=2)], 1.0)
    assert counted_calls(watch) == (7, 2)
    # It counts further than before already, and yet none of it was there before.
    watch.look([said("a", 5000, incarnation="k")], 2.0)
    assert counted_calls(watch) == (5007, 2)
    # The generation was placed anew, so that the node forgot it in between.
    watch.look([said("a", 3, incarnation="k")], 3.0)
    assert counted_calls(watch) == (5010, 2)


def test_a_node_heard_before_it_served_anything_is_counted_from_the_first_call_on() -> None:
    watch = ServingWatch(NAMESPACE)
    watch.look([Report(node_id="a", incarnation="i", address="a")], 0.0)
    watch.look([said("a", 9)], 1.0)
    assert counted_calls(watch) == (9, 0)
    watch.begin(1)
    assert counted_calls(watch) == (0, 0)
    watch.look([said("a", 11)], 2.0)
    assert counted_calls(watch) == (2, 0)


def test_the_last_five_minutes_count_and_more_where_they_hold_too_few() -> None:
    watch = ServingWatch(NAMESPACE)
    watch.look([said("a", 0)], 0.0)
    total, at = 0, 0.0
    for _ in range(400):  # over an hour, a hundred calls in every ten seconds
        at += 10.0
        total += 100
        watch.look([said("a", total)], at)
    seen, _ = counted_calls(watch)
    assert 30 * 100 <= seen <= 32 * 100
    assert watch.figures(1, RollbackLimits(error_rate=0.1, min_calls=39_000), None).calls >= 39_000
    assert watch.figures(1, RollbackLimits(error_rate=0.1, min_calls=10**9), None).calls == total, "nothing is lost"
    assert watch.figures(1, LIMITS, None).read_p99_seconds == pytest.approx(0.01, rel=0.1)


def test_what_was_compared_is_among_the_figures() -> None:
    found = Comparison(queries=60, hits_shared=570, hits_wanted=600)
    seen = ServingWatch(NAMESPACE).figures(1, LIMITS, found)
    assert (seen.queries, seen.overlap) == (60, 0.95)
    assert replicas() != ()
