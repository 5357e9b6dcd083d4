"""The way back, driven against nodes in miniature: rollback, forward again, and whoever dies meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from coordinator_cluster import MIGRATION, Cluster, Frozen, ended, request_for
from coordinator_fakes import NAMESPACE, until

from brainy.api.coordinator.v1 import membership_pb2
from brainy.api.node.v1 import control_pb2
from brainy.bucket import layout
from brainy.bucket.follow import FollowChoice
from brainy.errors import PastPointOfNoReturnError, PreconditionError
from brainy_coordinator.migration import interventions
from brainy_coordinator.migration.record import MigrationRecord, Request
from brainy_coordinator.migration.state import State, Trigger


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    found = Cluster()
    for name in ("a", "b", "c"):
        await found.node(name)
    yield found
    await found.close()


def kept(strategy: str = "in_place_upgrade", *, shards: int = 0, cap: float = 3.0, **changes: object) -> Request:
    wish = request_for(strategy, shards=shards, cap=cap)
    return wish.model_copy(update={"keep_way_back": True, **changes})


async def reached(cluster: Cluster, state: State, *, rolled_back: int = 0, seconds: float = 90.0) -> MigrationRecord:
    def there() -> bool:
        found = cluster.record(MIGRATION)
        return found is not None and found.state is state and found.rolled_back >= rolled_back

    await until(there, seconds=seconds)
    found = cluster.record(MIGRATION)
    assert found is not None
    return found


async def ask(cluster: Cluster, intervention: interventions.Intervention, key: str = "") -> MigrationRecord:
    return await cluster.migrations.intervene(MIGRATION, intervention, by="ann", request_id=key)


async def promoted(cluster: Cluster, key: str) -> None:
    """Ask until it is ready to."""
    async with asyncio.timeout(60):
        while True:
            try:
                await ask(cluster, interventions.promote, key)
                return
            except PreconditionError:
                await asyncio.sleep(0.02)


def assert_kept(cluster: Cluster) -> None:
    state = cluster.world.state(cluster.in_force())
    assert {key: state.get(key) for key in cluster.world.acked} == cluster.world.acked


@pytest.mark.parametrize(("strategy", "shards"), [("in_place_upgrade", 0), ("in_place_upgrade", 5), ("rolling", 2)])
async def test_forward_and_back_and_forward_under_writes_loses_nothing(
    cluster: Cluster, strategy: str, shards: int
) -> None:
    cluster.lead()
    await cluster.serving()
    async with cluster.writing():
        await until(lambda: len(cluster.world.acked) > 30)
        await cluster.migrations.start(MIGRATION, kept(strategy, shards=shards))
        for cycle in range(1, 4):
            await reached(cluster, State.OBSERVING, rolled_back=cycle - 1)
            routing = cluster.in_force()
            assert (routing.active, routing.write) == (1, 1)
            assert (routing.generations[0].state, routing.generations[0].follows) == ("following", 1)
            await asyncio.sleep(0.05)
            await ask(cluster, interventions.rollback)
            back = await reached(cluster, State.READY, rolled_back=cycle)
            assert back.held
            routing = cluster.in_force()
            assert (routing.active, routing.write, routing.rolled_back_from) == (0, 0, 1)
            assert (routing.generations[1].state, routing.generations[1].follows) == ("building", 0)
            assert routing.adopted == {}
            await asyncio.sleep(0.05)
            await promoted(cluster, f"promote-{cycle}")
        await reached(cluster, State.OBSERVING, rolled_back=3)
        await ask(cluster, interventions.complete)
        record = await ended(cluster)
    assert record.state is State.SUCCEEDED, record.lines
    assert set(cluster.in_force().generations) == {1}
    assert_kept(cluster)
    copies = [event for event in record.story if event.trigger is Trigger.COPY_DONE]
    assert len(copies) == 1  # there is one copy, whatever the number of changes
    with pytest.raises(PastPointOfNoReturnError) as refused:
        await ask(cluster, interventions.rollback)
    assert "complete" in str(refused.value)
    assert await ask(cluster, interventions.complete) == record


async def test_a_leader_may_die_after_any_persisted_step_of_a_rollback() -> None:
    survived = 0
    for step in range(1, 30):
        cluster = Cluster()
        try:
            for name in ("a", "b", "c"):
                await cluster.node(name)
            first = Frozen(cluster.store)
            cluster.lead(first)
            await cluster.serving()
            await cluster.migrations.start(MIGRATION, kept(shards=4))
            await reached(cluster, State.OBSERVING)
            for key in ("x", "y", "z"):
                await cluster.world.write(key, "1", cluster.nodes()[0])
            first.steps.clear()
            first.after = step
            asking = asyncio.create_task(ask(cluster, interventions.rollback, "back"))
            await until(
                lambda c=cluster, f=first: f.frozen.is_set() or ((r := c.record(MIGRATION)) is not None and r.held)
            )
            if not first.frozen.is_set():
                break
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await cluster.depose()
            cluster.lead()
            await until(lambda c=cluster: NAMESPACE in c.term.ready)  # type: ignore[union-attr]
            # The same call again, as a client does whose answer was lost.
            await ask(cluster, interventions.rollback, "back")
            record = await reached(cluster, State.READY, rolled_back=1)
            assert [e.trigger for e in record.story].count(Trigger.ROLLBACK_REQUESTED) == 1
            assert cluster.in_force().active == 0
            assert_kept(cluster)
            await asyncio.wait_for(cluster.world.write("after", "1", cluster.nodes()[1]), 5)
            survived += 1
        finally:
            await cluster.close()
    # Asked, begun, drained, swapped, and known.
    assert survived == 5


async def test_a_rollback_past_the_pause_cap_lets_writes_go_on_and_is_tried_again(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    stuck = cluster.nodes()[2]
    async with cluster.writing():
        await cluster.migrations.start(MIGRATION, kept(cap=1.0))
        await reached(cluster, State.OBSERVING)
        # Every node has confirmed the switch: what is late from here on is the way back.
        executor = cluster.migrations._executors[MIGRATION]
        await until(lambda: len(executor.facts.released) == 3)
        stuck.stuck = True
        await ask(cluster, interventions.rollback)
        await until(lambda: (r := cluster.record(MIGRATION)) is not None and r.retries >= 1)
        await until(lambda: cluster.in_force().phase == "serving")
        assert cluster.in_force().active == 1
        stuck.stuck = False
        record = await reached(cluster, State.READY, rolled_back=1)
    assert Trigger.PAUSE_CAP_EXCEEDED in [event.trigger for event in record.story]
    assert_kept(cluster)


async def test_a_rollback_that_would_lose_something_is_given_up(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, kept())
    await reached(cluster, State.OBSERVING)
    cluster.world.lose = "lost"
    await cluster.world.write("lost", "1", cluster.nodes()[0])
    await ask(cluster, interventions.rollback)
    await until(
        lambda: (r := cluster.record(MIGRATION)) is not None and r.story[-1].trigger is Trigger.ROLLBACK_UNEQUAL
    )
    await until(lambda: cluster.in_force().phase == "serving")
    assert (cluster.in_force().active, cluster.world.state(cluster.in_force())["lost"]) == (1, "1")
    record = cluster.record(MIGRATION)
    assert record is not None
    assert not record.wants_rollback  # somebody has to look


async def test_an_owner_that_dies_while_the_source_follows_is_replaced_and_it_can_be_rolled_back(
    cluster: Cluster,
) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.node("d")
    await cluster.migrations.start(MIGRATION, kept())
    await reached(cluster, State.OBSERVING)
    await cluster.world.write("x", "1", cluster.nodes()[1])
    victim = cluster.world.nodes["a"]
    await victim.kill()
    del cluster.world.nodes["a"]
    await ask(cluster, interventions.rollback)
    await reached(cluster, State.READY, rolled_back=1, seconds=20)
    await asyncio.wait_for(cluster.world.write("y", "1", cluster.nodes()[0]), 5)
    assert_kept(cluster)
    assert all(
        "a" not in (where.owner, *where.replicas)
        for placed in cluster.in_force().generations.values()
        for where in placed.shards.values()
    )


async def test_after_a_rollback_it_can_be_aborted(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, kept())
    await reached(cluster, State.OBSERVING)
    with pytest.raises(PastPointOfNoReturnError) as refused:
        await cluster.migrations.abort(MIGRATION, by="ann")
    assert "rollback" in refused.value.remedy
    await ask(cluster, interventions.rollback)
    await reached(cluster, State.READY, rolled_back=1)
    await cluster.migrations.abort(MIGRATION, by="ann")
    record = await ended(cluster)
    assert record.state is State.ABORTED
    routing = cluster.in_force()
    # Clients may still hold positions of the generation that is gone.
    assert (set(routing.generations), routing.rolled_back_from, routing.migration) == ({0}, 1, None)


async def test_a_held_migration_waits_for_its_promotion_and_says_so(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, request_for("rolling").model_copy(update={"hold_before_switch": True}))
    with pytest.raises(PreconditionError) as early:
        await ask(cluster, interventions.promote)
    assert early.value.remedy
    await reached(cluster, State.READY)
    await until(lambda: "held before the switch (promote it)" in cluster.migrations.progress(MIGRATION).waits_for)
    await asyncio.sleep(0.1)
    assert (cluster.in_force().active, cluster.in_force().adopted) == (0, {})
    with pytest.raises(PreconditionError):
        await ask(cluster, interventions.rollback)
    await promoted(cluster, "p")
    record = await ended(cluster)
    assert record.state is State.SUCCEEDED
    by = [event.by for event in record.story if event.trigger is Trigger.PROMOTE_REQUESTED]
    assert by == ["ann"]


async def test_a_paused_migration_stands_still_with_writes_flowing(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    stuck = cluster.nodes()[1]
    stuck.stuck = True
    await cluster.migrations.start(MIGRATION, request_for("in_place_upgrade", cap=1.0))
    await until(lambda: cluster.in_force().phase == "draining")
    record = await cluster.migrations.intervene(MIGRATION, interventions.pause, by="ann", detail="lunch")
    assert record.paused == ("lunch",)
    await until(lambda: cluster.in_force().phase == "serving")
    stuck.stuck = False
    await asyncio.wait_for(cluster.world.write("x", "1", stuck), 5)
    await until(lambda: "paused: lunch (resume it)" in cluster.migrations.progress(MIGRATION).waits_for)
    await asyncio.sleep(0.2)
    paused = cluster.record(MIGRATION)
    assert paused is not None
    assert paused.state in (State.CATCHING_UP, State.READY)
    assert cluster.in_force().active == 0
    await ask(cluster, interventions.resume)
    assert (await ended(cluster)).state is State.SUCCEEDED
    assert_kept(cluster)
    with pytest.raises(PreconditionError):
        await ask(cluster, interventions.pause)


async def test_the_way_back_is_given_up_by_itself_after_the_time_to_observe(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, kept(observe_seconds=0.3))
    record = await ended(cluster)
    assert record.state is State.SUCCEEDED
    assert Trigger.OBSERVED in [event.trigger for event in record.story]


async def test_no_way_back_is_kept_beside_a_followed_or_mirrored_tree(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.store.put(layout.FOLLOW, FollowChoice(nonce="n", follow=True, mirror="entity").encode())
    control = cluster.term.namespaces[NAMESPACE]  # type: ignore[union-attr]
    checks = await control.preflight.run(kept(), cluster.in_force(), others=())
    refused = [check for check in checks if not check.passed]
    assert [(check.name, check.detail) for check in refused] == [
        ("way_back_possible", "brainy's own tree is followed and mirrored to")
    ]
    without = await control.preflight.run(request_for("rolling"), cluster.in_force(), others=())
    assert all(check.passed for check in without)


async def test_following_that_was_turned_on_since_the_switch_holds_a_rollback(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, kept())
    await reached(cluster, State.OBSERVING)
    await cluster.store.put(layout.FOLLOW, FollowChoice(nonce="n", follow=True).encode())
    await ask(cluster, interventions.rollback)
    await reached(cluster, State.ROLLING_BACK)
    problems = cluster.term.problems  # type: ignore[union-attr]
    await until(lambda: NAMESPACE in problems)
    assert "way_back_possible" in str(problems[NAMESPACE])
    assert (cluster.in_force().phase, cluster.in_force().active) == ("serving", 1)
    await cluster.store.put(layout.FOLLOW, FollowChoice(nonce="m", follow=False).encode())
    await reached(cluster, State.READY, rolled_back=1)
    assert NAMESPACE not in problems or cluster.in_force().active == 0


async def test_a_held_migration_does_not_leave_ready_for_what_an_old_heartbeat_says(cluster: Cluster) -> None:
    """One node beats with what it held while the target was being filled; asked, it says how it is."""
    beats = 0
    node = cluster.nodes()[0]

    async def late(request: membership_pb2.HeartbeatRequest) -> membership_pb2.HeartbeatResponse:
        nonlocal beats
        for replica in request.replicas:
            if replica.generation == 1:
                replica.state = control_pb2.SHARD_STATE_REPLAYING
                beats += 1
        return await cluster.heartbeat(request)

    node.heartbeat = late
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, kept(hold_before_switch=True))
    await reached(cluster, State.READY)
    before = beats
    await until(lambda: beats > before + 20)
    record = await reached(cluster, State.READY)
    assert [event.trigger for event in record.story].count(Trigger.LAG_IN_BOUNDS) == 1
    await promoted(cluster, "go")
    await reached(cluster, State.OBSERVING)
    await ask(cluster, interventions.rollback)
    record = await reached(cluster, State.READY, rolled_back=1)
    before = beats
    await until(lambda: beats > before + 20)
    record = await reached(cluster, State.READY, rolled_back=1)
    assert Trigger.LAG_EXCEEDED not in [event.trigger for event in record.story]
