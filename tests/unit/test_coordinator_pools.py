"""Which nodes may hold what, and what the strategies that depend on it ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement
from brainy.config.settings import load_settings
from brainy.errors import InvalidRequestError
from brainy_coordinator.migration import actions as act
from brainy_coordinator.migration import edits
from brainy_coordinator.migration.dry_run import DryRunExecutor, plan
from brainy_coordinator.migration.observation import Facts, Observation, ReplicaSeen, ReplicaState, Still
from brainy_coordinator.migration.preflight.preflight import REMEDIES
from brainy_coordinator.migration.record import Event, MigrationRecord, Request, Strategy, TargetWish, fold
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.strategies import STRATEGIES
from brainy_coordinator.migration.strategies.checks import strategy_checks
from brainy_coordinator.pools import eligible, eligible_for, heirless

BLUE = {"a": "", "b": ""}
GREEN = {"g": "green", "h": "green"}
OTHER = {"x": "other"}


@pytest.mark.parametrize(
    ("pool", "labels", "reserved", "expected"),
    [
        ("green", BLUE | GREEN, (), "gh"),
        # A named pool is never left, also when there is nobody in it.
        ("green", BLUE, (), ""),
        ("", BLUE | GREEN, (), "ab"),
        ("", BLUE | GREEN, ("green",), "ab"),
        # Without unlabelled nodes those that nobody has asked for, then any.
        ("", GREEN | OTHER, ("green",), "x"),
        ("", GREEN | OTHER, (), "ghx"),
        ("", GREEN, ("green",), "gh"),
        ("", {}, (), ""),
    ],
)
def test_who_may_hold_a_generation(pool: str, labels: dict[str, str], reserved: tuple[str, ...], expected: str) -> None:
    assert eligible(pool, labels, reserved=reserved) == frozenset(expected)


def placed(pool: str, owner: str, *replicas: str) -> GenerationPlacement:
    return GenerationPlacement(
        state="serving", shard_count=1, pool=pool, shards={0: ShardPlacement(owner=owner, epoch=1, replicas=replicas)}
    )


def routing(**generations: GenerationPlacement) -> Routing:
    return Routing(
        namespace="memory://x-y-z",
        epoch=7,
        nonce="n",
        leader_epoch=1,
        active=0,
        write=0,
        generations={int(name.removeprefix("g")): found for name, found in generations.items()},
    )


def test_a_generation_without_a_pool_avoids_those_the_others_name() -> None:
    record = routing(g0=placed("", "a", "b"), g1=placed("green", "g"))
    assert eligible_for(record, 0, GREEN | OTHER) == {"x"}
    assert eligible_for(record, 1, GREEN | OTHER | BLUE) == {"g", "h"}


def test_the_last_node_of_a_pool_has_no_heir() -> None:
    record = routing(g0=placed("", "a", "b"), g1=placed("green", "g", "a"))
    assert heirless(record, "g", BLUE | {"g": "green"}) == (1,)
    assert heirless(record, "g", BLUE | GREEN) == ()
    # "a" holds a copy in the wrong place as well; nobody is left to take that one over.
    assert heirless(record, "a", BLUE) == (1,)
    assert heirless(record, "h", GREEN) == ()


def test_records_without_pools_read_as_they_did() -> None:
    """Software from before the field reads a record in which nobody has a label, and the other way round."""
    address = NodeAddress(address="a:1", incarnation="1")
    plain = routing(g0=placed("", "a")).model_copy(update={"nodes": {"a": address}})
    assert b"pool" not in plain.encode()
    assert Routing.decode(plain.encode(), key="k") == plain
    pooled = routing(g0=placed("green", "g")).model_copy(
        update={"nodes": {"g": address.model_copy(update={"pool": "green"})}}
    )
    assert pooled.encode().count(b'"pool": "green"') == 2
    assert Routing.decode(pooled.encode(), key="k") == pooled


def test_a_label_is_a_short_name() -> None:
    assert load_settings(environment={"BRAINY_NODE__POOL": "green-2.a"}).node.pool == "green-2.a"
    with pytest.raises(InvalidRequestError):
        load_settings(environment={"BRAINY_NODE__POOL": "green nodes"})


def request(strategy: Strategy, pool: str = "", *, stopped: bool = False) -> Request:
    return Request(
        request_id="r",
        namespace="memory://x-y-z",
        strategy=strategy,
        source_generation=0,
        target_generation=1,
        target=TargetWish(pool=pool),
        writers_stopped=stopped,
    )


@pytest.mark.parametrize(
    ("wish", "source_pool", "expected"),
    [
        (request("rolling"), "", {}),
        (request("in_place_upgrade", "green"), "", {"pool_has_nodes": True}),
        (request("blue_green", "green"), "", {"pool_has_nodes": True, "pool_is_another": True}),
        (request("blue_green", "green"), "green", {"pool_has_nodes": True, "pool_is_another": False}),
        (request("blue_green", "gren"), "", {"pool_has_nodes": False, "pool_is_another": True}),
        (request("coordinated"), "", {"writers_stopped": False}),
        (request("coordinated", stopped=True), "", {"writers_stopped": True}),
    ],
)
def test_what_a_strategy_asks_for(wish: Request, source_pool: str, expected: dict[str, bool]) -> None:
    checks = strategy_checks(wish, routing(g0=placed(source_pool, "a")), BLUE | GREEN)
    assert {check.name: check.passed for check in checks} == expected
    assert all(REMEDIES[check.name] for check in checks)


def record_of(wish: Request) -> MigrationRecord:
    first = Event(
        sequence=1,
        nonce="n",
        at=0.0,
        trigger=Trigger.REQUESTED,
        from_state=None,
        to_state=State.PENDING,
        by="x",
        leader_epoch=1,
        request=wish,
    )
    return fold("m-1", [first])


def test_coordinated_moves_reads_only_while_the_source_is_still() -> None:
    record = record_of(request("coordinated", stopped=True))
    rules = STRATEGIES["coordinated"]
    where = routing(g0=placed("", "a", "b"), g1=placed("", "a", "b"))
    source = ReplicaSeen(node_id="a", generation=0, shard=0, state=ReplicaState.READY, applied=5)

    def next_step(facts: Facts, record_in_force: Routing = where, applied: int = 5) -> tuple[act.Action, ...]:
        seen = Observation(
            routing=record_in_force,
            reachable=frozenset("ab"),
            replicas=(replace(source, applied=applied),),
            facts=facts,
        )
        return rules.before_promotion(record, seen)

    still = Still(positions={0: 5}, since=0.0)
    quiet = replace(still, quiet=True)
    assert next_step(Facts()) == (act.AwaitQuiet(0),)
    assert next_step(Facts(still=still)) == (act.AwaitQuiet(0),)
    assert next_step(Facts(still=quiet)) == (act.AdoptAll(1),)
    adopted = edits.adopt_all(where, "m-1", nodes={"b", "a"}, target=1)
    assert edits.adopt_all(adopted, "m-1", nodes={"a"}, target=1) is adopted
    # A new leader has the record, and asks again whether it is in force.
    assert next_step(Facts(still=quiet), adopted) == (act.AdoptAll(1),)
    in_force = Facts(still=quiet, adopted_in_force=frozenset("ab"))
    assert next_step(in_force, adopted) == ()
    # A write after the reads have moved: not before it is still again.
    assert next_step(in_force, adopted, applied=6) == (act.AwaitQuiet(0),)
    assert replace(still, moved="shard 0 went from 5 to 6").complaint.startswith("a writer is not stopped")
    assert (still.complaint, replace(quiet, moved="shard 0").complaint) == ("", "")


@pytest.mark.parametrize(
    ("wish", "step", "words"),
    [
        (request("blue_green", "green"), "PlaceTarget", "on 2 nodes of pool green"),
        (request("coordinated"), "AdoptAll", "in one swap and one barrier"),
        (request("coordinated"), "AwaitQuiet", "or it waits"),
    ],
)
async def test_a_plan_says_where_and_when(wish: Request, step: str, words: str) -> None:
    where = routing(g0=placed("", "a", "b"))
    labels = BLUE | GREEN
    executor = DryRunExecutor(
        where,
        reachable=frozenset(labels),
        shard_count=2,
        replication=2,
        checks=strategy_checks(wish, where, labels),
        pool=wish.target.pool,
        holders=eligible(wish.target.pool, labels),
    )
    steps = await plan(executor, "plan", wish)
    assert words in {found.action: found.detail for found in steps}[step]
    assert [found.action for found in steps][-1] == "RetireSource"
