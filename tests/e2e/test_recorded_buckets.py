"""Every recorded bucket, of all three trees, through the gRPC API, before and after an upgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.ids import Ids
from brainy.sdk.client import AsyncBrainy
from brainy.store.opening import open_store
from brainy.testing.fixtures import fixtures_root, load_fixture, read_truth
from tests.e2e.conftest import RunCluster
from tests.e2e.truth import as_float32, assert_holds, entries

ROOT = fixtures_root()
#: The large one has a test of its own.
FOLDERS = sorted(
    folder.name for folder in (ROOT.iterdir() if ROOT else ()) if folder.is_dir() and folder.name != "v0.46.0-10k"
)

pytestmark = pytest.mark.skipif(
    ROOT is None, reason="the recorded buckets are not here (set BRAINY_FIXTURES to their directory)"
)


async def recorded(folder: str, directory: Path) -> str:
    assert ROOT is not None
    namespace = f"file://{directory}"
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    await load_fixture(store, ROOT / folder)
    await store.close()
    return namespace


async def assert_marked(client: AsyncBrainy, truth: dict[str, Any]) -> None:
    """Soft-deleted nouns are there for those who ask for them, and for nobody else."""
    nouns = entries(truth["nouns"])
    soft = set(truth.get("soft_deleted_nouns", []))
    assert {noun.id async for noun in client.scan(include_vectors=False)} == nouns.keys() - soft
    for noun_id in sorted(soft)[:3]:
        vector = as_float32(nouns[noun_id]["vector"])
        for include in (False, True):
            hits = await client.search(vector, k=5, exact=True, include_soft_deleted=include)
            assert (noun_id in {hit.id for hit in hits}) is include
    assert (await client.get_statistics()).soft_deleted_count == len(soft)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.timeout(180)
async def test_a_recorded_bucket_comes_back_whole_before_and_after_the_upgrade(
    folder: str, tmp_path: Path, run_cluster: RunCluster
) -> None:
    assert ROOT is not None
    truth = read_truth(ROOT / folder)
    namespace = await recorded(folder, tmp_path / "bucket")
    async with run_cluster(namespace, nodes=2) as (_, client):
        before = await client.get_statistics()
        assert before.generation == 0
        await assert_holds(client, truth)
        await assert_marked(client, truth)

        # Zombies and the like are reported as quarantined; accepting them is the operator's word.
        migration = await client.start_migration(
            "in-place-upgrade", requested_by="test", quarantine_limit=before.quarantined_count
        )
        migration = await client.wait_for_migration(migration.id)
        assert migration.state == "SUCCEEDED", migration.message
        assert migration.digest_equal

        after = await client.get_statistics()
        assert after.generation == 1
        assert (after.noun_count, after.verb_count) == (before.noun_count, before.verb_count)
        await assert_holds(client, truth)
        await assert_marked(client, truth)
