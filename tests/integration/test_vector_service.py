"""What nodes answer about their vectors, over real servers: bounds, texts, models, and digests without vectors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from node_cluster import NAMESPACE, Cluster, spec, world_of

from brainy.api.common.v1.common_pb2 import EmbeddingIdentity, Noun
from brainy.api.node.v1 import data_pb2, vectors_pb2
from brainy.bucket.digest import MultisetDigest
from brainy.errors import BrainyError, UnavailableError
from brainy.rpc.channel import call
from tests.embedding_endpoint import embedding_endpoint

MODEL = EmbeddingIdentity(model="words-4", dimensions=4)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(world_of(tmp_path, spec(shards=2, metric="l2sq")))
    await made.add("a")
    for shard in (0, 1):
        made.world.place(0, shard, "a")
    made.settle()
    yield made
    await made.close()


async def write(cluster: Cluster, *nouns: tuple[str, list[float], str]) -> None:
    sent = [
        Noun(
            id=name,
            vector=np.array(vector, "<f4").tobytes(),
            metadata=f'{{"text":"{text}"}}'.encode() if text else None,
        )
        for name, vector, text in nouns
    ]
    await call(cluster["a"].nouns.UpsertNouns, data_pb2.UpsertNounsRequest(namespace=NAMESPACE, nouns=sent))


async def projected(cluster: Cluster, *, expected: bool = False, aside: bool = False) -> MultisetDigest:
    request = vectors_pb2.GetProjectionRequest(
        namespace=NAMESPACE, generation=0, shards=[0, 1], expected=expected, embedding=None if aside else MODEL
    )
    answer = await call(cluster["a"].vectors.GetProjection, request)
    runtime = cluster["a"].runtime
    assert {p.shard: p.position for p in answer.positions} == {s: runtime.shards[0, s].applied for s in (0, 1)}
    assert answer.noun_count == sum(runtime.shards[0, s].statistics().nouns for s in (0, 1))
    return MultisetDigest.decode(answer.digest)


async def test_digests_without_vectors_follow_every_write(cluster: Cluster) -> None:
    await write(cluster, ("n1", [1, 2, 3, 4], "one"), ("n2", [4, 3, 2, 1], ""))
    first = await projected(cluster)
    assert first == await projected(cluster, expected=True), "all texts have vectors of that length"
    await write(cluster, ("n1", [9, 9, 9, 9], "one"))
    assert await projected(cluster, expected=True) == first, "another vector is no other item"
    assert await projected(cluster) == first
    await write(cluster, ("n1", [9, 9, 9, 9], "two"))
    changed = await projected(cluster)
    assert changed != first
    assert await projected(cluster, aside=True) != changed
    await call(cluster["a"].nouns.DeleteNouns, data_pb2.DeleteNounsRequest(namespace=NAMESPACE, ids=["n1", "n2"]))
    assert await projected(cluster, aside=True) == MultisetDigest()
    runtime = cluster["a"].runtime
    runtime.vectors.let_go(iter(runtime.shards.values()))
    assert [shard.projected() for shard in runtime.shards.values()] == [None, None]
    with pytest.raises(UnavailableError):
        await call(
            cluster["a"].vectors.GetProjection,
            vectors_pb2.GetProjectionRequest(namespace=NAMESPACE, generation=0, shards=[7]),
        )


async def test_bounds_and_texts(cluster: Cluster) -> None:
    many = [(f"n{n}", [float(n), 0.0, 0.0, 0.0], "text" if n % 2 else "") for n in range(40)]
    await write(cluster, *many)
    request = vectors_pb2.DescribeVectorsRequest(namespace=NAMESPACE, generation=0, shards=[0, 1])
    found = await call(cluster["a"].vectors.DescribeVectors, request)
    assert (found.count, found.zeros, found.largest, found.sampled) == (40, 1, 39.0, 0)
    request.sample = 100
    found = await call(cluster["a"].vectors.DescribeVectors, request)
    assert (found.sampled, found.without_text) == (40, 20)
    request.sample = 3
    assert (await call(cluster["a"].vectors.DescribeVectors, request)).sampled == 6


async def test_a_node_says_whether_it_can_embed(cluster: Cluster) -> None:
    with embedding_endpoint() as endpoint:
        request = vectors_pb2.ProbeEmbeddingRequest(identity=MODEL, endpoint=endpoint.url)
        assert (await call(cluster["a"].vectors.ProbeEmbedding, request)).texts_per_second > 0
        assert len(endpoint.texts["words-4"]) == 9
        request.identity.dimensions = 5
        with pytest.raises(BrainyError, match="another length"):
            await call(cluster["a"].vectors.ProbeEmbedding, request)
    request.endpoint = ""
    with pytest.raises(BrainyError, match="not at hand"):
        await call(cluster["a"].vectors.ProbeEmbedding, request)
