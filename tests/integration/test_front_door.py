"""Any node answers for the whole namespace, also while others fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from node_cluster import NAMESPACE, Cluster, spec, world_of

from brainy.api.common.v1.common_pb2 import Noun, Position, Verb
from brainy.api.node.v1 import control_pb2, data_pb2, search_pb2, shard_pb2
from brainy.bucket import layout
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.partition import shard_of
from brainy.bucket.records import GenerationPlacement
from brainy.changelog.batch import decode_batch
from brainy.clock import Deadline, SystemClock
from brainy.errors import (
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from brainy.rpc.channel import call, stream
from brainy_node.router import fan_out

RNG = np.random.default_rng(7)
VECTORS = RNG.normal(size=(60, 4)).astype("<f4")
IDS = [f"noun-{n}" for n in range(60)]


def noun(number: int, **fields: Any) -> Noun:
    document = b'{"n": %d}' % number
    return Noun(**{"id": IDS[number], "vector": VECTORS[number].tobytes(), "metadata": document} | fields)


def upsert(*nouns: Noun, request_id: str = "") -> data_pb2.UpsertNounsRequest:
    return data_pb2.UpsertNounsRequest(namespace=NAMESPACE, request_id=request_id, nouns=nouns)


def query(rows: slice = slice(0, 1), **fields: Any) -> search_pb2.SearchRequest:
    return search_pb2.SearchRequest(
        **{"namespace": NAMESPACE, "vectors": VECTORS[rows].tobytes(), "dimensions": 4, "k": 5} | fields
    )


def nearest(row: int, k: int, among: range = range(60)) -> list[str]:
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    distances = 1 - unit @ unit[row]
    return [IDS[n] for n in sorted(among, key=lambda n: distances[n])[:k]]


def within(seconds: float) -> Deadline:
    return Deadline.after(SystemClock(), seconds)


async def fill(cluster: Cluster, node_id: str = "a") -> data_pb2.UpsertNounsResponse:
    answer = await call(cluster[node_id].nouns.UpsertNouns, upsert(*[noun(n) for n in range(60)]))
    cluster.settle()
    return answer


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Nodes a, b, c; four shards, each with an owner and one replica; none is on all nodes."""
    made = Cluster(world_of(tmp_path, spec()))
    for node_id in "abc":
        await made.add(node_id)
    for shard, holders in enumerate(["ab", "bc", "ca", "bc"]):
        made.world.place(0, shard, *holders)
    made.settle()
    yield made
    await made.close()


# -- fan-out ---------------------------------------------------------------------------------------------


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


# -- failures --------------------------------------------------------------------------------------------


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


# -- sessions --------------------------------------------------------------------------------------------


async def test_a_read_with_a_session_sees_the_write_on_every_node(cluster: Cluster) -> None:
    await fill(cluster)
    for node in cluster.nodes.values():
        node.runtime.lagging = True
    moved = Noun(id=IDS[1], vector=VECTORS[0].tobytes())
    written = await call(cluster["b"].nouns.UpsertNouns, upsert(moved))
    (position,) = written.positions
    assert (position.generation, position.shard) == (0, shard_of(IDS[1], 4))
    replica = next(r for r in "abc" if r in cluster.world.routing.generations[0].shards[position.shard].replicas)
    reading = asyncio.create_task(
        call(
            cluster[replica].search.Search,
            query(k=2, exact=True, session=written.positions),
            deadline=within(20),
        )
    )
    await asyncio.sleep(0)
    assert not reading.done()
    for node in cluster.nodes.values():
        node.runtime.lagging = False
    async with cluster.world.changed:
        cluster.world.changed.notify_all()
    assert set((await reading).ids) == {IDS[0], IDS[1]}
    got = await call(
        cluster[replica].nouns.GetNouns,
        data_pb2.GetNounsRequest(ids=[IDS[1]], include_vectors=True, session=written.positions),
    )
    assert got.nouns[0].vector == VECTORS[0].tobytes()


async def test_a_replica_that_lags_behind_the_session_is_left_for_the_owner(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "ATTEMPT_SECONDS", 0.2)
    await fill(cluster)
    target = next(n for n in range(1, 60) if shard_of(IDS[n], 4) == 2)  # owned by c, replica on a
    cluster["a"].runtime.lagging = True
    moved = Noun(id=IDS[target], vector=VECTORS[0].tobytes())
    written = await call(cluster["c"].nouns.UpsertNouns, upsert(moved))
    request = query(k=2, exact=True, session=written.positions)
    answer = await call(cluster["a"].search.Search, request, deadline=within(20))
    assert set(answer.ids) == {IDS[0], IDS[target]}


