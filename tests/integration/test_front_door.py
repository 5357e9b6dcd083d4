"""Any node answers for the whole namespace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from door_cluster import IDS, VECTORS, fill, nearest, noun, query, three_nodes, upsert
from node_cluster import Cluster

from brainy.api.common.v1.common_pb2 import Verb
from brainy.api.node.v1 import control_pb2, data_pb2, search_pb2, shard_pb2
from brainy.bucket import layout
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.partition import shard_of
from brainy.changelog.batch import decode_batch
from brainy.errors import (
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from brainy.rpc.channel import call, stream


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with three_nodes(tmp_path) as made:
        yield made


async def test_every_node_gives_the_same_exact_answer(cluster: Cluster) -> None:
    await fill(cluster)
    for node in cluster.nodes.values():
        answer = await call(node.search.Search, query(slice(0, 3), exact=True, include_metadata=True))
        assert list(answer.counts) == [5, 5, 5]
        assert list(answer.ids) == nearest(0, 5) + nearest(1, 5) + nearest(2, 5)
        distances = np.frombuffer(answer.distances, "<f4").reshape(3, 5)
        assert (np.diff(distances, axis=1) >= 0).all()
        assert distances[:, 0] == pytest.approx([0, 0, 0], abs=1e-6)
        assert [bytes(m) for m in answer.metadata] == [b'{"n":%s}' % i[5:].encode() for i in answer.ids]
        assert answer.header.node_id == node.node_id
        assert answer.header.routing_epoch == cluster.world.routing.epoch
        assert answer.header.coverage.shards_total == answer.header.coverage.shards_answered == 4


async def test_a_search_may_name_stored_nouns(cluster: Cluster) -> None:
    await fill(cluster)
    request = query(vectors=b"", dimensions=0, ids=[IDS[9], IDS[2]], k=3)
    answer = await call(cluster["a"].search.Search, request)
    assert list(answer.ids) == nearest(9, 3) + nearest(2, 3)
    assert not answer.metadata
    with pytest.raises(NotFoundError) as caught:
        await call(cluster["a"].search.Search, query(vectors=b"", dimensions=0, ids=[IDS[9], "nobody"]))
    assert caught.value.fields["index"] == "1"


async def test_big_batches_leave_the_event_loop_and_answer_alike(cluster: Cluster) -> None:
    await fill(cluster)
    matrix = np.tile(VECTORS, (3, 1))
    answer = await call(cluster["b"].search.Search, query(vectors=matrix.tobytes(), k=2))
    assert list(answer.counts) == [2] * 180
    assert list(answer.ids[::2]) == IDS * 3


async def test_k_beyond_what_is_stored_returns_all(cluster: Cluster) -> None:
    await fill(cluster)
    answer = await call(cluster["c"].search.Search, query(k=1000))
    assert list(answer.counts) == [60]
    assert sorted(answer.ids) == sorted(IDS)


async def test_reads_by_id_come_in_order_once_and_without_the_absent(cluster: Cluster) -> None:
    await fill(cluster)
    asked = [IDS[5], "nobody", IDS[3], IDS[5], IDS[40]]
    for node in cluster.nodes.values():
        answer = await call(node.nouns.GetNouns, data_pb2.GetNounsRequest(ids=asked, include_vectors=True))
        assert [found.id for found in answer.nouns] == [IDS[5], IDS[3], IDS[40]]
        assert answer.nouns[0].vector == VECTORS[5].tobytes()
    bare = await call(cluster["a"].nouns.GetNouns, data_pb2.GetNounsRequest(ids=asked))
    assert [bool(found.vector) for found in bare.nouns] == [False] * 3
    assert bare.nouns[0].metadata == b'{"n":5}'


async def test_a_scan_passes_each_noun_once(cluster: Cluster) -> None:
    await fill(cluster)
    request = data_pb2.ScanNounsRequest(include_vectors=True, include_soft_deleted=True)
    seen = [n.id async for m in stream(cluster["a"].nouns.ScanNouns, request) for n in m.nouns]
    assert sorted(seen) == sorted(IDS)


async def test_verbs_are_written_found_and_deleted(cluster: Cluster) -> None:
    verbs = [
        Verb(id=f"v{n}", source_id=IDS[n % 3], target_id=IDS[n], type="even" if n % 2 == 0 else "odd", weight=0.5)
        for n in range(30)
    ]
    await call(cluster["c"].verbs.UpsertVerbs, data_pb2.UpsertVerbsRequest(verbs=verbs))
    cluster.settle()

    async def find(**fields: Any) -> set[str]:
        request = data_pb2.FindVerbsRequest(**fields)
        return {v.id async for m in stream(cluster["a"].verbs.FindVerbs, request) for v in m.verbs}

    assert await find(source_id=IDS[1]) == {f"v{n}" for n in range(1, 30, 3)}
    assert await find(source_id=IDS[1], type="odd") == {f"v{n}" for n in range(1, 30, 6)}
    assert await find(target_id=IDS[7]) == {"v7"}
    assert await find(type="even") == {f"v{n}" for n in range(0, 30, 2)}
    assert await find() == {f"v{n}" for n in range(30)}
    got = await call(cluster["b"].verbs.GetVerbs, data_pb2.GetVerbsRequest(ids=["v4", "nope", "v1"]))
    assert [v.id for v in got.verbs] == ["v4", "v1"]
    assert got.verbs[0].weight == 0.5
    await call(cluster["b"].verbs.DeleteVerbs, data_pb2.DeleteVerbsRequest(ids=["v7", "nope"]))
    cluster.settle()
    assert await find(target_id=IDS[7]) == set()


async def test_statistics_are_summed_and_performance_is_the_nodes_own(cluster: Cluster) -> None:
    await fill(cluster)
    await call(cluster["a"].nouns.DeleteNouns, data_pb2.DeleteNounsRequest(ids=IDS[:10]))
    cluster.settle()
    for node in cluster.nodes.values():
        figures = await call(node.statistics.GetStatistics, data_pb2.GetStatisticsRequest())
        assert (figures.noun_count, figures.verb_count, figures.dimensions) == (50, 0, 4)
        assert dict(figures.nouns_by_type) == {"": 50}
    await call(cluster["a"].search.Search, query(slice(10, 13)))
    own = await call(cluster["a"].statistics.GetPerformanceMetrics, data_pb2.GetPerformanceMetricsRequest())
    assert own.total_searches == 3
    assert own.average_search_milliseconds > 0
    assert own.memory_usage > 1 << 20
    assert dict(own.store_calls) == {"get": 3}
    assert own.shard_searches == 2  # one call, two shards here
    assert own.shard_searches_from_disk <= own.shard_searches
    assert own.vector_bytes == sum(16 * shard.base_rows for shard in cluster["a"].runtime.shards.values())
    assert (own.index_bytes > 0) == (own.vector_bytes > 0)
    assert own.tail_size == sum(shard.tail_records for shard in cluster["a"].runtime.shards.values())
    assert list(own.header.coverage.shards_missing) == [1, 3]
    for method in ("ListUnindexed", "ListQuarantine"):
        request = getattr(data_pb2, f"{method}Request")()
        assert [m async for m in stream(getattr(cluster["a"].statistics, method), request)] == []


@pytest.mark.parametrize(
    ("request_", "kind", "reason"),
    [
        (query(k=0), InvalidRequestError, "INVALID_K"),
        (query(k=10_001), InvalidRequestError, "INVALID_K"),
        (query(dimensions=5), InvalidRequestError, "INVALID_DIMENSION"),
        (query(vectors=b"\0" * 17), InvalidRequestError, "INVALID_DIMENSION"),
        (query(vectors=b"\0" * 16), InvalidRequestError, "INVALID_VECTOR"),
        (query(vectors=b"\xff" * 16), InvalidRequestError, "INVALID_VECTOR"),
        (query(vectors=b""), InvalidRequestError, "INVALID_ARGUMENT"),
        (query(ids=["x"]), InvalidRequestError, "INVALID_ARGUMENT"),
        (query(vectors=b"", ids=["x\0"]), InvalidRequestError, "INVALID_ID"),
        (query(namespace="s3://other"), NotFoundError, "UNKNOWN_NAMESPACE"),
    ],
)
async def test_what_a_search_is_refused_for(
    cluster: Cluster, request_: search_pb2.SearchRequest, kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind) as caught:
        await call(cluster["a"].search.Search, request_)
    assert caught.value.reason == reason  # type: ignore[attr-defined]


async def test_a_cancelled_search_cancels_what_it_asked_of_peers(cluster: Cluster) -> None:
    await fill(cluster)
    gate = cluster["b"].runtime.gate = cluster["c"].runtime.gate = asyncio.Event()
    searching = asyncio.create_task(call(cluster["a"].search.Search, query()))
    arrived = [asyncio.create_task(cluster[n].runtime.arrived.wait()) for n in "bc"]
    await asyncio.wait_for(asyncio.wait(arrived, return_when=asyncio.FIRST_COMPLETED), 15)
    searching.cancel()
    method = "/brainy.api.node.v1.ShardService/SearchShards"
    async with asyncio.timeout(25):  # far less than the grace: nothing is left that a drain would wait for
        for node in cluster.nodes.values():
            await node.server.drain(30)
    assert sum(cluster[n].server.metrics.of(method).cancelled for n in "bc") >= 1
    assert cluster["a"].server.metrics.of("/brainy.api.node.v1.SearchService/Search").cancelled == 1
    gate.set()
    for task in arrived:
        task.cancel()


async def test_shard_service_refuses_what_is_not_here(cluster: Cluster) -> None:
    shards = cluster["a"].shard_service
    fields = {"vectors": VECTORS[0].tobytes(), "dimensions": 4, "k": 1}
    with pytest.raises(UnavailableError) as caught:
        await call(shards.SearchShards, shard_pb2.SearchShardsRequest(generation=0, shards=[1], **fields))
    assert (caught.value.reason, caught.value.fields["shard"]) == ("SHARD_NOT_READY", "1")
    with pytest.raises(UnavailableError) as caught:
        await call(shards.SearchShards, shard_pb2.SearchShardsRequest(generation=9, shards=[0], **fields))
    assert caught.value.reason == "STALE_ROUTING"
    with pytest.raises(UnavailableError) as caught:
        await call(shards.CommitRecords, shard_pb2.CommitRecordsRequest(generation=0, shard=1), write=True)
    assert caught.value.reason == "NOT_OWNER"


async def test_a_log_is_followed_from_the_middle_and_on(cluster: Cluster) -> None:
    target = [n for n in range(60) if shard_of(IDS[n], 4) == 0][:3]
    for n in target[:2]:
        await call(cluster["a"].nouns.UpsertNouns, upsert(noun(n)))
    slots = stream(cluster["a"].shard_service.FollowLog, shard_pb2.FollowLogRequest(shard=0, from_position=2))
    first = await anext(slots)
    assert (first.first_position, first.last_position) == (2, 2)
    assert decode_batch(first.object, key=layout.log_slot(0, 0, 2)).records[0].upsert_noun.id == IDS[target[1]]
    await call(cluster["a"].nouns.UpsertNouns, upsert(noun(target[2])))
    assert (await asyncio.wait_for(anext(slots), 15)).first_position == 3
    draining = asyncio.create_task(cluster["a"].server.drain(30))  # an endless stream does not hold it up
    with pytest.raises(UnavailableError) as caught:
        await anext(slots)
    assert caught.value.reason == "DRAINING"
    await asyncio.wait_for(draining, 15)


async def test_control_reaches_the_runtime(cluster: Cluster) -> None:
    await fill(cluster)
    control = cluster["a"].control
    cluster.world.route(phase="draining")
    applied = await call(
        control.ApplyRouting, control_pb2.ApplyRoutingRequest(routing_epoch=cluster.world.routing.epoch)
    )
    assert applied.routing_epoch == cluster.world.routing.epoch
    assert [p.shard for p in applied.positions] == [0, 2]
    states = await call(control.ListShardStates, control_pb2.ListShardStatesRequest())
    assert [(r.generation, r.shard) for r in states.replicas] == [(0, 0), (0, 2)]
    digest = await call(control.GetDigest, control_pb2.GetDigestRequest(generation=0, shards=[0, 2]))
    assert digest.noun_count == sum(shard_of(i, 4) in (0, 2) for i in IDS)
    assert MultisetDigest.decode(digest.digest) != MultisetDigest()
    await call(control.Drain, control_pb2.DrainRequest())
    assert cluster["a"].drain_asked.is_set()
