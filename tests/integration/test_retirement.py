"""Generations out of service: kept for a time, then deleted; whoever dies meanwhile. Nodes in miniature."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from coordinator_cluster import MIGRATION, SETTINGS, Cluster, Frozen, coordinators, live, request_for
from coordinator_fakes import NAMESPACE, until

from brainy.api.coordinator.v1 import generation_pb2, generation_pb2_grpc, migration_pb2, migration_pb2_grpc
from brainy.bucket import layout
from brainy.bucket.follow import FollowChoice
from brainy.bucket.records import Collected
from brainy.bucket.retirement import Retirement
from brainy.errors import NotFoundError, PastPointOfNoReturnError, PreconditionError
from brainy.rpc.channel import call
from brainy.store.base import PutOutcome
from brainy.store.memory import MemoryStore
from brainy_coordinator.migration import interventions
from brainy_coordinator.migration.record import MigrationRecord, migration_id_for
from brainy_coordinator.migration.state import State
from brainy_coordinator.retirement.retirements import END_OF_LOG, Retirements

#: Kept for as long as a test has patience.
BRIEF = SETTINGS.model_copy(update={"retain_seconds": 0.3, "log_retention_seconds": 0.3, "leader_lease_seconds": 10.0})
SECOND = migration_id_for(NAMESPACE, "r2")


class Stopped(Frozen):
    """A way to the store that stops for ever after the n-th step towards a deletion has landed."""

    async def _count(self, key: str, outcome: PutOutcome) -> PutOutcome:
        return await self._step(key, outcome) if outcome.won else outcome

    async def _step(self, key: str, outcome: PutOutcome) -> PutOutcome:
        if key.startswith(layout.RETIRED) or "/collected/" in key:
            self.steps.append(key)
            await self._stop()
        return outcome

    async def _stop(self) -> None:
        if self.after is not None and len(self.steps) >= self.after:
            self.frozen.set()
            await self._gate()

    async def delete(self, key: str) -> None:
        await self._gate()
        await super().delete(key)
        if key.startswith(layout.GENERATIONS):
            self.steps.append(key)
            await self._stop()


class Brief(Cluster):
    """Leaders that keep old generations for a moment only."""

    def components(self, store, settings=BRIEF):  # type: ignore[no-untyped-def]
        return super().components(store, BRIEF)


@pytest.fixture
async def cluster() -> AsyncIterator[Brief]:
    found = await three_nodes()
    yield found
    await found.close()


async def three_nodes() -> Brief:
    found = Brief()
    for name in ("a", "b", "c"):
        await found.node(name)
    return found


async def fill(store: MemoryStore, generation: int) -> None:
    """Plant what owners would publish of a generation, and Brainy's own objects."""
    for shard in range(3):
        for key in (
            layout.manifest(generation, shard),
            layout.segment(generation, "nouns", shard, "x-0"),
            layout.segment(generation, "verbs", shard, "x-0"),
            layout.checkpoint(generation, shard, "x", "index.usearch"),
            layout.quarantine(generation, shard, "x"),
            layout.log_slot(generation, shard, 1),
            layout.log_slot(generation, shard, 2),
        ):
            await store.put(key, b"12345")
    await store.put("nouns/n1.json", b"{}")


def keys(cluster: Cluster, generation: int) -> set[str]:
    prefix = layout.generation(generation)
    return {key.removeprefix(prefix) for key in cluster.store._objects if key.startswith(prefix)}


def retirement(cluster: Cluster, generation: int) -> Retirement | None:
    key = layout.retired(generation)
    found = cluster.store._objects.get(key)
    return Retirement.decode(found.body, key=key) if found else None


def state(cluster: Cluster, generation: int) -> str:
    found = retirement(cluster, generation)
    return found.state if found else ""


def retirements(cluster: Cluster) -> Retirements:
    assert cluster.term is not None
    return cluster.term.namespaces[NAMESPACE].retirements


async def succeeded(cluster: Cluster, migration: str, state: State = State.SUCCEEDED) -> MigrationRecord:
    await until(lambda: (found := cluster.record(migration)) is not None and found.state is state, seconds=30)
    found = cluster.record(migration)
    assert found is not None
    return found


