"""Another embedding model for a namespace that is written and read all the while, with real processes."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - a seeded source, so that a failing run can be repeated
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
import pytest

from brainy.bucket.embedding import EmbeddingIdentity
from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.embedding.minilm import open_minilm
from brainy.errors import BrainyError, PreconditionError
from brainy.ids import Ids
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.migration import Migration, TargetSpec
from brainy.sdk.reembedding import Reembedding
from brainy.store.opening import open_store
from tests.corpus import PARAPHRASES, sentences
from tests.e2e.conftest import RunCluster, legacy_noun, unexpected
from tests.e2e.test_sparse_import import brainy
from tests.embedding_endpoint import Endpoint, embedding_endpoint

OLD, NEW = "words-64", "words-32"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with embedding_endpoint() as made:
        # Clients find the endpoint of the model that a namespace records here, and so do nodes.
        monkeypatch.setenv("BRAINY_EMBEDDING__URL", made.url)
        yield made


@dataclass
class Told:
    """What was acknowledged to the writers: item -> text, None for a delete."""

    texts: dict[str, str | None] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    writes: int = 0
    reads: int = 0


class TextTraffic:
    """Writers of texts, deletes and verbs, and readers by text, until ``stop``. Each item has one writer."""

    def __init__(self, client: AsyncBrainy, *, seed: int, writers: int = 2) -> None:
        self.told = Told()
        self._client = client
        self._lines = sentences(200)
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._write(random.Random(f"{seed}/{n}"), n)) for n in range(writers)]
        self._tasks.append(asyncio.create_task(self._read()))

    async def stop(self) -> Told:
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        return self.told

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(0.03):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _write(self, rng: random.Random, number: int) -> None:
        while not self._stopping.is_set():
            item = f"w{number}-{rng.randrange(40)}"
            text = None if rng.random() < 0.2 else f"{rng.choice(self._lines)} {rng.randrange(1000)}"
            try:
                if text is None:
                    await self._client.delete(item)
                else:
                    await self._client.add(text, {"text": text, "by": number}, id=item)
                self.told.texts[item] = text
                self.told.writes += 1
            except BrainyError as error:
                self.told.failures.append(f"write {error.reason}: {error}")
            await self._pause()

    async def _read(self) -> None:
        while not self._stopping.is_set():
            try:
                assert await self._client.search("the library module", 3)
                self.told.reads += 1
            except BrainyError as error:
                self.told.failures.append(f"read {error.reason}: {error}")
            await self._pause()


async def wrote(traffic: TextTraffic, more: int = 20) -> None:
    before = traffic.told.writes
    async with asyncio.timeout(180):
        while traffic.told.writes < before + more:
            await asyncio.sleep(0.02)


async def reached(client: AsyncBrainy, migration: Migration, *states: str) -> Migration:
    async with asyncio.timeout(420):
        while (seen := await client.get_migration(migration.id)).state not in states:
            assert not seen.ended, seen.story
            await asyncio.sleep(0.05)
    return seen


async def imported(client: AsyncBrainy, endpoint: Endpoint, count: int) -> dict[str, str]:
    texts = [first for first, _ in PARAPHRASES]
    texts += sentences(count - len(texts))
    rows = [{"id": f"doc-{n}", "metadata": {"text": text}} for n, text in enumerate(texts)]
    verbs = [{"id": "v1", "sourceId": "doc-0", "targetId": "doc-1", "type": "cites"}]
    await client.import_sparse_data({"nouns": rows, "verbs": verbs}, f"{endpoint.url}#{OLD}")
    return {row["id"]: str(row["metadata"]["text"]) for row in rows}


async def tree_and_log(directory: Path, endpoint: Endpoint, count: int) -> tuple[str, dict[str, str]]:
    """A bucket as Brainy leaves it, so that there is something to copy: texts, and vectors of the old model."""
    namespace, texts = f"file://{directory}", sentences(count)
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    for n, vector in enumerate(endpoint.embed(OLD, texts)):
        key, body = legacy_noun(f"tree-{n}", vector.tolist())
        await store.put(key, body)
        await store.put(f"metadata/tree-{n}.json", orjson.dumps({"text": texts[n]}))
    await store.close()
    return namespace, {f"tree-{n}": text for n, text in enumerate(texts)}


async def assert_embedded(client: AsyncBrainy, expected: dict[str, str | None], identity: EmbeddingIdentity) -> None:
    """Everything is there with its text and a vector of the model made of that text; nothing that was deleted is."""
    found = {noun.id: noun async for noun in client.scan()}
    assert {i: n.metadata["text"] for i, n in found.items()} == {i: t for i, t in expected.items() if t is not None}
    statistics = await client.get_statistics()
    assert (statistics.embedding, statistics.dimensions) == (identity, identity.dimensions)
    assert statistics.unindexed_count == 0
    vectors = np.stack([noun.vector for noun in found.values()])
    texts = [noun.metadata["text"] for noun in found.values()]
    if identity.model.startswith("words"):
        with embedding_endpoint() as model:
            anew = model.embed(identity.model, texts)
    else:
        anew = await asyncio.to_thread(open_minilm().embed, texts)
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(anew, axis=1)
    assert (np.einsum("ij,ij->i", vectors, anew) / norms).min() > 0.99


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_forward_back_and_forward_under_writers(
    tmp_path: Path, endpoint: Endpoint, run_cluster: RunCluster
) -> None:
    settings = {"BRAINY_EMBEDDING__URL": endpoint.url}
    async with run_cluster(f"file://{tmp_path / 'bucket'}", nodes=3, settings=settings) as (cluster, client):
        before = await imported(client, endpoint, 400)
        traffic = TextTraffic(client, seed=3)
        await wrote(traffic)
        target = TargetSpec(embedding=Reembedding.of(f"{endpoint.url}#{NEW}"), shard_count=3)
        migration = await client.start_migration("in-place-upgrade", target, keep_way_back=True)
        seen = await reached(client, migration, "OBSERVING")
        assert seen.digest_equal
        print(f"\nwrites waited {seen.write_pause_seconds * 1000:.0f} ms")
        assert (await client.get_statistics()).embedding == endpoint.identity(NEW)
        await wrote(traffic)
        # Back: what was written since is embedded with the old model, by the nodes.
        await client.rollback_migration(migration.id)
        await reached(client, migration, "READY")
        assert (await client.get_statistics()).embedding == endpoint.identity(OLD)
        await wrote(traffic)
        async with asyncio.timeout(180):
            while True:
                try:
                    await client.promote_migration(migration.id)
                    break
                except PreconditionError:
                    await asyncio.sleep(0.1)
        await reached(client, migration, "OBSERVING")
        await wrote(traffic)
        told = await traffic.stop()
        assert told.failures == []
        await client.complete_migration(migration.id)
        assert (await client.wait_for_migration(migration.id)).succeeded
        await assert_embedded(client, {**before, **told.texts}, endpoint.identity(NEW))
        assert [verb.id async for verb in client.scan_verbs()] == ["v1"]
        print(f"{told.writes} writes, {told.reads} reads")
        assert unexpected(cluster) == []


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_paraphrases_are_found_with_the_new_model(
    tmp_path: Path, endpoint: Endpoint, run_cluster: RunCluster
) -> None:
    namespace, tree = await tree_and_log(tmp_path / "bucket", endpoint, 150)
    async with run_cluster(namespace, nodes=2) as (cluster, client):
        before = {**tree, **await imported(client, endpoint, 50)}
        traffic = TextTraffic(client, seed=4, writers=1)
        with_minilm = ("--strategy", "in-place-upgrade", "--embed", "minilm", "-c", cluster.coordinator)
        plan = await brainy("migrate", "plan", namespace, *with_minilm)
        assert plan["figures"]["texts"] >= 200
        assert plan["figures"]["texts_per_second"] > 0
        assert "vectors-made-anew" in [each["name"] for each in plan["confirmations"]]
        assert all(check["passed"] for check in plan["checks"])
        ended = await brainy("migrate", "start", namespace, *with_minilm, "--watch")
        assert ended["state"] == "SUCCEEDED", ended
        await wrote(traffic)
        told = await traffic.stop()
        assert told.failures == []
        await assert_embedded(client, {**before, **told.texts}, open_minilm().identity)
        hits = await client.search_many([second for _, second in PARAPHRASES], 1)
        assert [found[0].id for found in hits] == [f"doc-{n}" for n in range(len(PARAPHRASES))]
        assert unexpected(cluster) == []


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_model_that_is_away_and_nodes_that_die_only_hold_it_up(
    tmp_path: Path, endpoint: Endpoint, run_cluster: RunCluster
) -> None:
    settings = {"BRAINY_EMBEDDING__URL": endpoint.url, "BRAINY_EMBEDDING__MAX_ATTEMPTS": "1"}
    namespace, tree = await tree_and_log(tmp_path / "bucket", endpoint, 300)
    async with run_cluster(namespace, nodes=3, settings=settings) as (cluster, client):
        before = {**tree, **await imported(client, endpoint, 100)}
        target = TargetSpec(embedding=Reembedding.of(f"{endpoint.url}#{NEW}"))
        # The model answers preflight, and no fill.
        endpoint.refused.add(NEW)
        migration = await client.start_migration("in-place-upgrade", target, hold_before_switch=True)
        await reached(client, migration, "COPYING")
        traffic = TextTraffic(client, seed=5)
        await wrote(traffic)
        assert await asyncio.to_thread(endpoint.asked(NEW).wait, 120)
        assert (await client.get_migration(migration.id)).state == "COPYING"
        await cluster.kill_node(0)
        endpoint.refused.clear()
        await cluster.start_node()
        await reached(client, migration, "READY")
        await wrote(traffic)
        # The model goes away again, and with it whatever is written from now on; then an owner dies.
        endpoint.refused.add(NEW)
        await wrote(traffic)
        await cluster.kill_node(1)
        await cluster.start_node()
        endpoint.refused.clear()
        async with asyncio.timeout(420):
            while True:
                try:
                    await client.promote_migration(migration.id)
                    break
                except PreconditionError:
                    await asyncio.sleep(0.1)
        ended = await client.wait_for_migration(migration.id)
        assert ended.succeeded, ended.story
        await wrote(traffic)
        told = await traffic.stop()
        assert told.failures == []
        await assert_embedded(client, {**before, **told.texts}, endpoint.identity(NEW))
