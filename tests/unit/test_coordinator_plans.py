"""Plans as values: what they rest on, what they ask for, and how they are held against a history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from brainy.advice.facts import ClusterFacts
from brainy.advice.sampling import TreeSizes, sample_sizes
from brainy.advice.values import Answers
from brainy.api.coordinator.v1 import migration_pb2
from brainy.bucket import layout
from brainy.bucket.follow import FollowChoice
from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement, Spec
from brainy.clock import SystemClock
from brainy.errors import AlreadyExistsError, CorruptDataError, NotFoundError, PreconditionError
from brainy.ids import Ids
from brainy.legacy.outlay import Assumptions
from brainy.legacy.survey import Survey
from brainy.rpc.protocol import SOFTWARE_VERSION
from brainy.sdk.plans import answers_to_proto
from brainy.store.memory import MemoryStore
from brainy_coordinator.migration.dry_run import DryRunExecutor
from brainy_coordinator.migration.dry_run import plan as play
from brainy_coordinator.migration.planning.basis import differences, require_holds
from brainy_coordinator.migration.planning.confirmations import confirmations
from brainy_coordinator.migration.planning.outcome import outcome_of, transitions_of
from brainy_coordinator.migration.planning.plan import (
    FEWEST_TOLERATED,
    Plan,
    PlanBasis,
    Prediction,
    Why,
    digest_of_spec,
    plan_id_for,
    tolerated,
)
from brainy_coordinator.migration.planning.prediction import Counted, facts_of, figures_of, weigh
from brainy_coordinator.migration.planning.store import Plans
from brainy_coordinator.migration.record import Event, MigrationRecord, Request, Strategy, fold, migration_id_for
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.transitions import next_state
from brainy_coordinator.services.plan_messages import answers_value

NAMESPACE = "memory://x-y-z"
SPEC = Spec(generation=0, dimensions=8, shard_count=2, source="brainy", source_trees=("flat",))
REQUEST = Request(
    request_id="r", namespace=NAMESPACE, strategy="in_place_upgrade", source_generation=0, target_generation=1
)
BASIS = PlanBasis(
    source_generation=0,
    target_generation=1,
    spec_digest=digest_of_spec(SPEC.encode()),
    trees=("flat",),
    dimensions=8,
    nouns=900,
    verbs=100,
    items_at_least=900,
    items_at_most=1100,
    nodes={"a": "1.0", "b": "1.0"},
    quarantined=0,
)
NOTHING = Prediction(
    duration_seconds=1.0,
    write_pause_seconds=0.1,
    write_pause_cap_seconds=3.0,
    bucket_bytes=0,
    disk_bytes=0,
    calls={},
    request_cost=0.0,
    storage_cost_per_month=0.0,
)


def routing() -> Routing:
    shards = {n: ShardPlacement(owner="ab"[n], epoch=1, replicas=("ba"[n],)) for n in (0, 1)}
    return Routing(
        namespace=NAMESPACE,
        epoch=7,
        nonce="n",
        leader_epoch=1,
        active=0,
        write=0,
        nodes={n: NodeAddress(address=n, incarnation="i") for n in ("a", "b")},
        generations={0: GenerationPlacement(state="serving", shard_count=2, shards=shards)},
    )


async def planned(strategy: Strategy = "in_place_upgrade", **changes: object) -> Plan:
    request = REQUEST.model_copy(update={"strategy": strategy})
    executor = DryRunExecutor(routing(), reachable=frozenset("ab"), shard_count=2, replication=2, checks=())
    await play(executor, "plan", request)
    made = Plan(
        id=plan_id_for(NAMESPACE, "r"),
        created_at=1000.0,
        expires_at=2000.0,
        request=request,
        why=Why(text="so"),
        basis=BASIS,
        steps=(),
        transitions=transitions_of(executor.story),
        checks=(),
        prediction=NOTHING,
        confirmations=confirmations(request, BASIS, {8: 900}),
    )
    return made.model_copy(update=changes)


def history(*triggers: Trigger, epochs: Sequence[int] = ()) -> MigrationRecord:
    events: list[Event] = []
    state: State | None = None
    for number, trigger in enumerate((Trigger.REQUESTED, *triggers)):
        after = next_state(state, trigger)
        events.append(
            Event(
                sequence=number + 1,
                nonce="n",
                at=100.0 + number,
                trigger=trigger,
                from_state=state,
                to_state=after,
                by="x",
                leader_epoch=epochs[number] if epochs else 1,
                request=REQUEST if not number else None,
                write_pause_seconds=0.05 if trigger is Trigger.COMPLETED else None,
                store_calls={"get": 10 * number, "put": number, "put_conditional": number},
            )
        )
        state = after
    return fold("m-1", events)


T = Trigger
STRAIGHT = (
    T.BEGUN,
    T.PREFLIGHT_PASSED,
    T.COPY_DONE,
    T.LAG_IN_BOUNDS,
    T.PROMOTED,
    T.DRAINED,
    T.COMMITTED,
    T.COMPLETED,
)


@pytest.mark.parametrize("strategy", ["in_place_upgrade", "rolling"])
async def test_the_planned_history_is_the_straight_way(strategy: Strategy) -> None:
    made = await planned(strategy)
    assert [each.trigger for each in made.transitions] == [T.REQUESTED, *STRAIGHT]
    assert made.transitions == transitions_of(history(*STRAIGHT).story)


async def test_a_history_as_planned_and_what_it_took() -> None:
    found = outcome_of(await planned(), history(*STRAIGHT))
    assert (found.as_planned, found.remaining, found.disturbances) == (True, 0, ())
    assert found.duration_seconds == 8.0
    assert found.write_pause_seconds == 0.05
    assert found.calls == {"get": 80, "put": 16}
    assert found.calls_complete


async def test_a_running_migration_is_as_planned_so_far() -> None:
    found = outcome_of(await planned(), history(*STRAIGHT[:3]))
    assert (found.as_planned, found.remaining) == (True, 5)


async def test_disturbances_are_told_apart_from_the_plan() -> None:
    retried = (*STRAIGHT[:6], T.PAUSE_CAP_EXCEEDED, T.LAG_IN_BOUNDS, T.LEADER_CHANGED, *STRAIGHT[4:])
    epochs = [*[1] * 9, *[2] * (len(retried) - 8)]
    found = outcome_of(await planned(), history(*retried, epochs=epochs))
    assert (found.as_planned, found.remaining) == (True, 0)
    assert [line.split()[1] for line in found.disturbances] == [
        "lag_in_bounds:",
        "promoted:",
        "drained:",
        "pause_cap_exceeded:",
        "leader_changed:",
    ]
    # What the first leader's successor cannot know is said to be missing.
    assert not found.calls_complete


async def test_an_abort_is_not_as_planned() -> None:
    found = outcome_of(await planned(), history(*STRAIGHT[:2], T.ABORT_REQUESTED, T.UNDONE))
    assert not found.as_planned


def test_counters_that_began_anew_leave_calls_incomplete() -> None:
    record = history(*STRAIGHT[:2])
    story = (*record.story[:2], record.story[2].model_copy(update={"store_calls": {"get": 3}}))
    plan = Plan(
        id="p-" + "0" * 20,
        created_at=0.0,
        expires_at=1.0,
        request=REQUEST,
        why=Why(text="so"),
        basis=BASIS,
        steps=(),
        transitions=transitions_of(record.story),
        checks=(),
        prediction=NOTHING,
    )
    found = outcome_of(plan, replace(record, story=story))
    assert found.calls == {"get": 10, "put": 2}
    assert not found.calls_complete


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, []),
        ({"nouns": 850}, []),
        ({"verbs": 201}, ["items"]),
        ({"nouns": 700}, ["items"]),
        ({"source_generation": 1, "dimensions": 4, "nodes": {}}, ["source_generation"]),
        ({"target_generation": 2}, ["target_generation"]),
        ({"spec_digest": "0" * 64}, ["spec"]),
        ({"dimensions": 9, "spec_digest": "0" * 64}, ["dimensions"]),
        ({"trees": ("entity", "flat")}, ["trees"]),
        ({"nodes": {"a": "1.0"}}, ["nodes"]),
        ({"nodes": {"a": "1.0", "b": "1.1"}}, ["versions"]),
        ({"quarantined": 1}, ["quarantined"]),
        ({"following": True}, ["following"]),
        ({"mirror": "entity"}, ["mirror"]),
        ({"quarantined": 1, "verbs": 400}, ["items", "quarantined"]),
    ],
)
async def test_a_plan_holds_until_what_it_rests_on_changes(changes: dict[str, object], names: list[str]) -> None:
    now = BASIS.model_copy(update=changes)
    assert [each.name for each in differences(BASIS, now)] == names
    made = await planned()
    confirmed = [each.name for each in made.confirmations]
    if not names:
        require_holds(made, now, now=1999.0, confirmed=confirmed)
        return
    with pytest.raises(PreconditionError) as refused:
        require_holds(made, now, now=1999.0, confirmed=confirmed)
    assert refused.value.reason == "PLAN_OUTDATED"
    assert refused.value.fields["changed"] == ", ".join(names)
    assert "brainy migrate plan" in refused.value.remedy


async def test_an_old_plan_and_an_unconfirmed_one_are_refused() -> None:
    made = await planned()
    with pytest.raises(PreconditionError, match="expired") as refused:
        require_holds(made, BASIS, now=2000.0, confirmed=())
    assert refused.value.reason == "PLAN_OUTDATED"
    with pytest.raises(PreconditionError) as refused:
        require_holds(made, BASIS, now=1999.0, confirmed=["no-way-back"])
    assert refused.value.reason == "CONFIRMATION_MISSING"
    assert refused.value.remedy == "if it is so, add --confirm writers-stopped"


@pytest.mark.parametrize(
    ("basis", "dimensions", "names"),
    [
        ({}, {8: 900}, ["writers-stopped", "no-way-back"]),
        ({"following": True}, {8: 900}, ["no-way-back"]),
        ({"trees": ()}, {8: 900}, ["no-way-back"]),
        ({"quarantined": 3}, {8: 900}, ["writers-stopped", "quarantined-left-out", "no-way-back"]),
        ({}, {8: 900, 4: 1, 0: 5}, ["writers-stopped", "mixed-dimensions", "no-way-back"]),
    ],
)
def test_what_has_to_be_confirmed(basis: dict[str, object], dimensions: dict[int, int], names: list[str]) -> None:
    found = confirmations(REQUEST, BASIS.model_copy(update=basis), dimensions)
    assert [each.name for each in found] == names


def test_tolerance() -> None:
    assert tolerated(10_000, 0.0) == (9_000, 11_000)
    assert tolerated(10_000, 0.5) == (5_000, 15_000)
    assert tolerated(50, 0.0) == (0, 50 + FEWEST_TOLERATED)


def test_a_request_has_one_plan_and_one_migration() -> None:
    plan_id, migration_id = plan_id_for(NAMESPACE, "r"), migration_id_for(NAMESPACE, "r")
    assert plan_id[1:] == migration_id[1:]
    assert layout.migration_plan(plan_id) == f"cluster/migrations/plans/{plan_id}.json"
    for wrong in (migration_id, "../x", "", plan_id + "0", plan_id.upper()):
        assert layout.migration_plan(wrong) is None


async def test_plans_are_kept_once_and_never_changed() -> None:
    store = MemoryStore()
    plans = Plans(store, clock=SystemClock(), ids=Ids())
    made = await planned()
    assert await plans.keep(made) == made
    later = made.model_copy(update={"created_at": 1500.0})
    assert await plans.keep(later) == made
    assert await plans.get(made.id) == made
    other = made.model_copy(update={"request": REQUEST.model_copy(update={"quarantine_limit": 1})})
    with pytest.raises(AlreadyExistsError):
        await plans.keep(other)
    with pytest.raises(NotFoundError):
        await plans.get("p-" + "0" * 20)
    key = layout.migration_plan(made.id)
    assert key is not None
    found = await store.get(key)
    assert found is not None
    await store.put(key, found.body.replace(b'"nouns": 900', b'"nouns": 901'))
    with pytest.raises(CorruptDataError):
        await plans.get(made.id)


def cluster_facts(choice: FollowChoice | None = None) -> ClusterFacts:
    return ClusterFacts(routing=routing(), spec=SPEC, choice=choice or FollowChoice())


SEEN = Survey(trees=("flat",), dimensions=8, dimension_counts={8: 64}, sampled=64, foreign_keys=False, empty=False)
SIZES = TreeSizes(noun_metadata=200.0, verb=300.0, verb_metadata=100.0)


def test_a_served_tree_is_predicted_from_what_its_nodes_count() -> None:
    given = Assumptions(nodes=2, shards=2)
    counted = Counted(nouns=10_000, verbs=2_000, quarantined=3)
    facts = facts_of(NAMESPACE, cluster_facts(), counted, given, seen=SEEN, sizes=SIZES)
    assert (facts.state, facts.basis, facts.nouns, facts.verbs, facts.quarantined) == (
        "served",
        "nodes",
        10_000,
        2_000,
        3,
    )
    found = figures_of(facts, "in_place_upgrade", given, replication=2, pause_cap_seconds=1.5)
    # A vector and a metadata object a noun, a verb and what lies beside it.
    assert 24_000 <= found.calls["get"] <= 24_500
    assert found.calls["get_range"] == 12_000
    assert found.write_pause_cap_seconds == 1.5
    rolling = figures_of(facts, "rolling", given, replication=2, pause_cap_seconds=1.5)
    assert rolling.duration_seconds > found.duration_seconds
    single = figures_of(facts, "rolling", given, replication=1, pause_cap_seconds=1.5)
    assert rolling.disk_bytes == 2 * single.disk_bytes


def test_the_graph_chooses_unless_somebody_did() -> None:
    given = Assumptions(nodes=3, shards=2)
    counted = Counted(nouns=10_000, verbs=2_000, quarantined=0)
    facts = facts_of(NAMESPACE, cluster_facts(), counted, given, seen=SEEN, sizes=SIZES)
    # Several nodes, a shared bucket, a downtime that is too short for a standstill: one node after the other.
    shared = Answers(shared=True, downtime_seconds=1.0, old_writers=False)
    strategy, advice, proposal = weigh(facts, shared, ("in_place_upgrade", "rolling"), given)
    assert (strategy, str(proposal.strategy)) == ("rolling", "rolling")
    assert str(advice.guide) == "rolling"
    standstill = Answers(shared=True, downtime_seconds=math.inf, old_writers=False)
    assert weigh(facts, standstill, ("in_place_upgrade", "rolling"), given)[0] == "in_place_upgrade"
    assert weigh(facts, standstill, ("rolling",), given)[0] == "rolling"


async def test_a_page_of_each_listing_tells_sizes() -> None:
    store = MemoryStore()
    for number in range(4):
        await store.put(f"metadata/{number}.json", b"x" * 100 * (number + 1))
        await store.put(f"verbs/{number}.json", b"x" * 10)
    await store.put("metadata/__metadata_index__a.json", b"x" * 9999)
    assert await sample_sizes(store, ("flat",)) == TreeSizes(noun_metadata=250.0, verb=10.0, verb_metadata=0.0)
    assert await sample_sizes(store, ()) == TreeSizes()


@pytest.mark.parametrize("downtime", [None, 0.0, 12.5, math.inf])
def test_answers_survive_the_wire(downtime: float | None) -> None:
    sent = answers_to_proto(shared=True, downtime_seconds=downtime, old_writers=None, rollback=False)
    read = migration_pb2.PlanAnswers.FromString(sent.SerializeToString())
    assert answers_value(read) == Answers(shared=True, downtime_seconds=downtime, rollback=False)


def test_nodes_tell_the_version_of_the_package() -> None:
    import brainy

    assert brainy.__version__ == SOFTWARE_VERSION
