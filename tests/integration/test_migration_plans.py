"""Plans over gRPC: kept, executed, refused. Nodes in miniature, a store in memory that counts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from coordinator_cluster import SETTINGS, Cluster, coordinators, live
from coordinator_fakes import NAMESPACE, until

from brainy.api.coordinator.v1 import membership_pb2, membership_pb2_grpc, migration_pb2, migration_pb2_grpc
from brainy.bucket import layout
from brainy.clock import SystemClock
from brainy.errors import InvalidRequestError, NotFoundError, PreconditionError
from brainy.rpc.channel import call, stream
from brainy.store.metered import MeteredStore
from brainy_coordinator.server import CoordinatorServer

ROLLING = migration_pb2.STRATEGY_ROLLING
IN_PLACE = migration_pb2.STRATEGY_IN_PLACE_UPGRADE
#: One that leads goes on leading, however busy the machine is.
UNHURRIED = SETTINGS.model_copy(update={"leader_lease_seconds": 10.0})


@dataclass
class Coordinated:
    cluster: Cluster
    store: MeteredStore
    leader: CoordinatorServer
    follower: CoordinatorServer

    @property
    def stub(self) -> migration_pb2_grpc.MigrationServiceStub:
        return self.cluster.pool.stub(self.leader.address, migration_pb2_grpc.MigrationServiceStub)

    async def plan(self, strategy: int = ROLLING, **wish: object) -> migration_pb2.MigrationPlan:
        request = migration_pb2.PlanMigrationRequest(namespace=NAMESPACE, strategy=strategy, **wish)
        return (await call(self.stub.PlanMigration, request)).plan

    async def execute(self, plan: migration_pb2.MigrationPlan, **how: object) -> migration_pb2.Migration:
        how = {"confirm": [each.name for each in plan.confirmations], **how}
        request = migration_pb2.StartMigrationRequest(namespace=NAMESPACE, plan_id=plan.id, **how)
        return (await call(self.stub.StartMigration, request)).migration

    async def start(self, strategy: int = IN_PLACE, **wish: object) -> migration_pb2.Migration:
        request = migration_pb2.StartMigrationRequest(namespace=NAMESPACE, strategy=strategy, **wish)
        return (await call(self.stub.StartMigration, request)).migration

    async def ended(self, migration: migration_pb2.Migration) -> migration_pb2.GetMigrationResponse:
        watched = migration_pb2.WatchMigrationRequest(namespace=NAMESPACE, id=migration.id)
        async for _ in stream(self.stub.WatchMigration, watched):
            pass
        return await call(
            self.stub.GetMigration, migration_pb2.GetMigrationRequest(namespace=NAMESPACE, id=migration.id)
        )

    async def refused(self, plan: migration_pb2.MigrationPlan, reason: str = "PLAN_OUTDATED") -> PreconditionError:
        with pytest.raises(PreconditionError) as refused:
            await self.execute(plan)
        assert refused.value.reason == reason
        assert refused.value.remedy
        return refused.value

    async def known(self, seen: Callable[[membership_pb2.NodeInfo], bool], node: str) -> None:
        """Wait until the leader has heard something of a node."""
        stub = self.cluster.pool.stub(self.leader.address, membership_pb2_grpc.MembershipServiceStub)
        for _ in range(400):
            nodes = (await call(stub.ListNodes, membership_pb2.ListNodesRequest())).nodes
            if any(each.node_id == node and seen(each) for each in nodes):
                return
            await SystemClock().sleep(0.01)
        raise AssertionError(f"nothing of the kind was heard of {node}")


@asynccontextmanager
async def coordinated(cluster: Cluster) -> AsyncIterator[Coordinated]:
    for name in ("a", "b", "c"):
        await cluster.node(name)
    store = MeteredStore(cluster.store)
    async with coordinators(cluster, 2, store, UNHURRIED) as servers:
        await until(lambda: len(live(servers)) == 1)
        leader = live(servers)[0]
        follower = next(server for server in servers if server is not leader)
        await until(lambda: cluster.routing() is not None)
        term = leader.coordinator.term()
        await until(lambda: NAMESPACE in term.ready and len(term.namespaces[NAMESPACE].view.replicas()) >= 6)
        yield Coordinated(cluster, store, leader, follower)


@pytest.fixture
async def on() -> AsyncIterator[Coordinated]:
    cluster = Cluster()
    try:
        async with coordinated(cluster) as found:
            yield found
    finally:
        await cluster.close()


WRITES = ("put", "put_conditional", "delete")


async def test_dry_runs_write_nothing(on: Coordinated) -> None:
    kept = await on.plan()
    calls, objects = dict(on.store.calls), dict(on.cluster.store._objects)
    tried = await on.plan(dry_run=True)
    assert (tried.id, tried.migration_id) == ("", "")
    assert [check.name for check in tried.checks if not check.tried] == ["store_conditional_writes", "permissions"]
    assert [step.action for step in tried.steps] == [step.action for step in kept.steps]
    assert tried.transitions == kept.transitions
    assert (await on.start(validate_only=True)).id == ""
    assert "nothing was started" in (await on.execute(kept, validate_only=True)).message
    with pytest.raises(PreconditionError):
        await on.execute(kept, validate_only=True, confirm=[])
    assert {kind: on.store.calls[kind] - calls[kind] for kind in WRITES} == dict.fromkeys(WRITES, 0)
    assert on.store.calls["get"] > calls["get"]
    changed = {key for key, found in on.cluster.store._objects.items() if objects.get(key) != found}
    assert all(key.startswith(layout.LOCKS) for key in changed)


@pytest.mark.parametrize("strategy", [IN_PLACE, ROLLING])
async def test_history_equals_the_plan_from_each_generation(on: Coordinated, strategy: int) -> None:
    for generation in range(2):
        plan = await on.plan(strategy, request_id=f"r{generation}", requested_by="ann")
        assert (plan.source_generation, plan.strategy, plan.created_by) == (generation, strategy, "ann")
        assert (await on.plan(strategy, request_id=f"r{generation}", requested_by="ann")) == plan
        began = await on.execute(plan, requested_by="bob")
        assert (began.id, began.plan_id) == (plan.migration_id, plan.id)
        found = await on.ended(began)
        assert found.migration.state == migration_pb2.MIGRATION_STATE_SUCCEEDED
        assert found.migration.story[0].by == "bob"
        assert [(e.trigger, getattr(e, "from"), e.to) for e in found.migration.story] == [
            (t.trigger, getattr(t, "from"), t.to) for t in plan.transitions
        ]
        assert (found.outcome.plan_id, found.outcome.as_planned, found.outcome.remaining) == (plan.id, True, 0)
        assert found.outcome.calls_complete
        assert found.outcome.measured.calls["put"] >= 9
        # Executed already: the answer is that migration, without a word about what has changed since.
        assert (await on.execute(plan, confirm=[])).id == began.id
        assert (await on.execute(plan, validate_only=True)).id == began.id
    lazy = on.cluster.pool.stub(on.follower.address, migration_pb2_grpc.MigrationServiceStub)
    request = migration_pb2.GetMigrationPlanRequest(namespace=NAMESPACE, id=plan.id)
    assert (await call(lazy.GetMigrationPlan, request)).plan == plan
    request.id = "p-none"
    with pytest.raises(NotFoundError):
        await call(lazy.GetMigrationPlan, request)


async def test_a_start_without_a_plan_keeps_one(on: Coordinated) -> None:
    began = await on.start(request_id="r")
    found = await on.ended(began)
    assert found.migration.plan_id == "p" + began.id[1:]
    assert found.outcome.as_planned
    request = migration_pb2.GetMigrationPlanRequest(namespace=NAMESPACE, id=found.migration.plan_id)
    plan = (await call(on.stub.GetMigrationPlan, request)).plan
    assert plan.migration_id == began.id
    assert (await on.execute(plan)).id == began.id


async def test_a_start_goes_on_with_the_plan_a_lost_call_left_though_the_namespace_has_grown(on: Coordinated) -> None:
    left = await on.plan(IN_PLACE, request_id="r", requested_by="ann")
    a, _, _ = on.cluster.nodes()
    for number in range(left.basis.items_at_most + 1):
        await on.cluster.world.write(f"k{number}", "1", a)
    assert (await on.refused(left)).fields["changed"] == "items"
    began = await on.start(request_id="r", requested_by="bob")
    assert (began.id, began.plan_id) == (left.migration_id, left.id)
    assert (await on.ended(began)).migration.state == migration_pb2.MIGRATION_STATE_SUCCEEDED


async def test_a_plan_is_refused_once_what_it_rests_on_has_changed(on: Coordinated) -> None:
    plan = await on.plan(item_tolerance=0.5)
    assert (plan.basis.items_at_least, plan.basis.items_at_most) == (0, 100)
    a, b, _ = on.cluster.nodes()

    with pytest.raises(PreconditionError, match="no-way-back") as unconfirmed:
        await on.execute(plan, confirm=["something"])
    assert unconfirmed.value.reason == "CONFIRMATION_MISSING"
    assert "--confirm no-way-back" in unconfirmed.value.remedy

    b.quarantined = 1
    assert (await on.refused(plan)).fields["changed"] == "quarantined"
    b.quarantined = 0

    b.version = "1.1"
    await on.known(lambda node: node.version == "1.1", "b")
    assert "versions was b 1.0, is b 1.1" in (await on.refused(plan)).message
    b.version = "1.0"
    await on.known(lambda node: node.version == "1.0", "b")

    for number in range(101):
        await on.cluster.world.write(f"k{number}", "1", a)
    assert (await on.refused(plan)).fields["changed"] == "items"
    plan = await on.plan()
    assert plan.basis.nouns == 101

    await on.cluster.node("d")
    await on.known(lambda node: node.state == membership_pb2.NODE_STATE_ALIVE, "d")
    assert "nodes was a, b, c, is a, b, c, d" in (await on.refused(plan)).message
    plan = await on.plan()
    later = await on.plan()

    # The number is spent once the target is described, whatever becomes of it.
    b.stuck = True
    aborted = await on.start()
    await until(lambda: layout.spec(1) in on.cluster.store._objects)
    request = migration_pb2.AbortMigrationRequest(namespace=NAMESPACE, id=aborted.id)
    await call(on.stub.AbortMigration, request)
    assert (await on.ended(aborted)).migration.state == migration_pb2.MIGRATION_STATE_ABORTED
    assert not (await on.ended(aborted)).outcome.as_planned
    b.stuck = False
    assert (await on.refused(plan)).fields["changed"] == "target_generation"
    plan = await on.plan()

    await on.ended(await on.execute(plan))
    assert (await on.refused(later)).fields["changed"] == "source_generation"


async def test_checks_stand_in_the_way_and_say_what_to_do(on: Coordinated) -> None:
    plan = await on.plan()
    node = on.cluster.nodes()[0]
    node.protocol_version = 2
    await on.known(lambda found: found.protocol_version == 2, "a")
    failed = [check for check in (await on.plan()).checks if not check.passed]
    assert [check.name for check in failed] == ["versions"]
    assert failed[0].remedy
    assert "versions failed" in (await on.refused(plan, "WRONG_PHASE")).message
    with pytest.raises(PreconditionError, match="versions failed"):
        await on.start()
    node.protocol_version = 1
    node.disk_free = 10
    await on.known(lambda found: found.disk_free_bytes == 10 and found.protocol_version == 1, "a")
    assert "a has 10" in (await on.refused(plan, "WRONG_PHASE")).message
    node.disk_free = 10**12
    await on.known(lambda found: found.disk_free_bytes == 10**12, "a")
    wanting = await on.plan(require_backup="/nowhere/x.backup")
    assert "backup_present failed" in (await on.refused(wanting, "WRONG_PHASE")).message
    with pytest.raises(PreconditionError, match="backup_present failed"):
        await on.start(require_backup="/nowhere/x.backup")
    assert not [key for key in on.cluster.store._objects if layout.parse_migration_event(key)]


async def test_a_brainy_that_writes_stands_in_the_way() -> None:
    cluster = Cluster()
    now = int(SystemClock().wall() * 1000)
    await cluster.store.put("nouns/x.json", b'{"id": "x", "vector": [1, 2, 3, 4], "connections": {}}')
    try:
        async with coordinated(cluster) as on:
            plan = await on.plan()
            assert tuple(plan.basis.trees) == ("flat",)
            assert [each.name for each in plan.confirmations] == ["writers-stopped", "no-way-back"]
            await cluster.store.put(f"change-log/{now}-abc.json", b"{}")
            refused = await on.refused(plan, "WRONG_PHASE")
            assert "no_foreign_writers failed" in refused.message
            assert "brainy follow --on" in refused.remedy
            await cluster.store.delete(f"change-log/{now}-abc.json")
            assert (await on.ended(await on.execute(plan))).outcome.as_planned
    finally:
        await cluster.close()


async def test_a_plan_with_a_hold_and_a_way_back(on: Coordinated) -> None:
    limits = migration_pb2.RollbackLimits(error_rate=0.01, overlap=0.9)
    with pytest.raises(InvalidRequestError, match="needs a way back"):
        await on.plan(IN_PLACE, rollback_if=limits)
    with pytest.raises(InvalidRequestError, match="out of bounds"):
        await on.plan(IN_PLACE, keep_way_back=True, rollback_if=migration_pb2.RollbackLimits(error_rate=2.0))
    plan = await on.plan(IN_PLACE, keep_way_back=True, hold_before_switch=True, rollback_if=limits)
    assert (plan.keep_way_back, plan.hold_before_switch) == (True, True)
    assert (plan.rollback_if.error_rate, plan.rollback_if.overlap, plan.rollback_if.min_calls) == (0.01, 0.9, 100)
    told = {step.action: step.detail for step in plan.steps}
    assert told["ShadowReads"] == "5% of the reads are asked of generation 0 besides, and compared"
    assert "by itself if error-rate>0.01 or overlap<0.9" in told["Observe"]
    # There is a way back, so nobody has to answer for its absence.
    assert [each.name for each in plan.confirmations] == []
    began = await on.execute(plan)

    async def state() -> tuple[int, bool]:
        request = migration_pb2.GetMigrationRequest(namespace=NAMESPACE, id=began.id)
        found = (await call(on.stub.GetMigration, request)).migration
        return found.state, found.held

    async def until_state(wanted: int) -> None:
        for _ in range(1000):
            if (await state())[0] == wanted:
                return
            await SystemClock().sleep(0.01)
        raise AssertionError(f"it is {await state()}")

    await until_state(migration_pb2.MIGRATION_STATE_READY)
    for _ in range(200):
        with contextlib.suppress(PreconditionError):
            await call(
                on.stub.PromoteMigration,
                migration_pb2.PromoteMigrationRequest(namespace=NAMESPACE, id=began.id, request_id="p"),
            )
            break
        await SystemClock().sleep(0.02)
    await until_state(migration_pb2.MIGRATION_STATE_OBSERVING)
    for _ in range(1000):
        found = await call(on.stub.GetMigration, migration_pb2.GetMigrationRequest(namespace=NAMESPACE, id=began.id))
        if any(line.startswith("not judged yet: 0 calls") for line in found.migration.waits_for):
            break
        await SystemClock().sleep(0.01)
    assert found.migration.rollback_if == plan.rollback_if
    assert (found.migration.served.calls, found.migration.HasField("served_before")) == (0, True)
    await call(
        on.stub.CompleteMigration,
        migration_pb2.CompleteMigrationRequest(namespace=NAMESPACE, id=began.id, request_id="c"),
    )
    found = await on.ended(began)
    assert found.migration.state == migration_pb2.MIGRATION_STATE_SUCCEEDED
    assert (found.outcome.as_planned, found.outcome.remaining) == (True, 0)
    assert "complete_requested" in [each.trigger for each in plan.transitions]


async def test_a_plan_for_a_pool_places_the_target_there(on: Coordinated) -> None:
    green = migration_pb2.TargetSpec(pool="green")
    missing = await on.plan(migration_pb2.STRATEGY_BLUE_GREEN, target=green)
    assert [check.name for check in missing.checks if not check.passed] == ["pool_has_nodes"]
    assert [check.remedy != "" for check in missing.checks if not check.passed] == [True]
    node = await on.cluster.node("g", pool="green")
    await on.known(lambda found: found.pool == "green" and found.state == membership_pb2.NODE_STATE_ALIVE, "g")
    # Room is asked for where the target will be, and nowhere else.
    on.cluster.nodes()[0].disk_free = 10
    await on.known(lambda found: found.disk_free_bytes == 10, "a")
    plan = await on.plan(migration_pb2.STRATEGY_BLUE_GREEN, target=green)
    assert [check.name for check in plan.checks if not check.passed] == []
    assert (plan.strategy, plan.target.pool) == (migration_pb2.STRATEGY_BLUE_GREEN, "green")
    placed = next(step.detail for step in plan.steps if step.action == "PlaceTarget")
    assert "on 1 nodes of pool green" in placed
    node.disk_free = 10
    await on.known(lambda found: found.disk_free_bytes == 10, "g")
    assert "g has 10" in (await on.refused(plan, "WRONG_PHASE")).message
    node.disk_free = 10**12
    await on.known(lambda found: found.disk_free_bytes == 10**12, "g")
    found = await on.ended(await on.execute(plan))
    assert (found.migration.state, found.outcome.as_planned) == (migration_pb2.MIGRATION_STATE_SUCCEEDED, True)
    routing = on.cluster.in_force()
    assert routing.generations[1].pool == "green"
    assert {where.owner for where in routing.generations[1].shards.values()} == {"g"}


async def test_a_coordinated_plan_holds_the_word_that_writers_are_stopped(on: Coordinated) -> None:
    silent = await on.plan(migration_pb2.STRATEGY_COORDINATED)
    assert [check.name for check in silent.checks if not check.passed] == ["writers_stopped"]
    assert "--writers-stopped" in (await on.refused(silent, "WRONG_PHASE")).remedy
    plan = await on.plan(migration_pb2.STRATEGY_COORDINATED, writers_stopped=True)
    assert plan.writers_stopped
    assert [step.action for step in plan.steps].count("AwaitQuiet") == 1
    assert plan.figures.duration.ToSeconds() >= 2
    found = await on.ended(await on.execute(plan))
    assert (found.migration.state, found.outcome.as_planned) == (migration_pb2.MIGRATION_STATE_SUCCEEDED, True)
