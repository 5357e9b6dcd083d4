"""Copies from generation to generation: as fast as it goes, and beside searches.

As fast as it goes: a builder process fills a generation from one of as many nouns, in turns with a bare process, which
reads the same segments with pyarrow and builds the same index with the same threads, and does nothing else: no hashes,
no checks, no lookups, no documents, nothing written but the index. Both are started afresh each time.

Beside searches: one node, one client with one search in flight; the p99 of the seconds before the copy against the p99
while it lasts, with the throttle as it comes.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np

from brainy.bucket import layout, segments
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import Noun
from brainy.bucket.namespace import Namespace
from brainy.bucket.records import Manifest, Spec, StoredFile
from brainy.clock import SystemClock
from brainy.config.settings import Settings, StoreSettings
from brainy.ids import Ids
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.copies import CopyProgress
from brainy.sdk.local_cluster import LocalCluster
from brainy.store.opening import open_store
from brainy_node.builder.client import BuilderClient
from brainy_node.builder.courtesy import index_threads
from brainy_node.builder.job import Job
from brainy_node.builder.rates import Rates
from tests.bench.figures import Figure, Report, at_least, at_most
from tests.bench.quiet import wait_until_quiet, watched
from tests.bench.searching import SearchLoop

DIMENSIONS = 384
ITEMS = 60_000
_SEGMENT_ROWS = 20_000
_SPEED_BAR = 0.7
_P99_BAR = 1.2
_QUIET_SECONDS = 15.0
_CLOCK, _IDS = SystemClock(), Ids()


async def measure_copy(report: Report, directory: Path, *, rounds: int, items: int = ITEMS) -> None:
    """Measure both."""
    await _measure_speed(report, directory / "speed", rounds=rounds, items=items)
    await _measure_courtesy(report, directory / "courtesy", items=items)


# --- as fast as it goes --------------------------------------------------------------------------------------


def _nouns(items: int) -> Iterator[list[Noun]]:
    rng = np.random.default_rng(11)
    for start in range(0, items, 1000):
        some = rng.normal(size=(min(1000, items - start), DIMENSIONS)).astype("<f4")
        yield [
            Noun(id=f"noun-{start + at}", vector=row.tobytes(), metadata=b'{"noun":"thing","name":"%d"}' % at)
            for at, row in enumerate(some)
        ]


async def _write_source(uri: str, directory: Path, items: int) -> Manifest:
    """Write a generation of one shard; its index is never read."""
    store = open_store(Namespace.parse(uri), StoreSettings(), clock=_CLOCK, ids=_IDS)
    files: list[StoredFile] = []
    digest = MultisetDigest()
    batches = list(_nouns(items))
    for noun in (noun for batch in batches for noun in batch):
        digest.add(noun.id, noun.digest())
    step = _SEGMENT_ROWS // 1000
    for number in range(0, len(batches), step):
        path = directory / f"{number}.parquet"
        rows = segments.write_nouns(path, batches[number : number + step], dimensions=DIMENSIONS)
        key = layout.segment(1, "nouns", 0, f"bench-{number}")
        files.append(segments.stored_file(path, key=key, rows=rows))
        await store.put(key, path.read_bytes())
    manifest = Manifest(
        generation=1,
        shard=0,
        epoch=1,
        nonce="bench",
        position=0,
        nouns=tuple(files),
        noun_count=items,
        verb_count=0,
        indexed_count=0,
        digest=digest.fold(),
    )
    await store.put(layout.spec(1), _spec(1).encode())
    await store.put(layout.manifest(1, 0), manifest.encode())
    await store.close()
    return manifest


def _spec(generation: int) -> Spec:
    return Spec(generation=generation, dimensions=DIMENSIONS, shard_count=1, source="empty" if generation == 1 else "1")


async def _copy(uri: str, directory: Path, generation: int) -> float:
    job = Job(
        kind="fill",
        namespace=uri,
        spec=_spec(generation),
        shards=(0,),
        output=str(directory / f"g{generation}"),
        epochs={0: 1},
    )
    began = _CLOCK.monotonic()
    await BuilderClient(Settings()).run(job, lambda progress: None, rates=Rates())
    return _CLOCK.monotonic() - began


async def _bare(bucket: Path, manifest: Manifest, out: Path) -> float:
    spec = _spec(2)
    arguments = [
        str(out),
        str(index_threads(0)),
        spec.metric,
        spec.scalar_kind,
        str(spec.connectivity),
        str(spec.expansion_add),
        *(str(bucket / file.key) for file in manifest.nouns),
    ]
    began = _CLOCK.monotonic()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.bench.bare_copy", *arguments)
    if await process.wait():
        raise RuntimeError("the bare process failed")
    return _CLOCK.monotonic() - began


async def _measure_speed(report: Report, directory: Path, *, rounds: int, items: int) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    bucket = directory / "bucket"
    bucket.mkdir(parents=True)
    uri = f"file://{bucket}"
    manifest = await _write_source(uri, directory, items)
    copies, bares = [], []
    for number in range(rounds):
        await wait_until_quiet(report.patience_seconds)
        async with watched() as foreign:
            bares.append(await _bare(bucket, manifest, directory / "bare.usearch"))
            copies.append(await _copy(uri, directory, 2 + number))
        report.disturbance = max(report.disturbance, foreign.share)
        report.say(f"  copy {copies[-1]:.1f} s, bare {bares[-1]:.1f} s")
        shutil.rmtree(directory / f"g{2 + number}", ignore_errors=True)
    share = median(bare / copy for bare, copy in zip(bares, copies, strict=True))
    report.add(Figure(name=f"copy of {items:,} nouns, items a second", value=f"{items / median(copies):,.0f}"))
    raw: dict[str, object] = {"copies": copies, "bares": bares, "items": items, "threads": index_threads(0)}
    report.add(at_least("copy / reading and bare index", share, _SPEED_BAR, raw=raw))


# --- beside searches -----------------------------------------------------------------------------------------


async def _measure_courtesy(report: Report, directory: Path, *, items: int) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    bucket = directory / "bucket"
    bucket.mkdir(parents=True)
    settings = {"BRAINY_NODE__FOLD_IDLE_SLOTS": "1", "BRAINY_NODE__FOLD_IDLE_SECONDS": "2"}
    cluster = LocalCluster(f"file://{bucket}", nodes=1, directory=directory / "cluster", settings=settings)
    await cluster.start(timeout_seconds=300.0)
    client = cluster.client()
    try:
        rng = np.random.default_rng(12)
        vectors = rng.normal(size=(items, DIMENSIONS)).astype(np.float32)
        for start in range(0, items, 2000):
            part = vectors[start : start + 2000]
            await client.add_many(part, ids=[f"noun-{start + at}" for at in range(len(part))])
        # A generation that begins empty is its log alone; the next one is folded, and there is something to copy.
        first = await client.start_migration("in-place-upgrade", requested_by="bench")
        await client.wait_for_migration(first.id)
        while (await client.get_performance_metrics()).tail_size:
            await asyncio.sleep(0.5)
        loop = SearchLoop(client, vectors)
        await loop.during(asyncio.sleep(2.0))  # warm up
        await wait_until_quiet(report.patience_seconds)
        async with watched() as foreign:
            before = await loop.during(asyncio.sleep(_QUIET_SECONDS))
            seen: list[CopyProgress] = []
            began = _CLOCK.monotonic()
            busy = await loop.during(_copied(client, seen))
            seconds = _CLOCK.monotonic() - began
        report.disturbance = max(report.disturbance, foreign.share)
        after = await loop.during(asyncio.sleep(_QUIET_SECONDS))
        report.add(Figure(name="search ms, before / after a copy", value=f"{before} / {after}"))
        report.add(Figure(name="search ms, during it", value=str(busy)))
        reasons = sorted({limit.reason for progress in seen for limit in progress.limits} - {""})
        report.add(Figure(name="copy beside searches, s; held back by", value=f"{seconds:.1f}; {', '.join(reasons)}"))
        raw: dict[str, object] = {"before": asdict(before), "busy": asdict(busy), "after": asdict(after)}
        report.add(at_most("search p99 during a copy / before", busy.p99 / before.p99, _P99_BAR, raw=raw))
    finally:
        await client.close()
        await cluster.stop()


async def _copied(client: AsyncBrainy, seen: list[CopyProgress]) -> None:
    migration = await client.start_migration("in-place-upgrade", requested_by="bench", hold_before_switch=True)
    async with aclosing(client.watch_migration(migration.id)) as changes:
        async for change in changes:
            if change.copy is not None:
                seen.append(change.copy)
            if change.state not in ("PENDING", "PREFLIGHTING", "COPYING"):
                return
