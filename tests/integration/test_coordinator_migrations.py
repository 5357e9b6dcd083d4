"""Migrations driven against nodes in miniature, over real gRPC and a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from coordinator_cluster import MIGRATION, Cluster, Frozen, assert_migrated, ended, request_for
from coordinator_fakes import NAMESPACE, until

from brainy.bucket import layout
from brainy.bucket.records import Routing, Spec
from brainy.errors import PastPointOfNoReturnError
from brainy_coordinator.migration import cluster_executor
from brainy_coordinator.migration.record import migration_id_for
from brainy_coordinator.migration.state import State, Trigger


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    found = Cluster()
    for name in ("a", "b", "c"):
        await found.node(name)
    yield found
    await found.close()


async def test_a_namespace_is_adopted_once_enough_nodes_are_there() -> None:
    cluster = Cluster()
    try:
        cluster.lead()
        await cluster.node("a")
        await cluster.node("b")
        await until(lambda: layout.spec(0) in cluster.store._objects)
        assert cluster.routing() is None
        await cluster.node("c")
        await until(lambda: cluster.routing() is not None)
        routing = cluster.in_force()
        spec = Spec.decode((await cluster.store.get(layout.spec(0))).body, key="spec")  # type: ignore[union-attr]
        assert (spec.source, spec.dimensions, spec.shard_count) == ("empty", 4, 3)
        assert {where.owner for where in routing.generations[0].shards.values()} == {"a", "b", "c"}
        assert all(len(where.replicas) == 1 for where in routing.generations[0].shards.values())
        assert routing.leader_epoch == 1
    finally:
        await cluster.close()


@pytest.mark.parametrize(("strategy", "shards"), [("in_place_upgrade", 0), ("in_place_upgrade", 5), ("rolling", 0)])
async def test_a_migration_under_writes_loses_nothing(cluster: Cluster, strategy: str, shards: int) -> None:
    cluster.lead()
    await cluster.serving()
    async with cluster.writing():
        await until(lambda: len(cluster.world.acked) > 30)
        await cluster.migrations.start(MIGRATION, request_for(strategy, shards=shards))
        record = await ended(cluster)
        wrote = len(cluster.world.acked)
        await until(lambda: len(cluster.world.acked) >= wrote)
    assert_migrated(cluster, record)
    assert 0 < record.write_pause_seconds < 3.0
    assert cluster.in_force().generations[1].shard_count == (shards or 3)
    for node in cluster.nodes():
        await until(lambda node=node: node.routing is not None and node.routing.active == 1)
        assert node.reads_from[-1] == 1


async def test_rolling_adopts_every_node_before_writes_move(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    adopted: list[Mapping[str, int]] = []
    register = cluster.term.namespaces[NAMESPACE].register  # type: ignore[union-attr]
    swap = register.swap

    async def watch(before: Routing | None, after: Routing) -> Routing:
        routing = await swap(before, after)
        adopted.append(dict(routing.adopted))
        return routing

    register.swap = watch  # type: ignore[method-assign]
    await cluster.migrations.start(MIGRATION, request_for("rolling"))
    assert_migrated(cluster, await ended(cluster))
    assert [len(step) for step in adopted if step][:4] == [1, 2, 3, 3]


@pytest.mark.parametrize("strategy", ["in_place_upgrade", "rolling", "blue_green", "coordinated"])
async def test_a_leader_may_die_after_any_persisted_step(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of the history and every routing swap, one run each, until a run has no such step."""
    monkeypatch.setattr(cluster_executor, "QUIET_SECONDS", 0.05)
    survived = 0
    trail: list[str] = []
    for step in range(1, 60):
        cluster = Cluster()
        try:
            for name in ("a", "b", "c"):
                await cluster.node(name)
            for name in ("g", "h") if strategy == "blue_green" else ():
                await cluster.node(name, "green")
            first = Frozen(cluster.store)
            cluster.lead(first)
            await cluster.serving()
            for key in ("x", "y", "z"):
                await cluster.world.write(key, "1", cluster.nodes()[0])
            first.steps.clear()
            first.after = step
            starting = asyncio.create_task(cluster.migrations.start(MIGRATION, request_for(strategy, shards=4)))
            await until(
                lambda c=cluster, f=first: (
                    f.frozen.is_set() or ((r := c.record(MIGRATION)) is not None and r.state.is_terminal)
                )
            )
            if not first.frozen.is_set():
                trail = first.steps
                break
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await cluster.depose()
            cluster.lead()
            record = await ended(cluster)
            assert_migrated(cluster, record)
            if strategy == "blue_green":
                assert holders(cluster.in_force(), 1) == {"g", "h"}
            over = [event.to_state.is_terminal for event in record.story if event.leader_epoch == 1]
            assert max(event.leader_epoch for event in record.story) == 2 or over[-1]
            # Writes flow, whatever happened.
            await asyncio.wait_for(cluster.world.write("after", "1", cluster.nodes()[1]), 5)
            survived += 1
        finally:
            await cluster.close()
    # Nine events (requested to completed) and four swaps (place, drain, commit, retire); rolling adopts three
    # nodes besides, coordinated all of them in one.
    assert survived == len(trail) == {"rolling": 16, "coordinated": 14}.get(strategy, 13)


