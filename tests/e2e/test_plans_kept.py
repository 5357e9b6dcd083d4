"""What later happens is what was planned: the strategies about where and when, and those that go back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.conftest import RunCluster
from tests.e2e.pages import put_sample
from tests.e2e.strategies import PATIENCE_SECONDS, ROWS, asked, rested, switched
from tests.e2e.test_plans import check_outcome, history, planned


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["blue-green", "coordinated"])
async def test_history_equals_the_plan_wherever_and_whenever_it_moves(
    name: str, tmp_path: Path, run_cluster: RunCluster
) -> None:
    (tmp_path / "bucket").mkdir()
    await put_sample(f"file://{tmp_path}/bucket")
    async with run_cluster(f"file://{tmp_path}/bucket", nodes=2) as (cluster, client):
        for pool in ROWS[name].pools:
            await cluster.start_node(pool=pool)
        plan = await client.plan_migration(
            name, ROWS[name].target, quarantine_limit=1000, writers_stopped=ROWS[name].quiet
        )
        assert plan.passes, plan.checks
        begun = await client.execute_plan(plan.id, confirm=[each.name for each in plan.confirmations])
        await asyncio.wait_for(client.wait_for_migration(begun.id), PATIENCE_SECONDS)
        check_outcome(plan, await client.get_migration(begun.id))


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("back", [0, 2], ids=["forward", "twice-back"])
@pytest.mark.parametrize("name", ["in-place-upgrade", "blue-green", "coordinated"])
async def test_history_equals_the_plan_with_a_way_back_however_often_it_is_taken(
    name: str, back: int, tmp_path: Path, run_cluster: RunCluster
) -> None:
    """A rollback is nobody's plan: it is told as a disturbance, and what is left is the plan, event by event."""
    (tmp_path / "bucket").mkdir()
    await put_sample(f"file://{tmp_path}/bucket")
    async with run_cluster(f"file://{tmp_path}/bucket", nodes=2) as (cluster, client):
        for pool in ROWS[name].pools:
            await cluster.start_node(pool=pool)
        plan = await client.plan_migration(
            name, ROWS[name].target, quarantine_limit=1000, writers_stopped=ROWS[name].quiet, keep_way_back=True
        )
        assert plan.passes, plan.checks
        begun = await client.execute_plan(plan.id, confirm=[each.name for each in plan.confirmations])
        for turn in range(1, back + 1):
            seen = await rested(client, begun, back=turn - 1)
            assert seen.state == "OBSERVING", seen.story
            partly = (await client.get_migration(begun.id)).outcome
            assert partly is not None
            assert (partly.as_planned, partly.remaining) == (True, 2)
            await client.rollback_migration(begun.id)
            await rested(client, begun, back=turn)
            await asked(lambda: client.promote_migration(begun.id))
            await switched(client, begun, times=turn + 1)
        await rested(client, begun, back=back)
        await asked(lambda: client.complete_migration(begun.id))
        await asyncio.wait_for(client.wait_for_migration(begun.id), PATIENCE_SECONDS)
        ended = await client.get_migration(begun.id)
        assert ended.succeeded, ended.message
        outcome = ended.outcome
        assert outcome is not None
        assert (outcome.as_planned, outcome.remaining) == (True, 0)
        if back:
            assert sum("rolled_back" in line for line in outcome.disturbances) == back
            assert sum("promote_requested" in line for line in outcome.disturbances) == back
        else:
            assert outcome.disturbances == ()
            assert history(ended) == planned(plan)
