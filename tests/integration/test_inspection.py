"""Buckets written by the real Brainy, inspected: every count is that of the truth."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from brainy.bucket.namespace import Namespace
from brainy.cli.main import app
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.ids import Ids
from brainy.legacy.inspection import Assumptions, InspectionProgress, inspect
from brainy.store.base import ObjectMeta
from brainy.store.local import LocalStore
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy.store.opening import open_store
from brainy.testing.fixtures import load_fixture, read_objects, read_truth
from brainy.testing.servers import S3Server
from tests.conftest import BUCKET

BUCKETS = (
    "v0.10.0",
    "v0.20.0",
    "v0.30.0",
    "v0.36.0",
    "v0.36.0-native512",
    "v0.46.0",
    "v0.46.0-distributed",
    "v0.46.0-writeonly",
    "v0.48.1",
    "v0.57.0",
    "v0.62.3",
    "v1.1.1",
)
#: Before there was a change log, and verbs in two objects, nothing was left of a deleted verb.
NO_TRACE_OF_DELETED_VERBS = ("v0.10.0", "v0.20.0")


@pytest.fixture
def bucket(recorded_buckets: Path, name: str) -> Path:
    return recorded_buckets / name


def entries(part: Any) -> list[dict[str, Any]]:
    return [{"id": item_id} | fields for item_id, fields in part.items()] if isinstance(part, dict) else part


def named(found: list[object]) -> dict[str, int]:
    return dict(Counter(name for name in found if isinstance(name, str)))


def author(metadata: object) -> object:
    by = metadata.get("createdBy") if isinstance(metadata, dict) else None
    return by.get("augmentation") if isinstance(by, dict) else None


def type_of(metadata: object) -> object:
    return (metadata.get("noun") or metadata.get("nounType")) if isinstance(metadata, dict) else None


def assert_counts(found: dict[str, Any], truth: dict[str, Any], name: str) -> None:
    """Hold the JSON of an inspection against a truth file, whatever that file offers."""
    nouns, verbs = entries(truth["nouns"]), entries(truth["verbs"])
    assert (found["nouns"], found["verbs"]) == (len(nouns), len(verbs))
    assert found["dimensions"] == {
        str(length): count for length, count in Counter(len(noun["vector"]) for noun in nouns).items()
    }
    assert found["verb_types"] == named([verb["type"] for verb in verbs])
    assert found["zero_vectors"] == sum(not any(noun["vector"]) for noun in nouns)
    assert found["non_finite_vectors"] == sum(None in noun["vector"] for noun in nouns)
    if "metadata" in nouns[0]:
        stored = [noun["metadata"] for noun in nouns]
        assert found["noun_types"] == named([type_of(metadata) for metadata in stored])
        assert found["nouns_without_metadata"] == sum(not noun["has_metadata_object"] for noun in nouns)
        assert found["nouns_with_null_metadata"] == sum(
            noun["has_metadata_object"] and noun["metadata"] is None for noun in nouns
        )
        services = {service: row["nouns"] for service, row in found["services"].items() if row["nouns"]}
        assert services == named([author(metadata) for metadata in stored])
    if "createdBy" in verbs[0]:
        services = {service: row["verbs"] for service, row in found["services"].items() if row["verbs"]}
        assert services == named([author(verb) for verb in verbs])
    ids = {noun["id"] for noun in nouns}
    dangling = [verb for verb in verbs if not {verb["sourceId"], verb["targetId"]} <= ids]
    assert found["dangling_verbs"] == len(dangling)
    prefixes = truth.get("objects_by_prefix")
    if prefixes is not None:
        assert found["objects"] == sum(prefixes.values())
        folders = sorted(found["prefixes"], key=len, reverse=True)
        counted = Counter[str]()
        for path, count in prefixes.items():
            counted[next(folder for folder in folders if path.startswith(folder))] += count
        assert {folder: row["objects"] for folder, row in found["prefixes"].items()} == counted
    if "extra_keys" in truth:
        configs = [key for key in truth["extra_keys"] if key.endswith("_distributed_config.json")]
        assert [found["distributed"]["key"]] * len(configs) == configs if configs else found["distributed"] is None
    if "counts" in truth:
        assert_full_truth(found, truth, name)


def assert_full_truth(found: dict[str, Any], truth: dict[str, Any], name: str) -> None:
    counts = truth["counts"]
    assert found["objects"] == counts["objects"]
    assert found["nouns"] == counts["nouns"]
    assert found["verbs"] == counts["verbs"]
    assert found["nouns"] - found["soft_deleted_nouns"] == counts["nouns_minus_soft_deleted"]
    assert found["soft_deleted_nouns"] == counts["soft_deleted_nouns"]
    assert found["deleted_nouns"] == counts["deleted_nouns"]
    assert found["deleted_nouns"] == len(truth["null_metadata_tombstones"])
    assert found["deleted_verbs"] == (0 if name in NO_TRACE_OF_DELETED_VERBS else counts["deleted_verbs"])
    assert found["dangling_verbs"] == counts["dangling_verbs"]
    assert found["orphan_verb_metadata"] == len(truth["orphan_verb_metadata"])
    assert found["orphan_noun_metadata"] == 0
    assert found["zombie_nouns"] == len(truth["zombie_nouns"])
    assert found["zombie_verbs"] == len(truth["zombie_verbs"])
    assert found["quarantined_count"] == len(truth["zombie_nouns"]) + len(truth["zombie_verbs"])
    assert found["index_entries"] == truth["index_entries_in_metadata_prefix"]
    assert (found["rescuable_nouns"], found["rescuable_doubtful"]) == (0, 0)
    several = truth["ids_in_several_prefixes"]
    assert found["duplicates"]["nouns"] + found["duplicates"]["verbs"] == len(several)
    for sighting in found["duplicates"]["sample"]:
        assert sorted(sighting["keys"]) in [sorted(each["keys"]) for each in several if each["id"] == sighting["id"]]
    log = found["change_log"]
    assert log["entries"] == truth["change_log_entries"] == sum(log["by_operation"].values())
    assert set(log["by_instance"]) <= {instance["instanceId"] for instance in truth["instances"]}
    assert [lock["holder"] for lock in found["locks"]] == [lock["value"] for lock in truth["locks"]]
    assert all(lock["stale"] for lock in found["locks"])
    assert {each["key"] for each in found["statistics"]["found"]} == truth["statistics"].keys()
    for each in found["statistics"]["found"]:
        said = truth["statistics"][each["key"]]
        assert each["nouns"] == sum(said["nounCount"].values())
        assert each["verbs"] == sum(said["verbCount"].values())
        assert (each["hnsw_index_size"], each["last_updated"]) == (said["hnswIndexSize"], said["lastUpdated"])
    for row in found["statistics"]["drift"]:
        newest = truth["statistics"][found["statistics"]["found"][0]["key"]]
        if row["service"] is not None:
            assert row["claimed"] == newest[{"nouns": "nounCount", "verbs": "verbCount"}[row["kind"]]].get(
                row["service"]
            )
        assert row["difference"] == (row["claimed"] or 0) - row["counted"]
    first, last = (tuple(map(int, found["version_range"][end].split("."))) for end in ("oldest", "newest"))
    assert first <= tuple(map(int, truth["version"].removeprefix("v").split("."))) <= last


def loggable(item_id: str) -> bool:
    # An id that no HTTP header can carry never reached Brainy's log.
    return all(ord(character) < 256 for character in item_id)


@pytest.mark.parametrize("name", BUCKETS)
async def test_every_count_is_that_of_the_truth(bucket: Path, name: str) -> None:
    store, truth = MemoryStore(), read_truth(bucket)
    await load_fixture(store, bucket)
    steps: list[InspectionProgress] = []

    found = await inspect(store, steps.append)

    assert_counts(json.loads(found.model_dump_json()), truth, name)
    assert steps[-1].objects_listed == found.objects
    assert found.objects == sum(1 for _ in {item.key for item in read_objects(bucket)})
    assert steps[-1].objects_read <= steps[-1].objects_expected
    assert steps[-1].objects_expected <= 1.3 * steps[-1].objects_read
    reads = [step.objects_read for step in steps]
    assert reads == sorted(reads)
    if truth.get("change_log_entries"):
        assert (found.change_log.unreadable, found.change_log.index_noise or 0) <= (0, found.change_log.entries)
        nouns = [noun["id"] for noun in entries(truth["nouns"])]
        assert (found.change_log.nouns_without_add or 0) >= sum(not loggable(item_id) for item_id in nouns)


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("name", ["v0.10.0", "v0.30.0", "v0.46.0", "v0.57.0", "v1.1.1"])
async def test_a_migration_costs_about_what_is_predicted(bucket: Path, name: str, nodes: int) -> None:
    store = MemoryStore()
    await load_fixture(store, bucket)
    found = await inspect(store, assumptions=Assumptions(nodes=nodes))

    metered = MeteredStore(store)
    for node in range(nodes):
        source = BrainyTreeSource(metered, found.trees)
        await source.total()
        async for _ in source.stream(shards=range(node, 4, nodes), shard_count=4):
            pass
    # In small buckets it is a matter of moments what has been listed before it would be asked for.
    assert metered.calls["list"] == pytest.approx(found.migration.list_calls, rel=0.1, abs=2 * nodes)
    assert metered.calls["get"] == pytest.approx(found.migration.get_calls, rel=0.1, abs=300 * nodes)
    assert metered.calls["get_range"] == pytest.approx(found.migration.partial_get_calls, abs=20)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v0.46.0-10k"])
async def test_ten_thousand_nouns(bucket: Path, name: str, tmp_path: Path) -> None:
    store, truth = LocalStore(tmp_path, durable=False), read_truth(bucket)
    await load_fixture(store, bucket)
    found = await inspect(store)
    assert_counts(json.loads(found.model_dump_json()), truth, name)
    assert found.change_log.entries == found.prefixes["change-log/"].objects == 22_000
    assert found.change_log.by_entity == {"noun": 10_000, "metadata": 10_000, "verb": 2_000}


@pytest.mark.parametrize("name", ["v0.46.0", "v0.57.0"])
def test_the_command_prints_the_same(bucket: Path, name: str, tmp_path: Path) -> None:
    asyncio.run(load_fixture(LocalStore(tmp_path, durable=False), bucket))
    before = {str(path): path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    told = CliRunner().invoke(app, ["inspect", "--json", f"file://{tmp_path}"])

    assert (told.exit_code, told.stderr) == (0, "")
    assert_counts(json.loads(told.stdout), read_truth(bucket), name)
    assert {str(path): path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["v0.10.0", "v0.48.1"])
def test_an_object_server_that_lists_folder_by_folder(
    bucket: Path, name: str, seaweedfs_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in seaweedfs_server.environment.items():
        monkeypatch.setenv(variable, value)
    namespace = f"s3://{BUCKET}/inspected/{name}"

    async def load() -> None:
        store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
        await load_fixture(store, bucket)
        await store.close()

    asyncio.run(load())
    told = CliRunner().invoke(app, ["inspect", "--json", namespace])
    assert told.stderr == ""
    assert (told.exit_code, told.stderr) == (0, "")
    found = json.loads(told.stdout)
    assert_counts(found, read_truth(bucket), name)
    assert "LIVE_WRITERS" in {advice["code"] for advice in found["advice"]}


@pytest.mark.parametrize("name", ["v0.46.0"])
def test_people_are_told_what_matters(bucket: Path, name: str, tmp_path: Path) -> None:
    asyncio.run(load_fixture(LocalStore(tmp_path, durable=False), bucket))
    told = CliRunner().invoke(app, ["inspect", f"file://{tmp_path}", "--nodes", "3", "--price-get", "1"])
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert max(map(len, lines)) <= 200
    for text in ("flat tree", "189", "WRONG_DIMENSIONS_AT_RISK", "catalog-api", "3 nodes, 4 shards", "+15"):
        assert text in told.stdout, text
    headings = ["Items", "Deleted, lost, odd", "Brainy's own book-keeping", "A migration (3 nodes, 4 shards)", "Advice"]
    assert [line for line in lines if line in headings] == headings


class Counting(MemoryStore):
    """A store whose objects are made when asked for, so that only the inspection takes memory."""

    def __init__(self, nouns: int) -> None:
        super().__init__()
        self._nouns = nouns
        self._body = b'{"id":"%s","vector":[1,2,3],"connections":{}}'

    async def get(self, key: str) -> Any:
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Any, *, concurrency: int = 64) -> Any:
        found = []
        for key in keys:
            await super().put(key, self._content(key))
            found.append(self._objects.pop(key))
        return found

    def _content(self, key: str) -> bytes:
        name = key.rpartition("/")[2].removesuffix(".json").encode()
        if key.startswith("nouns/"):
            return self._body % name
        if key.startswith("metadata/"):
            return b'{"noun":"person","createdBy":{"augmentation":"crm","version":"1.0"}}'
        number = name.rpartition(b"-")[2]
        head = b'{"timestamp":%d,"operation":"add","entityType":"noun","entityId":"%s","data":{"vector":[1,2,3]}'
        return head % (1_795_000_000_000 + int(number), number.zfill(12)) + b',"instanceId":"7"}'

    async def list(self, prefix: str, *, start_after: str = "") -> Any:
        page: list[ObjectMeta] = []
        for folder in ("change-log/", "metadata/", "nouns/"):
            if not (folder.startswith(prefix) or prefix.startswith(folder)):
                continue
            for number in range(self._nouns):
                name = f"{1_795_000_000_000 + number}-{number:09d}" if folder == "change-log/" else f"{number:012d}"
                key = f"{folder}{name}.json"
                if key.startswith(prefix) and key > start_after:
                    page.append(ObjectMeta(key=key, size=len(self._content(key)), etag="", last_modified=1.0))
                if len(page) == 1000:
                    yield page
                    page = []
        if page:
            yield page


@pytest.mark.slow
async def test_memory_grows_by_a_few_bytes_an_object() -> None:
    async def kept(nouns: int) -> int:
        """Memory in use when everything has been read, the last batches included."""
        in_use: list[int] = []
        tracemalloc.start()
        try:
            found = await inspect(Counting(nouns), lambda _: in_use.append(tracemalloc.get_traced_memory()[0]))
        finally:
            tracemalloc.stop()
        assert (found.nouns, found.change_log.nouns_without_add) == (nouns, 0)
        return in_use[-1]

    await kept(100)
    small, large = await kept(3_000), await kept(8_000)
    # Three objects a noun.
    assert (large - small) / (3 * 5_000) <= 64
