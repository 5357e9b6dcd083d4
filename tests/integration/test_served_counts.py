"""What a front door counts of the calls it serves, and what it does not hold against a generation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from door_cluster import IDS, VECTORS, fill, noun, query, three_nodes, upsert, within
from node_cluster import NAMESPACE, Cluster
from test_tried_reads import build_target, good, try_reads

from brainy.api.common.v1.common_pb2 import Noun
from brainy.api.node.v1 import data_pb2
from brainy.errors import BrainyError, UnavailableError
from brainy.rpc.channel import call, stream
from brainy.traffic.serving import Calls, Serving, served_from_proto


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with three_nodes(tmp_path) as made:
        await fill(made)
        yield made


def counted(cluster: Cluster, generation: int = 0, node_id: str = "a") -> Serving:
    """What the node would say in its next heartbeat."""
    told = cluster[node_id].served.report(NAMESPACE, (0, 1))
    return served_from_proto(told).get((NAMESPACE, generation), Serving())


def figures(calls: Calls) -> tuple[int, int, int]:
    return calls.count, calls.failed, sum(calls.latency)


async def until_counted(cluster: Cluster, reads: int) -> Serving:
    """The caller may have its answer a moment before the call is counted."""
    deadline = within(30.0)
    while (found := counted(cluster)).reads.count < reads:
        assert not deadline.passed, found
        await asyncio.sleep(0.01)
    return found


async def test_every_read_and_write_counts_for_the_generation_that_served_it(cluster: Cluster) -> None:
    before = counted(cluster)
    assert figures(before.writes) == (1, 0, 1)
    for row in range(5):
        await call(cluster["a"].search.Search, query(slice(row, row + 1)))
    await call(cluster["a"].nouns.GetNouns, data_pb2.GetNounsRequest(ids=IDS[:3]))
    await call(cluster["a"].verbs.GetVerbs, data_pb2.GetVerbsRequest(ids=["none"]))
    async for _ in stream(cluster["a"].verbs.FindVerbs, data_pb2.FindVerbsRequest(source_id=IDS[0])):
        pass
    await call(cluster["a"].nouns.UpsertNouns, upsert(noun(0)))
    await call(cluster["a"].nouns.DeleteNouns, data_pb2.DeleteNounsRequest(ids=[IDS[0]]))
    found = await until_counted(cluster, 8)
    assert (figures(found.reads), figures(found.writes)) == ((8, 0, 8), (3, 0, 3))
    assert found.since(before).writes.count == 2
    assert 0.0 < found.reads.p99_seconds < 30.0
    assert counted(cluster, 1) == Serving()
    assert counted(cluster, 0, "b") == Serving(), "the peers that were asked have served nobody"


async def test_mistakes_of_the_caller_are_no_calls(cluster: Cluster) -> None:
    writes = counted(cluster).writes
    wrong = (
        (cluster["a"].search.Search, query(k=0)),
        (cluster["a"].search.Search, query(ids=["nobody"], vectors=b"", dimensions=0)),
        (cluster["a"].search.Search, query(vectors=VECTORS[0][:3].tobytes(), dimensions=3)),
        (cluster["a"].nouns.GetNouns, data_pb2.GetNounsRequest(ids=[""])),
        (cluster["a"].nouns.UpsertNouns, upsert(Noun(id="x", vector=b"123"))),
    )
    for method, request in wrong:
        with pytest.raises(BrainyError) as refused:
            await call(method, request)
        assert not isinstance(refused.value, UnavailableError)
    await call(cluster["a"].search.Search, query())
    assert figures((await until_counted(cluster, 1)).reads) == (1, 0, 1)
    assert counted(cluster).writes == writes


async def test_what_no_replica_answers_in_time_has_failed_unless_the_time_was_too_short(cluster: Cluster) -> None:
    await cluster["b"].kill()
    await cluster["c"].kill()
    gone = query(exact=True)
    with pytest.raises(UnavailableError):
        await call(cluster["a"].search.Search, gone, deadline=within(0.3))
    with pytest.raises(UnavailableError):
        await call(cluster["a"].search.Search, gone, deadline=within(1.5))
    found = await until_counted(cluster, 1)
    assert figures(found.reads) == (1, 1, 1)
    assert found.reads.p99_seconds > 0.5, "whoever waits in vain waits all the same"
    before = found.writes
    with pytest.raises(BrainyError):
        await call(cluster["a"].nouns.UpsertNouns, upsert(*[noun(n) for n in range(60)]), deadline=within(1.5))
    assert figures(counted(cluster).writes.since(before)) == (1, 1, 1)


async def test_a_call_that_is_given_up_or_goes_over_a_turn_is_nobodys(cluster: Cluster) -> None:
    runtime = cluster["a"].runtime
    runtime.gate = asyncio.Event()
    given_up = asyncio.create_task(call(cluster["a"].search.Search, query(), deadline=within(60)))
    await asyncio.wait_for(runtime.arrived.wait(), 30)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    runtime.arrived.clear()
    reading = asyncio.create_task(call(cluster["a"].search.Search, query(), deadline=within(60)))
    await asyncio.wait_for(runtime.arrived.wait(), 30)
    build_target(cluster, good())
    cluster.world.route(active=1, write=1)
    cluster.settle()
    runtime.gate.set()
    runtime.gate = None
    await reading
    await call(cluster["a"].search.Search, query(), deadline=within(30))
    assert counted(cluster).reads.count == 0
    assert figures(counted(cluster, 1).reads) == (1, 0, 1)


async def test_a_tried_read_counts_for_the_target_and_what_is_gone_is_forgotten(cluster: Cluster) -> None:
    build_target(cluster, good())
    try_reads(cluster, weight=1.0)
    answer = await call(cluster["a"].search.Search, query())
    assert answer.header.generation == 1
    assert figures(counted(cluster, 1).reads) == (1, 0, 1)
    assert counted(cluster).reads.count == 0
    assert cluster["a"].served.report(NAMESPACE, (0,))[0].generation == 0
    assert counted(cluster, 1) == Serving()
    assert cluster["a"].served.report("memory://another", (0, 1)) == []
