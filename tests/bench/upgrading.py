"""An upgrade by a cluster of three, what it keeps, what a cold start costs before and after, and recall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainy.clock import SystemClock
from brainy.sdk.client import AsyncBrainy
from tests.bench.clusters import fresh_cluster, store_calls
from tests.bench.figures import Figure, Report, at_least, at_most
from tests.bench.quiet import wait_until_quiet
from tests.e2e.truth import as_float32, entries

_NODES = 3
_COLD_START_SHARE = 0.01
_QUERIES = 200
_RECALL_BAR = 0.95


async def measure_upgrade(report: Report, directory: Path, truth: dict[str, Any]) -> None:
    """Upgrade the whole bucket in place."""
    nouns = entries(truth["nouns"])
    clock = SystemClock()
    await wait_until_quiet(report.patience_seconds)
    began = clock.monotonic()
    async with fresh_cluster(directory, nodes=_NODES) as (cluster, client):
        report.add(Figure(name="start on Brainy's bucket, s", value=f"{clock.monotonic() - began:.1f}"))
        report.add(_cold_start("generation 0", await store_calls(cluster), len(nouns), bar=False))
        before = await client.get_statistics()
        began = clock.monotonic()
        migration = await client.start_migration("in-place-upgrade", requested_by="bench")
        migration = await client.wait_for_migration(migration.id)
        seconds = clock.monotonic() - began
        after = await client.get_statistics()
        counts = (before.noun_count, before.verb_count), (after.noun_count, after.verb_count)
        kept = migration.succeeded and migration.digest_equal and counts[0] == counts[1]
        report.add(Figure(name="upgrade, s", value=f"{seconds:.1f}", raw={"pause": migration.write_pause_seconds}))
        report.add(Figure(name="writes paused, ms", value=f"{migration.write_pause_seconds * 1000:.0f}"))
        report.add(
            Figure(
                name="digest equal; nouns, verbs before and after",
                value=f"{migration.state} {migration.digest_equal}; {counts[0]} {counts[1]}",
                bar="equal",
                ok=kept and counts[1] == (len(nouns), len(truth["verbs"])),
            )
        )
        wrong = await _wrong_vectors(client, nouns)
        report.add(Figure(name="vectors that differ as float32", value=str(wrong), bar="= 0", ok=wrong == 0))
    await wait_until_quiet(report.patience_seconds)
    began = clock.monotonic()
    async with fresh_cluster(directory, nodes=_NODES) as (cluster, client):
        report.add(Figure(name="cold start, upgraded, s", value=f"{clock.monotonic() - began:.1f}"))
        report.add(_cold_start("upgraded", await store_calls(cluster), len(nouns), bar=True))
        recall = await _recall(client, np.array([noun["vector"] for noun in truth["nouns"]], dtype=np.float32))
        report.add(at_least(f"recall@10 over {_QUERIES} queries", recall, _RECALL_BAR, shown=f"{recall:.4f}"))


def _cold_start(name: str, calls: list[dict[str, int]], nouns: int, *, bar: bool) -> Figure:
    most = max(calls, key=lambda kinds: sum(kinds.values()))
    share = sum(most.values()) / nouns
    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(most.items()))
    shown = f"{share:.2%} = {sum(most.values()):,} ({kinds})"
    label = f"cold start of a node, {name}: calls of one GET a noun"
    raw: dict[str, object] = {"nodes": calls}
    if not bar:
        return Figure(name=label, value=shown, raw=raw)
    return at_most(label, share, _COLD_START_SHARE, shown=shown, raw=raw)


async def _wrong_vectors(client: AsyncBrainy, nouns: dict[str, dict[str, Any]]) -> int:
    scanned = {noun.id: noun async for noun in client.scan(include_soft_deleted=True)}
    wrong = len(scanned.keys() ^ nouns.keys())
    for noun_id, noun in scanned.items():
        expected = nouns.get(noun_id)
        if expected is not None and noun.vector is not None:
            wrong += not np.array_equal(noun.vector, as_float32(expected["vector"]))
        else:
            wrong += 1
    return wrong


async def _recall(client: AsyncBrainy, vectors: np.ndarray) -> float:
    # Queries like the data, but not of it: a stored vector would always find itself.
    rng = np.random.default_rng(46)
    queries = vectors[rng.choice(len(vectors), _QUERIES, replace=False)]
    queries = queries + rng.normal(scale=0.3 * queries.std(), size=queries.shape).astype(np.float32)
    near = await client.search_many(queries, 10, include_metadata=False)
    true = await client.search_many(queries, 10, include_metadata=False, exact=True)
    found = sum(len({hit.id for hit in a} & {hit.id for hit in b}) for a, b in zip(near, true, strict=True))
    return found / sum(map(len, true))
