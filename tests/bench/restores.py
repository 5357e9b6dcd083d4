"""Restore of a native backup against the import of the same data as legacy objects.

Both end with the data served: an import is what the start of a node on Brainy's bucket takes longer than on an empty
one, a restore is checked, written and proven.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import obstore
import orjson
from obstore.store import S3Store as ObstoreS3

from brainy.backup.values import BackupFormat
from brainy.backup.writing import BackupOptions, write_backup
from brainy.clock import SystemClock
from brainy.ids import Ids
from brainy.sdk.local_cluster import LocalCluster
from tests.bench.bucket import BUCKET, opened
from tests.bench.figures import Figure, Report, at_least
from tests.bench.quiet import wait_until_quiet, watched

NOUNS, VERBS, DIMENSIONS = 10_000, 2_000, 512
LEGACY = f"s3://{BUCKET}/legacy512"
_SPEED_BAR = 10.0
_THREADS = 32


async def measure_restore(report: Report, directory: Path, *, rounds: int) -> None:
    """Import and restore, turn by turn; each restore goes into an empty namespace of a running cluster."""
    clock = SystemClock()
    objects = put_legacy()
    report.say(f"{objects:,} objects of {NOUNS:,} nouns x {DIMENSIONS} and {VERBS:,} verbs")
    archive, document = directory / "bench.backup", directory / "bench.json"
    times: dict[str, list[float]] = {"import": [], "restore": [], "restore_json": []}
    async with opened(LEGACY) as store:
        for path, kind in ((archive, BackupFormat.NATIVE), (document, BackupFormat.BRAINY)):
            began = clock.monotonic()
            summary = await write_backup(
                store, LEGACY, path, BackupOptions(format=kind, keep_doubles=False), clock=clock, ids=Ids()
            )
            seconds = clock.monotonic() - began
            report.say(f"  backup, {kind.value}: {seconds:.1f} s, {summary.bytes / 1e6:.1f} MB")
    for turn in range(rounds):
        await wait_until_quiet(report.patience_seconds)
        async with watched() as foreign:
            served = await _serve(directory / f"import-{turn}")
            for name, path in (("restore", archive), ("restore_json", document)):
                empty, seconds = await _restore(path, directory / f"{name}-{turn}", f"{name}-{turn}")
                times[name].append(seconds)
            times["import"].append(served - empty)
        report.disturbance = max(report.disturbance, foreign.share)
        report.say(f"  {foreign.share:.0%} other work; " + ", ".join(f"{k} {v[-1]:.2f} s" for k, v in times.items()))
    taken = {name: median(some) for name, some in times.items()}
    items = NOUNS + VERBS
    for name, seconds in taken.items():
        report.add(Figure(name=f"{name} of {items:,} items", value=f"{seconds:.2f} s ({items / seconds:,.0f} items/s)"))
    ratio = taken["import"] / taken["restore"]
    report.add(at_least("restore of a native backup / import of legacy objects", ratio, _SPEED_BAR, raw=dict(times)))


async def _serve(directory: Path) -> float:
    """Start one node on the legacy objects; returns the seconds until it serves them."""
    async with opened(LEGACY) as store:
        keys = [meta.key async for page in store.list("cluster/") for meta in page]
        await asyncio.gather(*map(store.delete, keys))
    clock = SystemClock()
    cluster = LocalCluster(LEGACY, nodes=1, directory=directory)
    began = clock.monotonic()
    await cluster.start(timeout_seconds=300.0)
    seconds = clock.monotonic() - began
    await cluster.stop()
    return seconds


async def _restore(path: Path, directory: Path, name: str) -> tuple[float, float]:
    """Restore into an empty namespace; returns the seconds of the start, and of the restore with check and proof."""
    clock = SystemClock()
    cluster = LocalCluster(f"s3://{BUCKET}/{name}", nodes=1, directory=directory)
    began = clock.monotonic()
    await cluster.start(timeout_seconds=120.0)
    started = clock.monotonic() - began
    client = cluster.client()
    try:
        began = clock.monotonic()
        done = await client.restore(path)
        seconds = clock.monotonic() - began
        if (done.nouns_restored, done.verbs_restored) != (NOUNS, VERBS):
            raise RuntimeError(f"restored {done}")
        return started, seconds
    finally:
        await client.close()
        await cluster.stop()


def put_legacy() -> int:
    """Put nouns and verbs as Brainy 0.46 stores them: four kinds of objects, pretty-printed, doubles of 17 digits."""
    store = ObstoreS3(
        BUCKET,
        config={"aws_endpoint_url_s3": os.environ["AWS_ENDPOINT_URL_S3"]},  # noqa: TID251 - the server of this run
        client_options={"allow_http": True},
    )
    rng = np.random.default_rng(46)
    vectors = rng.standard_normal((NOUNS, DIMENSIONS))

    def put(key: str, value: object) -> None:
        body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
        obstore.put(store, f"legacy512/{key}", body, use_multipart=False)

    def noun(row: int) -> None:
        name = f"{row:08x}-noun"
        put(f"nouns/{name}.json", {"id": name, "vector": vectors[row], "connections": {"0": []}, "level": 0})
        put(f"metadata/{name}.json", {"noun": "thing", "name": f"item {row}", "tags": ["a", "b"], "score": row / 7})

    def verb(row: int) -> None:
        name = f"{row:08x}-verb"
        ends = {"sourceId": f"{row:08x}-noun", "targetId": f"{row + 1:08x}-noun"}
        put(f"verbs/{name}.json", {"id": name, "vector": vectors[row], "connections": {}})
        put(f"verb-metadata/{name}.json", {**ends, "type": "relatedTo", "verb": "relatedTo", "weight": 0.5})

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(noun, range(NOUNS)))
        list(pool.map(verb, range(VERBS)))
    return 2 * (NOUNS + VERBS)