async def test_a_session_of_a_newer_generation_refreshes_the_routing_record(cluster: Cluster) -> None:
    newer = [Position(generation=3, shard=0, position=1)]
    with pytest.raises(UnavailableError) as caught:
        await call(cluster["a"].search.Search, query(session=newer), deadline=within(0.5))
    assert caught.value.reason in ("STALE_ROUTING", "UNAVAILABLE")  # or the client's own deadline, on a busy machine
    world = cluster.world
    world.specs[3] = spec(3, shards=1)
    generations = {**world.routing.generations, 3: GenerationPlacement(state="serving", shard_count=1)}
    world.route(generations=generations, active=3)
    world.place(3, 0, "b")
    cluster["b"].runtime.hold_shard(3, 0)
    cluster["b"].runtime.shards[3, 0].applied = 1
    before = cluster["a"].runtime.refreshes
    answer = await call(cluster["a"].search.Search, query(session=newer), deadline=within(20))
    assert answer.header.generation == 3
    assert cluster["a"].runtime.refreshes > before


# -- writes ----------------------------------------------------------------------------------------------


async def test_a_write_is_forwarded_to_the_owners(cluster: Cluster) -> None:
    answer = await fill(cluster, "c")
    assert [(p.generation, p.shard) for p in answer.positions] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    for position in answer.positions:
        records = cluster.world.records(0, position.shard)
        assert position.position == len(records)
        assert all(shard_of(record.upsert_noun.id, 4) == position.shard for record in records)
        assert len(cluster.world.logs[0, position.shard]) == 1  # visible together


async def test_request_ids_are_per_record_and_a_repeat_has_no_effect(cluster: Cluster) -> None:
    request = upsert(*[noun(n) for n in range(20)], request_id="R")
    first = await call(cluster["a"].nouns.UpsertNouns, request)
    again = await call(cluster["b"].nouns.UpsertNouns, request)
    assert again.positions == first.positions
    ids = [r.request_id for s in range(4) for r in cluster.world.records(0, s)]
    assert sorted(ids) == sorted(f"R/{n}" for n in range(20))
    await call(cluster["a"].nouns.UpsertNouns, upsert(noun(1)))
    generated = [r.request_id for s in range(4) for r in cluster.world.records(0, s)][-1:]
    assert all(ids)
    assert generated


async def test_a_write_follows_the_shard_to_its_new_owner(cluster: Cluster) -> None:
    target = next(n for n in range(60) if shard_of(IDS[n], 4) == 1)
    cluster.world.place(0, 1, "c", "b")  # b knows, a does not
    cluster["b"].runtime.routing = cluster["c"].runtime.routing = cluster.world.routing
    answer = await call(cluster["a"].nouns.UpsertNouns, upsert(noun(target)), deadline=within(20))
    assert answer.positions[0].position == 1
    assert cluster["a"].runtime.refreshes == 1
    assert len(cluster.world.records(0, 1)) == 1


@pytest.mark.parametrize("reason", ["SHARD_NOT_READY", "DRAINING", "STALE_ROUTING", "UNAVAILABLE"])
async def test_a_write_waits_out_a_passing_refusal(cluster: Cluster, reason: str) -> None:
    owner = cluster["b"].runtime
    owner.refuse_commits = reason
    target = next(n for n in range(60) if shard_of(IDS[n], 4) == 1)
    writing = asyncio.create_task(call(cluster["a"].nouns.UpsertNouns, upsert(noun(target)), deadline=within(20)))
    door = cluster["a"].runtime
    async with asyncio.timeout(15), door.refreshed:
        await door.refreshed.wait_for(lambda: door.refreshes >= 3)
    owner.refuse_commits = ""
    assert (await writing).positions[0].position == 1


async def test_a_full_buffer_is_the_clients_to_know(cluster: Cluster) -> None:
    cluster["b"].runtime.refuse_commits = "BUFFER_FULL"
    target = next(n for n in range(60) if shard_of(IDS[n], 4) == 1)
    with pytest.raises(grpc.aio.AioRpcError) as plain:
        await cluster["a"].nouns.UpsertNouns(upsert(noun(target)))
    assert plain.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(UnavailableError) as caught:
        await call(cluster["a"].nouns.UpsertNouns, upsert(noun(target)), write=True)
    assert caught.value.reason == "BUFFER_FULL"
    assert caught.value.data_safe
    assert cluster["a"].runtime.refreshes == 0


