"""A migration tried on a sample: a cluster of its own, a verdict, figures for the whole, and nothing written there."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from brainy.clock import SystemClock
from brainy.errors import InvalidRequestError, PreconditionError
from brainy.sdk.migration import TargetSpec
from brainy.sdk.quality import QualityThresholds
from brainy.sdk.sample_run import run_sample
from tests.e2e.conftest import RunCluster
from tests.e2e.pages import put_sample

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def contents(bucket: Path) -> dict[str, bytes]:
    return {path.relative_to(bucket).as_posix(): path.read_bytes() for path in bucket.rglob("*") if path.is_file()}


def left_in(work: Path) -> list[Path]:
    return list(work.glob("brainy-sample-*"))


async def command(*words: str) -> tuple[int, dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brainy.cli.main", "migrate", "sample", *words, "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await asyncio.wait_for(process.communicate(), 400)
    assert process.returncode is not None
    assert said, complained.decode()
    return process.returncode, orjson.loads(said)


async def test_a_tree_of_brainys_and_what_stands_in_its_way(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    await put_sample(f"file://{bucket}")
    before = contents(bucket)
    code, found = await command(f"file://{bucket}", "--percent", "50", "--scalar-kind", "f16", "--work", str(tmp_path))
    assert contents(bucket) == before, "nothing in service is touched"
    assert found["state"] == "SUCCEEDED", found
    assert found["digest_equal"]
    assert found["of"] == 2
    assert 0.3 < (found["nouns"] + found["verbs"]) / found["items_expected"] < 0.7
    assert found["quality"]["queries"] >= 64
    assert found["quality"]["target_recall"] > 0.9
    assert found["copy_seconds_at_most"] > found["copy_seconds"] > 0.0
    assert found["bucket_bytes_expected"] > found["bucket_bytes"] > 0
    assert set(found["read_calls"]) <= {"get", "list", "get_range", "head"}
    # What cannot be read of the sample stands for more of the whole, and is accepted or is not.
    assert (code, found["passed"]) == ((1, False) if found["problems"] else (0, True))
    assert left_in(tmp_path) == []


async def test_a_generation_to_a_target_that_finds_too_little(tmp_path: Path, run_cluster: RunCluster) -> None:
    uri = f"file://{tmp_path / 'bucket'}"
    with pytest.raises(InvalidRequestError):
        await run_sample(uri, percent=0.0, clock=SystemClock())
    with pytest.raises(InvalidRequestError):
        await run_sample(uri, strategy="coordinated", clock=SystemClock())
    rng = np.random.default_rng(3)
    async with run_cluster(uri, nodes=1) as (_, client):
        await client.add_many(rng.normal(size=(3000, 32)), ids=[f"n{n}" for n in range(3000)])
        migration = await client.start_migration("in-place-upgrade")
        assert (await client.wait_for_migration(migration.id)).succeeded
    with pytest.raises(PreconditionError, match="nothing in the sample"):
        await run_sample(uri, percent=0.001, clock=SystemClock())
    good = await run_sample(uri, percent=30.0, clock=SystemClock(), quality=QualityThresholds(max_latency_ratio=0.0))
    assert good.passed, good.problems
    assert 600 < good.nouns < 1300
    assert good.items_expected == good.of * good.nouns
    # Another metric finds other neighbours.
    poor = await run_sample(uri, percent=30.0, clock=SystemClock(), target=TargetSpec(metric="ip"))
    assert any("nearest neighbours are shared" in problem for problem in poor.problems), poor
    assert (poor.state, poor.digest_equal, poor.passed) == ("SUCCEEDED", True, False), "the rest is shown all the same"
