"""Latency of searches on one node: quiet, beside an import, beside a checkpoint, beside folds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from brainy.clock import SystemClock
from brainy.sdk.client import AsyncBrainy
from tests.bench.clusters import forget_cluster, fresh_cluster, store_calls
from tests.bench.figures import Figure, Report, at_most
from tests.bench.quiet import wait_until_quiet, watched

_BAR = 2.0
_QUIET_SECONDS = 8.0
_FOLD_RECORDS = 500
_WRITTEN = 4 * _FOLD_RECORDS * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Of searches one after the other, milliseconds."""

    searches: int
    p50: float
    p99: float
    longest: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.2f}, p99 {self.p99:.2f}, longest {self.longest:.1f} ({self.searches:,})"


async def measure_searches(report: Report, directory: Path, vectors: np.ndarray) -> None:
    """Search one node of real processes while its builder works."""
    await forget_cluster()
    settings = {"BRAINY_NODE__FOLD_RECORDS": str(_FOLD_RECORDS), "BRAINY_NODE__FOLD_SHARE": "0.01"}
    async with fresh_cluster(directory, nodes=1, settings=settings) as (cluster, client):
        report.say(f"  one node, generation 0: {await store_calls(cluster)}")
        loop = SearchLoop(client, vectors)
        await loop.during(asyncio.sleep(2.0))  # warm up

        async def beside(
            name: str, work: Callable[[], Awaitable[None]], prepare: Callable[[], Awaitable[object]] | None = None
        ) -> None:
            await wait_until_quiet(report.patience_seconds)
            async with watched() as calm:
                before = await loop.during(asyncio.sleep(_QUIET_SECONDS))
            if prepare:
                await prepare()
            async with watched() as foreign:
                busy = await loop.during(work())
            report.disturbance = max(report.disturbance, calm.share, foreign.share)
            await wait_until_quiet(report.patience_seconds)
            after = await loop.during(asyncio.sleep(_QUIET_SECONDS))
            quiet = min(before.p99, after.p99)
            report.add(Figure(name=f"search ms, quiet before / after {name}", value=f"{before} / {after}"))
            report.add(Figure(name=f"search ms, during {name}", value=str(busy)))
            raw: dict[str, object] = {"before": asdict(before), "busy": asdict(busy), "after": asdict(after)}
            report.add(at_most(f"search p99 during {name} / quiet", busy.p99 / quiet, _BAR, raw=raw))

        async def migrate() -> None:
            migration = await client.start_migration("in-place-upgrade", requested_by="bench")
            async with aclosing(client.watch_migration(migration.id)) as changes:
                async for seen in changes:
                    if seen.state not in ("PENDING", "PREFLIGHTING", "COPYING"):
                        break

        await beside("an import of the tree", migrate)
        await _settled(client)
        await beside("a checkpoint of the next generation", migrate)
        await _settled(client)

        rng = np.random.default_rng(7)
        added = vectors[rng.integers(len(vectors), size=_WRITTEN)] + rng.normal(
            scale=0.1, size=(_WRITTEN, vectors.shape[1])
        ).astype(np.float32)

        async def fold() -> None:
            while (await client.get_performance_metrics()).tail_size >= _FOLD_RECORDS:
                await asyncio.sleep(0.1)

        async def write() -> None:
            await client.add_many(added, ids=[f"bench-{number}" for number in range(_WRITTEN)])

        await beside("folds", fold, write)


async def _settled(client: AsyncBrainy) -> None:
    for migration in await client.list_migrations():
        await client.wait_for_migration(migration.id)


class SearchLoop:
    """Searches with k = 10, one in flight, for as long as something else takes."""

    def __init__(self, client: AsyncBrainy, vectors: np.ndarray) -> None:
        self._client = client
        self._queries = vectors[np.random.default_rng(5).integers(len(vectors), size=1000)]
        self._clock = SystemClock()

    async def during(self, work: Awaitable[None]) -> Latency:
        """Search until the work has ended; raises what it raises."""
        task = asyncio.ensure_future(work)
        taken: list[float] = []
        while not task.done():
            began = self._clock.monotonic()
            await self._client.search(self._queries[len(taken) % len(self._queries)], 10)
            taken.append((self._clock.monotonic() - began) * 1000)
        await task
        p50, p99 = np.percentile(taken, [50, 99])
        return Latency(searches=len(taken), p50=float(p50), p99=float(p99), longest=max(taken))