async def two_generations_on(cluster: Cluster) -> None:
    """Migrate twice, so that generation 1 is one of ours that is out of service."""
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade"))
    await succeeded(cluster, MIGRATION)
    await fill(cluster.store, 1)
    again = request_for("in_place_upgrade", key="r2")
    await cluster.migrations.start(SECOND, again.model_copy(update={"source_generation": 1, "target_generation": 2}))
    await succeeded(cluster, SECOND)


GIVEN_UP = {f"collected/{shard}.json" for shard in range(3)}


async def test_what_goes_and_what_stays(cluster: Brief) -> None:
    cluster.lead()
    await cluster.serving()
    await fill(cluster.store, 0)
    logs = {key for key in keys(cluster, 0) if key.startswith("change-log/")}
    assert logs
    await two_generations_on(cluster)
    await fill(cluster.store, 2)
    live_before = keys(cluster, 2)
    await until(lambda: state(cluster, 0) == state(cluster, 1) == "deleted", seconds=30)
    # The log of generation 0 stays: with Brainy's tree it is the only copy of what was committed there, in order.
    assert keys(cluster, 0) == {"spec.json", *logs}
    assert keys(cluster, 1) == {"spec.json", *GIVEN_UP}
    for shard in range(3):
        key = layout.collected(1, shard)
        assert Collected.decode(cluster.store._objects[key].body, key=key).position == END_OF_LOG
    assert keys(cluster, 2) == live_before
    assert "nouns/n1.json" in cluster.store._objects
    record = retirement(cluster, 1)
    assert record is not None
    assert (record.objects, record.bytes, record.migration) == (21, 105, SECOND)
    assert [line.what for line in record.story] == ["retained", "deleting", "deleted"]
    assert record.story[-1].detail == "21 objects, 105 bytes"
    # Its number is not given out again.
    assert await cluster.term.namespaces[NAMESPACE].generations.numbers() == (0, 1, 2)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "steps", [(2, 4, 8), pytest.param((1, 3, 5, 6, 7, 9, 20, 25), marks=pytest.mark.long)], ids=["some", "more"]
)
async def test_a_leader_may_die_after_any_step_of_a_deletion(steps: Sequence[int]) -> None:
    # Retained, deleting, three logs given up, then each delete, and deleted.
    for step in steps:
        cluster = await three_nodes()
        try:
            cluster.lead()
            await cluster.serving()
            await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade"))
            await succeeded(cluster, MIGRATION)
            await fill(cluster.store, 1)
            await until(lambda c=cluster: state(c, 0) == "deleted", seconds=30)
            await cluster.depose()
            first = Stopped(cluster.store, after=step)
            cluster.lead(first)
            await until(lambda c=cluster: NAMESPACE in c.term.ready, seconds=30)  # type: ignore[union-attr]
            again = request_for("in_place_upgrade", key="r2")
            starting = asyncio.create_task(
                cluster.migrations.start(
                    SECOND, again.model_copy(update={"source_generation": 1, "target_generation": 2})
                )
            )
            await until(lambda c=cluster, f=first: f.frozen.is_set() or state(c, 1) == "deleted", seconds=30)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            stopped = first.frozen.is_set()
            await cluster.depose()
            cluster.lead()
            await until(lambda c=cluster: state(c, 1) == "deleted" and state(c, 0) == "deleted", seconds=30)
            assert keys(cluster, 1) == {"spec.json", *GIVEN_UP}, (step, first.steps)
            record = retirement(cluster, 1)
            assert record is not None
            # However often it was interrupted, each step is told once, with what was there when it began.
            assert [line.what for line in record.story] == ["retained", "deleting", "deleted"]
            assert (record.objects, record.bytes) == (21, 105)
            assert (await succeeded(cluster, SECOND)).state is State.SUCCEEDED
            assert stopped
        finally:
            await cluster.close()


