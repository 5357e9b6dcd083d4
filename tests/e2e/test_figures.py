"""Statistics and metrics of real processes, against what the real Brainy wrote."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from brainy import AsyncBrainy, Statistics, create_quick_brainy_async
from brainy.bucket import layout
from brainy.bucket.records import Spec
from brainy.samples import sample_truth
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.sizing import PROCESS_BYTES
from tests.e2e.conftest import RunCluster
from tests.e2e.pages import put_sample
from tests.e2e.truth import entries


def check(figures: Statistics, services: dict[str, Counter[str]]) -> None:
    assert figures.noun_count == services["nouns"].total()
    assert figures.verb_count == services["verbs"].total()
    assert figures.metadata_count == services["metadata"].total()
    for name in {*services["nouns"], *services["verbs"]}:
        found = figures.by_service[name]
        assert found.noun_count == services["nouns"][name], name
        assert found.verb_count == services["verbs"][name], name
        assert found.metadata_count == services["metadata"][name], name
    assert figures.nouns_by_service == {name: count for name, count in services["nouns"].items() if count}
    for by, total in ((figures.nouns_by_type, figures.noun_count), (figures.verbs_by_type, figures.verb_count)):
        assert sum(by.values()) == total


@pytest.mark.slow
async def test_figures_are_counted_before_and_after_writes_and_an_upgrade(
    tmp_path: Path, run_cluster: RunCluster
) -> None:
    truth = sample_truth()
    nouns, verbs = entries(truth["nouns"]), entries(truth["verbs"])
    services = {
        "nouns": Counter(map(service_of, nouns.values())),
        "verbs": Counter(map(service_of, verbs.values())),
        "metadata": Counter(service_of(noun) for noun in nouns.values() if noun["has_metadata_object"]),
    }
    assert len(services["nouns"]) > 1
    (tmp_path / "bucket").mkdir()
    await put_sample(f"file://{tmp_path}/bucket")
    async with run_cluster(f"file://{tmp_path}/bucket", nodes=2) as (_, client):
        check(await client.get_statistics(), services)

        # Written anew, deleted and written by nobody in particular: each is counted out and in.
        noun_id = next(iter(nouns))
        vector = np.asarray(nouns[noun_id]["vector"], np.float32)
        await client.add(vector, {"createdBy": {"augmentation": "guide"}}, id=noun_id)
        await client.add(vector, id="nobodys")
        verb_id = next(iter(verbs))
        await client.delete_verb(verb_id)
        services["nouns"][service_of(nouns[noun_id])] -= 1
        services["metadata"][service_of(nouns[noun_id])] -= 1
        services["nouns"]["guide"] += 1
        services["metadata"]["guide"] += 1
        services["nouns"][""] += 1
        services["verbs"][service_of(verbs[verb_id])] -= 1
        check(await settled(client), services)

        ended = await client.wait_for_migration((await client.start_migration("in-place-upgrade")).id)
        assert ended.state == "SUCCEEDED", ended.message
        check(await client.get_statistics(), services)

        for _ in range(8):
            await client.search(vector, 5)
        metrics = await client.get_performance_metrics()
        assert metrics.total_searches > 0
        assert metrics.average_search_time > 0
        assert metrics.cache_hit_rate is not None
        assert 0 <= metrics.cache_hit_rate <= 1
        assert metrics.compression_ratio is not None
        assert 0.1 < metrics.compression_ratio < 1


def service_of(item: dict[str, Any]) -> str:
    """What the stored item says, which for a few is not who wrote it."""
    for document in (item.get("metadata"), item):
        creator = document.get("createdBy") if isinstance(document, dict) else None
        if isinstance(creator, dict) and creator.get("augmentation"):
            return str(creator["augmentation"])
    return ""


async def settled(client: AsyncBrainy) -> Statistics:
    """Statistics once all nodes, asked in turn, say the same: one that follows may be a moment behind."""
    while True:
        figures = [await client.get_statistics() for _ in range(4)]
        if all(each == figures[0] for each in figures) and "guide" in figures[0].by_service:
            return figures[0]


@pytest.mark.slow
async def test_a_scenario_shapes_what_is_started(tmp_path: Path) -> None:
    state, bucket = tmp_path / "state", tmp_path / "bucket"
    bucket.mkdir()
    await put_sample(f"file://{bucket}")
    client = await create_quick_brainy_async(
        "large", f"file://{bucket}", nodes=1, dimensions=128, max_memory_usage=700 << 20, state_directory=state
    )
    async with client:
        spec = Spec.decode((bucket / layout.spec(0)).read_bytes(), key="spec.json")
        # Brainy's own vectors decide how long vectors are; the scenario decides the rest.
        assert (spec.dimensions, spec.scalar_kind, spec.shard_count) == (32, "f16", 4)
        running = LocalCluster.attach(state)
        assert running is not None
        for process in running.processes:
            alive = psutil.Process(process.record.pid)
            assert alive.environ()["BRAINY_NODE__EXPANSION_SEARCH"] == "128"
            assert alive.memory_info().rss < 2 * PROCESS_BYTES, process.name
        noun_id, noun = next(iter(entries(sample_truth()["nouns"]).items()))
        found = await client.search(noun["vector"], 1)
        assert found[0].id == noun_id
        metrics = await client.get_performance_metrics()
        assert metrics.compression_ratio is not None
        assert 0 < metrics.compression_ratio < 2
