"""Any node answers for the whole namespace while others fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from door_cluster import IDS, VECTORS, fill, nearest, query, three_nodes, upsert, within
from node_cluster import Cluster, spec

from brainy.api.common.v1.common_pb2 import Noun
from brainy.api.node.v1 import data_pb2
from brainy.bucket.partition import shard_of
from brainy.bucket.records import GenerationPlacement
from brainy.errors import UnavailableError
from brainy.rpc.channel import call, stream
from brainy_node.router import fan_out


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with three_nodes(tmp_path) as made:
        yield made


async def test_the_shards_of_a_dead_peer_are_answered_by_others(cluster: Cluster) -> None:
    await fill(cluster)
    await cluster["b"].kill()
    for _ in range(4):
        answer = await call(cluster["a"].search.Search, query(exact=True), deadline=within(20))
        assert list(answer.ids) == nearest(0, 5)
        assert answer.header.coverage.shards_answered == 4
    got = await call(cluster["a"].nouns.GetNouns, data_pb2.GetNounsRequest(ids=IDS), deadline=within(20))
    assert len(got.nouns) == 60
    figures = await call(cluster["a"].statistics.GetStatistics, data_pb2.GetStatisticsRequest())
    assert figures.noun_count == 60


async def test_a_peer_that_dies_in_the_middle_of_a_search_is_replaced(cluster: Cluster) -> None:
    await fill(cluster)
    cluster.world.place(0, 1, "b")
    cluster.world.place(0, 3, "b")
    cluster.settle()
    gate = cluster["b"].runtime.gate = asyncio.Event()
    searching = asyncio.create_task(call(cluster["a"].search.Search, query(exact=True), deadline=within(20)))
    await asyncio.wait_for(cluster["b"].runtime.arrived.wait(), 15)
    cluster.world.place(0, 1, "c")  # c holds both as well: it takes over while b is being asked
    cluster.world.place(0, 3, "c")
    await cluster["b"].kill()
    assert list((await searching).ids) == nearest(0, 5)
    assert cluster["a"].runtime.refreshes > 0
    gate.set()


async def test_a_peer_that_hangs_is_given_up_while_another_is_left(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "ATTEMPT_SECONDS", 0.2)
    await fill(cluster)
    gate = cluster["b"].runtime.gate = asyncio.Event()
    for _ in range(2):
        answer = await call(cluster["a"].search.Search, query(exact=True), deadline=within(20))
        assert list(answer.ids) == nearest(0, 5)
    gate.set()


async def test_without_any_replica_the_answer_is_an_error_that_names_the_shards(cluster: Cluster) -> None:
    await fill(cluster)
    await cluster["b"].kill()
    await cluster["c"].kill()
    with pytest.raises(UnavailableError) as caught:
        await call(cluster["a"].search.Search, query(), deadline=within(0.6))
    assert caught.value.reason == "SHARD_NOT_READY"
    assert caught.value.fields["shards"] == "1,3"


async def test_a_partial_answer_says_what_is_missing(cluster: Cluster) -> None:
    await fill(cluster)
    await cluster["b"].kill()
    await cluster["c"].kill()
    answer = await call(cluster["a"].search.Search, query(allow_partial=True, exact=True), deadline=within(5))
    reachable = [n for n in range(60) if shard_of(IDS[n], 4) in (0, 2)]
    assert list(answer.ids) == nearest(0, 5, reachable)  # type: ignore[arg-type]
    assert list(answer.header.coverage.shards_missing) == [1, 3]
    assert answer.header.coverage.shards_answered == 2


async def test_a_replica_that_is_gone_sends_the_caller_to_the_routing_record(cluster: Cluster) -> None:
    await fill(cluster)
    for node_id in "bc":  # they dropped shard 1, d has it, and a does not know yet
        del cluster[node_id].runtime.shards[0, 1]
    await cluster.add("d")
    cluster.world.place(0, 1, "d")
    cluster["d"].runtime.routing = cluster.world.routing
    cluster["d"].runtime.hold_shard(0, 1)
    answer = await call(cluster["a"].search.Search, query(exact=True), deadline=within(20))
    assert list(answer.ids) == nearest(0, 5)
    assert cluster["a"].runtime.refreshes == 1


async def test_a_scan_that_breaks_half_way_goes_on_elsewhere_without_repeats(cluster: Cluster) -> None:
    many = [Noun(id=f"m{n}", vector=VECTORS[n % 60].tobytes()) for n in range(5_000)]
    for start in range(0, len(many), 1000):
        await call(cluster["a"].nouns.UpsertNouns, upsert(*many[start : start + 1000]))
    cluster.settle()
    broken: list[str] = []

    def break_once(node_id: str) -> None:
        shard = cluster[node_id].runtime.shards[0, 1]
        whole = shard.scan_nouns

        def scan(**options: bool) -> Iterator[list[Any]]:
            batches = whole(**options)
            yield next(batches)
            if not broken:
                broken.append(node_id)
                raise UnavailableError("the node goes away")
            yield from batches

        shard.scan_nouns = scan  # type: ignore[method-assign,assignment]

    break_once("b")
    break_once("c")
    request = data_pb2.ScanNounsRequest()
    seen = [n.id async for m in stream(cluster["a"].nouns.ScanNouns, request) for n in m.nouns]
    assert len(broken) == 1
    assert len(seen) == len(set(seen)) == 5_000


async def test_the_generation_may_change_between_two_attempts(cluster: Cluster) -> None:
    await fill(cluster)
    world = cluster.world
    world.specs[1] = spec(1, shards=2)
    placement = GenerationPlacement(state="serving", shard_count=2)
    world.route(generations={**world.routing.generations, 1: placement})
    world.place(1, 0, "b")
    world.place(1, 1, "c")
    cluster.settle()
    world.route(active=1, write=1, generations={1: world.routing.generations[1]})
    for node_id in "bc":
        cluster[node_id].runtime.routing = world.routing
    for node in cluster.nodes.values():
        node.runtime.shards = {key: shard for key, shard in node.runtime.shards.items() if key[0] == 1}
    answer = await call(cluster["a"].search.Search, query(), deadline=within(20))  # a still thinks 0
    assert answer.header.generation == 1
    assert list(answer.counts) == [0]
    assert answer.header.coverage.shards_total == 2