async def test_a_node_that_has_not_heard_of_it_is_waited_for(cluster: Brief) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(
        MIGRATION, request_for("in_place_upgrade").model_copy(update={"keep_way_back": True})
    )
    await succeeded(cluster, MIGRATION, State.OBSERVING)
    await fill(cluster.store, 0)
    deaf = cluster.nodes()[2]
    executor = cluster.migrations._executors[MIGRATION]
    await until(lambda: len(executor.facts.released) == 3)
    await cluster.migrations.intervene(MIGRATION, interventions.complete, by="ann")
    deaf.stuck = True
    await succeeded(cluster, MIGRATION)
    found = retirements(cluster)

    async def why() -> str:
        return (await found.all())[0].waits_for

    async with asyncio.timeout(60):
        while not (told := await why()):
            await asyncio.sleep(0.02)
    assert told == "not confirmed by c that it is out of service (brainy status)"
    assert layout.manifest(0, 0) in cluster.store._objects
    deaf.stuck = False
    found._look_again_at.clear()
    await until(lambda: state(cluster, 0) == "deleted", seconds=30)


@pytest.mark.parametrize(("choice", "told"), [({"mirror": "entity"}, "mirrored"), ({"follow": True}, "followed")])
async def test_brainys_tree_holds_it_up(cluster: Brief, choice: dict[str, object], told: str) -> None:
    cluster.lead()
    await cluster.serving()
    await two_generations_on(cluster)
    # Whoever was first: what is not deleted yet waits from now on.
    await cluster.store.put(layout.FOLLOW, FollowChoice(nonce="n", **choice).encode())  # type: ignore[arg-type]
    again = request_for("in_place_upgrade", key="r3")
    await cluster.migrations.start(
        "m-3", again.model_copy(update={"source_generation": 2, "target_generation": 3, "request_id": "r3"})
    )
    await succeeded(cluster, "m-3")
    await fill(cluster.store, 2)
    async with asyncio.timeout(60):
        while told not in ((await retirements(cluster).all())[2].waits_for):
            await asyncio.sleep(0.02)
    assert state(cluster, 2) == "retained"
    assert layout.log_slot(2, 0, 1) in cluster.store._objects


async def test_the_time_is_counted_by_leaders_and_survives_them(cluster: Brief) -> None:
    cluster.lead()
    await cluster.serving()
    await two_generations_on(cluster)
    found = retirements(cluster)
    with pytest.raises(PreconditionError):
        await found.keep(2, by="ann")
    with pytest.raises(NotFoundError):
        await found.keep(9, by="ann")
    if state(cluster, 1) == "retained":
        await found.retain(1, 100.0, by="ann")
        await until(lambda: (r := retirement(cluster, 1)) is not None and r.remaining_seconds < 100.0, seconds=30)
        before = retirement(cluster, 1)
        assert before is not None
        await cluster.depose()
        cluster.lead()
        await until(lambda: NAMESPACE in cluster.term.ready, seconds=30)  # type: ignore[union-attr]
        left = (await retirements(cluster).all())[1].remaining
        assert 90.0 < left <= before.remaining_seconds
        kept = await retirements(cluster).keep(1, by="ann")
        assert (kept.record.state, kept.record.story[-1].by) == ("kept", "ann")
        await retirements(cluster).retain(1, 0.0, by="ann")
    await until(lambda: state(cluster, 1) == "deleted", seconds=30)
    for asked in (retirements(cluster).keep(1, by="ann"), retirements(cluster).retain(1, 5.0, by="ann")):
        with pytest.raises(PastPointOfNoReturnError) as refused:
            await asked
        assert refused.value.remedy


async def test_the_target_of_an_aborted_migration_goes_as_well(cluster: Brief) -> None:
    cluster.lead()
    await cluster.serving()
    held = request_for("in_place_upgrade").model_copy(update={"hold_before_switch": True})
    await cluster.migrations.start(MIGRATION, held)
    await succeeded(cluster, MIGRATION, State.READY)
    await fill(cluster.store, 1)
    await cluster.migrations.abort(MIGRATION, by="ann")
    await succeeded(cluster, MIGRATION, State.ABORTED)
    await until(lambda: state(cluster, 1) == "deleted", seconds=30)
    assert keys(cluster, 1) == {"spec.json", *GIVEN_UP}
    assert cluster.in_force().active == 0


