"""Reads tried on a target that follows, in a cluster of processes that is written all the time."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from brainy.clock import Deadline, SystemClock
from brainy.errors import PreconditionError
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.migration import TargetSpec
from brainy.sdk.traffic import ReadComparison
from brainy.traffic.judging import Thresholds, judge
from tests.e2e.conftest import RunCluster

DIMENSIONS = 16
#: No cut-over ends within it, so that the migration is READY between one attempt and the next.
NEVER_SWITCH_SECONDS = 0.001
_WRITERS = 6
_AT_ONCE = 16


async def set_reads(
    client: AsyncBrainy, migration: str, *, weight: float, shadow: float, restart: bool = False
) -> None:
    """Set them as soon as the migration is READY."""
    deadline = Deadline.after(SystemClock(), 40.0)
    while True:
        try:
            await client.set_reads(migration, weight=weight, shadow=shadow, restart=restart)
            return
        except PreconditionError as error:
            if deadline.passed or error.reason != "WRONG_PHASE":
                raise
            await asyncio.sleep(0.05)


class Writers:
    """Clients that write at a steady rate, and read their own writes back at once."""

    def __init__(self, cluster: LocalCluster, *, rate: float) -> None:
        self._stopping = asyncio.Event()
        self.written = 0
        self.stale: list[str] = []
        self._tasks = [
            asyncio.create_task(self._write(cluster, number, _WRITERS * _AT_ONCE / rate)) for number in range(_WRITERS)
        ]

    async def _write(self, cluster: LocalCluster, number: int, every: float) -> None:
        rng = np.random.default_rng(number)
        clock = SystemClock()
        client = cluster.client()
        try:
            due = clock.monotonic()
            turn = 0
            while not self._stopping.is_set():
                turn += 1
                item = f"w{number}-{turn % 20}"
                vectors = rng.normal(size=(_AT_ONCE, DIMENSIONS)).astype(np.float32)
                vector = vectors[0]
                names = [item, *(f"{item}-{n}" for n in range(1, _AT_ONCE))]
                await client.add_many(vectors, [{"turn": turn}] * _AT_ONCE, names)
                self.written += _AT_ONCE
                if turn % 10 == 0:
                    noun = await client.get(item)
                    if noun is None or noun.metadata != {"turn": turn}:
                        self.stale.append(f"{item} at {turn}: {noun}")
                if turn % 15 == 0:
                    hits = await client.search(vector, 3)
                    if item not in [hit.id for hit in hits]:
                        self.stale.append(f"{item} at {turn} is not found")
                due = max(due + every, clock.monotonic() - 0.5)
                await asyncio.sleep(max(0.0, due - clock.monotonic()))
        finally:
            await client.close()

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)


async def command(cluster: LocalCluster, *words: str) -> tuple[int, dict[str, object]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brainy.cli.main", "migrate", *words, "--json", "--dir", str(cluster.directory)),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, orjson.loads(said)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_shadow_and_weighted_reads_under_writes(tmp_path: Path, run_cluster: RunCluster) -> None:
    rng = np.random.default_rng(1)
    async with run_cluster(f"file://{tmp_path / 'bucket'}", nodes=2) as (cluster, client):
        await client.add_many(rng.normal(size=(2000, DIMENSIONS)), ids=[f"n{n}" for n in range(2000)])
        migration = await client.start_migration("in-place-upgrade", pause_cap_seconds=NEVER_SWITCH_SECONDS)
        writers = Writers(cluster, rate=240.0)
        await set_reads(client, migration.id, weight=0.0, shadow=1.0)
        reader = cluster.client()  # has written nothing: each of its reads is chosen for itself
        ids = [f"n{n}" for n in range(0, 2000, 50)] + [f"w{n}-{m}" for n in range(_WRITERS) for m in range(5)]

        async def read(turns: int) -> list[float]:
            clock = SystemClock()
            took = []
            for _ in range(turns):
                began = clock.monotonic()
                await reader.search(rng.normal(size=DIMENSIONS), 10)
                took.append(clock.monotonic() - began)
                await reader.get_many([ids[int(n)] for n in rng.integers(0, len(ids), size=8)])
                await asyncio.sleep(0.02)
            return took

        began, wrote = SystemClock().monotonic(), writers.written
        await read(120)
        rate = (writers.written - wrote) / (SystemClock().monotonic() - began)
        found = await compared(client, migration.id, calls=240)
        seen = found.comparison
        print(f"\nwrites a second: {rate:.0f}; {seen}")
        assert all(not node.problem for node in found.nodes)
        assert seen.items_differing == 0, seen.differences
        assert seen.items > 400
        assert seen.queries > 100
        assert seen.overlap is not None
        assert seen.overlap > 0.99
        assert seen.queries_unsettled <= 0.1 * (seen.queries + seen.queries_unsettled)
        assert seen.failed == 0

        # Weighted: an even share for who has no session, the session's own side for writers, right either way.
        await set_reads(client, migration.id, weight=0.5, shadow=0.0, restart=True)
        await read(60)
        weighted = (await client.compare_reads(migration.id)).comparison
        print(f"weighted: {weighted.reads_answered} answered, {weighted.reads_fallen_back} fell back")
        assert weighted.reads_answered > 40
        assert weighted.reads_fallen_back <= 0.1 * weighted.reads_answered
        await writers.stop()
        assert writers.stale == []

        status, report = await command(
            cluster, "compare", migration.id, "--sampled", "--queries", "20", "--min-overlap", "90"
        )
        assert (status, report["passed"]) == (0, True), report
        status, report = await command(cluster, "compare", migration.id, "--min-queries", "1000000")
        assert (status, report["passed"]) == (1, False)
        for _ in range(200):
            status, report = await command(cluster, "reads", migration.id, "--weight", "25", "--shadow", "10")
            if status == 0:
                break
        assert report == {"weight": 0.25, "shadow": 0.1}
        await client.abort_migration(migration.id)
        await client.wait_for_migration(migration.id)
        assert (await client.compare_reads(migration.id)).shares is None
        await reader.close()


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_target_of_another_metric_is_found_before_it_is_switched_to(
    tmp_path: Path, run_cluster: RunCluster
) -> None:
    """Every item is where it should be, every digest equal; only real queries tell."""
    rng = np.random.default_rng(2)
    async with run_cluster(f"file://{tmp_path / 'bucket'}", nodes=2) as (cluster, client):
        scale = rng.uniform(0.2, 5.0, size=(500, 1))
        await client.add_many(rng.normal(size=(500, DIMENSIONS)) * scale, ids=[f"n{n}" for n in range(500)])
        migration = await client.start_migration(
            "in-place-upgrade", TargetSpec(metric="l2sq"), pause_cap_seconds=NEVER_SWITCH_SECONDS
        )
        await set_reads(client, migration.id, weight=0.0, shadow=1.0)
        reader = cluster.client()
        for _ in range(30):
            await reader.search(rng.normal(size=DIMENSIONS), 10)
        await reader.get_many([f"n{n}" for n in range(40)])
        await reader.close()
        found = await compared(client, migration.id, calls=31)
        print(f"\n{found.comparison}")
        judgement = judge(
            found.comparison, Thresholds(min_queries=30, min_overlap=0.9, max_items_differing=0, max_error_share=0.0)
        )
        assert len(judgement.reasons) == 1, judgement.reasons
        assert "nearest neighbours are shared" in judgement.reasons[0]
        assert found.comparison.items == 40
        assert found.comparison.queries_unsettled == 0
        assert found.comparison.target_recall is not None
        assert found.comparison.target_recall > 0.9, "the index is good; it is the answers that are others"
        await client.abort_migration(migration.id)


async def compared(client: AsyncBrainy, migration: str, *, calls: int) -> ReadComparison:
    deadline = Deadline.after(SystemClock(), 30.0)
    while (found := await client.compare_reads(migration)).comparison.asked < calls:
        assert not deadline.passed, found
        await asyncio.sleep(0.1)
    return found
