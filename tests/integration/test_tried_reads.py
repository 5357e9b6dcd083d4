"""Reads tried on the target of a migration, by shadow and by weight, through real front doors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from door_cluster import IDS, VECTORS, fill, noun, query, three_nodes, within
from node_cluster import Cluster, spec

from brainy.api.common.v1.common_pb2 import Noun, Position
from brainy.api.node.v1 import data_pb2, shard_pb2, shard_pb2_grpc, traffic_pb2, traffic_pb2_grpc
from brainy.api.storage.v1 import log_pb2
from brainy.bucket.partition import shard_of
from brainy.bucket.records import GenerationPlacement
from brainy.bucket.trial import ReadTrial
from brainy.changelog.batch import Slot, encode_batch
from brainy.errors import InvalidRequestError, NotFoundError, UnavailableError
from brainy.ids import Ids
from brainy.rpc.channel import call
from brainy.traffic.comparison import Comparison, comparison_from_proto

SHARDS = 3


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Generation 0 in service on nodes a, b, c; generation 1 with three shards is being built and follows it."""
    async with three_nodes(tmp_path) as made:
        await fill(made)
        yield made


def build_target(
    cluster: Cluster, nouns: list[Noun], *, metric: str = "cos", cursor: bool = False, owners: str = "abc"
) -> None:
    """Place generation 1 with these nouns in it."""
    world = cluster.world
    world.specs[1] = spec(1, shards=SHARDS, metric=metric).model_copy(update={"source": "0"})
    placement = GenerationPlacement(state="building", shard_count=SHARDS, follows=0)
    world.route(generations={**world.routing.generations, 1: placement}, migration="m")
    for shard in range(SHARDS):
        world.place(1, shard, owners[shard % len(owners)])
        records = [
            log_pb2.LogRecord(request_id=item.id, upsert_noun=item)
            for item in nouns
            if shard_of(item.id, SHARDS) == shard
        ]
        append(cluster, shard, records or [log_pb2.LogRecord(request_id="-", advance=log_pb2.Advance())])
    cluster.settle()


def append(
    cluster: Cluster,
    shard: int,
    records: list[log_pb2.LogRecord],
    *,
    generation: int = 1,
    following: dict[int, int] | None = None,
) -> None:
    """Commit records; of a generation that follows the other one up to a cursor, say that too."""
    slots = cluster.world.logs.setdefault((generation, shard), [])
    batch = log_pb2.LogBatch(
        format_version=1,
        generation=generation,
        shard=shard,
        epoch=1,
        writer=log_pb2.Writer(node_id="a", incarnation="1", nonce=Ids().nonce()),
        first_position=slots[-1].last + 1 if slots else 1,
        records=records,
        source_generation=None if following is None else 1 - generation,
        source_cursor=following,
    )
    slots.append(Slot(batch=batch, body=encode_batch(batch)))


def try_reads(cluster: Cluster, *, weight: float = 0.0, shadow: float = 0.0, turn: int = 1) -> None:
    cluster.world.route(reads=ReadTrial(generation=1, weight=weight, shadow=shadow, round=turn))
    cluster.settle()


def switch(cluster: Cluster) -> None:
    """Generation 1 serves, generation 0 follows it as the way back and has all of it; reads are shadowed."""
    generations = {
        0: cluster.world.routing.generations[0].model_copy(update={"state": "following", "follows": 1}),
        1: cluster.world.routing.generations[1].model_copy(update={"state": "serving", "follows": None}),
    }
    trial = ReadTrial(generation=0, shadow=1.0, round=9)
    cluster.world.route(active=1, write=1, generations=generations, reads=trial)
    follow(cluster)
    cluster.settle()


def follow(cluster: Cluster) -> None:
    """Let generation 0 follow to the ends of the logs of generation 1, which say nothing new."""
    ends = {shard: cluster.world.logs[1, shard][-1].last for shard in range(SHARDS)}
    for shard in range(4):
        advance = log_pb2.LogRecord(request_id=f"followed {ends}", advance=log_pb2.Advance())
        append(cluster, shard, [advance], generation=0, following=ends)


def good(count: int = 60) -> list[Noun]:
    """The nouns as the source keeps them."""
    return [kept(n) for n in range(count)]


def kept(number: int, **fields: Any) -> Noun:
    return noun(number, **{"metadata": b'{"n":%d}' % number} | fields)