async def test_over_grpc(cluster: Cluster) -> None:
    settings = BRIEF.model_copy(update={"retain_seconds": 3600.0})
    async with coordinators(cluster, 1, settings=settings) as servers:
        await until(lambda: len(live(servers)) == 1 and cluster.routing() is not None, seconds=30)
        term = live(servers)[0].coordinator.term()
        await until(
            lambda: NAMESPACE in term.ready and len(term.namespaces[NAMESPACE].view.replicas()) >= 6, seconds=60
        )
        stub = cluster.pool.stub(live(servers)[0].address, migration_pb2_grpc.MigrationServiceStub)
        ours = cluster.pool.stub(live(servers)[0].address, generation_pb2_grpc.GenerationServiceStub)
        started = await call(
            stub.StartMigration,
            migration_pb2.StartMigrationRequest(
                namespace=NAMESPACE, strategy=migration_pb2.STRATEGY_IN_PLACE_UPGRADE, keep_way_back=True
            ),
        )
        asked = migration_pb2.GetMigrationRequest(namespace=NAMESPACE, id=started.migration.id)

        async def reached(state: int) -> migration_pb2.Migration:
            async with asyncio.timeout(60):
                while (found := (await call(stub.GetMigration, asked)).migration).state != state:
                    await asyncio.sleep(0.02)
            return found

        await reached(migration_pb2.MIGRATION_STATE_OBSERVING)
        await fill(cluster.store, 0)
        objects = dict(cluster.store._objects)
        complete = migration_pb2.CompleteMigrationRequest(
            namespace=NAMESPACE, id=started.migration.id, validate_only=True, requested_by="ann"
        )
        complete.retain.FromSeconds(7200)
        listed = await call(stub.CompleteMigration, complete)
        assert counted(listed.deletes) == [(k, 3, 15) for k in ("index", "manifests", "nouns", "quarantine", "verbs")]
        assert (listed.retain.seconds, list(listed.retired)) == (7200, ["cluster/generations/0/"])
        changed = {key for key, found in cluster.store._objects.items() if objects.get(key) != found}
        assert all(key.startswith(layout.LOCKS) for key in changed)
        complete.validate_only = False
        await call(stub.CompleteMigration, complete)
        ended = await reached(migration_pb2.MIGRATION_STATE_SUCCEEDED)
        assert ended.left_behind.number == 0
        assert ended.left_behind.state == generation_pb2.GENERATION_STATE_RETAINED
        assert ended.left_behind.story[0].by == "ann"
        again = await call(ours.ListGenerations, generation_pb2.ListGenerationsRequest(namespace=NAMESPACE, sizes=True))
        old, new = again.generations
        assert (new.number, new.state) == (1, generation_pb2.GENERATION_STATE_ACTIVE)
        assert 7100 < old.remaining.seconds <= 7200
        assert counted(old.stays) == [("change-log", 6, 30), ("spec", 1, old.stays[1].bytes)]
        keep = generation_pb2.SetRetentionRequest(namespace=NAMESPACE, generation=0, keep=True, requested_by="bob")
        assert (await call(ours.SetRetention, keep)).generation.state == generation_pb2.GENERATION_STATE_KEPT
        keep.generation = 1
        with pytest.raises(PreconditionError):
            await call(ours.SetRetention, keep)
        delete = generation_pb2.SetRetentionRequest(namespace=NAMESPACE, generation=0, requested_by="bob")
        delete.retain.FromSeconds(0)
        shortest = (await call(ours.SetRetention, delete)).generation
        # No sooner than change logs would go, whatever is asked for.
        assert shortest.story[-1].detail == "for 0.3 s"
        await until(lambda: state(cluster, 0) == "deleted", seconds=30)
        gone = (await call(stub.GetMigration, asked)).migration.left_behind
        assert (gone.deleted_objects, gone.deleted_bytes) == (15, 75)
        rollback = migration_pb2.RollbackMigrationRequest(namespace=NAMESPACE, id=started.migration.id)
        with pytest.raises(PastPointOfNoReturnError) as refused:
            await call(stub.RollbackMigration, rollback)
        assert refused.value.remedy


def counted(counts: Sequence[generation_pb2.ObjectCount]) -> list[tuple[str, int, int]]:
    return [(each.kind, each.objects, each.bytes) for each in counts]