def holders(routing: Routing, generation: int) -> set[str]:
    """Nodes with a copy of any shard of a generation."""
    return {n for s in routing.generations[generation].shards.values() for n in (s.owner, *s.replicas)}


async def test_blue_green_keeps_each_generation_on_its_own_nodes(cluster: Cluster) -> None:
    """Under writes, and when a green node dies midway; a new leader knows the labels before the nodes speak."""
    for name in ("g", "h", "i"):
        await cluster.node(name, "green")
    cluster.lead()
    await cluster.serving()
    seen: list[Routing] = []
    register = cluster.term.namespaces[NAMESPACE].register  # type: ignore[union-attr]
    swap = register.swap

    async def watch(before: Routing | None, after: Routing) -> Routing:
        seen.append(await swap(before, after))
        return seen[-1]

    register.swap = watch  # type: ignore[method-assign]
    async with cluster.writing(through="abchi"):
        await until(lambda: len(cluster.world.acked) > 30)
        await cluster.migrations.start(MIGRATION, request_for("blue_green"))
        await until(lambda: 1 in cluster.in_force().generations)
        await cluster.world.nodes["g"].kill()
        assert_migrated(cluster, await ended(cluster))
    assert all(holders(routing, 0) <= {"a", "b", "c"} for routing in seen if 0 in routing.generations)
    assert all(holders(routing, 1) <= {"g", "h", "i"} for routing in seen if 1 in routing.generations)
    await until(lambda: holders(cluster.in_force(), 1) == {"h", "i"})
    assert {n: a.pool for n, a in cluster.in_force().nodes.items() if a.pool} == {"h": "green", "i": "green"}

    before = cluster.in_force()
    await cluster.depose()
    cluster.world.nodes["h"].tasks[0].cancel()
    cluster.lead()
    await until(lambda: NAMESPACE in cluster.term.ready)  # type: ignore[union-attr]
    assert cluster.term.registry.members(0.0)[-2].report.pool == "green"  # type: ignore[union-attr]
    # "h" is silent now; "i" alone is left, and three idle nodes without a label get nothing.
    await until(lambda: holders(cluster.in_force(), 1) == {"i"})
    assert cluster.in_force().generations[1].pool == before.generations[1].pool == "green"