async def compared(cluster: Cluster, node_id: str = "a") -> Comparison:
    """What was found, whichever of the two generations is in service."""
    node = cluster[node_id]
    stub = node._stub(traffic_pb2_grpc.TrafficServiceStub)
    active = cluster.world.routing.active
    request = traffic_pb2.GetComparisonRequest(source_generation=active, target_generation=1 - active)
    answer = await call(stub.GetComparison, request)
    assert answer.node_id == node_id
    return comparison_from_proto(answer.comparison)


async def until_compared(cluster: Cluster, calls: int) -> Comparison:
    """Wait until so many calls have been compared, dropped or given up."""
    deadline = within(20.0)
    while (found := await compared(cluster)).asked < calls:
        assert not deadline.passed, found
        await asyncio.sleep(0.02)
    return found


async def search_all(cluster: Cluster, rows: range = range(60)) -> None:
    for row in rows:
        answer = await call(cluster["a"].search.Search, query(slice(row, row + 1), k=10))
        assert answer.header.generation == 0
        if row % 20 == 19:
            await until_compared(cluster, row + 1)


async def test_a_faithful_target_shows_no_difference(cluster: Cluster) -> None:
    build_target(cluster, good())
    try_reads(cluster, shadow=1.0)
    await search_all(cluster)
    found = await until_compared(cluster, 60)
    assert (found.asked, found.dropped, found.failed) == (60, 0, 0)
    assert (found.queries, found.queries_differing, found.queries_unsettled) == (60, 0, 0)
    assert found.overlap == 1.0
    assert found.overlaps[10] == 60
    assert found.distance_difference < 1e-5
    assert sum(found.source_latency) == sum(found.target_latency) == 60
    assert found.recall_queries == 1
    assert found.source_recall == found.target_recall == 1.0
    assert found.differences == ()


async def test_nouns_missing_in_the_target_are_found_by_searches_and_by_gets(cluster: Cluster) -> None:
    build_target(cluster, [item for n, item in enumerate(good()) if n % 6])
    try_reads(cluster, shadow=1.0)
    await search_all(cluster, range(40))
    found = await until_compared(cluster, 40)
    assert found.queries_differing > 20
    assert found.overlap is not None
    assert 0.7 < found.overlap < 0.95
    assert any(one.kind == "search" and "noun-" in one.id for one in found.differences)
    try_reads(cluster, shadow=1.0, turn=2)
    await call(cluster["a"].nouns.GetNouns, data_pb2.GetNounsRequest(ids=[IDS[6], IDS[7], "nobody"]))
    found = await until_compared(cluster, 1)
    assert (found.items, found.items_differing, found.queries) == (3, 1, 0)
    assert [(one.kind, one.id, one.detail) for one in found.differences] == [("noun", IDS[6], "only on the source")]


async def test_a_changed_vector_and_changed_metadata_are_found(cluster: Cluster) -> None:
    nouns = good()
    nouns[3] = kept(3, vector=VECTORS[40].tobytes())
    nouns[4] = kept(4, metadata=b'{"n":400}')
    build_target(cluster, nouns)
    try_reads(cluster, shadow=1.0)
    await call(cluster["a"].nouns.GetNouns, data_pb2.GetNounsRequest(ids=IDS[:6], include_vectors=True))
    found = await until_compared(cluster, 1)
    assert (found.items, found.items_differing) == (6, 2)
    assert {one.id for one in found.differences} == {IDS[3], IDS[4]}
    await call(cluster["a"].search.Search, query(slice(3, 4), k=10))
    found = await until_compared(cluster, 2)
    assert found.queries_differing == 1


async def test_another_metric_shows_in_the_distances(cluster: Cluster) -> None:
    build_target(cluster, good(), metric="l2sq")
    try_reads(cluster, shadow=1.0)
    await search_all(cluster, range(20))
    found = await until_compared(cluster, 20)
    assert found.distance_difference > 0.5
    assert found.queries_differing > 10
    assert found.queries_unsettled == 0


