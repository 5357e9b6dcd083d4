"""Decisions, refusals and words after the switch: what a leader does while a way back is kept, and on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement
from brainy.errors import PastPointOfNoReturnError, PreconditionError
from brainy_coordinator.migration import actions as act
from brainy_coordinator.migration import edits, interventions
from brainy_coordinator.migration.cut_over import LAG_LIMIT
from brainy_coordinator.migration.decision import decide
from brainy_coordinator.migration.observation import CutOver, Facts, Observation, ReplicaSeen, ReplicaState
from brainy_coordinator.migration.obstacles import obstacles
from brainy_coordinator.migration.record import Event, MigrationRecord, Request, fold
from brainy_coordinator.migration.state import State, Trigger

ID = "m-1"
S, T = State, Trigger
EVERY = frozenset({"a", "b"})
SHARDS = {
    0: ShardPlacement(owner="a", epoch=1, replicas=("b",)),
    1: ShardPlacement(owner="b", epoch=1, replicas=("a",)),
}


def before(phase: str = "draining") -> Routing:
    return Routing(
        namespace="memory://x-y-z",
        epoch=7,
        nonce="n",
        leader_epoch=1,
        active=0,
        write=0,
        phase=phase,  # type: ignore[arg-type]
        migration=ID,
        nodes={n: NodeAddress(address=n, incarnation="i") for n in EVERY},
        generations={
            0: GenerationPlacement(state="serving", shard_count=2, shards=SHARDS),
            1: GenerationPlacement(state="building", shard_count=2, follows=0, shards=SHARDS),
        },
    )


SWITCHED = edits.commit(before(), ID, leading=0, following=1, epoch=7, follow_from={0: 5, 1: 6})
DRAINED = edits.drain(SWITCHED, ID)
BACK = edits.commit(DRAINED, ID, leading=1, following=0, epoch=7, follow_from={0: 8, 1: 9}, back=True)


def replicas(*, lag: int = 0, tagged: int | None = 1) -> tuple[ReplicaSeen, ...]:
    """Generation 1 leads at 5,000; generation 0 is so many records behind, by a cursor of ``tagged``."""
    return tuple(
        seen
        for node in sorted(EVERY)
        for shard in (0, 1)
        for seen in (
            ReplicaSeen(node_id=node, generation=1, shard=shard, state=ReplicaState.READY, applied=5000),
            ReplicaSeen(
                node_id=node,
                generation=0,
                shard=shard,
                state=ReplicaState.READY,
                applied=100,
                source_cursor={shard: 5000 - lag},
                source_generation=tagged,
            ),
        )
    )


def see(
    where: Routing = SWITCHED,
    facts: Facts | None = None,
    *,
    what: tuple[ReplicaSeen, ...] | None = None,
    reachable: frozenset[str] = EVERY,
) -> Observation:
    told = facts or Facts(released=EVERY)
    return Observation(routing=where, reachable=reachable, replicas=replicas() if what is None else what, facts=told)


def record(state: State, *, observe: float = 0.0, **fields: object) -> MigrationRecord:
    request = Request(
        request_id="r",
        namespace="memory://x-y-z",
        strategy="rolling",
        source_generation=0,
        target_generation=1,
        keep_way_back=True,
        observe_seconds=observe,
    )
    first = Event(
        sequence=1,
        nonce="n",
        at=0.0,
        trigger=T.REQUESTED,
        from_state=None,
        to_state=S.PENDING,
        by="x",
        leader_epoch=1,
        request=request,
    )
    return replace(fold(ID, [first]), state=state, **fields)  # type: ignore[arg-type]


def kinds(actions: tuple[act.Action, ...]) -> list[type]:
    return [type(action) for action in actions]


@pytest.mark.parametrize("state", [S.CATCHING_UP, S.READY, S.CUTTING_OVER, S.VERIFYING, S.ABORTING])
def test_a_switch_that_was_not_written_down_is_found_in_the_routing_record(state: State) -> None:
    assert decide(record(state), see(), 0.0).trigger is T.SWITCHED


@pytest.mark.parametrize("state", [S.OBSERVING, S.ROLLING_BACK])
def test_a_rollback_that_was_not_written_down_is_found_there_too(state: State) -> None:
    assert decide(record(state), see(BACK), 0.0).trigger is T.ROLLED_BACK
    assert decide(record(state, paused=("lunch",)), see(BACK), 0.0).trigger is T.ROLLED_BACK


def test_observing_tells_every_node_and_then_waits_for_somebody() -> None:
    assert decide(record(S.OBSERVING), see(facts=Facts(released=frozenset({"a"}))), 0.0).actions == (act.Release(1),)
    assert decide(record(S.OBSERVING), see(), 1e9).waits
    told = obstacles(record(S.OBSERVING), see(), 0.0)
    assert told == ("the source follows; it completes when it is asked to (complete it, or roll it back)",)


def test_the_time_to_observe_ends_it() -> None:
    facts = Facts(released=EVERY, observing_since=100.0)
    timed = record(S.OBSERVING, observe=30.0)
    assert decide(timed, see(facts=facts), 129.9).trigger is T.OBSERVED_SO_FAR, (
        "so that the next leader goes on from here"
    )
    assert decide(replace(timed, observed_seconds=29.5), see(facts=facts), 129.9).waits
    assert decide(timed, see(facts=facts), 130.0).trigger is T.OBSERVED
    # Not while it is paused, not while somebody wants it back, and a leader that has seen nothing yet begins to count.
    assert decide(replace(timed, paused=("lunch",)), see(facts=facts), 130.0).waits
    assert decide(replace(timed, wants_rollback=True), see(facts=facts), 130.0).trigger is T.ROLLBACK_BEGUN
    assert decide(timed, see(), 1e9).waits


def test_a_rollback_that_found_a_difference_keeps_the_way_back() -> None:
    facts = Facts(released=EVERY, observing_since=0.0)
    differs = record(S.OBSERVING, observe=30.0, differs=True)
    assert decide(differs, see(facts=facts), 1e9).waits
    told = obstacles(differs, see(facts=facts), 1e9)
    assert told[0].startswith("a rollback found that both sides differ")
    assert "completes when it is asked to" in told[1]


def test_writes_left_waiting_by_a_dead_leader_are_let_go_on_the_side_that_is_active() -> None:
    for state in (S.OBSERVING, S.ROLLING_BACK):
        decision = decide(record(state, wants_rollback=True), see(DRAINED), 0.0)
        assert decision.actions
        undrain = decision.actions[0]
        assert isinstance(undrain, act.Undrain)
        assert undrain.generation == 1
        assert decision.trigger is (T.ROLLBACK_INTERRUPTED if state is S.ROLLING_BACK else None)


@pytest.mark.parametrize(
    ("what", "begins"),
    [
        (replicas(), True),
        (replicas(lag=LAG_LIMIT), True),
        (replicas(lag=LAG_LIMIT + 1), False),
        # A cursor of another generation says nothing about this one.
        (replicas(tagged=7), False),
        (replicas()[:-1], False),
    ],
)
def test_a_rollback_begins_once_the_source_is_close_behind(what: tuple[ReplicaSeen, ...], begins: bool) -> None:
    wanted = record(S.OBSERVING, wants_rollback=True)
    seen = see(what=what)
    assert (decide(wanted, seen, 0.0).trigger is T.ROLLBACK_BEGUN) is begins
    assert bool(obstacles(wanted, seen, 0.0)) is not begins


def test_a_rollback_waits_after_an_attempt_that_was_given_up() -> None:
    wanted = record(S.OBSERVING, wants_rollback=True, retries=3)
    facts = Facts(released=EVERY, gave_up_at=100.0)
    assert decide(wanted, see(facts=facts), 103.9).waits
    assert decide(wanted, see(facts=facts), 104.0).trigger is T.ROLLBACK_BEGUN
    assert obstacles(wanted, see(facts=facts), 101.0) == ("the next attempt to roll back begins in 3 s",)


def test_the_steps_back_are_those_of_the_switch_with_the_roles_changed() -> None:
    rolling = record(S.ROLLING_BACK, wants_rollback=True)
    assert decide(rolling, see(), 100.0).actions == (act.Drain(1),)
    attempt = CutOver(epoch=7, started_at=100.0, leading=1)
    ended = replace(attempt, positions={0: 5000, 1: 5000})
    for fact, action in (
        (attempt, act.TakePositions(1)),
        (ended, act.AwaitCatchUp(0)),
        (replace(ended, caught_up=True), act.CompareDigests(1, 0)),
        (replace(ended, caught_up=True, digest_equal=True), act.Commit(1, 0)),
    ):
        decision = decide(rolling, see(DRAINED, Facts(cut_over=fact)), 102.9)
        assert (decision.trigger, decision.actions) == (None, (action,))
    late = decide(rolling, see(DRAINED, Facts(cut_over=ended)), 103.1)
    assert (late.trigger, kinds(late.actions)) == (T.PAUSE_CAP_EXCEEDED, [act.Undrain])
    unequal = replace(ended, caught_up=True, digest_equal=False)
    differs = decide(rolling, see(DRAINED, Facts(cut_over=unequal)), 102.9)
    assert (differs.trigger, kinds(differs.actions)) == (T.ROLLBACK_UNEQUAL, [act.Undrain])


def test_after_a_rollback_nothing_moves_before_it_is_promoted() -> None:
    rested = record(S.READY, held=True, rolled_back=1)
    what = tuple(
        replace(seen, applied=100, source_cursor={seen.shard: 100}, source_generation=0)
        if seen.generation == 1
        else replace(seen, applied=100)
        for seen in replicas()
    )
    told = Facts(released=EVERY)
    assert decide(rested, see(BACK, Facts(), what=what), 0.0).actions == (act.Release(0),)
    assert decide(rested, see(BACK, told, what=what), 0.0).waits
    assert obstacles(rested, see(BACK, told, what=what), 0.0) == ("held after a rollback (promote it, or abort it)",)
    assert interventions.promote(rested, see(BACK, told, what=what)) is T.PROMOTE_REQUESTED
    free = replace(rested, held=False)
    assert decide(free, see(BACK, told, what=what), 0.0).actions == (act.AdoptNode("a", 1),)
    assert interventions.promote(free, see(BACK, told, what=what)) is None


@pytest.mark.parametrize("state", [S.PENDING, S.PREFLIGHTING, S.COPYING, S.CATCHING_UP, S.READY, S.OBSERVING])
def test_a_pause_holds_everything_but_writes_that_wait(state: State) -> None:
    where = SWITCHED if state is S.OBSERVING else before("serving")
    paused = record(state, paused=("lunch",), wants_rollback=True)
    assert decide(paused, see(where), 0.0).waits
    drained = edits.drain(where, ID)
    assert kinds(decide(paused, see(drained), 0.0).actions) == [act.Undrain]
    assert "paused: lunch (resume it)" in obstacles(paused, see(where), 0.0)


def test_a_pause_does_not_interrupt_an_attempt_but_begins_none() -> None:
    attempt = Facts(cut_over=CutOver(epoch=7, started_at=0.0))
    paused = record(S.CUTTING_OVER, paused=("lunch",))
    assert decide(paused, see(before(), attempt), 0.1).actions == (act.TakePositions(0),)
    assert decide(paused, see(before("serving"), Facts()), 0.1).trigger is T.CUT_OVER_INTERRUPTED
    back = record(S.ROLLING_BACK, paused=("lunch",))
    assert decide(back, see(facts=Facts()), 0.1).trigger is T.ROLLBACK_INTERRUPTED


def test_what_may_be_asked_when() -> None:
    rules = (interventions.promote, interventions.rollback, interventions.complete, interventions.pause)
    asked: dict[State, list[Trigger | str | None]] = {}
    for state in State:
        asked[state] = []
        for rule in rules:
            try:
                asked[state].append(rule(record(state, held=True), see()))
            except PastPointOfNoReturnError:
                asked[state].append("past")
            except PreconditionError:
                asked[state].append("refused")
    no, pause = "refused", T.PAUSE_REQUESTED
    early = [no, no, no, pause]
    assert asked == {
        **dict.fromkeys((S.PENDING, S.PREFLIGHTING, S.COPYING, S.CATCHING_UP), early),
        S.READY: [T.PROMOTE_REQUESTED, no, no, pause],
        **dict.fromkeys((S.CUTTING_OVER, S.VERIFYING, S.ABORTING), early),
        S.OBSERVING: [no, T.ROLLBACK_REQUESTED, T.COMPLETE_REQUESTED, pause],
        S.ROLLING_BACK: [no, None, no, pause],
        S.COMPLETING: [no, "past", None, pause],
        S.SUCCEEDED: [no, "past", None, no],
        S.ABORTED: [no, no, no, no],
    }


def test_completing_is_refused_while_writes_wait_for_a_rollback() -> None:
    with pytest.raises(PreconditionError):
        interventions.complete(record(S.OBSERVING), see(DRAINED))
    assert interventions.rollback(record(S.OBSERVING, wants_rollback=True), see()) is None
    assert interventions.rollback(record(S.READY, rolled_back=1), see(BACK)) is None
    assert interventions.resume(record(S.READY), see()) is None
    assert interventions.resume(record(S.READY, paused=("x",)), see()) is T.RESUME_REQUESTED


def test_promoting_too_early_names_what_is_missing() -> None:
    late = tuple(replace(seen, source_generation=0, source_cursor={}) for seen in replicas())
    with pytest.raises(PreconditionError) as refused:
        interventions.promote(record(S.CATCHING_UP, held=True), see(before("serving"), what=late))
    assert "shard 0 is 100 records behind" not in refused.value.remedy  # within the limit
    far = tuple(replace(s, applied=5000) if s.generation == 0 else s for s in late)
    with pytest.raises(PreconditionError) as refused:
        interventions.promote(record(S.READY, held=True), see(before("serving"), what=far))
    assert "shard 0 is 5000 records behind" in refused.value.remedy


def test_the_history_of_there_and_back() -> None:
    """What the fold keeps of each turn."""
    found = record(S.OBSERVING)
    steps = [
        (T.ROLLBACK_REQUESTED, S.OBSERVING, "one"),
        (T.ROLLBACK_BEGUN, S.ROLLING_BACK, ""),
        (T.PAUSE_CAP_EXCEEDED, S.OBSERVING, ""),
        (T.PAUSE_REQUESTED, S.OBSERVING, "two"),
        (T.RESUME_REQUESTED, S.OBSERVING, "three"),
        (T.ROLLBACK_BEGUN, S.ROLLING_BACK, ""),
        (T.ROLLED_BACK, S.READY, ""),
        (T.PROMOTE_REQUESTED, S.READY, "four"),
    ]
    seen = []
    for trigger, to, key in steps:
        found = found.apply(
            Event(
                sequence=found.sequence + 1,
                nonce="n",
                at=0.0,
                trigger=trigger,
                from_state=found.state,
                to_state=to,
                by="x",
                leader_epoch=1,
                detail="lunch",
                request_id=key,
            )
        )
        seen.append((found.wants_rollback, found.retries, found.paused, found.held, found.leading))
    assert seen == [
        (True, 0, (), False, 1),
        (True, 0, (), False, 1),
        (True, 1, (), False, 1),
        (True, 1, ("lunch",), False, 1),
        (True, 1, (), False, 1),
        (True, 1, (), False, 1),
        (False, 0, (), True, 0),
        (False, 0, (), False, 0),
    ]
    assert found.requests == {"one", "two", "three", "four"}
