"""Waves of a rolling migration and a switch that is put off: who moves when, and what holds it up. Scripted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement
from brainy.errors import PastPointOfNoReturnError, PreconditionError
from brainy_coordinator.migration import actions as act
from brainy_coordinator.migration import edits, interventions
from brainy_coordinator.migration.decision import decide
from brainy_coordinator.migration.dry_run import DryRunExecutor, plan
from brainy_coordinator.migration.observation import Bake, Facts, Observation, ReplicaSeen, ReplicaState
from brainy_coordinator.migration.obstacles import switch_obstacles
from brainy_coordinator.migration.planning.outcome import transitions_of
from brainy_coordinator.migration.record import Event, MigrationRecord, Request, fold
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.waves import WaveState, complaint, look_at_bake, next_wave, waves_of

ID = "m-1"
S, T = State, Trigger
NODES = ("a", "b", "c", "d")
#: Each shard on two of four nodes; every node owns one shard, so that names decide the order.
HOLDERS = {0: ("a", "b"), 1: ("b", "c"), 2: ("c", "d"), 3: ("d", "a")}


def routing(adopted: Mapping[str, int] | None = None, holders: Mapping[int, tuple[str, ...]] | None = None) -> Routing:
    shards = {
        shard: ShardPlacement(owner=owner, epoch=1, replicas=others)
        for shard, (owner, *others) in (holders or HOLDERS).items()
    }
    count = len(shards)
    return Routing(
        namespace="memory://x-y-z",
        epoch=7,
        nonce="n",
        leader_epoch=1,
        active=0,
        write=0,
        migration=ID,
        adopted=dict(adopted or {}),
        nodes={n: NodeAddress(address=n, incarnation="i") for n in NODES},
        generations={
            0: GenerationPlacement(state="serving", shard_count=count, shards=shards),
            1: GenerationPlacement(state="building", shard_count=count, follows=0, shards=shards),
        },
    )


def see(
    where: Routing | None = None,
    facts: Facts | None = None,
    *,
    gone: str = "",
    failed: tuple[int, int, str] | None = None,
) -> Observation:
    """Everybody is well, but for a node that is gone or a replica (generation, shard, node) that failed."""
    where = where or routing()
    replicas = tuple(
        ReplicaSeen(
            node_id=node,
            generation=number,
            shard=shard,
            state=ReplicaState.FAILED if (number, shard, node) == failed else ReplicaState.READY,
            source_cursor={shard: 0},
            message="disk" if (number, shard, node) == failed else "",
        )
        for number, placed in where.generations.items()
        for shard, on in placed.shards.items()
        for node in (on.owner, *on.replicas)
        if node != gone
    )
    reachable = frozenset(NODES) - {gone}
    return Observation(routing=where, reachable=reachable, replicas=replicas, facts=facts or Facts())


def record(state: State = S.READY, *, together: int = 0, bake: float = 0.0, **fields: object) -> MigrationRecord:
    request = Request(
        request_id="r",
        namespace="memory://x-y-z",
        strategy="rolling",
        source_generation=0,
        target_generation=1,
        max_unavailable=together,
        bake_seconds=bake,
    )
    return replace(fold(ID, [event(None, T.REQUESTED, S.PENDING, request=request)]), state=state, **fields)  # type: ignore[arg-type]


def event(found: MigrationRecord | None, trigger: Trigger, to: State, **fields: object) -> Event:
    return Event(
        sequence=found.sequence + 1 if found else 1,
        nonce="n",
        at=0.0,
        trigger=trigger,
        from_state=found.state if found else None,
        to_state=to,
        by="ann",
        leader_epoch=1,
        **fields,  # type: ignore[arg-type]
    )


# --- waves ------------------------------------------------------------------------------------------


def test_left_alone_it_moves_node_by_node_without_a_word_in_the_history() -> None:
    assert decide(record(), see(), 0.0).actions == (act.AdoptNode("a", 1),)
    moved = see(routing({"a": 1}), Facts(adopted_in_force=frozenset({"a"})))
    assert decide(record(), moved, 0.0).actions == (act.AdoptNode("b", 1),)
    told = waves_of(record(), moved)
    assert [(wave.nodes, wave.state) for wave in told] == [
        (("a",), WaveState.DONE),
        *(((node,), WaveState.WAITING) for node in "bcd"),
    ]


def test_a_wave_moves_in_one_swap_is_watched_and_written_down() -> None:
    rolling = record(together=2, bake=30.0)
    # a and b hold all replicas of shard 0 between them, so c goes with a.
    assert decide(rolling, see(), 0.0).actions == (act.AdoptWave(("a", "c"), 1),)
    adopted = routing({"a": 1, "c": 1})
    # Not everybody has confirmed: again, whoever the leader is by now.
    one = Facts(adopted_in_force=frozenset({"a"}))
    assert decide(rolling, see(adopted, one), 0.0).actions == (act.AdoptNode("c", 1),)
    both = Facts(adopted_in_force=frozenset({"a", "c"}))
    assert decide(rolling, see(adopted, both), 0.0).actions == (act.AwaitBake(("a", "c")),)
    bakes = replace(both, bake=Bake(nodes=frozenset({"a", "c"}), looked_at=0.0, healthy_seconds=29.0))
    assert decide(rolling, see(adopted, bakes), 0.0).actions == (act.AwaitBake(("a", "c")),)
    done = replace(both, bake=Bake(nodes=frozenset({"a", "c"}), looked_at=0.0, healthy_seconds=30.0, done=True))
    decision = decide(rolling, see(adopted, done), 0.0)
    assert (decision.trigger, decision.nodes, decision.actions) == (T.WAVE_BAKED, ("a", "c"), ())
    assert decision.detail == "wave 1: a, c, baked for 30 s"
    after = rolling.apply(event(rolling, T.WAVE_BAKED, S.READY, nodes=("a", "c")))
    assert after.waves == (("a", "c"),)
    assert decide(after, see(adopted, done), 0.0).actions == (act.AdoptWave(("b", "d"), 1),)
    # Somebody else's bake is not this wave's.
    everybody = routing(dict.fromkeys(NODES, 1))
    all_in = replace(done, adopted_in_force=frozenset(NODES))
    assert decide(after, see(everybody, all_in), 0.0).actions == (act.AwaitBake(("b", "d")),)


def test_when_every_wave_has_baked_the_writes_move() -> None:
    through = record(together=2, bake=30.0, waves=(("a", "c"), ("b", "d")))
    seen = see(routing(dict.fromkeys(NODES, 1)), Facts(adopted_in_force=frozenset(NODES)))
    assert decide(through, seen, 0.0).trigger is T.PROMOTED
    # One that joined late bakes like the others.
    late = record(together=2, bake=30.0, waves=(("a", "c"), ("b",)))
    assert decide(late, seen, 0.0).actions == (act.AwaitBake(("d",)),)


@pytest.mark.parametrize(
    ("together", "holders", "expected"),
    [
        (4, HOLDERS, [("a", "c"), ("b", "d")]),
        (3, {0: ("a", "b", "c", "d")}, [("b", "c", "d"), ("a",)]),
        (4, {0: ("a", "b", "c", "d")}, [("b", "c", "d"), ("a",)]),
        # One replica only: there is nothing to keep outside, and nobody else is held up by it.
        (4, {0: ("a",)}, [("b", "c", "d", "a")]),
        (0, {0: ("a",)}, [("b",), ("c",), ("d",), ("a",)]),
    ],
)
def test_no_wave_has_every_ready_replica_of_a_shard(
    together: int, holders: Mapping[int, tuple[str, ...]], expected: list[tuple[str, ...]]
) -> None:
    rolling = record(together=together, bake=1.0)
    assert [wave.nodes for wave in waves_of(rolling, see(routing(holders=holders)))] == expected


def test_a_replica_that_is_not_ready_does_not_count_as_one_that_stays() -> None:
    seen = see(failed=(0, 0, "b"))
    # a alone answers for shard 0 of the source: it moves, as one must, but nobody may move with c's partner.
    assert next_wave(record(together=2), seen, ["c", "a"]) == ("c",)
    assert next_wave(record(together=2), see(), ["c", "a"]) == ("c", "a")


def test_only_healthy_time_that_somebody_watched_is_baked() -> None:
    rolling = record(together=2, bake=10.0)
    adopted = routing({"a": 1, "c": 1})
    wave = ("a", "c")
    bake = look_at_bake(rolling, see(adopted), wave, 100.0)
    assert (bake.healthy_seconds, bake.done) == (0.0, False)
    bake = look_at_bake(rolling, see(adopted, Facts(bake=bake)), wave, 104.0)
    assert bake.healthy_seconds == 4.0
    # Paused meanwhile, or the leader was stopped: nobody looked.
    bake = look_at_bake(rolling, see(adopted, Facts(bake=bake)), wave, 200.0)
    assert (bake.healthy_seconds, bake.done) == (4.0, False)
    ill = look_at_bake(rolling, see(adopted, Facts(bake=bake), failed=(1, 2, "d")), wave, 201.0)
    assert (ill.healthy_seconds, ill.complaint) == (0.0, "shard 2 of generation 1 on d is failed")
    in_the_way = [each.reason for each in switch_obstacles(rolling, see(adopted, Facts(bake=ill)), 0.0)]
    assert in_the_way == ["a wave begins to bake anew: shard 2 of generation 1 on d is failed"]
    bake = look_at_bake(rolling, see(adopted, Facts(bake=ill)), wave, 202.0)
    for second in range(203, 212):
        assert not bake.done
        bake = look_at_bake(rolling, see(adopted, Facts(bake=bake)), wave, float(second + 1))
    assert bake.done
    # A wave of other nodes begins with nothing.
    assert not look_at_bake(rolling, see(adopted, Facts(bake=bake)), ("b",), 213.0).done
    assert complaint(rolling, see(adopted, gone="c"), wave) == "c does not answer"


def test_a_pause_holds_the_waves() -> None:
    paused = record(together=2, bake=5.0, paused=("lunch",))
    assert decide(paused, see(), 0.0).waits


def test_a_rollback_begins_the_waves_anew_and_history_needs_none() -> None:
    found = record(S.OBSERVING, together=2, waves=(("a", "c"), ("b", "d")))
    assert [wave.state for wave in waves_of(found, see())] == [WaveState.DONE, WaveState.DONE]
    back = found.apply(event(found, T.ROLLED_BACK, S.READY))
    assert back.waves == ()


async def test_the_plan_shows_the_waves_in_order_and_its_transitions_have_none() -> None:
    executor = DryRunExecutor(
        routing().model_copy(update={"migration": None, "generations": {0: routing().generations[0]}}),
        reachable=frozenset(NODES),
        shard_count=4,
        replication=2,
        checks=(),
    )
    steps = await plan(executor, "plan", record(together=2, bake=60.0).request)
    told = [(step.action, step.detail) for step in steps if step.action in ("AdoptWave", "AwaitBake", "AdoptNode")]
    assert [action for action, _ in told] == ["AdoptWave", "AwaitBake", "AdoptWave", "AwaitBake"]
    assert told[0][1].startswith("a, c answer reads from generation 1")
    assert told[1][1].startswith("a, c answer healthily for 60 s")
    assert [step.action for step in steps].count("READY") == 1
    assert all(step.from_state is not step.to_state for step in transitions_of(executor.story))


# --- postponing -------------------------------------------------------------------------------------


def test_a_postponed_switch_waits_until_its_time_is_over_or_it_is_promoted() -> None:
    found = record()
    found = found.apply(event(found, T.POSTPONE_REQUESTED, S.READY, seconds=7200.0, detail="month's end"))
    assert found.postponed is not None
    assert (found.postponed.seconds, found.postponed.reason, found.postponed.by) == (7200.0, "month's end", "ann")
    # A leader that has not read the countdown yet takes all of it.
    assert decide(found, see(), 1e9).waits
    assert decide(found, see(facts=Facts(postponed_left=0.5)), 1e9).waits
    assert decide(found, see(facts=Facts(postponed_left=0.0)), 0.0).actions == (act.AdoptNode("a", 1),)
    assert interventions.promote(found, see()) is T.PROMOTE_REQUESTED
    freed = found.apply(event(found, T.PROMOTE_REQUESTED, S.READY))
    assert freed.postponed is None
    shorter = found.apply(event(found, T.POSTPONE_REQUESTED, S.READY, seconds=0.0))
    assert shorter.postponed is None
    # It can switch, were it promoted; and what holds it is told apart.
    assert switch_obstacles(found, see(), 0.0) == ()


def test_when_a_switch_can_be_put_off() -> None:
    asked: dict[State, object] = {}
    for state in State:
        try:
            asked[state] = interventions.postpone(60.0)(record(state), see())
        except PastPointOfNoReturnError:
            asked[state] = "past"
        except PreconditionError as error:
            asked[state] = "refused" if error.remedy else "no remedy"
    early = (S.PENDING, S.PREFLIGHTING, S.COPYING, S.CATCHING_UP, S.READY)
    committed = (S.OBSERVING, S.ROLLING_BACK, S.COMPLETING, S.SUCCEEDED)
    assert asked == {
        **dict.fromkeys(early, T.POSTPONE_REQUESTED),
        **dict.fromkeys((S.CUTTING_OVER, S.VERIFYING, S.ABORTING, S.ABORTED), "refused"),
        **dict.fromkeys(committed, "past"),
    }
    assert interventions.postpone(0.0)(record(), see()) is None


def test_what_is_in_the_way_of_a_switch() -> None:
    assert switch_obstacles(record(held=True), see(), 0.0) == ()
    (paused,) = switch_obstacles(record(paused=("lunch",)), see(), 0.0)
    assert (paused.reason, paused.remedy) == ("paused: lunch", "resume it")
    (early,) = switch_obstacles(record(S.PREFLIGHTING), see(), 0.0)
    assert (early.reason, early.remedy) == ("it is preflighting", "wait (brainy migrate watch)")
    (ill,) = switch_obstacles(record(), see(failed=(1, 0, "b")), 0.0)
    assert ill.reason == "shard 0 on b is failed"
    assert ill.remedy
    assert switch_obstacles(record(S.OBSERVING), see(), 0.0)[0].reason == "it has switched"
    assert switch_obstacles(record(S.ABORTED), None, 0.0)[0].reason == "it was aborted"
    drained = edits.drain(routing(), ID)
    assert switch_obstacles(record(S.VERIFYING), see(drained), 0.0) == ()
