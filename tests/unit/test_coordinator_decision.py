"""Decisions over scripted observations: what a leader does next, also when it knows nothing but the bucket."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement
from brainy_coordinator.migration import actions as act
from brainy_coordinator.migration import edits
from brainy_coordinator.migration.decision import LAG_EXCEEDED_LIMIT, LAG_LIMIT, Decision, decide, retry_delay
from brainy_coordinator.migration.observation import (
    Check,
    CutOver,
    Facts,
    Observation,
    ReplicaSeen,
    ReplicaState,
    lag_of_shard,
    total_lag,
)
from brainy_coordinator.migration.record import Event, MigrationRecord, Request, fold
from brainy_coordinator.migration.state import State, Trigger

ID = "m-1"
S, T = State, Trigger


def routing(*, target: bool = True, phase: str = "serving", epoch: int = 7) -> Routing:
    shards = {
        0: ShardPlacement(owner="a", epoch=1, replicas=("b",)),
        1: ShardPlacement(owner="b", epoch=1, replicas=("a",)),
    }
    generations = {0: GenerationPlacement(state="serving", shard_count=2, shards=shards)}
    if target:
        generations[1] = GenerationPlacement(state="building", shard_count=2, follows=0, shards=shards)
    return Routing(
        namespace="memory://x-y-z",
        epoch=epoch,
        nonce="n",
        leader_epoch=1,
        active=0,
        write=0,
        phase=phase,  # type: ignore[arg-type]
        migration=ID if target else None,
        nodes={n: NodeAddress(address=n, incarnation="i") for n in ("a", "b")},
        generations=generations,
    )


def replicas(
    *, applied: int = 10, cursor: int = 10, target: ReplicaState = ReplicaState.READY
) -> tuple[ReplicaSeen, ...]:
    return tuple(
        seen
        for node in ("a", "b")
        for shard in (0, 1)
        for seen in (
            ReplicaSeen(node_id=node, generation=0, shard=shard, state=ReplicaState.READY, applied=applied),
            ReplicaSeen(node_id=node, generation=1, shard=shard, state=target, source_cursor={shard: cursor}),
        )
    )


def see(
    *, where: Routing | None = None, facts: Facts | None = None, what: tuple[ReplicaSeen, ...] | None = None
) -> Observation:
    return Observation(
        routing=where or routing(),
        reachable=frozenset({"a", "b"}),
        replicas=replicas() if what is None else what,
        facts=facts or Facts(),
    )


def record(state: State, *, strategy: str = "in_place_upgrade", retries: int = 0, cap: float = 3.0) -> MigrationRecord:
    request = Request(
        request_id="r",
        namespace="memory://x-y-z",
        strategy=strategy,  # type: ignore[arg-type]
        source_generation=0,
        target_generation=1,
        pause_cap_seconds=cap,
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
    return replace(fold(ID, [first]), state=state, retries=retries)


COMMITTED = edits.commit(routing(phase="draining"), ID, leading=0, following=1, epoch=7)


@pytest.mark.parametrize(
    "state", [s for s in State if not s.is_terminal and s not in (S.PENDING, S.OBSERVING, S.ROLLING_BACK)]
)
def test_what_the_routing_record_says_counts_more_than_the_history(state: State) -> None:
    """A leader that died between the commit and its journal is finished, never undone."""
    decision = decide(record(state), see(where=COMMITTED), 0.0)
    if state is S.COMPLETING:
        assert decision.actions == (act.Release(1),)
    else:
        assert decision.trigger is T.COMMITTED
        assert decision.actions == ()


@pytest.mark.parametrize("state", [S.SUCCEEDED, S.ABORTED])
def test_what_has_ended_is_left_alone(state: State) -> None:
    assert decide(record(state), see(), 0.0).waits


def test_preflight_runs_once_and_is_believed() -> None:
    assert decide(record(S.PENDING), see(), 0.0).trigger is T.BEGUN
    assert decide(record(S.PREFLIGHTING), see(), 0.0).actions == (act.RunPreflight(),)
    good = Check(name="one", passed=True, detail="")
    bad = Check(name="two", passed=False, detail="no")
    assert decide(record(S.PREFLIGHTING), see(facts=Facts(checks=(good,))), 0.0).trigger is T.PREFLIGHT_PASSED
    failed = decide(record(S.PREFLIGHTING), see(facts=Facts(checks=(good, bad))), 0.0)
    assert (failed.trigger, failed.detail) == (T.PREFLIGHT_FAILED, "two: no")


@pytest.mark.parametrize("state", [S.COPYING, S.CATCHING_UP, S.READY])
def test_a_target_that_is_not_placed_is_placed(state: State) -> None:
    decision = decide(record(state), see(where=routing(target=False)), 0.0)
    assert decision.actions == (act.CreateTarget(1), act.PlaceTarget(1, 0))


@pytest.mark.parametrize("state", [S.COPYING, S.CATCHING_UP, S.READY])
def test_writes_are_never_left_stopped_outside_a_cut_over(state: State) -> None:
    decision = decide(record(state), see(where=routing(phase="draining")), 0.0)
    assert [type(action) for action in decision.actions] == [act.Undrain]


@pytest.mark.parametrize(
    ("target", "done"),
    [
        (ReplicaState.LOADING, False),
        (ReplicaState.COPYING, False),
        (ReplicaState.FAILED, False),
        (ReplicaState.REPLAYING, True),
        (ReplicaState.READY, True),
    ],
)
def test_copying_ends_when_every_owner_has_copied(target: ReplicaState, done: bool) -> None:
    decision = decide(record(S.COPYING), see(what=replicas(target=target)), 0.0)
    assert (decision.trigger is T.COPY_DONE) is done
    assert decide(record(S.COPYING), see(what=()), 0.0).waits


@pytest.mark.parametrize(
    ("lag", "target", "ready"),
    [
        (0, ReplicaState.READY, True),
        (LAG_LIMIT, ReplicaState.READY, True),
        (LAG_LIMIT + 1, ReplicaState.READY, False),
        (0, ReplicaState.REPLAYING, False),
    ],
)
def test_ready_means_close_behind_on_every_replica(lag: int, target: ReplicaState, ready: bool) -> None:
    seen = see(what=replicas(applied=lag + 5, cursor=5, target=target))
    assert (decide(record(S.CATCHING_UP), seen, 0.0).trigger is T.LAG_IN_BOUNDS) is ready


def test_more_unreadable_objects_than_accepted_end_it_before_anything_moves() -> None:
    # Each shard's owner counts three; replicas count the same and are not added.
    what = tuple(replace(seen, quarantined=3 if seen.generation == 1 else 0) for seen in replicas())

    def at(limit: int, checked: Check | None = None) -> Decision:
        migration = record(S.CATCHING_UP)
        migration = replace(migration, request=migration.request.model_copy(update={"quarantine_limit": limit}))
        return decide(migration, see(what=what, facts=Facts(quarantine=checked)), 0.0)

    assert at(6).trigger is T.LAG_IN_BOUNDS
    # More are listed than accepted: some may have been replayed, so ask which.
    assert at(5).actions == (act.CountQuarantine(1),)
    good = Check(name="quarantine_within_limit", passed=True, detail="5 unreadable", reason="QUARANTINE_LIMIT")
    assert at(5, good).trigger is T.LAG_IN_BOUNDS
    ended = at(5, replace(good, passed=False, detail="6 unreadable objects, 5 accepted (not-json 6)"))
    assert (ended.trigger, ended.actions) == (T.QUARANTINE_EXCEEDED, ())
    assert ended.detail.startswith("QUARANTINE_LIMIT: 6 unreadable objects, 5 accepted (not-json 6)")
    assert "raise quarantine_limit" in ended.detail


def test_one_replica_that_is_not_seen_is_enough_to_wait() -> None:
    for missing in range(8):
        what = tuple(seen for i, seen in enumerate(replicas()) if i != missing)
        source_replica = replicas()[missing].generation == 0 and (
            replicas()[missing].node_id != {0: "a", 1: "b"}[replicas()[missing].shard]
        )
        assert decide(record(S.CATCHING_UP), see(what=what), 0.0).waits is not source_replica


def test_ready_is_left_only_far_behind() -> None:
    near = see(what=replicas(applied=LAG_EXCEEDED_LIMIT, cursor=0))
    far = see(what=replicas(applied=LAG_EXCEEDED_LIMIT + 1, cursor=0))
    assert decide(record(S.READY), near, 0.0).waits
    assert decide(record(S.READY), far, 0.0).trigger is T.LAG_EXCEEDED


def test_in_place_promotes_at_once_and_waits_after_giving_up() -> None:
    assert decide(record(S.READY), see(), 0.0).trigger is T.PROMOTED
    gave_up = Facts(gave_up_at=100.0)
    again = record(S.READY, retries=3)
    assert decide(again, see(facts=gave_up), 100.0 + retry_delay(3) - 0.01).waits
    assert decide(again, see(facts=gave_up), 100.0 + retry_delay(3)).trigger is T.PROMOTED
    assert [retry_delay(n) for n in (0, 1, 2, 3, 100)] == [1.0, 1.0, 2.0, 4.0, 30.0]


def test_writes_are_not_stopped_while_a_source_owner_cannot_answer() -> None:
    seen = replace(see(), reachable=frozenset({"a"}))
    assert decide(record(S.READY), seen, 0.0).waits


def test_rolling_adopts_one_node_after_the_other() -> None:
    rolling = record(S.READY, strategy="rolling")
    assert decide(rolling, see(), 0.0).actions == (act.AdoptNode("a", 1),)
    first = edits.adopt(routing(), ID, node_id="a", target=1)
    # Swapped, but the node has not said so: the same node again, the next one not before.
    assert decide(rolling, see(where=first), 0.0).actions == (act.AdoptNode("a", 1),)
    said = Facts(adopted_in_force=frozenset({"a"}))
    assert decide(rolling, see(where=first, facts=said), 0.0).actions == (act.AdoptNode("b", 1),)
    both = edits.adopt(first, ID, node_id="b", target=1)
    said = Facts(adopted_in_force=frozenset({"a", "b"}))
    assert decide(rolling, see(where=both, facts=said), 0.0).trigger is T.PROMOTED


def test_the_cut_over_step_by_step() -> None:
    draining = routing(phase="draining")
    attempt = CutOver(epoch=7, started_at=100.0)
    assert decide(record(S.CUTTING_OVER), see(), 100.0).actions == (act.Drain(0),)
    steps = [
        (S.CUTTING_OVER, attempt, None, act.TakePositions(0)),
        (S.CUTTING_OVER, replace(attempt, positions={0: 10, 1: 10}), T.DRAINED, None),
        (S.VERIFYING, replace(attempt, positions={0: 10, 1: 10}), None, act.AwaitCatchUp(1)),
        (S.VERIFYING, replace(attempt, positions={}, caught_up=True), None, act.CompareDigests(0, 1)),
        (S.VERIFYING, replace(attempt, positions={}, caught_up=True, digest_equal=True), None, act.Commit(0, 1)),
    ]
    for state, fact, trigger, action in steps:
        decision = decide(record(state), see(where=draining, facts=Facts(cut_over=fact)), 102.9)
        assert (decision.trigger, decision.actions) == (trigger, (action,) if action else ())


@pytest.mark.parametrize("state", [S.CUTTING_OVER, S.VERIFYING])
def test_a_cut_over_ends_safely_whatever_happens(state: State) -> None:
    draining = routing(phase="draining")
    done = CutOver(epoch=7, started_at=100.0, positions={0: 1, 1: 1}, caught_up=True, digest_equal=True)
    cases = [
        # A new leader finds writes stopped by another one.
        (draining, Facts(), 100.0, T.CUT_OVER_INTERRUPTED),
        # Placement replaced an owner and let the writes go on.
        (routing(epoch=8), Facts(cut_over=done), 100.0, T.CUT_OVER_INTERRUPTED),
        (routing(phase="draining", epoch=8), Facts(cut_over=done), 100.0, T.CUT_OVER_INTERRUPTED),
        # Past the cap, even with equal digests in hand.
        (draining, Facts(cut_over=done), 103.1, T.PAUSE_CAP_EXCEEDED),
    ]
    for where, facts, now, trigger in cases:
        decision = decide(record(state), see(where=where, facts=facts), now)
        assert decision.trigger is trigger
        assert [type(action) for action in decision.actions] == [act.Undrain]


def test_unequal_digests_abort_and_let_writes_go_on() -> None:
    attempt = CutOver(epoch=7, started_at=0.0, positions={}, caught_up=True, digest_equal=False)
    decision = decide(record(S.VERIFYING), see(where=routing(phase="draining"), facts=Facts(cut_over=attempt)), 0.1)
    assert decision.trigger is T.DIGEST_UNEQUAL
    assert [type(action) for action in decision.actions] == [act.Undrain]


def test_completing_waits_for_every_node_then_retires_then_ends() -> None:
    some = Facts(released=frozenset({"a"}))
    every = Facts(released=frozenset({"a", "b"}), write_pause_seconds=0.1)
    assert decide(record(S.COMPLETING), see(where=COMMITTED, facts=some), 0.0).actions == (act.Release(1),)
    assert decide(record(S.COMPLETING), see(where=COMMITTED, facts=every), 0.0).actions == (act.RetireSource(0),)
    retired = edits.retire_source(COMMITTED, ID, source=0)
    decision = decide(record(S.COMPLETING), see(where=retired, facts=every), 0.0)
    assert (decision.trigger, decision.write_pause_seconds) == (T.COMPLETED, 0.1)


def test_aborting_undoes_until_nothing_is_left() -> None:
    draining = edits.adopt(routing(phase="draining"), ID, node_id="a", target=1)
    assert decide(record(S.ABORTING), see(where=draining), 0.0).actions == (act.Undo(1),)
    undone = edits.undo(draining, ID, target=1)
    assert (undone.phase, undone.adopted, undone.migration, set(undone.generations)) == ("serving", {}, None, {0})
    assert decide(record(S.ABORTING), see(where=undone), 0.0).trigger is T.UNDONE


def test_edits_are_idempotent() -> None:
    for edit in (
        lambda r: edits.adopt(r, ID, node_id="a", target=1),
        lambda r: edits.drain(r, ID),
        lambda r: edits.undrain(r, ID),
        lambda r: edits.undo(r, ID, target=1),
        lambda r: edits.place_target(r, ID, target=1, shards=r.generations[0].shards),
    ):
        once = edit(routing())
        assert edit(once) is once
    retired = edits.retire_source(COMMITTED, ID, source=0)
    assert edits.retire_source(retired, ID, source=0) is retired


def test_lag_with_another_shard_count_counts_each_record_once() -> None:
    shards = {s: ShardPlacement(owner="a", epoch=1) for s in range(3)}
    where = routing().model_copy(
        update={
            "generations": {
                0: routing().generations[0],
                1: GenerationPlacement(state="building", shard_count=3, follows=0, shards=shards),
            }
        }
    )
    what = (
        ReplicaSeen(node_id="a", generation=0, shard=0, state=ReplicaState.READY, applied=100),
        ReplicaSeen(node_id="b", generation=0, shard=1, state=ReplicaState.READY, applied=50),
        *(
            ReplicaSeen(
                node_id="a", generation=1, shard=s, state=ReplicaState.READY, source_cursor={0: 90 + s, 1: 50 - s}
            )
            for s in range(3)
        ),
    )
    seen = see(where=where, what=what)
    assert [lag_of_shard(seen, 0, 1, s) for s in range(3)] == [10, 10, 10]
    assert total_lag(seen, 0, 1) == 10 + 2
