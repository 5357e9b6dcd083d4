"""Writes through any node, and reads that see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from door_cluster import IDS, VECTORS, fill, noun, query, three_nodes, upsert, within
from node_cluster import NAMESPACE, Cluster, spec, world_of

from brainy.api.common.v1.common_pb2 import Noun, Position
from brainy.api.node.v1 import data_pb2
from brainy.bucket.embedding import EmbeddingIdentity, embedding_to_proto
from brainy.bucket.partition import shard_of
from brainy.bucket.records import GenerationPlacement
from brainy.errors import (
    EmbeddingMismatchError,
    InvalidRequestError,
    OutcomeUnknownError,
    UnavailableError,
)
from brainy.rpc.channel import call
from brainy_node.router import fan_out


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with three_nodes(tmp_path) as made:
        yield made


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
    async with asyncio.timeout(60), door.refreshed:
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


async def test_a_write_that_waited_through_a_switch_is_let_in_for_what_is_there_then(cluster: Cluster) -> None:
    old, new = EmbeddingIdentity(model="old", dimensions=4), EmbeddingIdentity(model="new", dimensions=3)
    world = cluster.world
    world.specs[0] = world.specs[0].model_copy(update={"embedding": old})
    world.specs[1] = spec(1, dimensions=3).model_copy(update={"source": "0", "embedding": new})
    placed = world.routing.generations[0]
    node = cluster["a"]
    node.runtime.gate = asyncio.Event()
    vector = VECTORS[0].tobytes()
    plain = asyncio.create_task(call(node.nouns.UpsertNouns, upsert(Noun(id=IDS[0], vector=vector))))
    texts = upsert(Noun(id=IDS[1], vector=vector))
    texts.embedding.CopyFrom(embedding_to_proto(old))
    embedded = asyncio.create_task(call(node.nouns.UpsertNouns, texts))
    deleted = asyncio.create_task(call(node.nouns.DeleteNouns, data_pb2.DeleteNounsRequest(ids=[IDS[2]])))
    await node.runtime.arrived.wait()
    # They are being checked against generation 0, and every node knows by now that generation 1 takes writes.
    world.route(generations={0: placed, 1: placed}, active=1, write=1)
    cluster.settle()
    node.runtime.gate.set()
    with pytest.raises(InvalidRequestError) as wrong:
        await plain
    assert wrong.value.reason == "INVALID_DIMENSION"
    with pytest.raises(EmbeddingMismatchError):
        await embedded
    await deleted
    written = [record for shard in range(4) for record in world.records(1, shard)]
    assert [record.delete_noun for record in written] == [IDS[2]]
