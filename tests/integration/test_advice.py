"""Advice on buckets that the real Brainy wrote, by the command and without it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from brainy.advice.advising import advise
from brainy.advice.looking import find_out
from brainy.advice.values import Answers, Way
from brainy.backup.values import BackupFormat
from brainy.backup.writing import BackupOptions, write_backup
from brainy.bucket import layout
from brainy.bucket.records import Routing, Spec
from brainy.cli.main import app
from brainy.clock import SystemClock
from brainy.ids import Ids
from brainy.legacy.outlay import Assumptions
from brainy.samples import sample_objects, sample_truth
from brainy.sdk.sparse import Row
from brainy.sdk.sparse_rows import RowReader
from brainy.store.base import ObjectStore
from brainy.store.local import LocalStore
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy.testing.fixtures import load_fixture, read_truth

NS = "memory://app"
GIVEN = Assumptions(nodes=3)


async def sample(store: ObjectStore) -> None:
    for key, body, user_metadata in sample_objects():
        await store.put(key, body, user_metadata=user_metadata)


@pytest.fixture(scope="module")
def sample_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sample")
    asyncio.run(sample(LocalStore(directory, durable=False)))
    return directory


def brainy(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["advise", *arguments])


@pytest.mark.parametrize(
    ("options", "advised"),
    [
        (["--exclusive", "--no-old-writers"], "backup-and-restore"),
        (["--shared", "--downtime", "inf", "--no-old-writers"], "in-place-upgrade"),
        (["--shared", "--downtime", "inf", "--old-writers"], "coordinated"),
        (["--shared", "--downtime", "0"], "blue-green"),
        (["--shared", "--downtime", "1"], "rolling"),
        (["--isolate", "--no-old-writers"], "dedicated-namespace"),
        (["--no-vectors", "--no-old-writers"], "sparse-import"),
    ],
)
def test_each_leaf_on_the_sample(sample_directory: Path, options: list[str], advised: str) -> None:
    told = brainy(f"file://{sample_directory}", *options, "--json")
    assert (told.exit_code, told.stderr) == (0, "")
    found = json.loads(told.stdout)
    assert found["advised"] == advised
    counts = sample_truth()
    assert (found["found"]["nouns"], found["found"]["verbs"]) == (len(counts["nouns"]), len(counts["verbs"]))
    for each in found["strategies"]:
        assert each["figures"]["request_cost"] < 0.05
        assert each["figures"]["calls"]["get"] < 10 * 1808
        assert each["figures"]["duration_seconds"] < 60


def test_the_view_says_what_counts_and_what_to_do_and_writes_nothing(sample_directory: Path) -> None:
    before = {str(path): path.stat().st_mtime_ns for path in sample_directory.rglob("*")}
    told = brainy(f"file://{sample_directory}", "--shared", "--old-writers")
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert "blue-green" in lines
    for heading in ("What counts", "The way through the decision graph", "Steps", "What can go wrong"):
        assert heading in lines
    for text in ("you say so", "migrate start", "writes wait", "100 ms, at most 3 s", "docs/runbooks/blue-green.md"):
        assert text in told.stdout, text
    assert {str(path): path.stat().st_mtime_ns for path in sample_directory.rglob("*")} == before


def test_nothing_fits_is_exit_4_and_says_why(sample_directory: Path) -> None:
    told = brainy(f"file://{sample_directory}", "--old-writers", "--keep-source")
    assert told.exit_code == 4
    assert "nothing fits" in told.stdout
    assert "writes would stand still for about" in told.stdout
    shown = brainy(f"file://{sample_directory}", "--old-writers", "--keep-source", "--json")
    assert shown.exit_code == 4
    assert json.loads(shown.stdout)["advised"] is None


def test_a_fast_look_counts_nothing(sample_directory: Path) -> None:
    told = brainy(f"file://{sample_directory}", "--fast", "--json")
    assert told.exit_code == 0
    found = json.loads(told.stdout)
    assert found["found"]["basis"] == "survey"
    assert found["found"]["nouns"] is None
    assert found["strategies"][0]["figures"]["duration_seconds"] is None
    assert [warning["code"] for warning in found["warnings"]] == ["NOT_COUNTED"]
    assert brainy(f"file://{sample_directory}", "--fast").exit_code == 0


async def test_a_fast_look_makes_at_most_ninety_calls() -> None:
    inner = MemoryStore()
    await sample(inner)
    store = MeteredStore(inner)
    await find_out(store, NS, assumptions=GIVEN, fast=True)
    assert store.calls["get"] + store.calls["list"] == sum(store.calls.values()) <= 90


def test_what_is_no_bucket_of_brainys(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = brainy(f"file://{tmp_path}/empty", "--json")
    assert (empty.exit_code, json.loads(empty.stdout)["advised"]) == (0, "sparse-import")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_bytes(b"\xff")
    for more in ([], ["--fast"]):
        told = brainy(f"file://{tmp_path}/other", *more, "--json")
        assert told.exit_code == 4
        assert json.loads(told.stderr)["error"]["reason"] == "NOT_A_BRAINY_BUCKET"
    assert brainy(f"file://{tmp_path}/nothing").exit_code == 3
    assert brainy(f"file://{tmp_path}/empty", "--target", f"file://{tmp_path}/empty").exit_code == 2
    assert brainy(f"file://{tmp_path}/empty", "--downtime", "nan").exit_code == 2


async def test_a_bucket_that_is_served_in_place_is_not_served_again() -> None:
    store = MemoryStore()
    await sample(store)
    routing = Routing(namespace=NS, epoch=3, nonce="n", leader_epoch=1, active=0, write=0)
    spec = Spec(generation=0, dimensions=512, shard_count=4, source="brainy", source_trees=("flat",))
    await store.put(layout.ROUTING, routing.encode())
    await store.put(layout.spec(0), spec.encode())

    facts = await find_out(store, NS, assumptions=GIVEN)
    assert (facts.state, facts.basis, facts.generation) == ("served", "inspection", 0)
    found = advise(facts, Answers(shared=True, old_writers=False), assumptions=GIVEN)
    assert found.advised is Way.BLUE_GREEN
    assert not any(step.command.startswith("brainy up") for step in found.strategies[0].steps)


async def test_an_empty_namespace_of_a_cluster_is_a_generation_that_nobody_counted() -> None:
    store = MemoryStore()
    routing = Routing(namespace=NS, epoch=3, nonce="n", leader_epoch=1, active=0, write=0)
    await store.put(layout.ROUTING, routing.encode())
    await store.put(layout.spec(0), Spec(generation=0, dimensions=3, shard_count=4, source="empty").encode())
    facts = await find_out(store, NS, assumptions=GIVEN)
    assert (facts.state, facts.basis, facts.nouns) == ("generation", "survey", None)
    assert advise(facts, Answers(), assumptions=GIVEN).advised is Way.IN_PLACE


@pytest.mark.parametrize("name", ["v0.10.0", "v0.20.0", "v0.30.0", "v0.46.0-distributed", "v0.57.0", "v1.1.1"])
async def test_recorded_buckets(recorded_buckets: Path, name: str) -> None:
    store = MemoryStore()
    await load_fixture(store, recorded_buckets / name)
    facts = await find_out(store, NS, assumptions=GIVEN)
    for said, advised in (
        (Answers(shared=False, old_writers=False), Way.BACKUP_RESTORE),
        (Answers(shared=True, downtime_seconds=float("inf"), old_writers=False), Way.IN_PLACE),
        (Answers(shared=True, downtime_seconds=float("inf"), old_writers=True), Way.COORDINATED),
        (Answers(shared=True, downtime_seconds=0.0), Way.BLUE_GREEN),
        (Answers(shared=True, downtime_seconds=0.5), Way.ROLLING),
    ):
        found = advise(facts, said, assumptions=GIVEN)
        assert found.advised is advised
        if facts.quarantined:
            assert any(risk.code in ("QUARANTINED", "LEFT_BEHIND") for risk in found.strategies[0].risks)


@pytest.mark.parametrize("name", ["v0.36.0", "v0.46.0", "v1.1.1"])
async def test_a_backup_makes_about_the_calls_that_are_predicted(
    recorded_buckets: Path, name: str, tmp_path: Path
) -> None:
    store = MemoryStore()
    await load_fixture(store, recorded_buckets / name)
    facts = await find_out(store, NS, assumptions=GIVEN)
    assert facts.nouns == len(read_truth(recorded_buckets / name)["nouns"])
    found = advise(facts, Answers(), assumptions=GIVEN)
    figures = next(each.figures for each in found.strategies if each.strategy is Way.BACKUP_RESTORE)
    assert figures.calls is not None

    metered = MeteredStore(store)
    path = tmp_path / "one.backup"
    await write_backup(metered, NS, path, BackupOptions(format=BackupFormat.NATIVE), clock=SystemClock(), ids=Ids())
    # It surveys the bucket first, with up to 64 GETs and 24 LISTs.
    assert metered.calls["get"] == pytest.approx(figures.calls.get, rel=0.1, abs=64)
    assert metered.calls["list"] == pytest.approx(figures.calls.list, rel=0.1, abs=24)
    assert figures.disk_bytes is not None
    assert path.stat().st_size < figures.disk_bytes


async def test_the_lines_of_the_runbook_leave_out_the_vectors(tmp_path: Path) -> None:
    store = MemoryStore()
    await sample(store)
    await write_backup(store, NS, tmp_path / "texts.json", BackupOptions(), clock=SystemClock(), ids=Ids())
    page = (Path(__file__).parents[2] / "docs" / "runbooks" / "sparse-import.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)

    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    truth = sample_truth()
    assert len(rows) == len(truth["nouns"]) + len(truth["verbs"])
    assert not any("vector" in row for row in rows)
    reader = RowReader()
    verbs = [reader.verb(Row(number=at, value=row)).item for at, row in enumerate(rows) if "sourceId" in row]
    assert len(verbs) == len(truth["verbs"])
    assert {verb.type for verb in verbs} == {verb["type"] for verb in entries(truth["verbs"])}


def entries(part: Any) -> list[dict[str, Any]]:
    return [{"id": item_id} | fields for item_id, fields in part.items()] if isinstance(part, dict) else part
