"""Copies that are cut short, and those who go on with them: what is read again, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import orjson
import psutil
import pytest
from test_builder import do, job_of, seeded_store, shards_of, spec_of, total_digest, vector_of

from brainy.bucket import layout
from brainy.bucket.filling import Filling, FillSource
from brainy.bucket.namespace import Namespace
from brainy.bucket.records import Manifest, Spec
from brainy.clock import SystemClock
from brainy.config.settings import Settings, StoreSettings
from brainy.errors import FencedError, UnavailableError
from brainy.ids import Ids
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy.store.opening import open_store
from brainy_node.builder.client import BuilderClient
from brainy_node.builder.job import Progress
from brainy_node.builder.rates import Rates
from brainy_node.builder.run import run_job

ITEMS = 3200
#: Every batch is a part.
EAGER = {"part_bytes": 1}


class Counting(MeteredStore):
    """Notes what is read, and dies when it is told to."""

    def __init__(self, inner, dies: Callable[[str], bool] = lambda key: False) -> None:
        super().__init__(inner)
        self.read: list[str] = []
        self.dies = dies

    async def get(self, key):
        self.read.append(key)
        return await super().get(key)

    async def get_many(self, keys, *, concurrency=64):
        self.read.extend(keys)
        return await super().get_many(keys, concurrency=concurrency)

    async def put(self, key, body, *, user_metadata=None):
        if self.dies(key):
            raise UnavailableError("the builder was killed here")
        return await super().put(key, body, user_metadata=user_metadata)


def after(number: int, part: str) -> Callable[[str], bool]:
    """Die at the PUT of that number whose key has ``part``."""
    seen = []

    def dies(key: str) -> bool:
        if part in key:
            seen.append(key)
        return len(seen) > number

    return dies


async def large_tree() -> MeteredStore:
    store = MeteredStore(MemoryStore())
    for i in range(ITEMS):
        body = orjson.dumps({"id": f"n{i}", "vector": vector_of(i % 50), "connections": {}})
        await store.put(f"nouns/n{i}.json", body)
    await store.put("nouns/broken.json", b"{")
    await store.put(layout.spec(0), spec_of(0).encode())
    return store


async def generation_one(tmp_path: Path, store: MeteredStore) -> Spec:
    """A generation of many segments to copy from."""
    spec = spec_of(1, source="0")
    await do(job_of("fill", spec, tmp_path / "g1", **EAGER), store)
    await store.put(layout.spec(1), spec.encode())
    return spec


async def filling(store: MeteredStore, generation: int, shard: int) -> Filling:
    key = layout.filling(generation, shard)
    found = await store.get(key)
    assert found is not None
    return Filling.decode(found.body, key=key)


async def test_what_was_read_of_a_tree_is_not_fetched_again(tmp_path):
    store, target = await large_tree(), spec_of(1, source="0")
    first = Counting(store, after(6, "generations/1/nouns/"))
    with pytest.raises(UnavailableError):
        await do(job_of("fill", target, tmp_path / "one", **EAGER), first)
    held = sum([(await filling(store, 1, shard)).rows for shard in range(2)])
    assert 2000 <= held < ITEMS
    second, seen = Counting(store), []
    built = await run_job(
        job_of("fill", target, tmp_path / "elsewhere", **EAGER),
        second,
        clock=SystemClock(),
        ids=Ids(),
        report=seen.append,
    )
    objects = [key for key in second.read if key.startswith("nouns/")]
    # Everything that was not held; and what cannot be read, for its reason and for its bytes.
    assert sorted(objects) == sorted([*set(objects), "nouns/broken.json"])
    assert len(set(objects)) == ITEMS - held + 1
    assert sum({p.shard: p.resumed for p in seen if p.stage == "reading"}.values()) == held
    resumed = shards_of({one.shard: one for one in built}, target)
    whole = shards_of(await do(job_of("adopt", spec_of(0), tmp_path / "g0"), store), spec_of(0))
    assert total_digest(resumed) == total_digest(whole)
    assert sum(shard.statistics().quarantined for shard in resumed) == 1
    opened = shards_of(await do(job_of("open", target, tmp_path / "third"), store), target)
    assert total_digest(opened) == total_digest(whole)


@pytest.mark.parametrize("shard_count", [3, pytest.param(2, marks=pytest.mark.long)])
async def test_a_generation_is_read_on_from_the_segment_it_had_come_to(tmp_path, shard_count):
    store = await large_tree()
    source = await generation_one(tmp_path, store)
    target = spec_of(2, source="1", shard_count=shard_count)
    first = Counting(store, after(4, "generations/2/nouns/"))
    with pytest.raises(UnavailableError):
        await do(job_of("fill", target, tmp_path / "one", **EAGER), first)
    second = Counting(store)
    built = await do(job_of("fill", target, tmp_path / "elsewhere", **EAGER), second)

    def segments_of(read: list[str]) -> list[str]:
        return [key for key in read if key.startswith("cluster/generations/1/nouns/")]

    again = set(segments_of(first.read)) & set(segments_of(second.read))
    assert len(segments_of(first.read)) > 1
    assert len(again) <= 1, "more than the batch under way was read again"
    manifests = [
        Manifest.decode((await store.get(layout.manifest(1, shard))).body, key="m")
        for shard in range(source.shard_count)
    ]
    every = {file.key for manifest in manifests for file in manifest.nouns}
    assert set(segments_of(first.read)) | set(segments_of(second.read)) == every
    resumed = shards_of(built, target)
    whole = shards_of(await do(job_of("open", source, tmp_path / "g1-again"), store), source)
    assert total_digest(resumed) == total_digest(whole)
    assert total_digest(
        shards_of(await do(job_of("open", target, tmp_path / "opened"), store), target)
    ) == total_digest(whole)


async def test_a_copy_that_was_read_to_its_end_reads_no_source(tmp_path):
    store = await large_tree()
    source = await generation_one(tmp_path, store)
    target = spec_of(2, source="1")
    with pytest.raises(UnavailableError):
        await do(job_of("fill", target, tmp_path / "one"), Counting(store, lambda key: "generations/2/index/" in key))
    second = Counting(store)
    built = await do(job_of("fill", target, tmp_path / "two"), second)
    assert [key for key in second.read if "generations/1/nouns" in key or "generations/1/verbs" in key] == []
    whole = shards_of(await do(job_of("open", source, tmp_path / "g1-again"), store), source)
    assert total_digest(shards_of(built, target)) == total_digest(whole)


@pytest.mark.long
async def test_shards_that_came_to_different_places_each_go_on_from_their_own(tmp_path):
    store = await large_tree()
    source = await generation_one(tmp_path, store)
    target = spec_of(2, source="1", shard_count=3)
    with pytest.raises(UnavailableError):
        # Between the shards of one part: one has its new place, the others have not.
        await do(job_of("fill", target, tmp_path / "one", **EAGER), Counting(store, after(5, "generations/2/nouns/")))
    places = {shard: (await filling(store, 2, shard)).place for shard in range(3)}
    assert len(set(places.values())) == 2
    built = await do(job_of("fill", target, tmp_path / "two", **EAGER), store)
    whole = shards_of(await do(job_of("open", source, tmp_path / "g1-again"), store), source)
    assert total_digest(shards_of(built, target)) == total_digest(whole)


@pytest.mark.long
async def test_the_source_is_copied_as_it_was_though_it_was_folded_meanwhile(tmp_path):
    store = await large_tree()
    await generation_one(tmp_path, store)
    target = spec_of(2, source="1")
    with pytest.raises(UnavailableError):
        await do(job_of("fill", target, tmp_path / "one", **EAGER), Counting(store, after(1, "generations/2/nouns/")))
    progress = await filling(store, 2, 0)
    before = FillSource.decode((await store.get(progress.source_key)).body, key="source").manifests[0]
    key = layout.manifest(1, 0)
    newer = before.model_copy(update={"position": 40, "nonce": "another", "nouns": (), "noun_count": 0, "index": None})
    newer = newer.model_copy(update={"indexed_count": 0})
    await store.put(key, newer.encode())
    built = await do(job_of("fill", target, tmp_path / "two", [0], **EAGER), store)
    (shard,) = shards_of(built, target)
    # The log after the old position is still to be followed, and the items are those of then.
    assert shard.source_cursor == {0: 0}
    assert shard.statistics().nouns == before.noun_count


async def test_an_owner_that_was_replaced_is_fenced_and_damaged_parts_are_read_anew(tmp_path):
    store = await large_tree()
    source = await generation_one(tmp_path, store)
    target = spec_of(2, source="1")
    dying = Counting(store, after(3, "generations/2/nouns/"))
    with pytest.raises(UnavailableError):
        await do(job_of("fill", target, tmp_path / "one", epochs={0: 7, 1: 7}, **EAGER), dying)
    with pytest.raises(FencedError):
        await do(job_of("fill", target, tmp_path / "stale", epochs={0: 6, 1: 6}, **EAGER), store)
    part = (await filling(store, 2, 0)).nouns[0].key
    await store.put(part, b"damaged")
    built = await do(job_of("fill", target, tmp_path / "two", epochs={0: 8, 1: 8}, **EAGER), store)
    whole = shards_of(await do(job_of("open", source, tmp_path / "g1-again"), store), source)
    assert total_digest(shards_of(built, target)) == total_digest(whole)
    manifest = Manifest.decode((await store.get(layout.manifest(2, 0))).body, key="m")
    assert part not in {file.key for file in manifest.nouns}


async def test_a_killed_builder_is_gone_on_with_by_the_next_one(tmp_path):
    """A real process, held to a rate so that it can be met midway, and SIGKILL."""
    uri = f"file://{tmp_path / 'bucket'}"
    store = open_store(Namespace.parse(uri), StoreSettings(), clock=SystemClock(), ids=Ids())
    seeds = await seeded_store()
    memory = seeds._inner
    for key in list(memory._objects):
        await store.put(key, (await memory.get(key)).body)
    target, client, rates = spec_of(1, source="0"), BuilderClient(Settings()), Rates(0.0)
    job = job_of("fill", target, tmp_path / "data", namespace=uri, **EAGER)
    seen: list[Progress] = []
    others = set(psutil.Process().children())
    running = asyncio.create_task(client.run(job, seen.append, rates=rates))
    async with asyncio.timeout(60):
        while not (started := set(psutil.Process().children()) - others):
            await asyncio.sleep(0.01)
        # It stands still before the first batch.
        await asyncio.sleep(0)
        assert await store.get(layout.filling(1, 0)) is None
        rates.set(50.0)
        while await store.get(layout.filling(1, 0)) is None:
            await asyncio.sleep(0.01)
    for process in started:
        process.kill()
    with pytest.raises(UnavailableError):
        await running
    held = (await filling(store, 1, 0)).rows
    assert held > 0
    again: list[Progress] = []
    built = await client.run(job, again.append, rates=Rates())
    assert max(progress.resumed for progress in again if progress.shard == 0) == held
    adopted = await do(job_of("adopt", spec_of(0), tmp_path / "g0"), store)
    assert total_digest(shards_of(built, target)) == total_digest(shards_of(adopted, spec_of(0)))
    await store.close()