async def test_a_node_that_gets_another_label_is_relieved_before_it_lets_go(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    relabelled = cluster.world.nodes["a"]
    relabelled.pool = "spare"
    async with cluster.writing():
        await until(lambda: holders(cluster.in_force(), 0) == {"b", "c"})
        # With no node left that may hold it, the wrong ones are better than none.
        cluster.world.nodes["b"].pool = cluster.world.nodes["c"].pool = "spare"
        await until(lambda: holders(cluster.in_force(), 0) == {"a", "b", "c"})
        wrote = len(cluster.world.acked)
        await until(lambda: len(cluster.world.acked) >= wrote)
    assert cluster.in_force().generations[0].pool == ""


async def test_where_all_nodes_have_labels_the_source_leaves_the_pool_that_the_target_names() -> None:
    cluster = Cluster()
    try:
        for name in ("a", "b"):
            await cluster.node(name, "blue")
        for name in ("g", "h"):
            await cluster.node(name, "green")
        cluster.lead()
        await until(lambda: cluster.routing() is not None and len(holders(cluster.in_force(), 0)) == 4)
        await cluster.serving()
        async with cluster.writing():
            await until(lambda: len(cluster.world.acked) > 10)
            # Kept from switching, so that the source can be seen to move.
            cluster.world.nodes["a"].stuck = True
            await cluster.migrations.start(MIGRATION, request_for("blue_green"))
            await until(lambda: 1 in cluster.in_force().generations)
            await until(lambda: holders(cluster.in_force(), 0) == {"a", "b"})
            assert holders(cluster.in_force(), 1) == {"g", "h"}
            cluster.world.nodes["a"].stuck = False
            assert_migrated(cluster, await ended(cluster))
    finally:
        await cluster.close()


async def test_coordinated_adopts_all_nodes_in_one_swap_once_the_source_is_still(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_executor, "QUIET_SECONDS", 0.3)
    cluster.lead()
    await cluster.serving()
    adopted: list[Mapping[str, int]] = []
    register = cluster.term.namespaces[NAMESPACE].register  # type: ignore[union-attr]
    swap = register.swap

    async def watch(before: Routing | None, after: Routing) -> Routing:
        routing = await swap(before, after)
        adopted.append(dict(routing.adopted))
        return routing

    register.swap = watch  # type: ignore[method-assign]
    async with cluster.writing():
        await cluster.migrations.start(MIGRATION, request_for("coordinated"))
        await until(
            lambda: any("a writer is not stopped" in each for each in cluster.migrations.progress(MIGRATION).waits_for)
        )
        record = cluster.record(MIGRATION)
        assert record is not None
        assert record.state is State.READY
        assert not any(adopted)
    record = await ended(cluster)
    assert_migrated(cluster, record)
    assert [len(step) for step in adopted if step] == [3, 3]
    assert cluster.migrations.progress(MIGRATION).message == ""


async def test_a_stale_leader_changes_nothing(cluster: Cluster) -> None:
    stale = cluster.lead()
    stale_leader = cluster.leader
    assert stale_leader is not None
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade"))
    await until(lambda: (r := cluster.record(MIGRATION)) is not None and r.state is not State.PENDING)
    # The old one goes on beside the new one: it is fenced at its next write, and the new one finishes.
    old_task, cluster.task = cluster.task, None
    cluster.lead()
    record = await ended(cluster)
    assert_migrated(cluster, record)
    epochs = [event.leader_epoch for event in record.story]
    assert epochs == sorted(epochs)
    assert old_task is not None
    old_task.cancel()
    await asyncio.gather(old_task, return_exceptions=True)
    assert stale is not cluster.term


async def test_unequal_digests_abort_and_leave_the_source(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    cluster.world.lose = "lost"
    async with cluster.writing():
        await cluster.world.write("lost", "1", cluster.nodes()[0])
        await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade"))
        record = await ended(cluster)
    assert record.state is State.ABORTED
    assert "differ" in record.reason
    assert not record.digest_equal
    routing = cluster.in_force()
    assert (routing.active, routing.phase, routing.migration) == (0, "serving", None)
    assert set(routing.generations) == {0}
    assert cluster.world.state(routing)["lost"] == "1"


async def test_past_the_pause_cap_writes_go_on_and_it_is_tried_again(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    stuck = cluster.nodes()[2]
    async with cluster.writing():
        stuck.stuck = True
        await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade", cap=1.0))
        await until(lambda: (r := cluster.record(MIGRATION)) is not None and r.retries >= 1)
        await until(lambda: cluster.in_force().phase == "serving")
        assert cluster.in_force().active == 0
        stuck.stuck = False
        record = await ended(cluster)
    assert_migrated(cluster, record)
    assert Trigger.PAUSE_CAP_EXCEEDED in [event.trigger for event in record.story]


async def test_a_dead_owner_is_replaced_and_a_running_migration_goes_on(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    before = cluster.in_force()
    await cluster.node("d")
    victim = cluster.nodes()[0]
    victim.stuck = True
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade", cap=1.0))
    await until(lambda: (r := cluster.record(MIGRATION)) is not None and r.retries >= 1)
    await victim.kill()
    del cluster.world.nodes["a"]
    record = await ended(cluster, seconds=20)
    assert_migrated(cluster, record)
    routing = cluster.in_force()
    assert all("a" not in (w.owner, *w.replicas) for w in routing.generations[1].shards.values())
    assert before.generations[0].shards[0].epoch >= 1


async def test_an_abort_leads_back_and_after_the_commit_it_is_refused(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    cluster.nodes()[1].stuck = True
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade", cap=30.0))
    await until(lambda: cluster.in_force().phase == "draining")
    aborting = await asyncio.wait_for(cluster.migrations.abort(MIGRATION, by="ann"), 10)
    assert aborting.state is State.ABORTING
    cluster.nodes()[1].stuck = False
    record = await ended(cluster)
    assert record.state is State.ABORTED
    assert record.reason == "asked for by ann"
    assert await cluster.migrations.abort(MIGRATION, by="ann") == record
    assert (cluster.in_force().phase, set(cluster.in_force().generations)) == ("serving", {0})
    again = migration_id_for(NAMESPACE, "r2")
    await cluster.migrations.start(
        again, request_for("in_place_upgrade", key="r2").model_copy(update={"target_generation": 2})
    )
    await until(lambda: (r := cluster.record(again)) is not None and r.state is State.SUCCEEDED)
    with pytest.raises(PastPointOfNoReturnError):
        await cluster.migrations.abort(again, by="ann")
