"""A migration that rolls back by itself, driven against nodes in miniature that say how they served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from coordinator_cluster import MIGRATION, Cluster, ended
from coordinator_fakes import NAMESPACE, until
from test_coordinator_rollback import ask, assert_kept, kept, promoted, reached

from brainy.ids import Ids
from brainy.traffic.limits import RollbackLimits
from brainy_coordinator.migration import interventions
from brainy_coordinator.migration.record import AUTOMATIC
from brainy_coordinator.migration.state import State, Trigger

#: So many calls that it takes what all three nodes have to say.
LIMITS = RollbackLimits(error_rate=0.01, p99_factor=2.0, min_calls=250)
PATIENCE = 60.0


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    found = Cluster()
    for name in ("a", "b", "c"):
        await found.node(name)
    yield found
    await found.close()


def serve(cluster: Cluster, generation: int, count: int, *, failed: int = 0, seconds: float = 0.01) -> None:
    """Every front door has served so many calls more."""
    for node in cluster.nodes():
        before = node.served.get(generation, (0, 0, 0.0))
        node.served[generation] = (before[0] + count, before[1] + failed, seconds)


async def heard(cluster: Cluster) -> None:
    """Wait until the leader has heard what every node says now."""
    assert cluster.term is not None
    view = cluster.term.namespaces[NAMESPACE].view

    def all_heard() -> bool:
        told = {report.node_id: report.served for report in view.spoken()}
        return all(
            {(NAMESPACE, g): c[0] for g, c in node.served.items()}
            == {key: serving.reads.count for key, serving in told.get(node.node_id, {}).items()}
            for node in cluster.nodes()
        )

    await until(all_heard, seconds=PATIENCE)


async def switched(cluster: Cluster, **changes: object) -> None:
    """Migrate, after the source has served for a while, until the leader watches the target."""
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, kept(rollback_if=LIMITS, hold_before_switch=True, **changes))
    await reached(cluster, State.READY, seconds=PATIENCE)
    serve(cluster, 0, 100)
    await heard(cluster)
    # The next look takes in what was heard.
    await until(lambda: cluster.migrations._executors[MIGRATION].facts.served[0].reads == 300, seconds=PATIENCE)
    await promoted(cluster, "go")
    await reached(cluster, State.OBSERVING, seconds=PATIENCE)
    executor = cluster.migrations._executors[MIGRATION]
    await until(
        lambda: executor.facts.observing_since is not None and len(executor.facts.released) == 3, seconds=PATIENCE
    )


@pytest.mark.parametrize(
    ("failed", "seconds", "why"),
    [(5, 0.01, "error-rate 0.05 > 0.01: 15 of 300 calls failed"), (0, 0.05, "p99 5")],
)
async def test_a_target_that_serves_worse_is_rolled_back_from_and_held(
    cluster: Cluster, failed: int, seconds: float, why: str
) -> None:
    async with cluster.writing():
        await switched(cluster)
        serve(cluster, 1, 100, failed=failed, seconds=seconds)
        record = await reached(cluster, State.READY, rolled_back=1, seconds=PATIENCE)
    asked = [event for event in record.story if event.trigger is Trigger.ROLLBACK_REQUESTED]
    assert [(event.by, event.detail.startswith(why)) for event in asked] == [(AUTOMATIC, True)]
    assert asked[0].served is not None
    assert (asked[0].served.calls, asked[0].served.failed) == (300, 3 * failed)
    promoted_with = next(event.served for event in record.story if event.trigger is Trigger.PROMOTED)
    assert promoted_with is not None
    assert promoted_with.reads == 300
    assert cluster.in_force().active == 0
    assert_kept(cluster)
    # It does not flap: released from its hold it still stands, with the reason, until somebody resumes it.
    assert (record.held, record.paused) == (True, (f"rolled back by itself: {asked[0].detail}",))
    await promoted(cluster, "again")
    told = f"paused: {record.paused[0]} (resume it)"
    await until(lambda: told in cluster.migrations.progress(MIGRATION).waits_for, seconds=PATIENCE)
    assert cluster.in_force().active == 0
    await ask(cluster, interventions.resume)
    await reached(cluster, State.OBSERVING, rolled_back=1, seconds=PATIENCE)
    # What the target did before that is forgotten: it is judged by what it does now.
    serve(cluster, 1, 100)
    await heard(cluster)
    await ask(cluster, interventions.complete)
    assert (await ended(cluster, seconds=PATIENCE)).state is State.SUCCEEDED
    assert_kept(cluster)


async def test_a_healthy_target_is_completed_once_it_was_used_enough(cluster: Cluster) -> None:
    await switched(cluster, observe_seconds=1.0)
    progress = cluster.migrations.progress
    await until(
        lambda: any("it cannot be judged: 0 calls" in line for line in progress(MIGRATION).waits_for), seconds=PATIENCE
    )
    record = cluster.record(MIGRATION)
    assert record is not None
    assert record.state is State.OBSERVING
    serve(cluster, 1, 100)
    assert (await ended(cluster, seconds=PATIENCE)).state is State.SUCCEEDED
    served = next(
        event.served for event in (await ended(cluster, seconds=PATIENCE)).story if event.trigger is Trigger.OBSERVED
    )
    assert served is not None
    assert (served.calls, served.failed) == (300, 0)


async def test_a_new_leader_watches_only_what_is_left_and_no_old_figures(cluster: Cluster) -> None:
    await switched(cluster, observe_seconds=60.0)
    # What the first leader never got to judge is no figure of the second one's.
    await cluster.depose()
    serve(cluster, 1, 100, failed=100)
    # A node that begins anew meanwhile, and counts from zero, is no negative count.
    cluster.nodes()[0].served = {1: (10, 10, 0.01)}
    cluster.nodes()[0].incarnation = Ids().uuid()
    cluster.lead()
    await until(lambda: NAMESPACE in cluster.term.ready, seconds=PATIENCE)  # type: ignore[union-attr]
    await heard(cluster)
    executors = cluster.migrations._executors
    await until(
        lambda: MIGRATION in executors and executors[MIGRATION].facts.observing_since is not None, seconds=PATIENCE
    )
    await asyncio.sleep(0.2)
    record = cluster.record(MIGRATION)
    assert record is not None
    assert (record.state, record.wants_rollback) == (State.OBSERVING, False)
    serve(cluster, 1, 100, failed=50)
    record = await reached(cluster, State.READY, rolled_back=1, seconds=PATIENCE)
    why = next(event.detail for event in record.story if event.trigger is Trigger.ROLLBACK_REQUESTED)
    assert why.startswith("error-rate 0.5 > 0.01: 150 of 300 calls failed")
    assert_kept(cluster)


async def test_the_time_to_observe_outlives_its_leaders(cluster: Cluster) -> None:
    """Three leaders, none of which lives for the whole of it."""
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, kept(observe_seconds=2.4))

    def watched() -> float:
        found = cluster.record(MIGRATION)
        return found.observed_seconds if found is not None else 0.0

    seen = []
    for least in (0.9, 1.9):
        await until(lambda: watched() >= least, seconds=PATIENCE)  # noqa: B023 - it has ended before the next turn
        seen.append(watched())
        await cluster.depose()
        cluster.lead()
    record = await ended(cluster, seconds=PATIENCE)
    assert record.state is State.SUCCEEDED
    notes = [event for event in record.story if event.trigger is Trigger.OBSERVED_SO_FAR]
    assert [event.observed_seconds for event in notes] == sorted(event.observed_seconds or 0.0 for event in notes)
    last = record.story[-2]
    assert (last.trigger, 2.4 <= (last.observed_seconds or 0.0) < 4.0) == (Trigger.OBSERVED, True)
    assert len({event.leader_epoch for event in notes}) >= 2, seen
