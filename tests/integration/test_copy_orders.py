"""What a leader tells nodes about a copy: out of the history, and the same from the next leader."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from coordinator_cluster import MIGRATION, Cluster, assert_migrated, ended, request_for
from coordinator_fakes import NAMESPACE, until

from brainy.errors import PreconditionError
from brainy_coordinator.copy_orders import copy_orders
from brainy_coordinator.migration.interventions import pause, resume, set_copy_rate
from brainy_coordinator.migration.state import State, Trigger


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    found = Cluster()
    for name in ("a", "b", "c"):
        (await found.node(name)).copies = False
    yield found
    await found.close()


def told(cluster: Cluster) -> list[tuple[str, int, bool, float | None]]:
    assert cluster.term is not None
    return [
        (one.namespace, one.generation, one.paused, one.items_per_second if one.HasField("items_per_second") else None)
        for one in copy_orders(cluster.term)
    ]


async def test_pauses_and_rates_reach_the_nodes_and_outlive_the_leader(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade"))
    await until(lambda: cluster.migrations.get(MIGRATION).state is State.COPYING)
    assert told(cluster) == [], "the nodes may do as they can"
    for _ in range(2):
        # The same call again, as after an answer that was lost.
        await cluster.migrations.intervene(
            MIGRATION, set_copy_rate, by="ann", detail="slower", request_id="one", copy_rate=250.0
        )
    assert told(cluster) == [(NAMESPACE, 1, False, 250.0)]
    await cluster.migrations.intervene(MIGRATION, pause, by="ann", detail="lunch", request_id="two")
    assert told(cluster) == [(NAMESPACE, 1, True, 250.0)]
    await cluster.depose()
    cluster.lead()
    await cluster.serving()
    assert told(cluster) == [(NAMESPACE, 1, True, 250.0)]
    story = cluster.migrations.get(MIGRATION).story
    asked = [(event.by, event.detail, event.copy_rate) for event in story if event.trigger is Trigger.COPY_RATE_SET]
    assert asked == [("ann", "slower", 250.0)]
    await cluster.migrations.intervene(MIGRATION, resume, by="ann", request_id="three")
    await cluster.migrations.intervene(MIGRATION, set_copy_rate, by="ann", request_id="four", copy_rate=None)
    assert told(cluster) == []
    for node in cluster.nodes():
        node.copies = True
    record = await ended(cluster)
    assert_migrated(cluster, record)
    assert told(cluster) == []
    with pytest.raises(PreconditionError):
        await cluster.migrations.intervene(MIGRATION, set_copy_rate, by="ann", request_id="five", copy_rate=9.0)