async def test_what_the_target_gets_later_heals(cluster: Cluster) -> None:
    """The target lags: the first look finds a difference, which is gone once it has what the source had."""
    nouns = good()
    build_target(cluster, nouns[:59])
    try_reads(cluster, shadow=1.0)
    shard = shard_of(IDS[59], SHARDS)
    late = log_pb2.LogRecord(request_id="late", upsert_noun=nouns[59])
    waited: list[int] = []
    for node in cluster.nodes.values():
        runtime, wait = node.runtime, node.runtime.wait_applied

        async def catch_up(
            generation: int,
            number: int,
            session: list[Position],
            deadline: object,
            *,
            besides: bool,
            wait=wait,
            runtime=runtime,
        ) -> None:
            if generation == 1 and not waited:
                append(cluster, shard, [late])
                for other in cluster.nodes.values():
                    other.runtime.catch_up()
            if generation == 1:
                assert all(position.generation == 0 for position in session)
                waited.extend(position.position for position in session)
            await wait(generation, number, session, deadline, besides=besides)

        runtime.wait_applied = catch_up  # type: ignore[method-assign]
    await call(cluster["a"].nouns.GetNouns, data_pb2.GetNounsRequest(ids=IDS[50:]))
    found = await until_compared(cluster, 1)
    assert (found.items, found.items_healed, found.items_differing) == (10, 1, 0)
    assert waited, "the target was asked for what the source had"
    assert found.differences == ()


async def test_after_the_switch_what_serves_is_held_against_the_source_that_follows(cluster: Cluster) -> None:
    """What serves lacks nouns that the way back has: each difference is settled, in spite of the changed sides."""
    build_target(cluster, [item for n, item in enumerate(good()) if n % 6])
    switch(cluster)
    for row in range(20):
        answer = await call(cluster["a"].search.Search, query(slice(row, row + 1), k=10))
        assert answer.header.generation == 1
    found = await until_compared(cluster, 20)
    assert (found.queries, found.queries_unsettled, found.failed) == (20, 0, 0)
    assert found.queries_differing > 10
    assert found.overlap is not None
    assert 0.7 < found.overlap < 0.95
    await call(cluster["a"].nouns.GetNouns, data_pb2.GetNounsRequest(ids=[IDS[6], IDS[7], "nobody"]))
    found = await until_compared(cluster, 21)
    assert (found.items, found.items_differing, found.items_unsettled) == (3, 1, 0)
    assert [one.detail for one in found.differences if one.kind == "noun"] == ["only on the target"]


async def test_after_the_switch_the_source_is_waited_for_where_it_lags(cluster: Cluster) -> None:
    build_target(cluster, good()[:59])
    shard = shard_of(IDS[59], 4)
    append(cluster, shard, [log_pb2.LogRecord(request_id="gone", delete_noun=IDS[59])], generation=0)
    switch(cluster)
    late = log_pb2.LogRecord(request_id="late", upsert_noun=good()[59])
    append(cluster, shard_of(IDS[59], SHARDS), [late])
    cluster.settle()
    waited: list[int] = []
    for node in cluster.nodes.values():
        wait = node.runtime.wait_applied

        async def catch_up(
            generation: int, number: int, session: list[Position], deadline: object, *, besides: bool, wait=wait
        ) -> None:
            assert besides
            assert {position.generation for position in session} == {1}
            if generation == 0 and not waited:
                append(cluster, shard, [late], generation=0)
                follow(cluster)
            waited.append(number)
            await wait(generation, number, session, deadline, besides=besides)

        node.runtime.wait_applied = catch_up  # type: ignore[method-assign,assignment]
    await call(cluster["a"].nouns.GetNouns, data_pb2.GetNounsRequest(ids=IDS[50:]))
    found = await until_compared(cluster, 1)
    assert (found.items, found.items_healed, found.items_differing, found.items_unsettled) == (10, 1, 0, 0)
    assert waited


async def test_after_the_switch_a_clients_read_is_not_answered_by_the_source(cluster: Cluster) -> None:
    """Asked as a client's read, the generation that follows sends whoever asks to the record; besides, it answers."""
    build_target(cluster, good())
    switch(cluster)
    position = Position(generation=1, shard=0, position=1)
    request = shard_pb2.GetItemsRequest(generation=0, noun_ids=IDS[:1], session=[position])
    shard = shard_of(IDS[0], 4)
    stub = cluster["abcb"[shard]]._stub(shard_pb2_grpc.ShardServiceStub)
    with pytest.raises(UnavailableError) as raised:
        await call(stub.GetItems, request)
    assert raised.value.reason == "STALE_ROUTING"
    request.with_positions = True
    assert [item.id for item in (await call(stub.GetItems, request)).nouns] == IDS[:1]


