"""Plans of real clusters: what is planned is what happens, from a tree and from a generation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brainy import AsyncBrainy, Migration, MigrationPlan, PreconditionError
from brainy.bucket import layout
from tests.e2e.conftest import RunCluster
from tests.e2e.pages import put_sample


def objects(bucket: Path) -> dict[str, tuple[int, int]]:
    """Every object but the leases, which are renewed all the time: size and time of the last write."""
    found = {}
    for folder, _, names in os.walk(bucket):
        for name in names:
            path = Path(folder, name)
            key = path.relative_to(bucket).as_posix()
            if not key.startswith(layout.LOCKS):
                found[key] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def history(migration: Migration) -> list[tuple[str, str, str]]:
    """The story, without who led."""
    return [(e.trigger, e.from_state, e.to_state) for e in migration.story if e.trigger != "leader_changed"]


def planned(plan: MigrationPlan) -> list[tuple[str, str, str]]:
    return [(each.trigger, each.from_state, each.to_state) for each in plan.transitions]


async def executed(client: AsyncBrainy, plan: MigrationPlan) -> Migration:
    begun = await client.execute_plan(plan.id, confirm=[each.name for each in plan.confirmations])
    assert begun.id == plan.migration_id
    assert begun.plan_id == plan.id
    await client.wait_for_migration(begun.id)
    return await client.get_migration(begun.id)


def check_outcome(plan: MigrationPlan, ended: Migration) -> None:
    assert ended.state == "SUCCEEDED", ended.message
    assert history(ended) == planned(plan)
    outcome = ended.outcome
    assert outcome is not None
    assert (outcome.plan_id, outcome.as_planned, outcome.remaining, outcome.disturbances) == (plan.id, True, 0, ())
    assert outcome.calls_complete
    assert 0 < outcome.measured.write_pause_seconds == ended.write_pause_seconds < 3
    assert 0 < outcome.measured.duration_seconds < 60
    predicted, measured = outcome.predicted.calls, outcome.measured.calls
    assert predicted == plan.figures.calls
    # What is written is known beforehand; nodes look at the routing record now and then besides.
    assert predicted["put"] / 2 <= measured["put"] <= 2 * predicted["put"]
    assert predicted["get_range"] / 2 <= measured["get_range"] <= 2 * predicted["get_range"]
    polls = 50 * outcome.measured.duration_seconds
    assert predicted["get"] / 2 <= measured["get"] <= 2 * predicted["get"] + polls
    assert measured["list"] <= 3 * predicted["list"] + polls


@pytest.mark.slow
@pytest.mark.parametrize("strategies", [("in-place-upgrade", "rolling"), ("rolling", "in-place-upgrade")])
async def test_history_equals_the_plan(tmp_path: Path, run_cluster: RunCluster, strategies: tuple[str, str]) -> None:
    (tmp_path / "bucket").mkdir()
    await put_sample(f"file://{tmp_path}/bucket")
    async with run_cluster(f"file://{tmp_path}/bucket", nodes=2) as (_, client):
        for generation, strategy in enumerate(strategies):
            before = objects(tmp_path / "bucket")
            tried = await client.plan_migration(strategy, quarantine_limit=1000, dry_run=True)
            assert (tried.id, tried.strategy, tried.source_generation) == ("", strategy, generation)
            assert [check.name for check in tried.checks if not check.tried] == [
                "store_conditional_writes",
                "permissions",
            ]
            assert objects(tmp_path / "bucket") == before

            plan = await client.plan_migration(strategy, quarantine_limit=1000, requested_by="test")
            assert plan.passes, plan.checks
            assert planned(plan) == planned(tried)
            assert objects(tmp_path / "bucket").keys() - before.keys() == {layout.migration_plan(plan.id)}
            assert await client.get_plan(plan.id) == plan
            assert (plan.basis.trees != ()) is (generation == 0)
            with pytest.raises(PreconditionError, match="no-way-back") as refused:
                await client.execute_plan(plan.id)
            assert refused.value.reason == "CONFIRMATION_MISSING"

            ended = await executed(client, plan)
            check_outcome(plan, ended)
            # Again: not another migration, but the answer of the first, whatever has changed since.
            again = await client.execute_plan(plan.id)
            assert (again.id, again.state) == (ended.id, "SUCCEEDED")
        assert len(await client.list_migrations()) == 2
