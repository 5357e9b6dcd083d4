"""Another embedding model: what a fill and a follower make of items, and what the coordinator asks for around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from coordinator_cluster import MIGRATION, Cluster, ended, request_for
from coordinator_fakes import until
from test_builder import do, job_of, shards_of

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import vectors_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.embedding import EmbeddingIdentity, Reembedding
from brainy.bucket.items import Noun, noun_to_proto
from brainy.bucket.projection import Projection
from brainy.bucket.records import Spec
from brainy.config.settings import EmbeddingSettings
from brainy.embedding.reembedding import reembedder_at
from brainy.errors import EmbeddingMismatchError, PreconditionError, UnavailableError
from brainy.store.memory import MemoryStore
from brainy_coordinator.migration.quality import QualityWish
from brainy_coordinator.migration.record import Request, TargetWish
from brainy_coordinator.migration.state import State
from brainy_coordinator.migration.trial import require_triable
from brainy_node.shard.shard import Shard
from tests.embedding_endpoint import Endpoint, embedding_endpoint

OLD, NEW = "words-8", "words-6"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with embedding_endpoint() as made:
        yield made


def metadata(text: str) -> bytes:
    return orjson.dumps({"text": text})


def items(endpoint: Endpoint) -> list[Noun]:
    texts = [f"number {n} of many" for n in range(60)]
    vectors = endpoint.embed(OLD, texts).astype("<f4")
    nouns = [
        Noun(id=f"n{n}", vector=vectors[n].tobytes(), metadata=metadata(text), attributes=b'{"kept":1}')
        for n, text in enumerate(texts)
    ]
    # Vectors of a caller's own, without a text; and a text that never had a vector.
    return [*nouns, Noun(id="own", vector=vectors[0].tobytes()), Noun(id="bare", metadata=metadata("bare words"))]


async def source_of(store: MemoryStore, endpoint: Endpoint) -> tuple[Spec, list[Shard]]:
    """A tree, adopted by nobody: generation 0 with a log."""
    spec = Spec(
        generation=0,
        dimensions=8,
        shard_count=2,
        source="brainy",
        source_trees=("flat",),
        embedding=endpoint.identity(OLD),
    )
    await store.put(layout.spec(0), spec.encode())
    for each in items(endpoint):
        vector = np.frombuffer(each.vector, "<f4").tolist()
        await store.put(f"nouns/{each.id}.json", orjson.dumps({"id": each.id, "vector": vector, "connections": {}}))
        if each.metadata is not None:
            await store.put(f"metadata/{each.id}.json", each.metadata)
    return spec, []


def target_of(source: Spec, endpoint: Endpoint, shards: int) -> Spec:
    return source.model_copy(
        update={
            "generation": 1,
            "dimensions": 6,
            "shard_count": shards,
            "embedding": endpoint.identity(NEW),
            "reembedding": Reembedding(endpoint=endpoint.url),
        }
    )


def projected(shards: list[Shard], projection: Projection) -> MultisetDigest:
    total = MultisetDigest()
    for shard in shards:
        for _ in shard.project(projection):
            pass
        kept = shard.projected()
        assert kept is not None
        assert kept[1] is not None
        total.merge(kept[1])
    return total


@pytest.mark.parametrize("shards", [2, 3])
async def test_a_fill_embeds_every_text_once(tmp_path: Path, endpoint: Endpoint, shards: int) -> None:
    store = MemoryStore()
    source, _ = await source_of(store, endpoint)
    before = shards_of(await do(job_of("adopt", source, tmp_path / "g0"), store), source)
    target = target_of(source, endpoint, shards)
    await store.put(layout.spec(1), target.encode())
    after = shards_of(await do(job_of("fill", target, tmp_path / "g1"), store), target)
    found = {noun.id: noun for shard in after for batch in shard.scan_nouns() for noun in batch}
    texts = {each.id: orjson.loads(each.metadata)["text"] for each in items(endpoint) if each.metadata}
    assert sorted(endpoint.texts[NEW]) == sorted(texts.values())
    assert found.keys() == {each.id for each in items(endpoint)}
    for name, text in texts.items():
        assert found[name].vector == endpoint.embed(NEW, [text]).astype("<f4").tobytes()
    assert found["own"].vector == b""
    assert sum(shard.statistics().unindexed for shard in after) == 1
    name = next(noun.id for batch in after[0].scan_nouns() for noun in batch if noun.vector)
    assert after[0].search(endpoint.embed(NEW, [texts[name]]), 1).ids == [name]
    # Published: another node opens it and embeds nothing.
    again = shards_of(await do(job_of("open", target, tmp_path / "other"), store), target)
    assert len(endpoint.texts[NEW]) == len(texts)
    identity = endpoint.identity(NEW)
    will = projected(before, Projection(embedding=identity, expected=True))
    assert will == projected(after, Projection(embedding=identity)) == projected(again, Projection(embedding=identity))
    assert projected(before, Projection(embedding=identity)) != will


async def test_a_fill_whose_model_is_gone_fails_and_goes_on_later(tmp_path: Path, endpoint: Endpoint) -> None:
    store = MemoryStore()
    source, _ = await source_of(store, endpoint)
    target = target_of(source, endpoint, 2)
    await store.put(layout.spec(1), target.encode())
    job = job_of("fill", target, tmp_path).with_embedding(EmbeddingSettings(max_attempts=1))
    endpoint.status = 503
    with pytest.raises(UnavailableError):
        await do(job, store)
    endpoint.status = 200
    shards = shards_of(await do(job, store), target)
    assert sum(shard.statistics().nouns for shard in shards) == len(items(endpoint))


async def test_records_are_embedded_and_nothing_else_is_changed(endpoint: Endpoint) -> None:
    identity = endpoint.identity(NEW)
    old = endpoint.embed(OLD, ["hello there"]).astype("<f4").tobytes()
    upsert = log_pb2.LogRecord(request_id="r/0", upsert_noun=noun_to_proto(Noun(id="a", vector=old)))
    upsert.upsert_noun.metadata = metadata("hello there")
    upsert.upsert_noun.raw_vector = b"[null]"
    others = [
        log_pb2.LogRecord(delete_noun="b"),
        log_pb2.LogRecord(upsert_verb=common_pb2.Verb(id="v", source_id="a", target_id="b", type="t", vector=old)),
        log_pb2.LogRecord(delete_verb="w"),
    ]
    bare = log_pb2.LogRecord(upsert_noun=noun_to_proto(Noun(id="c", vector=old, metadata=b"null")))
    untouched = upsert.SerializeToString()
    with reembedder_at(identity, endpoint.url, EmbeddingSettings()) as reembedder:
        embedded = reembedder.records([upsert, *others, bare])
        assert reembedder.records(others) == others
    assert embedded[1:4] == others
    assert embedded[4].upsert_noun == common_pb2.Noun(id="c", metadata=b"null")
    assert embedded[0].request_id == "r/0"
    assert embedded[0].upsert_noun.vector == endpoint.embed(NEW, ["hello there"]).astype("<f4").tobytes()
    assert not embedded[0].upsert_noun.HasField("raw_vector")
    assert upsert.SerializeToString() == untouched, "the batch it came in may go elsewhere too"


def test_a_key_is_shown_only_to_the_endpoint_of_the_configuration(endpoint: Endpoint) -> None:
    identity = endpoint.identity(NEW)
    elsewhere = EmbeddingSettings.model_validate({"url": "http://127.0.0.1:1", "api_key": "secret"})
    nouns = [Noun(id="a", metadata=metadata("a"))]
    with reembedder_at(identity, endpoint.url, elsewhere) as reembedder:
        reembedder.nouns(nouns)
    assert endpoint.keys == {""}
    here = EmbeddingSettings.model_validate({"url": endpoint.url, "api_key": "secret"})
    with reembedder_at(identity, "", here) as reembedder:
        reembedder.nouns(nouns)
    assert endpoint.keys == {"", "Bearer secret"}
    with pytest.raises(EmbeddingMismatchError), reembedder_at(identity, "", EmbeddingSettings()):
        pass


# -- the coordinator ---------------------------------------------------------------------------------------------


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    found = Cluster()
    for name in ("a", "b", "c"):
        await found.node(name)
    yield found
    await found.close()


WISH = TargetWish(
    embedding=EmbeddingIdentity(model="new", dimensions=16), reembedding=Reembedding(without_text_limit=2)
)


def reembedded(**more: object) -> Request:
    return request_for("in_place_upgrade").model_copy(update={"target": WISH, **more})


async def test_both_sides_are_compared_without_vectors(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    async with cluster.writing():
        await until(lambda: len(cluster.world.acked) > 30)
        await cluster.migrations.start(MIGRATION, reembedded())
        record = await ended(cluster)
    assert (record.state, record.digest_equal) == (State.SUCCEEDED, True), record.lines
    asked = {each for node in cluster.nodes() for each in node.vectors.projected}
    assert asked == {(0, True, True), (1, True, False)}
    found = await cluster.store.get(layout.spec(1))
    assert found is not None
    spec = Spec.decode(found.body, key=found.key)
    assert (spec.dimensions, spec.embedding, spec.reembedding) == (16, WISH.embedding, WISH.reembedding)
    # The next one is an ordinary migration again.
    ordinary = request_for("in_place_upgrade", key="r2").model_copy(
        update={"source_generation": 1, "target_generation": 2}
    )
    await cluster.migrations.start("m-2", ordinary)
    await until(lambda: (r := cluster.record("m-2")) is not None and r.state is State.SUCCEEDED)
    found = await cluster.store.get(layout.spec(2))
    assert found is not None
    spec = Spec.decode(found.body, key=found.key)
    assert (spec.dimensions, spec.embedding, spec.reembedding) == (16, WISH.embedding, None)


async def test_a_lost_item_is_found_although_vectors_differ(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    cluster.world.lose = "w0-3"
    async with cluster.writing():
        await until(lambda: "w0-3" in cluster.world.acked)
        await cluster.migrations.start(MIGRATION, reembedded())
        record = await ended(cluster)
    assert record.state is State.ABORTED
    assert any("digest_unequal" in line for line in record.lines)


async def test_more_nouns_without_a_text_than_accepted_end_it(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    cluster.nodes()[0].unindexed = 3
    async with cluster.writing():
        await cluster.migrations.start(MIGRATION, reembedded())
        record = await ended(cluster)
    assert record.state is State.ABORTED
    assert any("without_text_exceeded" in line and "2 accepted" in line for line in record.lines)
    assert cluster.in_force().active == 0


@pytest.mark.parametrize(
    ("check", "words", "change"),
    [
        ("reembedding_possible", "rolling", {"strategy": "rolling"}),
        ("reembedding_possible", "nobody recorded", {"keep_way_back": True}),
        ("reembedding_possible", "threshold", {"quality": QualityWish()}),
        ("embedding_answers", "no such module", {}),
        ("texts_present", "9 of 20 nouns", {}),
    ],
)
async def test_what_cannot_be_embedded_anew_is_refused_before_it_begins(
    cluster: Cluster, check: str, words: str, change: dict[str, object]
) -> None:
    cluster.lead()
    await cluster.serving()
    node = cluster.nodes()[0]
    if check == "embedding_answers":
        node.vectors.cannot_embed = "no such module"
    if check == "texts_present":
        for each in cluster.nodes():
            each.vectors.described = vectors_pb2.DescribeVectorsResponse(sampled=0)
        node.vectors.described = vectors_pb2.DescribeVectorsResponse(sampled=20, without_text=9)
    await cluster.migrations.start(MIGRATION, reembedded(**change))
    record = await ended(cluster)
    assert record.state is State.ABORTED
    assert any(f"{check}: " in line and words in line for line in record.lines), record.lines
    assert layout.spec(1) not in cluster.store._objects


async def test_reads_are_not_tried_on_another_model(cluster: Cluster) -> None:
    cluster.lead()
    await cluster.serving()
    await cluster.migrations.start(MIGRATION, reembedded(hold_before_switch=True))
    await until(lambda: (r := cluster.record(MIGRATION)) is not None and r.state is State.READY)
    record = cluster.record(MIGRATION)
    assert record is not None
    with pytest.raises(PreconditionError, match="embedding model"):
        require_triable(record, cluster.in_force(), weight=0.0, shadow=0.5)