async def test_a_target_that_cannot_answer_is_a_failure_and_no_client_notices(cluster: Cluster) -> None:
    build_target(cluster, good())
    try_reads(cluster, weight=0.5, shadow=1.0)
    for node in cluster.nodes.values():
        node.runtime.shards = {key: shard for key, shard in node.runtime.shards.items() if key[0] == 0}
    for row in range(20):
        answer = await call(cluster["a"].search.Search, query(slice(row, row + 1), allow_partial=row % 2 == 0))
        assert answer.header.generation == 0
        assert list(answer.counts) == [5]
    found = await until_compared(cluster, 20)
    assert found.failed == 20
    assert found.reads_answered == 0
    assert 8 <= found.reads_fallen_back <= 12
    assert found.error_share > 0.9


async def test_a_wrong_call_is_not_held_against_the_target(cluster: Cluster) -> None:
    build_target(cluster, good())
    try_reads(cluster, weight=1.0)
    for _ in range(3):
        with pytest.raises(InvalidRequestError):
            await call(cluster["a"].search.Search, query(k=0))
        with pytest.raises(InvalidRequestError):
            await call(cluster["a"].search.Search, query(vectors=VECTORS[0].tobytes() * 2, dimensions=8))
        with pytest.raises(NotFoundError):
            await call(cluster["a"].search.Search, query(vectors=b"", dimensions=0, ids=["nobody"]))
    assert (await call(cluster["a"].search.Search, query())).header.generation == 1
    assert await compared(cluster) == Comparison(reads_answered=1)


async def test_what_only_the_source_can_answer_yet_it_answers(cluster: Cluster) -> None:
    build_target(cluster, good()[:59])
    try_reads(cluster, weight=1.0)
    answer = await call(cluster["a"].search.Search, query(vectors=b"", dimensions=0, ids=[IDS[59]]))
    assert answer.header.generation == 0
    assert answer.ids[0] == IDS[59]
    assert (await compared(cluster)).reads_fallen_back == 1


async def test_weighted_answers_carry_the_target_in_about_the_wished_share(cluster: Cluster) -> None:
    build_target(cluster, good())
    try_reads(cluster, weight=0.25)
    generations = []
    for n in range(200):
        answer = await call(cluster["a"].search.Search, query(slice(n % 60, n % 60 + 1)))
        generations.append(answer.header.generation)
        assert list(answer.counts) == [5]
    assert 46 <= generations.count(1) <= 54
    got = [
        (await call(cluster["b"].nouns.GetNouns, data_pb2.GetNounsRequest(ids=IDS[:3]))).header.generation
        for _ in range(80)
    ]
    assert 17 <= got.count(1) <= 23
    found = await compared(cluster)
    assert (found.reads_answered, found.reads_fallen_back) == (generations.count(1), 0)
    assert (await compared(cluster, "b")).reads_answered == got.count(1)


async def test_a_session_does_not_flip_and_is_the_same_at_every_door(cluster: Cluster) -> None:
    build_target(cluster, good())
    try_reads(cluster, weight=0.5)
    seen: dict[str, set[int]] = {}
    for n in range(24):
        for node_id in "abc":
            for position in (1, 2):
                token = Position(generation=0, shard=0, position=position)
                request = query(slice(0, 1), session=[token], session_id=f"session-{n}")
                answer = await call(cluster[node_id].search.Search, request)
                seen.setdefault(f"session-{n}", set()).add(answer.header.generation)
    assert all(len(generations) == 1 for generations in seen.values()), seen
    assert 6 <= sum(generations == {1} for generations in seen.values()) <= 18
    everybody = {name for name, generations in seen.items() if generations == {1}}
    try_reads(cluster, weight=0.9)
    for name in sorted(everybody):
        token = Position(generation=0, shard=0, position=1)
        answer = await call(cluster["a"].search.Search, query(slice(0, 1), session=[token], session_id=name))
        assert answer.header.generation == 1, "more weight moves nobody back"


async def test_no_shadow_no_cost_and_an_adopted_node_compares_nothing(cluster: Cluster) -> None:
    build_target(cluster, good())
    cluster.world.route(adopted={"a": 1}, reads=ReadTrial(generation=1, weight=0.5, shadow=1.0))
    cluster.settle()
    for _ in range(10):
        answer = await call(cluster["a"].search.Search, query())
        assert answer.header.generation == 1
    assert await compared(cluster) == Comparison()


