"""Search quality before the switch, driven against nodes in miniature: measured, kept, waited for, accepted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from coordinator_cluster import MIGRATION, Cluster, assert_migrated, ended, request_for
from coordinator_fakes import until

from brainy_coordinator.migration import interventions
from brainy_coordinator.migration.quality import QualityWish
from brainy_coordinator.migration.record import MigrationRecord, Request
from brainy_coordinator.migration.state import State, Trigger

WISH = QualityWish(queries=20, min_overlap=0.9)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    found = Cluster()
    for name in ("a", "b", "c"):
        await found.node(name)
    yield found
    await found.close()


def asked(strategy: str = "rolling", **changes: object) -> Request:
    return request_for(strategy).model_copy(update={"quality": WISH, **changes})


async def judged(cluster: Cluster) -> MigrationRecord:
    await until(lambda: (found := cluster.record(MIGRATION)) is not None and found.quality is not None, seconds=60)
    found = cluster.record(MIGRATION)
    assert found is not None
    return found


async def test_a_target_that_finds_enough_is_switched_to(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, asked())
    record = await ended(cluster, seconds=60)
    assert_migrated(cluster, record)
    (event,) = [event for event in record.story if event.trigger is Trigger.QUALITY_MEASURED]
    assert event.quality is not None
    assert event.quality.queries >= 20
    assert event.quality.overlap == 1.0
    parts = [part for node in cluster.nodes() for _, _, part in node.replayed]
    assert len(parts) == len(set(parts)), "every node and turn asks other queries"


async def test_one_that_finds_too_little_waits_across_leaders_until_it_is_accepted(cluster: Cluster) -> None:
    cluster.world.neighbours = 5
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, asked())
    record = await judged(cluster)
    assert (record.state, record.quality and record.quality.overlap) == (State.READY, 0.5)
    await until(lambda: any("below its thresholds" in w for w in cluster.migrations.progress(MIGRATION).waits_for))
    asked_before = sum(len(node.replayed) for node in cluster.nodes())

    await cluster.depose()
    cluster.lead()
    await until(lambda: cluster.record(MIGRATION) is not None, seconds=60)
    await until(lambda: any("below its thresholds" in w for w in cluster.migrations.progress(MIGRATION).waits_for))
    record = await judged(cluster)
    assert record.state is State.READY
    assert cluster.in_force().adopted == {}
    assert sum(len(node.replayed) for node in cluster.nodes()) == asked_before, "what is in the history counts"

    await cluster.migrations.intervene(MIGRATION, interventions.accept_quality, by="ann", detail="known")
    record = await ended(cluster, seconds=60)
    assert_migrated(cluster, record)
    (event,) = [event for event in record.story if event.trigger is Trigger.QUALITY_ACCEPTED]
    assert (event.by, event.detail) == ("ann", "known")


async def test_after_a_rollback_it_is_measured_again(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, asked("in_place_upgrade", keep_way_back=True))

    def at(state: State, turns: int) -> bool:
        found = cluster.record(MIGRATION)
        return found is not None and found.state is state and found.rolled_back == turns

    await until(lambda: at(State.OBSERVING, 0), seconds=60)
    cluster.world.neighbours = 2
    await cluster.migrations.intervene(MIGRATION, interventions.rollback, by="ann")
    await until(lambda: at(State.READY, 1), seconds=60)
    record = await judged(cluster)
    assert (record.state, record.held, record.quality and record.quality.overlap) == (State.READY, True, 0.2)
    await cluster.migrations.abort(MIGRATION, by="ann")
    assert (await ended(cluster, seconds=60)).state is State.ABORTED
