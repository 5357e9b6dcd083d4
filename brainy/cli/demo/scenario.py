"""The demonstration itself."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np

from brainy.bucket.namespace import Namespace
from brainy.cli.demo.oracle import Oracle, noun_value, sample_faults, sum_of, verb_value
from brainy.cli.demo.report import LiveView, Report
from brainy.cli.demo.traffic import Traffic
from brainy.clock import Clock, Deadline
from brainy.config.settings import load_settings
from brainy.errors import UnavailableError
from brainy.ids import Ids
from brainy.samples import sample_objects, sample_truth
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.migration import Strategy
from brainy.sdk.values import Noun, Verb
from brainy.store.opening import open_store

_WRITERS = 3
_SEARCHERS = 2
#: Nouns of the sample that each writer may replace and delete.
_SAMPLE_SHARE = 6
#: A shard at rest is folded soon, because the demonstration shows a cold start at its end.
_SETTINGS = {"BRAINY_NODE__FOLD_IDLE_SLOTS": "1", "BRAINY_NODE__FOLD_IDLE_SECONDS": "1.5"}
_FOLD_SECONDS = 30.0
_BEFORE_SECONDS = 2.0
_AFTER_SECONDS = 2.0
_START_SECONDS = 60.0
_MIGRATION_SECONDS = 60.0
_QUERIES = 100
#: States in which a migration is at work; the node is killed in the first of them that is seen.
_MIDWAY = ("COPYING", "CATCHING_UP", "READY")


class Demonstration:
    """A bucket of Brainy's, served in place, upgraded under load with a node killed midway, and checked.

    Steps: (1) put the sample into the bucket; (2) start a cluster on it and search at once; (3) read everything and
    compare with what Brainy wrote; (4) start writers and searchers; (5) start a rolling migration, SIGKILL a node
    once it is at work, start another; (6) wait until it has succeeded, let traffic go on for a while, stop it;
    (7) compare everything with what was acknowledged; (8) stop every process, remove its disk, start anew from the
    bucket alone, compare again.
    After: the report says what was found; processes are gone, also on an error.
    """

    def __init__(self, report: Report, view: LiveView, *, directory: Path, clock: Clock) -> None:
        self.report = report
        self._view = view
        self._directory = directory
        self._clock = clock
        self._truth: Mapping[str, Any] = sample_truth()
        self._nouns = Oracle()
        self._verbs = Oracle()

    async def run(self) -> None:
        """Do it all."""
        report, began = self.report, self._clock.monotonic()
        self._view.phase("putting a bucket of Brainy 0.46 in place")
        await self._put_sample()
        started = self._clock.monotonic()
        self._view.phase(f"starting a coordinator and {report.nodes} nodes")
        async with self._cluster() as cluster:
            report.store_calls_before = await store_calls(cluster)
            async with cluster.client() as brainy:
                await self._first_search(brainy)
                report.first_search_seconds = self._clock.monotonic() - started
                self._view.phase("reading everything")
                await self._read_baseline(brainy)
                await self._upgrade(cluster, brainy)
                self._view.phase("comparing with what was acknowledged")
                await self._verify(brainy)
                report.recall_at_10 = await self._recall(brainy)
                self._view.phase("folding what was written into checkpoints")
                await self._folded(cluster)
        self._view.phase("starting anew from the bucket alone")
        shutil.rmtree(self._directory / "cluster", ignore_errors=True)
        async with self._cluster() as cluster:
            report.store_calls_after = await store_calls(cluster)
            async with cluster.client() as brainy:
                report.after_restart = await self._differences(brainy)
        report.seconds = self._clock.monotonic() - began

    async def _folded(self, cluster: LocalCluster) -> None:
        """Wait until the tails are in checkpoints, as they are in any cluster that has been at rest for a moment."""
        deadline = Deadline.after(self._clock, _FOLD_SECONDS)
        while await tails(cluster) and not deadline.passed:
            await self._clock.sleep(0.2)

    def _cluster(self) -> LocalCluster:
        return LocalCluster(
            self.report.namespace,
            nodes=self.report.nodes,
            directory=self._directory / "cluster",
            # Fold early, so that it happens under load and a cold start after it reads little of the log.
            settings=_SETTINGS,
        )

    async def _put_sample(self) -> None:
        store = open_store(Namespace.parse(self.report.namespace), load_settings().store, clock=self._clock, ids=Ids())
        gate = asyncio.Semaphore(32)

        async def put(key: str, body: bytes, metadata: Mapping[str, str]) -> None:
            async with gate:
                await store.put(key, body, user_metadata=metadata)

        try:
            async with asyncio.TaskGroup() as group:
                for key, body, metadata in sample_objects():
                    group.create_task(put(key, body, metadata))
        finally:
            await store.close()
        self.report.sample_nouns = len(self._truth["nouns"])
        self.report.sample_verbs = len(self._truth["verbs"])

    async def _first_search(self, brainy: AsyncBrainy) -> None:
        noun_id, noun = next(iter(self._truth["nouns"].items()))
        hits = await brainy.search(np.array(noun["vector"], dtype=np.float32), 10)
        if not hits or hits[0].id != noun_id:
            self.report.counters.wrong += 1
            self.report.counters.blame(f"the first search did not find {noun_id}")

    async def _read_baseline(self, brainy: AsyncBrainy) -> None:
        nouns, verbs = await scan(brainy)
        self.report.sample_faults += sample_faults(nouns, verbs, self._truth, without=frozenset())
        for noun in nouns:
            self._nouns.acknowledged(noun.id, noun_value(noun))
        for verb in verbs:
            self._verbs.acknowledged(verb.id, verb_value(verb))

    async def _upgrade(self, cluster: LocalCluster, brainy: AsyncBrainy) -> None:
        report = self.report
        traffic = Traffic(
            brainy,
            dimensions=self._truth["dim"],
            seed=report.seed,
            clock=self._clock,
            nouns=self._nouns,
            verbs=self._verbs,
        )
        traffic.counters = report.counters
        traffic.start(writers=_WRITERS, searchers=_SEARCHERS, sample=self._shares())
        try:
            self._view.phase("writing and searching")
            await self._clock.sleep(_BEFORE_SECONDS)
            self._view.phase("rolling migration")
            began = self._clock.monotonic()
            migration = await brainy.start_migration(Strategy.ROLLING, requested_by="brainy demo")
            report.migration_id = migration.id
            async with asyncio.timeout(_MIGRATION_SECONDS):
                await self._follow(cluster, brainy, migration.id)
            report.migration_seconds = self._clock.monotonic() - began
            await self._clock.sleep(_AFTER_SECONDS)
            await traffic.stop()
        except TimeoutError as error:
            raise UnavailableError(
                "the migration did not end in time",
                remedy="run again with --keep and read the coordinator's log",
                migration=report.migration_id,
                seconds=_MIGRATION_SECONDS,
            ) from error
        finally:
            await traffic.cancel()

    async def _follow(self, cluster: LocalCluster, brainy: AsyncBrainy, migration_id: str) -> None:
        report = self.report
        replacement: asyncio.Task[None] | None = None
        try:
            async with aclosing(brainy.watch_migration(migration_id)) as changes:
                async for seen in changes:
                    self._view.migration(seen)
                    report.migration_state = seen.state
                    if replacement is None and seen.state in _MIDWAY:
                        report.killed_during = seen.state
                        report.killed_node = await cluster.kill_node(-1)
                        self._view.phase(f"killed {report.killed_node}, starting another")
                        replacement = asyncio.create_task(self._replace(cluster))
            ended = await brainy.get_migration(migration_id)
            report.migration_state = ended.state
            report.write_pause_seconds = ended.write_pause_seconds
            report.source_generation = ended.source_generation
            report.target_generation = ended.target_generation
            report.cluster_digest_equal = ended.digest_equal
            if replacement is not None:
                await replacement
        finally:
            if replacement is not None and not replacement.done():
                replacement.cancel()
                await asyncio.gather(replacement, return_exceptions=True)

    async def _replace(self, cluster: LocalCluster) -> None:
        self.report.replacement_node = (await cluster.start_node(timeout_seconds=_START_SECONDS)).name

    def _shares(self) -> list[list[str]]:
        ids = sorted(self._truth["nouns"])
        return [ids[number * _SAMPLE_SHARE : (number + 1) * _SAMPLE_SHARE] for number in range(_WRITERS)]

    async def _verify(self, brainy: AsyncBrainy) -> None:
        report = self.report
        nouns, verbs = await scan(brainy)
        touched = frozenset(noun_id for share in self._shares() for noun_id in share)
        report.sample_faults += sample_faults(nouns, verbs, self._truth, without=touched)
        found_nouns = {noun.id: noun_value(noun) for noun in nouns}
        found_verbs = {verb.id: verb_value(verb) for verb in verbs}
        report.nouns = self._nouns.check(found_nouns)
        report.verbs = self._verbs.check(found_verbs)
        report.scan_digest_equal = self._nouns.digest() == sum_of(found_nouns) and self._verbs.digest() == sum_of(
            found_verbs
        )

    async def _differences(self, brainy: AsyncBrainy) -> int:
        nouns, verbs = await scan(brainy)
        return (
            self._nouns.check({noun.id: noun_value(noun) for noun in nouns}).count
            + self._verbs.check({verb.id: verb_value(verb) for verb in verbs}).count
        )

    async def _recall(self, brainy: AsyncBrainy) -> float:
        rng = np.random.default_rng([self.report.seed, 2000])
        queries = rng.standard_normal((_QUERIES, self._truth["dim"])).astype("<f4")
        near = await brainy.search_many(queries, 10, include_metadata=False)
        true = await brainy.search_many(queries, 10, include_metadata=False, exact=True)
        found = sum(
            len({hit.id for hit in some} & {hit.id for hit in all_}) for some, all_ in zip(near, true, strict=True)
        )
        return found / sum(map(len, true))


async def scan(brainy: AsyncBrainy) -> tuple[list[Noun], list[Verb]]:
    """Read every noun, soft-deleted ones included, and every verb."""
    nouns = [noun async for noun in brainy.scan(include_soft_deleted=True)]
    verbs = [verb async for verb in brainy.scan_verbs()]
    return nouns, verbs


async def tails(cluster: LocalCluster) -> int:
    """Log records that the nodes' replicas hold on top of their bases."""
    total = 0
    for endpoint in cluster.endpoints:
        async with AsyncBrainy([endpoint]) as node:
            total += (await node.get_performance_metrics()).tail_size
    return total


async def store_calls(cluster: LocalCluster) -> int:
    """Sum of the calls every node has made to the object store since it started."""
    total = 0
    for endpoint in cluster.endpoints:
        async with AsyncBrainy([endpoint]) as node:
            total += sum((await node.get_performance_metrics()).store_calls.values())
    return total
