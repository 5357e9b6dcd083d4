"""What later happens is what was planned: where and when strategies move, and the way back, however often taken."""

from __future__ import annotations

import asyncio

import pytest
from coordinator_fakes import NAMESPACE
from test_migration_plans import Coordinated, on

from brainy.api.coordinator.v1 import membership_pb2, migration_pb2
from brainy.errors import PreconditionError
from brainy.rpc.channel import call

__all__ = ["on"]

IN_PLACE = migration_pb2.STRATEGY_IN_PLACE_UPGRADE
BLUE_GREEN = migration_pb2.STRATEGY_BLUE_GREEN
COORDINATED = migration_pb2.STRATEGY_COORDINATED
READY, OBSERVING = migration_pb2.MIGRATION_STATE_READY, migration_pb2.MIGRATION_STATE_OBSERVING


async def planned(on: Coordinated, strategy: int, **wish: object) -> migration_pb2.MigrationPlan:
    """A plan of a strategy, with the nodes and the word it wants."""
    if strategy == BLUE_GREEN:
        await on.cluster.node("g", "green")
        await on.known(lambda node: node.state == membership_pb2.NODE_STATE_ALIVE, "g")
        wish["target"] = migration_pb2.TargetSpec(pool="green")
    if strategy == COORDINATED:
        wish["writers_stopped"] = True
    plan = await on.plan(strategy, **wish)
    assert all(check.passed for check in plan.checks), plan.checks
    return plan


def straight(plan: migration_pb2.MigrationPlan) -> list[tuple[str, int, int]]:
    return [(each.trigger, getattr(each, "from"), each.to) for each in plan.transitions]


def happened(migration: migration_pb2.Migration) -> list[tuple[str, int, int]]:
    return [(each.trigger, getattr(each, "from"), each.to) for each in migration.story]


async def reached(on: Coordinated, migration: migration_pb2.Migration, trigger: str, times: int) -> None:
    """Wait until something has happened so often."""
    request = migration_pb2.GetMigrationRequest(namespace=NAMESPACE, id=migration.id)
    async with asyncio.timeout(60):
        while True:
            story = (await call(on.stub.GetMigration, request)).migration.story
            if sum(event.trigger == trigger for event in story) >= times:
                return
            await asyncio.sleep(0.02)


async def asked(on: Coordinated, method: str, request: object) -> None:
    """Ask until it is not too early."""
    async with asyncio.timeout(60):
        while True:
            try:
                await call(getattr(on.stub, method), request)
                return
            except PreconditionError as error:
                if error.reason != "WRONG_PHASE":
                    raise
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("strategy", [BLUE_GREEN, COORDINATED], ids=["blue-green", "coordinated"])
async def test_history_equals_the_plan_wherever_and_whenever_it_moves(on: Coordinated, strategy: int) -> None:
    plan = await planned(on, strategy)
    found = await on.ended(await on.execute(plan))
    assert happened(found.migration) == straight(plan)
    assert (found.outcome.as_planned, found.outcome.remaining, list(found.outcome.disturbances)) == (True, 0, [])
    assert found.migration.state == migration_pb2.MIGRATION_STATE_SUCCEEDED


@pytest.mark.parametrize(
    ("strategy", "back"),
    [
        (IN_PLACE, 2),
        (BLUE_GREEN, 0),
        (BLUE_GREEN, 2),
        pytest.param(COORDINATED, 0, marks=pytest.mark.long),
        pytest.param(COORDINATED, 2, marks=pytest.mark.long),
    ],
)
async def test_what_is_left_of_a_history_with_rollbacks_is_the_plan(on: Coordinated, strategy: int, back: int) -> None:
    """Nobody plans a rollback: it is told as a disturbance, with everything that it undid."""
    plan = await planned(on, strategy, keep_way_back=True)
    begun = await on.execute(plan)
    named = {"namespace": NAMESPACE, "id": begun.id}
    for turn in range(1, back + 1):
        await reached(on, begun, "switched", turn)
        partly = (await call(on.stub.GetMigration, migration_pb2.GetMigrationRequest(**named))).outcome
        assert (partly.as_planned, partly.remaining) == (True, 2)
        await asked(on, "RollbackMigration", migration_pb2.RollbackMigrationRequest(**named, request_id=f"b{turn}"))
        await reached(on, begun, "rolled_back", turn)
        await asked(on, "PromoteMigration", migration_pb2.PromoteMigrationRequest(**named, request_id=f"p{turn}"))
    await reached(on, begun, "switched", back + 1)
    await asked(on, "CompleteMigration", migration_pb2.CompleteMigrationRequest(**named, request_id="c"))
    found = await on.ended(begun)
    assert found.migration.state == migration_pb2.MIGRATION_STATE_SUCCEEDED
    assert (found.outcome.as_planned, found.outcome.remaining) == (True, 0)
    told = [line.split(":")[0].split(" ")[-1] for line in found.outcome.disturbances]
    assert (told.count("rolled_back"), told.count("promote_requested")) == (back, back)
    if not back:
        assert told == []
        assert happened(found.migration) == straight(plan)