async def test_a_write_that_was_done_in_part_says_so_and_can_be_repeated(cluster: Cluster) -> None:
    cluster["b"].runtime.refuse_commits = "BUFFER_FULL"  # owner of shards 1 and 3
    request = upsert(*[noun(n) for n in range(60)], request_id="P")
    with pytest.raises(UnavailableError) as caught:
        await call(cluster["a"].nouns.UpsertNouns, request, write=True)
    assert not caught.value.data_safe
    written = sum(len(cluster.world.records(0, s)) for s in range(4))
    assert caught.value.fields["records_written"] == str(written)
    assert 0 < written < 60
    cluster["b"].runtime.refuse_commits = ""
    await call(cluster["c"].nouns.UpsertNouns, request)
    assert sum(len(cluster.world.records(0, s)) for s in range(4)) == 60


async def test_an_owner_that_dies_with_a_write_in_its_hands_leaves_the_outcome_unknown(
    cluster: Cluster,
) -> None:
    owner = cluster["b"].runtime
    owner.gate = asyncio.Event()
    target = next(n for n in range(60) if shard_of(IDS[n], 4) == 1)
    writing = asyncio.create_task(
        call(cluster["a"].nouns.UpsertNouns, upsert(noun(target), request_id="U"), deadline=within(1.5))
    )
    await asyncio.wait_for(owner.arrived.wait(), 15)
    await cluster["b"].kill()
    with pytest.raises(OutcomeUnknownError) as caught:
        await writing
    assert caught.value.fields["request_id"] == "U"
    assert not caught.value.data_safe


async def test_a_write_leaves_a_hanging_owner_as_soon_as_there_is_a_new_one(cluster: Cluster) -> None:
    owner = cluster["b"].runtime
    owner.gate = asyncio.Event()
    target = next(n for n in range(60) if shard_of(IDS[n], 4) == 1)
    writing = asyncio.create_task(call(cluster["a"].nouns.UpsertNouns, upsert(noun(target)), deadline=within(20)))
    await asyncio.wait_for(owner.arrived.wait(), 15)
    cluster.world.place(0, 1, "c", "b")
    cluster["c"].runtime.routing = cluster["a"].runtime.routing = cluster.world.routing
    answer = await asyncio.wait_for(writing, 15)
    assert answer.positions[0].position == 1
    owner.gate.set()


async def test_nothing_is_written_when_one_item_is_wrong(cluster: Cluster) -> None:
    wrong = noun(3, vector=b"\0\0\0\0")
    with pytest.raises(InvalidRequestError) as caught:
        await call(cluster["a"].nouns.UpsertNouns, upsert(noun(1), noun(2), wrong))
    assert caught.value.reason == "INVALID_DIMENSION"
    assert caught.value.fields["index"] == "2"
    assert cluster.world.logs == {}


async def test_an_import_counts_and_tolerates_one_request_id_for_all_messages(cluster: Cluster) -> None:
    async def messages() -> AsyncIterator[data_pb2.ImportNounsRequest]:
        for start in range(0, 60, 20):
            batch = [noun(n) for n in range(start, start + 20)]
            yield data_pb2.ImportNounsRequest(namespace=NAMESPACE, request_id="I", nouns=batch)

    first = await cluster["a"].nouns.ImportNouns(messages())
    assert first.written == 60
    again = await cluster["b"].nouns.ImportNouns(messages())
    assert (again.written, list(again.positions)) == (60, list(first.positions))
    assert sum(len(cluster.world.records(0, s)) for s in range(4)) == 60
    empty = await cluster["a"].nouns.ImportNouns(iter(()))
    assert empty.written == 0


async def test_the_first_write_decides_the_dimensions_of_an_empty_namespace(tmp_path: Path) -> None:
    made = Cluster(world_of(tmp_path, spec(dimensions=0, shards=2)))
    node = await made.add("a")
    made.world.place(0, 0, "a")
    made.world.place(0, 1, "a")
    made.settle()
    try:
        nothing = await call(node.search.Search, query(slice(0, 2)))
        assert list(nothing.counts) == [0, 0]
        await call(node.nouns.UpsertNouns, upsert(noun(0), noun(1)))
        assert made.world.specs[0].dimensions == 4
        assert list((await call(node.search.Search, query(k=1))).ids) == [IDS[0]]
        with pytest.raises(InvalidRequestError) as caught:
            await call(node.nouns.UpsertNouns, upsert(Noun(id="x", vector=b"\0\0\x80?")))
        assert caught.value.fields["namespace_dimensions"] == "4"
    finally:
        await made.close()


# -- the door --------------------------------------------------------------------------------------------


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
    async with asyncio.timeout(15):  # far less than the grace: nothing is left that a drain would wait for
        for node in cluster.nodes.values():
            await node.server.drain(30)
    assert sum(cluster[n].server.metrics.of(method).cancelled for n in "bc") >= 1
    assert cluster["a"].server.metrics.of("/brainy.api.node.v1.SearchService/Search").cancelled == 1
    gate.set()
    for task in arrived:
        task.cancel()


# -- node to node and control ----------------------------------------------------------------------------


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
