"""Each dimension of a generation's description changed by a migration: from Brainy's tree, and from a generation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from brainy.bucket import layout
from brainy.bucket.namespace import Namespace
from brainy.bucket.records import Spec
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.errors import InvalidRequestError, PreconditionError
from brainy.ids import Ids
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.migration import TargetSpec
from brainy.store.opening import open_store
from tests.e2e.conftest import RunCluster, legacy_noun, unexpected

NOUNS, DIMENSIONS, K = 800, 32, 10
PLAIN = TargetSpec(
    metric="cos", scalar_kind="f32", shard_count=4, connectivity=16, expansion_add=128, expansion_search=64
)


def vectors() -> np.ndarray:
    """Directions of many lengths, so that each metric has neighbours of its own."""
    rng = np.random.default_rng(5)
    directions = rng.normal(size=(NOUNS, DIMENSIONS))
    return (directions * rng.uniform(0.2, 5.0, size=(NOUNS, 1))).astype(np.float32)


def nearest(metric: str, query: np.ndarray) -> list[str]:
    """The true neighbours, compared with every vector."""
    held, query = vectors().astype(np.float64), query.astype(np.float64)
    dots = held @ query
    distances = {
        "ip": 1.0 - dots,
        "l2sq": ((held - query) ** 2).sum(axis=1),
        "cos": 1.0 - dots / np.linalg.norm(held, axis=1) / np.linalg.norm(query),
    }[metric]
    return [f"n{n}" for n in np.argsort(distances)[:K]]


async def bucket(directory: Path, extra: dict[str, bytes] | None = None) -> str:
    namespace = f"file://{directory}"
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    for n, vector in enumerate(vectors()):
        key, body = legacy_noun(f"n{n}", vector.tolist())
        await store.put(key, body)
        await store.put(f"metadata/n{n}.json", orjson.dumps({"noun": "thing", "n": n}))
    for key, body in (extra or {}).items():
        await store.put(key, body)
    await store.close()
    return namespace


async def spec_of(namespace: str, generation: int) -> Spec:
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    try:
        found = await store.get(layout.spec(generation))
        assert found is not None
        return Spec.decode(found.body, key=found.key)
    finally:
        await store.close()


async def migrated(client: AsyncBrainy, target: TargetSpec) -> int:
    migration = await client.start_migration("in-place-upgrade", target)
    ended = await client.wait_for_migration(migration.id)
    assert (ended.state, ended.digest_equal) == ("SUCCEEDED", True), ended.story
    return ended.target_generation


async def contents(client: AsyncBrainy) -> dict[str, tuple[bytes, object]]:
    found = {noun.id: noun async for noun in client.scan()}
    return {name: (noun.vector.tobytes(), noun.metadata) for name, noun in found.items()}


async def assert_searches(client: AsyncBrainy, metric: str, *, recall: float) -> None:
    queries = np.random.default_rng(6).normal(size=(40, DIMENSIONS)).astype(np.float32)
    expected = [nearest(metric, query) for query in queries]
    exact = [[hit.id for hit in hits] for hits in await client.search_many(queries, K, exact=True)]
    assert exact == expected
    found = [{hit.id for hit in hits} for hits in await client.search_many(queries, K)]
    shared = np.mean([len(hits & set(truth)) / K for hits, truth in zip(found, expected, strict=True)])
    assert shared >= recall


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("target", "recall"),
    [
        (TargetSpec(metric="l2sq"), 0.97),
        (TargetSpec(metric="ip"), 0.9),
        (TargetSpec(scalar_kind="f16"), 0.97),
        (TargetSpec(scalar_kind="bf16"), 0.9),
        (TargetSpec(scalar_kind="i8"), 0.9),
        (TargetSpec(metric="l2sq", scalar_kind="f16", shard_count=2), 0.97),
        (TargetSpec(shard_count=1), 0.97),
        (TargetSpec(shard_count=7), 0.97),
        (TargetSpec(connectivity=32, expansion_add=200, expansion_search=100), 0.99),
    ],
    ids=["l2sq", "ip", "f16", "bf16", "i8", "l2sq-f16-2-shards", "1-shard", "7-shards", "graph"],
)
async def test_each_change_from_a_tree_and_from_a_generation(
    target: TargetSpec, recall: float, tmp_path: Path, run_cluster: RunCluster
) -> None:
    namespace = await bucket(tmp_path / "bucket")
    wished = {name: value for name in PLAIN.__slots__ if (value := getattr(target, name))}
    async with run_cluster(namespace, nodes=2) as (cluster, client):
        held = await contents(client)
        assert len(held) == NOUNS
        for wish in (target, PLAIN, target):
            number = await migrated(client, wish)
            spec = await spec_of(namespace, number)
            expected = wished if wish is target else {n: v for n in PLAIN.__slots__ if (v := getattr(PLAIN, n))}
            assert {name: getattr(spec, name) for name in expected} == expected
            statistics = await client.get_statistics()
            assert (statistics.noun_count, statistics.unindexed_count) == (NOUNS, 0)
            assert await contents(client) == held
            await assert_searches(client, spec.metric, recall=recall if wish is target else 0.97)
        assert unexpected(cluster) == []


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_what_cannot_hold_the_data_is_refused_by_name(tmp_path: Path, run_cluster: RunCluster) -> None:
    vectors = {"zero": [0.0] * DIMENSIONS, "huge": [70_000.0] + [0.0] * (DIMENSIONS - 1)}
    namespace = await bucket(tmp_path / "bucket", dict(legacy_noun(name, vector) for name, vector in vectors.items()))
    async with run_cluster(namespace, nodes=2) as (cluster, client):

        async def refused(target: TargetSpec, words: str) -> None:
            with pytest.raises((PreconditionError, InvalidRequestError)) as caught:
                await client.start_migration("in-place-upgrade", target)
            assert words in str(caught.value), caught.value
            assert caught.value.remedy

        await refused(TargetSpec(metric="manhattan"), "metric")
        await refused(TargetSpec(partitioning="range"), "partitioning")
        await refused(TargetSpec(scalar_kind="f16"), "holds up to 65,504")
        await refused(TargetSpec(metric="l2sq", scalar_kind="i8"), "i8 holds directions only")
        await refused(TargetSpec(dimensions=16), "16 dimensions, and the vectors have 32")
        await refused(TargetSpec(shard_count=5000), "too many shards")
        await refused(TargetSpec(expansion_search=5000), "expansions")
        # A zero vector is found by its length, and has no direction.
        await migrated(client, TargetSpec(metric="l2sq"))
        await refused(TargetSpec(metric="cos"), "all zeros")
        await client.delete("zero")
        await migrated(client, TargetSpec(metric="cos"))
        assert (await client.list_migrations())[0].succeeded
        assert unexpected(cluster) == []
