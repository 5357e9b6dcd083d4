"""Waves and a postponed switch, driven against nodes in miniature, with leaders that die."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from coordinator_cluster import MIGRATION, Cluster, assert_migrated, ended, request_for
from coordinator_fakes import NAMESPACE, until

from brainy.bucket import layout
from brainy_coordinator.migration import interventions
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.switch_countdown import Countdown
from brainy_coordinator.migration.waves import WaveState


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    found = Cluster()
    for name in ("a", "b", "c", "d"):
        await found.node(name)
    yield found
    await found.close()


async def again(cluster: Cluster) -> None:
    """The leader dies, and another takes over."""
    await cluster.depose()
    cluster.lead()
    await until(lambda: cluster.term is not None and NAMESPACE in cluster.term.ready, seconds=60)


async def test_waves_bake_one_after_the_other_whoever_leads(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    rolling = request_for("rolling").model_copy(update={"max_unavailable": 2, "bake_seconds": 0.5})
    async with cluster.writing():
        await cluster.migrations.start(MIGRATION, rolling)
        await until(lambda: len(cluster.in_force().adopted) >= 1, seconds=60)
        await again(cluster)
        # It finds the wave that has moved, and lets it bake from the start.
        await until(lambda: len(cluster.migrations.progress(MIGRATION).waves) > 0, seconds=60)
        told = cluster.migrations.progress(MIGRATION).waves
        assert told[0].state in (WaveState.BAKING, WaveState.DONE)
        record = await ended(cluster, seconds=60)
    assert_migrated(cluster, record)
    baked = [event for event in record.story if event.trigger is Trigger.WAVE_BAKED]
    assert [event.nodes for event in baked] == list(record.waves)
    assert sorted(node for nodes in record.waves for node in nodes) == ["a", "b", "c", "d"]
    assert 2 <= len(record.waves) <= 4
    assert all(len(nodes) <= 2 for nodes in record.waves)
    promoted = next(event for event in record.story if event.trigger is Trigger.PROMOTED)
    # No two waves are done sooner than they may bake, and no write moves before the last one has.
    assert all(later.at - earlier.at >= 0.45 for earlier, later in pairwise(baked))
    assert promoted.at >= baked[-1].at


async def test_a_postponed_switch_is_counted_on_by_the_next_leader_and_promoted(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade"))
    key = layout.switch_countdown(MIGRATION)
    asked = interventions.postpone(100.0)
    await cluster.migrations.intervene(MIGRATION, asked, by="ann", detail="lunch", request_id="p", seconds=100.0)
    await until(lambda: key in cluster.store._objects, seconds=60)
    written = Countdown.decode(cluster.store._objects[key].body, key=key)
    assert 90.0 < written.remaining_seconds <= 99.0
    await again(cluster)
    # A repeat of the call, whose answer was lost, does not begin it anew.
    await cluster.migrations.intervene(MIGRATION, asked, by="ann", detail="lunch", request_id="p", seconds=100.0)
    await until(lambda: (r := cluster.record(MIGRATION)) is not None and r.state is State.READY, seconds=60)
    await until(lambda: cluster.migrations.progress(MIGRATION).postponed is not None, seconds=60)
    left = cluster.migrations.progress(MIGRATION).postponed
    assert left is not None
    assert left <= 99.0
    (text,) = cluster.migrations.progress(MIGRATION).waits_for
    assert text.startswith("postponed for another ")
    assert "lunch" in text
    assert cluster.in_force().active == 0
    await cluster.migrations.intervene(MIGRATION, interventions.promote, by="bob")
    record = await ended(cluster, seconds=60)
    assert_migrated(cluster, record)
    assert [e.trigger for e in record.story].count(Trigger.POSTPONE_REQUESTED) == 1


async def test_a_postponed_switch_goes_on_by_itself_when_its_time_is_over(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade"))
    asked = interventions.postpone(1.0)
    await cluster.migrations.intervene(MIGRATION, asked, by="ann", seconds=1.0)
    record = await ended(cluster, seconds=60)
    assert_migrated(cluster, record)
    postponed = next(event for event in record.story if event.trigger is Trigger.POSTPONE_REQUESTED)
    promoted = next(event for event in record.story if event.trigger is Trigger.PROMOTED)
    assert promoted.at - postponed.at >= 0.95
