"""One import, or the same GETs without it, in a process of its own.

    python -m tests.bench.importing KIND NAMESPACE

Kinds: ``tree`` streams every shard through ``BrainyTreeSource``; ``raw-threads`` and ``raw-async`` ask obstore alone
for the keys such an import reads, which were listed before the clock started. ``inspect`` takes the census of the
bucket; ``raw-threads-all`` and ``raw-async-all`` also ask for the change log, as it does. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path

import obstore
import orjson
from obstore.store import S3Store as ObstoreS3

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.legacy.inspection import inspect
from brainy.store.credentials import credential_provider
from brainy.store.s3_access import S3Access
from brainy_node.builder.courtesy import give_way
from tests.bench.bucket import CHANGE_LOG, ITEMS, item_keys, opened

_IN_FLIGHT = 64
KINDS = ("tree", "raw-threads", "raw-async", "inspect", "raw-threads-all", "raw-async-all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What one run took."""

    kind: str
    seconds: float
    cpu_seconds: float
    gets: int
    items: int
    peak_bytes: int

    @property
    def rate(self) -> float:
        """GETs a second."""
        return self.gets / self.seconds


async def run_child(kind: str, namespace: str) -> Imported:
    """Run one kind in a fresh process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.importing", kind, namespace, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{kind} ended with {process.returncode}")
    return Imported(**orjson.loads(output))


def _raw_store(namespace: str) -> tuple[ObstoreS3, str]:
    place = Namespace.parse(namespace)
    store = ObstoreS3(
        place.root,
        config={"aws_endpoint_url_s3": S3Access.of(StoreSettings()).endpoint},
        credential_provider=credential_provider(),
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    return store, f"{place.prefix}/"


def _get_in_threads(store: ObstoreS3, keys: Sequence[str]) -> None:
    places = iter(keys)

    def work() -> None:
        for key in places:
            obstore.get(store, key).bytes()

    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        for worker in [pool.submit(work) for _ in range(_IN_FLIGHT)]:
            worker.result()


async def _get_on_the_loop(store: ObstoreS3, keys: Sequence[str]) -> None:
    places = iter(keys)

    async def work() -> None:
        for key in places:
            await (await obstore.get_async(store, key)).bytes_async()

    await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))


async def _tree(namespace: str) -> tuple[int, int]:
    items = 0
    async with opened(namespace) as store:
        source = BrainyTreeSource(store, ("flat",))
        async with aclosing(source.stream(shards=range(4), shard_count=4)) as batches:
            async for batch in batches:
                items += len(batch.nouns) + len(batch.verbs)
        return source.calls.gets, items


async def _census(namespace: str) -> tuple[int, int]:
    async with opened(namespace) as store:
        found = await inspect(store)
    return found.store_calls["get"], found.nouns + found.verbs


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


async def _measured(kind: str, namespace: str) -> Imported:
    clock = SystemClock()
    items = 0
    give_way()  # as builders do
    if kind == "tree":
        cpu, began = _cpu_seconds(), clock.monotonic()
        gets, items = await _tree(namespace)
    elif kind == "inspect":
        cpu, began = _cpu_seconds(), clock.monotonic()
        gets, items = await _census(namespace)
    else:
        async with opened(namespace) as listing:
            keys = await item_keys(listing, (*ITEMS, CHANGE_LOG) if kind.endswith("-all") else ITEMS)
        store, prefix = _raw_store(namespace)
        keys = [prefix + key for key in keys]
        gc.collect()
        cpu, began = _cpu_seconds(), clock.monotonic()
        gets = len(keys)
        if kind.startswith("raw-threads"):
            await asyncio.to_thread(_get_in_threads, store, keys)
        else:
            await _get_on_the_loop(store, keys)
    return Imported(
        kind=kind,
        seconds=clock.monotonic() - began,
        cpu_seconds=_cpu_seconds() - cpu,
        gets=gets,
        items=items,
        peak_bytes=_peak_bytes(),
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(asdict(asyncio.run(_measured(*sys.argv[1:3])))))
