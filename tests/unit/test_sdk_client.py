"""AsyncBrainy against a fake cluster on real ports."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
from sdk_cluster_fake import FakeCluster

from brainy import (
    AsyncBrainy,
    InvalidRequestError,
    NewNoun,
    NotFoundError,
    OutcomeUnknownError,
    PastPointOfNoReturnError,
    PreconditionError,
    ServiceStatistics,
    TargetSpec,
    UnavailableError,
)
from brainy.api.coordinator.v1 import migration_pb2
from brainy.api.node.v1 import data_pb2


@pytest.fixture
async def cluster():
    fake = FakeCluster()
    yield fake
    await fake.close()


@pytest.fixture
async def brainy(cluster):
    _, address = await cluster.serve()
    async with AsyncBrainy([address], coordinators=[address]) as client:
        yield client


async def test_added_noun_comes_back_with_exact_floats_and_metadata(brainy):
    vector = np.array([0.1, 1e-30, -3.0], dtype=np.float32)
    noun_id = await brainy.add(vector, {"title": "ü", "n": [1, None]}, id="a")
    found = await brainy.get("a")
    assert noun_id == "a"
    assert found is not None
    assert found.vector is not None
    assert found.vector.tobytes() == vector.tobytes()
    assert found.metadata == {"title": "ü", "n": [1, None]}


async def test_absent_metadata_and_json_null_are_told_apart(brainy, cluster):
    await brainy.add([1.0, 0.0, 0.0], id="without")
    await brainy.add([1.0, 0.0, 0.0], id="null")
    cluster.nouns["null"].metadata = b"null"
    assert (await brainy.get("without")).metadata_json is None
    null = await brainy.get("null")
    assert null.metadata_json == b"null"
    assert null.metadata is None


async def test_missing_noun_is_none_and_left_out_of_many(brainy):
    await brainy.add([1, 0, 0], id="a")
    assert await brainy.get("nobody") is None
    assert list(await brainy.get_many(["nobody", "a", "a"])) == ["a"]


async def test_made_ids_are_unique(brainy):
    ids = await brainy.add_many(np.eye(3), metadata=[{"n": n} for n in range(3)])
    assert len(set(ids)) == 3
    found = await brainy.get_many(ids)
    assert [found[noun_id].metadata["n"] for noun_id in ids] == [0, 1, 2]


async def test_add_many_splits_into_messages_and_refuses_ragged_columns(brainy, cluster):
    await brainy.add_many(np.ones((2500, 3)), ids=[str(n) for n in range(2500)])
    sizes = sorted(len(request.nouns) for request in cluster.calls("UpsertNouns"))
    assert sizes == [500, 1000, 1000]
    assert len({request.request_id for request in cluster.calls("UpsertNouns")}) == 3
    with pytest.raises(InvalidRequestError, match="one entry per vector"):
        await brainy.add_many(np.ones((2, 3)), ids=["only"])


async def test_import_reads_any_iterator_and_reports_progress(brainy, cluster):
    async def source():
        for number in range(3300):
            yield NewNoun(id=str(number), vector=[1.0, number, 0.0])

    seen: list[int] = []
    assert await brainy.import_nouns(source(), on_progress=seen.append) == 3300
    assert len(cluster.nouns) == 3300
    assert seen[-1] == 3300
    assert seen == sorted(seen)


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], [float("nan")], [1e39], ["x"], 3.0])
async def test_bad_vector_is_refused_before_anything_is_sent(brainy, cluster, bad):
    with pytest.raises(InvalidRequestError) as caught:
        await brainy.add(bad)
    assert caught.value.reason == "INVALID_VECTOR"
    assert cluster.requests == []


async def test_metadata_that_is_no_json_is_refused(brainy, cluster):
    with pytest.raises(InvalidRequestError) as caught:
        await brainy.add([1.0], {"x": object()})
    assert caught.value.reason == "INVALID_METADATA"
    assert cluster.requests == []


async def test_search_gives_nearest_first_with_scores_and_metadata(brainy):
    await brainy.add_many(np.eye(3), metadata=[{"n": n} for n in range(3)], ids=["x", "y", "z"])
    first, second = await brainy.search([1.0, 0.5, 0.0], 2)
    assert (first.id, second.id) == ("x", "y")
    assert first.metadata == {"n": 0}
    assert first.distance == pytest.approx(1 - 1 / np.sqrt(1.25), abs=1e-6)
    assert first.score == pytest.approx(1 - first.distance, abs=1e-6)


async def test_search_many_keeps_queries_apart(brainy):
    await brainy.add_many(np.eye(3), ids=["x", "y", "z"])
    answers = await brainy.search_many(np.eye(3)[[2, 0]], 5, include_metadata=False)
    assert [hits[0].id for hits in answers] == ["z", "x"]
    assert [len(hits) for hits in answers] == [3, 3]
    by_id = await brainy.search_many(ids=["y"], k=1)
    assert [[hit.id for hit in hits] for hits in by_id] == [["y"]]


async def test_search_says_what_is_wrong(brainy):
    with pytest.raises(InvalidRequestError, match="search_many"):
        await brainy.search([[1.0, 2.0]])
    with pytest.raises(InvalidRequestError, match="either vectors or ids"):
        await brainy.search()
    with pytest.raises(InvalidRequestError, match="k must be"):
        await brainy.search([1.0], 0)
    with pytest.raises(NotFoundError) as caught:
        await brainy.search(id="nobody")
    assert caught.value.remedy == "do this"


async def test_verbs_are_found_by_what_is_given(brainy):
    await brainy.add_verb("a", "b", "likes", {"since": 1}, weight=0.5, id="1")
    await brainy.add_verb("a", "c", "knows", id="2")
    await brainy.add_verb("b", "c", "likes", id="3")
    found = await brainy.find_verbs(source="a", type="likes")
    assert [verb.id for verb in found] == ["1"]
    assert found[0].weight == 0.5
    assert found[0].metadata == {"since": 1}
    assert {verb.id async for verb in brainy.scan_verbs()} == {"1", "2", "3"}
    await brainy.delete_verb("1")
    assert await brainy.get_verb("1") is None
    assert (await brainy.get_verb("2")).weight is None
    with pytest.raises(InvalidRequestError, match="scan_verbs"):
        await brainy.find_verbs()


async def test_write_is_retried_with_the_same_request_id(brainy, cluster):
    cluster.refuse("UpsertNouns", grpc.StatusCode.UNAVAILABLE, "NOT_OWNER", times=3)
    await brainy.add([1.0], id="a")
    ids = [request.request_id for request in cluster.calls("UpsertNouns")]
    assert len(ids) == 4
    assert len(set(ids)) == 1


async def test_lost_answer_has_one_effect(brainy, cluster):
    cluster.lost["UpsertNouns"] = 1
    await brainy.add([1.0], id="a")
    assert len(cluster.calls("UpsertNouns")) == 2
    assert cluster.position == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.ABORTED, "FENCED"),
        (grpc.StatusCode.ABORTED, "CONFLICT"),
        (grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUFFER_FULL"),
    ],
)
async def test_what_may_pass_is_retried(brainy, cluster, code, reason):
    cluster.refuse("UpsertNouns", code, reason)
    await brainy.add([1.0], id="a")
    assert "a" in cluster.nouns


async def test_what_cannot_pass_is_raised_at_once(brainy, cluster):
    cluster.refuse("UpsertNouns", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_DIMENSION")
    with pytest.raises(InvalidRequestError) as caught:
        await brainy.add([1.0])
    assert caught.value.reason == "INVALID_DIMENSION"
    assert len(cluster.calls("UpsertNouns")) == 1


async def test_dead_endpoint_is_left_for_a_live_one(cluster):
    dying, gone = await cluster.serve()
    _, there = await cluster.serve()
    async with AsyncBrainy([gone, there]) as brainy:
        for number in range(4):
            await brainy.add([1.0], id=str(number))
        await dying.stop(0)
        for number in range(8):
            await brainy.add([1.0], id=f"late-{number}")
    assert len(cluster.nouns) == 12


async def test_new_nodes_are_found_through_the_coordinator(cluster):
    _, coordinator = await cluster.serve()
    node, first = await cluster.serve()
    cluster.alive = [first]
    async with AsyncBrainy(coordinators=[coordinator]) as brainy:
        await brainy.add([1.0], id="a")
        await node.stop(0)
        _, second = await cluster.serve()
        cluster.alive = [second]
        assert await brainy.get("a") is not None
        assert second in brainy._node_pool.addresses
        assert first not in brainy._node_pool.addresses


async def test_silent_node_costs_an_attempt_not_the_call(cluster):
    _, first = await cluster.serve()
    cluster.hang["GetNouns"] = 1
    async with AsyncBrainy([first], read_deadline_seconds=5) as brainy:
        brainy._read = type(brainy._read)(deadline_seconds=5, attempt_seconds=0.2)
        assert await brainy.get("a") is None
    assert len(cluster.calls("GetNouns")) == 2


async def test_running_out_of_time_says_whether_the_write_may_have_landed(cluster):
    _, address = await cluster.serve()
    async with AsyncBrainy([address], write_deadline_seconds=0.5) as brainy:
        cluster.refuse("UpsertNouns", grpc.StatusCode.UNAVAILABLE, "SHARD_NOT_READY", times=1000)
        with pytest.raises(UnavailableError) as refused:
            await brainy.add([1.0])
        assert refused.value.reason == "SHARD_NOT_READY"
        cluster.failures["UpsertNouns"].clear()
        cluster.lost["UpsertNouns"] = 1000
        with pytest.raises(OutcomeUnknownError) as unknown:
            await brainy.add([1.0])
        assert not unknown.value.data_safe


async def test_no_server_is_unavailable_not_unknown():
    async with AsyncBrainy(["127.0.0.1:1"], write_deadline_seconds=0.3) as brainy:
        with pytest.raises(UnavailableError, match="cannot connect"):
            await brainy.add([1.0])


async def test_reads_carry_the_newest_positions_of_own_writes(brainy, cluster):
    await brainy.add([1.0], id="a")
    await brainy.add([1.0], id="b")
    await brainy.get("a")
    assert [(p.generation, p.position) for p in cluster.calls("GetNouns")[-1].session] == [(0, 2)]
    cluster.generation = 1
    await brainy.add([1.0], id="c")
    await brainy.search([1.0], 1)
    # Both sides of a change of generations count: replicas of the new one may be behind, and it may be rolled back.
    assert [(p.generation, p.position) for p in cluster.calls("Search")[-1].session] == [(0, 2), (1, 3)]
    cluster.generation = 2
    await brainy.add([1.0], id="d")
    await brainy.search([1.0], 1)
    assert [(p.generation, p.position) for p in cluster.calls("Search")[-1].session] == [(1, 3), (2, 4)]


async def test_scan_goes_on_where_a_broken_stream_stopped(brainy, cluster):
    await brainy.add_many(np.ones((50, 3)), ids=[str(n) for n in range(50)])
    cluster.break_stream_after = 20
    seen = [noun.id async for noun in brainy.scan()]
    assert sorted(seen, key=int) == [str(n) for n in range(50)]
    assert len(cluster.calls("ScanNouns")) == 2


async def test_read_only_client_changes_nothing(cluster):
    _, address = await cluster.serve()
    async with AsyncBrainy([address], coordinators=[address], read_only=True) as brainy:
        for change in (
            brainy.add([1.0]),
            brainy.delete("a"),
            brainy.add_verb("a", "b", "t"),
            brainy.delete_verb("a"),
            brainy.plan_migration(),
            brainy.execute_plan("p-1"),
            brainy.start_migration(),
            brainy.abort_migration("m"),
            brainy.promote_migration("m"),
            brainy.pause_migration("m"),
            brainy.resume_migration("m"),
            brainy.rollback_migration("m"),
            brainy.complete_migration("m"),
            brainy.postpone_migration("m", 60.0),
            brainy.keep_generation(0),
            brainy.retain_generation(0, 60.0),
        ):
            with pytest.raises(PreconditionError, match="read-only"):
                await change
        assert cluster.requests == []
        assert (await brainy.plan_migration(dry_run=True)).steps
        assert await brainy.get("a") is None


async def test_read_only_and_frozen_are_flags_of_the_client(brainy, cluster):
    assert (brainy.is_read_only, brainy.is_frozen) == (False, False)
    brainy.set_read_only(True)
    with pytest.raises(PreconditionError, match="read-only"):
        await brainy.add([1.0], id="a")
    brainy.set_frozen(True)
    brainy.set_read_only(False)
    assert (brainy.is_read_only, brainy.is_frozen) == (True, True)
    with pytest.raises(PreconditionError, match="frozen"):
        await brainy.add([1.0], id="a")
    assert cluster.requests == []
    brainy.set_read_only(True)
    brainy.set_frozen(False)
    assert (brainy.is_read_only, brainy.is_frozen) == (True, False)
    brainy.set_read_only(False)
    await brainy.add([1.0], id="a")
    assert await brainy.get("a") is not None


async def test_figures(brainy):
    await brainy.add([1, 2, 3], id="a")
    assert (await brainy.get_statistics()).noun_count == 1
    metrics = await brainy.get_performance_metrics()
    assert metrics.store_calls == {"get": 7}
    assert (metrics.cache_hit_rate, metrics.compression_ratio) == (None, None)


async def test_figures_are_reckoned_from_what_nodes_count(brainy, cluster):
    cluster.statistics = data_pb2.GetStatisticsResponse(
        noun_count=5,
        verb_count=3,
        nouns_by_service={"github": 4, "": 1},
        metadata_by_service={"github": 4},
        verbs_by_service={"slack": 3},
    )
    cluster.performance = data_pb2.GetPerformanceMetricsResponse(
        average_search_milliseconds=2.5,
        shard_searches=8,
        shard_searches_from_disk=2,
        vector_bytes=300,
        index_bytes=200,
    )
    figures = await brainy.get_statistics()
    assert figures.metadata_count == 4
    assert figures.by_service == {
        "": ServiceStatistics(noun_count=1),
        "github": ServiceStatistics(noun_count=4, metadata_count=4),
        "slack": ServiceStatistics(verb_count=3),
    }
    metrics = await brainy.get_performance_metrics()
    assert (metrics.average_search_time, metrics.cache_hit_rate, metrics.compression_ratio) == (2.5, 0.75, 1.5)


async def test_what_cannot_be_found_is_listed(brainy):
    assert [item.reason async for item in brainy.unindexed()] == ["zero"]
    assert [item.key async for item in brainy.quarantined()] == ["nouns/x.json"]


async def test_migration_calls(brainy, cluster):
    plan = await brainy.plan_migration("in_place_upgrade")
    assert plan.steps[0].action == "fill"
    assert (plan.id, plan.strategy, plan.passes) == ("p-1", "in-place-upgrade", True)
    assert await brainy.get_plan("p-1") == plan
    with pytest.raises(NotFoundError):
        await brainy.get_plan("p-2")
    executed = await brainy.execute_plan("p-1", confirm=["no-way-back"], requested_by="test")
    assert executed.state == "PENDING"
    (request,) = cluster.calls("StartMigration")
    assert (request.plan_id, list(request.confirm)) == ("p-1", ["no-way-back"])
    cluster.requests.clear()
    started = await brainy.start_migration(
        "rolling", TargetSpec(shard_count=8), pause_cap_seconds=1.5, requested_by="test"
    )
    assert started.state == "PENDING"
    (request,) = cluster.calls("StartMigration")
    assert request.target.shard_count == 8
    assert request.pause_cap.ToMilliseconds() == 1500
    assert request.request_id
    assert [migration.id for migration in await brainy.list_migrations()] == ["m-1", "m-2"]
    with pytest.raises(NotFoundError):
        await brainy.get_migration("nobody")
    with pytest.raises(PastPointOfNoReturnError):
        await brainy.abort_migration("m-1")
    with pytest.raises(InvalidRequestError, match="unknown migration strategy"):
        await brainy.start_migration("sideways")


async def test_turning_a_migration(brainy, cluster):
    cluster.migration.held = True
    cluster.migration.waits_for.append("held before the switch (promote it)")
    cluster.migration.observe.FromSeconds(60)
    await brainy.start_migration("rolling", keep_way_back=True, hold_before_switch=True, observe_seconds=60.0)
    (request,) = cluster.calls("StartMigration")
    assert (request.keep_way_back, request.hold_before_switch, request.observe.seconds) == (True, True, 60)
    assert not request.HasField("rollback_if")
    await brainy.plan_migration("rolling", keep_way_back=True, rollback_if=["error-rate>1%", "p99>2x"])
    planned = cluster.calls("PlanMigration")[-1]
    assert planned.keep_way_back
    limits = planned.rollback_if
    assert (limits.error_rate, limits.p99_factor, limits.HasField("overlap"), limits.min_calls) == (
        0.01,
        2.0,
        False,
        100,
    )
    with pytest.raises(InvalidRequestError, match="not a limit"):
        await brainy.start_migration("rolling", keep_way_back=True, rollback_if=["slow"])
    cluster.migration.rollback_if.CopyFrom(limits)
    cluster.migration.served.CopyFrom(migration_pb2.ServingFigures(calls=10, failed=1, reads=10))
    watched = await brainy.get_migration("m-1")
    assert watched.rollback_if == ("error-rate>0.01", "p99>2x")
    assert watched.served is not None
    assert (watched.served.error_rate, watched.served.overlap, watched.served_before) == (0.1, None, None)
    shown = await brainy.get_migration("m-1")
    assert (shown.held, shown.waits_for, shown.observe_seconds) == (
        True,
        ("held before the switch (promote it)",),
        60.0,
    )
    assert not (await brainy.promote_migration("m-1")).held
    assert (await brainy.pause_migration("m-1", reason="lunch")).paused == ("lunch",)
    assert (await brainy.resume_migration("m-1")).paused == ()
    # What was asked for and is not done yet is no rest.
    back = await brainy.rollback_migration("m-1", reason="slow", requested_by="ann")
    assert not back.rests
    (request,) = cluster.calls("RollbackMigration")
    assert (request.reason, request.requested_by, bool(request.request_id)) == ("slow", "ann", True)
    cluster._turned(migration_pb2.MIGRATION_STATE_OBSERVING, "rollback_unequal")
    assert (await brainy.wait_until_migration_rests("m-1")).state == "OBSERVING"
    done = await brainy.complete_migration("m-1", validate_only=True)
    assert (done.migration.state, done.retired) == ("OBSERVING", ("cluster/generations/0/",))
    assert (await brainy.complete_migration("m-1")).migration.state == "COMPLETING"


async def test_watch_survives_the_coordinator_and_ends_with_the_migration(brainy, cluster):
    cluster.watch_states = [
        migration_pb2.MIGRATION_STATE_COPYING,
        migration_pb2.MIGRATION_STATE_COPYING,
        migration_pb2.MIGRATION_STATE_READY,
        migration_pb2.MIGRATION_STATE_SUCCEEDED,
    ]
    states = [seen.state async for seen in brainy.watch_migration("m-1")]
    assert states == ["COPYING", "READY", "SUCCEEDED"]


async def test_not_leader_is_asked_elsewhere(brainy, cluster):
    cluster.refuse("ListNamespaces", grpc.StatusCode.UNAVAILABLE, "NOT_LEADER", times=2)
    (info,) = await brainy.namespaces()
    assert info.active_generation == 1


async def test_addresses_are_checked():
    with pytest.raises(InvalidRequestError, match="no address"):
        AsyncBrainy()
    with pytest.raises(InvalidRequestError, match="not a host:port"):
        AsyncBrainy("http://x:1")


async def test_many_concurrent_calls_survive_a_refusing_cluster(brainy, cluster):
    cluster.refuse("UpsertNouns", grpc.StatusCode.UNAVAILABLE, "DRAINING", times=40)
    await asyncio.gather(*(brainy.add([1.0], id=str(n)) for n in range(50)))
    assert len(cluster.nouns) == 50
