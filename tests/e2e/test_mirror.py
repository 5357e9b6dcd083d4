"""What a cluster commits is found in Brainy's own tree by a reader with the rules of the version that lives there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainy.bucket import layout
from brainy.bucket.mirroring import MirrorCursor
from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.dataset.mirror_report import MirrorReport, mirror_report
from brainy.ids import Ids
from brainy.legacy.living import living_dialect
from brainy.legacy.mirror_choice import choose_dialect
from brainy.sdk.client import AsyncBrainy
from brainy.store.base import ObjectStore, StoredObject
from brainy.store.local import LocalStore
from brainy.store.opening import open_store
from brainy.testing.brainy_reader import BrainyReader
from brainy.testing.fixtures import fixtures_root, load_fixture
from brainy.testing.servers import S3Server
from tests.conftest import BUCKET
from tests.e2e.conftest import RunCluster

ROOT = fixtures_root()
#: A recorded bucket of each dialect, and a version of it to read with.
LIVING = {"v0.30.0": "0.30.0", "v0.46.0": "0.46.0", "v0.62.3": "1.1.1"}
QUICK_STATISTICS = {"BRAINY_NODE__MIRROR_STATISTICS_SECONDS": "1"}

pytestmark = pytest.mark.skipif(
    ROOT is None, reason="the recorded buckets are not here (set BRAINY_FIXTURES to their directory)"
)

OpenBucket = Callable[[str], AbstractAsyncContextManager[tuple[str, ObjectStore, dict[str, str]]]]


@pytest.fixture(params=["directory", "seaweedfs"])
def open_bucket(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenBucket:
    """A recorded bucket on a directory and on SeaweedFS: namespace, store, environment of the processes."""
    environment: dict[str, str] = {}
    namespace = f"file://{tmp_path / 'bucket'}"
    if request.param == "seaweedfs":
        server: S3Server = request.getfixturevalue("seaweedfs_server")
        environment = dict(server.environment)
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        namespace = f"s3://{BUCKET}/mirror-{Ids().short()}"

    @asynccontextmanager
    async def opened(folder: str) -> AsyncIterator[tuple[str, ObjectStore, dict[str, str]]]:
        assert ROOT is not None
        store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
        if namespace.startswith("file://"):
            await load_fixture(LocalStore(tmp_path / "bucket", durable=False), ROOT / folder)
        else:
            await load_fixture(store, ROOT / folder)
        dialect = await living_dialect(store)
        assert dialect is not None
        await choose_dialect(store, dialect.name, clock=SystemClock(), ids=Ids())
        try:
            yield namespace, store, environment
        finally:
            await store.close()

    return opened


async def mirrored(store: ObjectStore) -> MirrorReport:
    """Wait until nothing is behind."""
    async with asyncio.timeout(60):
        while True:
            report = await mirror_report(store, clock=SystemClock())
            if report.shards and report.lag_items == 0:
                return report
            await asyncio.sleep(0.1)


def floats(vector: Any) -> list[float | None]:
    return [None if value is None or not np.isfinite(value) else float(np.float32(value)) for value in vector]


class Sides:
    """What the cluster serves, and what that Brainy reads."""

    def __init__(self, reader: BrainyReader, client: AsyncBrainy) -> None:
        self._reader = reader
        self._client = client
        #: What Brainy has and the cluster has set aside (zombies).
        self.aside: set[str] = set()

    async def look(self) -> None:
        """Note what is different before anything is written."""
        nouns, verbs = await self._reader.nouns(), await self._reader.verbs()
        served = {noun.id async for noun in self._client.scan(include_soft_deleted=True)}
        served |= {verb.id async for verb in self._client.scan_verbs()}
        self.aside = {*nouns, *verbs} - served

    async def assert_agree(self) -> tuple[int, int]:
        """Everything the cluster serves is what Brainy reads, and Brainy reads nothing else."""
        nouns = await self._reader.nouns()
        served = {noun.id: noun async for noun in self._client.scan(include_soft_deleted=True)}
        assert nouns.keys() - self.aside == served.keys()
        for name, noun in served.items():
            read = nouns[name]
            assert noun.vector is not None
            assert floats(read.vector) == floats(noun.vector), name
            metadata = noun.metadata
            if isinstance(metadata, dict):
                metadata = {field: part for field, part in metadata.items() if field != "id"}
            assert read.metadata == metadata, name
        verbs = await self._reader.verbs()
        served_verbs = {verb.id: verb async for verb in self._client.scan_verbs()}
        assert verbs.keys() - self.aside == served_verbs.keys()
        for name, verb in served_verbs.items():
            found = verbs[name]
            assert (found.source_id, found.target_id, found.type) == (verb.source, verb.target, verb.type), name
            assert found.weight == (verb.weight or 1.0), name
            assert found.metadata == (verb.metadata or {}), name
        return len(served), len(served_verbs)


async def write_all_kinds(client: AsyncBrainy) -> None:
    """Adds, updates and deletes of nouns and verbs: new ones and recorded ones."""
    rng = np.random.default_rng(1)
    nouns = [noun.id async for noun in client.scan(include_vectors=False)]
    verbs = [verb.id async for verb in client.scan_verbs(include_vectors=False)]
    new = [f"new/{number} ä" for number in range(60)]
    await client.add_many(
        rng.standard_normal((60, 32)),
        [{"noun": "document", "n": number, "x": [1.0, None, "ß"]} if number % 3 else None for number in range(60)],
        new,
    )
    await client.add_many(rng.standard_normal((20, 32)), [{"changed": True}] * 20, nouns[:20])
    await client.delete_many([*nouns[20:35], *new[:5]])
    for number in range(15):
        await client.add_verb(
            new[10 + number],
            nouns[40 + number],
            "relatedTo",
            {"since": number} if number % 2 else None,
            weight=number / 4 if number % 3 else None,
            vector=rng.standard_normal(32),
            id=f"edge {number}",
        )
    await client.add_verb(nouns[50], nouns[51], "likes", {"changed": True}, weight=0.5, id=verbs[0])
    await client.delete_verbs([*verbs[1:12], "edge 3", "edge 4"])
    # Back after a deletion, and gone after a return.
    await client.add_many(rng.standard_normal((2, 32)), None, nouns[20:22])
    await client.delete(nouns[21])


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("folder", "open_bucket"),
    [
        *((folder, "directory") for folder in LIVING),
        ("v0.62.3", "seaweedfs"),
        *(pytest.param(folder, "seaweedfs", marks=pytest.mark.long) for folder in ("v0.30.0", "v0.46.0")),
    ],
    indirect=["open_bucket"],
)
async def test_what_is_committed_is_read_by_the_brainy_that_lives_there(
    folder: str, open_bucket: OpenBucket, run_cluster: RunCluster
) -> None:
    async with open_bucket(folder) as (namespace, store, environment):
        reader = BrainyReader(store, LIVING[folder])
        before = await logged(store)
        async with run_cluster(namespace, nodes=2, settings={**environment, **QUICK_STATISTICS}) as (_, client):
            sides = Sides(reader, client)
            await sides.look()
            await write_all_kinds(client)
            report = await mirrored(store)
            nouns, verbs = await sides.assert_agree()
            assert nouns > 150
            assert verbs > 100
            assert report.conflicts == report.foreign == 0
            assert not any(limit.withheld for limit in report.newest_limits)
            assert report.limits.keys() <= {"log-header", "json-in-id", "large-integer", "noun-type"}
            assert report.written >= 60 + 20 + 15 + 15 + 1 + 11
            # Each state that was written has its entries, and no entry has a second one.
            ours = await bodies_of(store, await logged(store) - before)
            assert {body["instanceId"] for body in ours} == {"brainy-cluster"}
            assert len(ours) >= report.written
            await statistics_include(store, reader, report)


async def logged(store: ObjectStore) -> set[str]:
    return {meta.key async for page in store.list("change-log/") for meta in page}


async def bodies_of(store: ObjectStore, keys: Iterable[str]) -> list[Any]:
    found = await store.get_many(list(keys))
    return [json.loads(item.body) for item in found if isinstance(item, StoredObject)]


async def body_of(store: ObjectStore, key: str) -> Any:
    found = await store.get(key)
    assert found is not None
    return json.loads(found.body)


async def statistics_include(store: ObjectStore, reader: BrainyReader, report: MirrorReport) -> None:
    """Wait until Brainy's statistics say what was mirrored."""
    async with asyncio.timeout(60):
        while await store.get(layout.MIRROR_STATISTICS) is None:
            await asyncio.sleep(0.1)
    names = [meta.key async for page in store.list("") for meta in page if "/statistics" in f"/{meta.key}"]
    dated = sorted(name for name in names if "statistics_" in name)
    newest = await body_of(store, dated[-1])
    oldest = await body_of(store, dated[0])
    if len(dated) > 1:
        assert newest["nounCount"].get("default", 0) >= oldest["nounCount"].get("default", 0) + 40
    assert sum(newest["nounCount"].values()) > 0
    assert newest["verbCount"]["default"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("open_bucket", ["directory", pytest.param("seaweedfs", marks=pytest.mark.long)], indirect=True)
async def test_an_owner_killed_midway_leaves_nothing_out_and_nothing_double(
    open_bucket: OpenBucket, run_cluster: RunCluster
) -> None:
    async with (
        open_bucket("v0.46.0") as (namespace, store, environment),
        run_cluster(namespace, nodes=3, settings=environment) as (cluster, client),
    ):
        sides = Sides(BrainyReader(store, "0.46.0"), client)
        await sides.look()
        before = await logged(store)
        rng = np.random.default_rng(2)
        async with asyncio.timeout(60):
            while not all([await store.get(layout.mirror_cursor(0, shard)) for shard in range(4)]):
                await asyncio.sleep(0.1)
        owners = [(await cursor_of(store, shard)).epoch for shard in range(4)]
        ids = [f"midway-{number:04d}" for number in range(900)]
        writing = asyncio.create_task(client.add_many(rng.standard_normal((900, 32)), [{"n": 1}] * 900, ids))
        async with asyncio.timeout(60):
            while not await begun(store):
                await asyncio.sleep(0.02)
        await cluster.kill_node(0)
        await writing
        await client.delete_many(ids[:100])
        await mirrored(store)
        await sides.assert_agree()
        # One entry for a noun and one for its metadata, under names that follow from the log.
        entries = await bodies_of(store, await logged(store) - before)
        adds = [body for body in entries if body["operation"] == "add"]
        named = [(body["entityType"], body["entityId"], body["timestamp"]) for body in adds]
        assert len(named) == len(set(named))
        assert [(await cursor_of(store, shard)).epoch for shard in range(4)] != owners


async def begun(store: ObjectStore) -> bool:
    """Whether any of the first objects is there."""
    return await store.get("nouns/midway-0000.json") is not None


async def cursor_of(store: ObjectStore, shard: int, generation: int = 0) -> MirrorCursor:
    key = layout.mirror_cursor(generation, shard)
    found = await store.get(key)
    assert found is not None
    return MirrorCursor.decode(found.body, key=key)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_mirror_goes_on_through_an_upgrade(tmp_path: Path, run_cluster: RunCluster) -> None:
    assert ROOT is not None
    namespace = f"file://{tmp_path / 'bucket'}"
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    await load_fixture(LocalStore(tmp_path / "bucket", durable=False), ROOT / "v0.62.3")
    await choose_dialect(store, "entity", clock=SystemClock(), ids=Ids())
    async with run_cluster(namespace, nodes=2) as (_, client):
        sides = Sides(BrainyReader(store, "0.62.3"), client)
        await sides.look()
        await write_all_kinds(client)
        quarantined = (await client.get_statistics()).quarantined_count
        migration = await client.start_migration("in-place-upgrade", requested_by="test", quarantine_limit=quarantined)
        rng = np.random.default_rng(3)
        await client.add_many(rng.standard_normal((50, 32)), None, [f"during-{number}" for number in range(50)])
        migration = await client.wait_for_migration(migration.id)
        assert migration.state == "SUCCEEDED", migration.message
        await client.add_many(rng.standard_normal((50, 32)), None, [f"after-{number}" for number in range(50)])
        await client.delete_many([f"during-{number}" for number in range(10)])
        report = await mirrored(store)
        assert {shard.generation for shard in report.shards} == {1}
        await sides.assert_agree()
        assert all([(await cursor_of(store, shard)).final for shard in range(4)])
    await store.close()