async def test_clients_do_not_wait_for_a_target_that_hangs(cluster: Cluster) -> None:
    build_target(cluster, good(), owners="bc")  # nothing of it is on node a, whose clients these are
    try_reads(cluster, shadow=1.0)
    gates = []
    for node_id in "bc":
        runtime = cluster[node_id].runtime
        plain = runtime.spec

        async def spec_or_hang(generation: int, *, plain=plain) -> object:
            if generation == 1:
                gates.append(generation)
                await asyncio.Event().wait()
            return await plain(generation)

        runtime.spec = spec_or_hang  # type: ignore[method-assign,assignment]
    loop = asyncio.get_running_loop()
    began = loop.time()
    for n in range(120):
        answer = await call(cluster["a"].search.Search, query(slice(n % 60, n % 60 + 1)))
        assert answer.header.generation == 0
    took = loop.time() - began
    assert gates, "the target was asked"
    assert took < 4.0, "one call to the target alone would have taken five seconds"
    found = await compared(cluster)
    assert found.dropped >= 120 - 64 - 2, "what waits is bounded"
    assert found.asked == found.dropped


async def test_a_new_round_forgets_and_a_retired_trial_is_over(cluster: Cluster) -> None:
    build_target(cluster, good())
    try_reads(cluster, shadow=1.0)
    await search_all(cluster, range(5))
    assert (await until_compared(cluster, 5)).queries == 5
    try_reads(cluster, shadow=1.0, turn=2)
    assert await compared(cluster) == Comparison()
    await search_all(cluster, range(3))
    assert (await until_compared(cluster, 3)).queries == 3
    cluster.world.route(reads=None)
    cluster.settle()
    await search_all(cluster, range(3))
    assert (await compared(cluster)).queries == 3


async def test_recorded_queries_are_replayed_on_both_sides(cluster: Cluster) -> None:
    for row in range(30):
        await call(cluster["a"].search.Search, query(slice(row, row + 1)))
    build_target(cluster, [item for n, item in enumerate(good()) if n % 3])
    stub = cluster["a"]._stub(traffic_pb2_grpc.TrafficServiceStub)
    request = traffic_pb2.ReplayQueriesRequest(source_generation=0, target_generation=1, limit=20, k=5)
    found = comparison_from_proto((await call(stub.ReplayQueries, request)).comparison)
    assert found.asked == found.recall_queries == found.queries == 20
    assert found.overlap is not None
    assert found.overlap < 0.9
    assert found.source_recall == 1.0
    assert found.target_recall == 1.0
    assert np.sum(found.target_latency) == 20
    with pytest.raises(UnavailableError):
        await call(stub.ReplayQueries, traffic_pb2.ReplayQueriesRequest(source_generation=0, target_generation=7))


async def test_queries_made_of_nouns_where_nobody_has_asked_anything(cluster: Cluster) -> None:
    build_target(cluster, [item for n, item in enumerate(good()) if n % 3])
    stub = cluster["a"]._stub(traffic_pb2_grpc.TrafficServiceStub)

    async def replay(**fields: Any) -> traffic_pb2.ReplayQueriesResponse:
        request = traffic_pb2.ReplayQueriesRequest(source_generation=0, target_generation=1, limit=12, k=5, **fields)
        return await call(stub.ReplayQueries, request)

    answer = await replay()
    assert (answer.recorded, answer.sampled, answer.comparison.queries) == (0, 0, 0)
    answer = await replay(sample_nouns=True)
    assert (answer.recorded, answer.sampled) == (0, 12)
    found = comparison_from_proto(answer.comparison)
    assert found.queries == found.recall_queries == 12
    assert found.overlap is not None
    assert 0.3 < found.overlap < 0.9
    # The same part asks the same, another asks others.
    assert (await replay(sample_nouns=True)).comparison.hits_shared == answer.comparison.hits_shared
    other = await replay(sample_nouns=True, part=1)
    assert [d.id for d in other.comparison.differences] != [d.id for d in answer.comparison.differences]
    for row in range(5):
        await call(cluster["a"].search.Search, query(slice(row, row + 1)))
    answer = await replay(sample_nouns=True)
    assert (answer.recorded, answer.sampled, answer.comparison.queries) == (5, 7, 12)
    none = await replay(sample_nouns=True, within_milliseconds=1, part=3)
    assert none.comparison.queries < 12
