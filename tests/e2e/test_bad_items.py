"""What Brainy, or somebody beside it, left unreadable or unsearchable in a bucket: listed, counted, carried along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.errors import PreconditionError
from brainy.ids import Ids
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.values import Statistics
from brainy.store.opening import open_store
from tests.e2e.conftest import RunCluster, legacy_noun, unexpected

pytestmark = pytest.mark.timeout(90)

GOOD = {f"good-{number}": [float(number + 1), 2.0, -3.0, 0.5] for number in range(40)}

#: Id -> what is stored as its noun, and why it is no item.
GARBAGE = {
    "cut-off": (b'{"id": "cut-off", "vector": [1, 2', "not-json"),
    "no-bytes": (b"", "empty"),
    "page": (b"<html>503</html>", "not-json"),
    "bytes": (b'{"id": "bytes", "vector": [1,2,3,4], "x": "\xff\xfe"}', "not-json"),
    "list": (b"[1, 2, 3, 4]", "wrong-shape"),
    "null": (b"null", "wrong-shape"),
    "text-vector": (b'{"id": "text-vector", "vector": "1,2,3,4", "connections": {}}', "wrong-shape"),
    "nothing-in-it": (b"{}", "missing-id"),
    "no-vector": (b'{"id": "no-vector", "connections": {}}', "missing-vector"),
    "deep": (b'{"id": "deep", "vector": ' + b"[" * 2000 + b"]" * 2000 + b"}", "too-deep"),
}

#: Id -> a vector that is stored and cannot be searched, and why.
UNINDEXABLE: dict[str, tuple[list[float | None], str]] = {
    "a-null": ([1.0, None, 3.0, 4.0], "non-finite"),
    "nan-text": ([None, 1.0, 2.0, 3.0], "non-finite"),
    "zero": ([0.0, 0.0, 0.0, 0.0], "zero"),
    "longer": ([1.0, 2.0, 3.0, 4.0, 5.0], "dimension"),
    "shorter": ([1.0], "dimension"),
    "empty": ([], "no-vector"),
}


def as_stored(vector: list[float | None]) -> np.ndarray | None:
    return np.array([np.nan if value is None else value for value in vector], np.float32) if vector else None


async def test_garbage_is_quarantined_and_the_unsearchable_stays_readable(
    tmp_path: Path, run_cluster: RunCluster
) -> None:
    namespace = f"file://{tmp_path / 'bucket'}"
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    for noun_id, vector in {**GOOD, **{noun_id: vector for noun_id, (vector, _) in UNINDEXABLE.items()}}.items():
        await store.put(*legacy_noun(noun_id, vector))
    for noun_id, (body, _) in GARBAGE.items():
        await store.put(f"nouns/{noun_id}.json", body)
    # No JSON, but some writers leave it: read as if it were null.
    await store.put("nouns/nan-text.json", b'{"id": "nan-text", "vector": [NaN, 1, 2, 3], "connections": {}}')
    # An index of Brainy's that says nothing anybody can read.
    await store.put("index/statistics_20260101.json", b'{"nounCount": ')
    untouched = {meta.key: meta.etag async for page in store.list("") for meta in page}

    async with run_cluster(namespace, nodes=2) as (cluster, client):
        before = await holds_everything(client)
        assert before.generation == 0

        with pytest.raises(PreconditionError) as raised:
            migration = await client.start_migration("in-place-upgrade", requested_by="test", quarantine_limit=0)
            raise AssertionError(await client.wait_for_migration(migration.id))
        assert raised.value.reason == "QUARANTINE_LIMIT"
        assert f"{before.quarantined_count} unreadable objects, 0 accepted" in raised.value.message
        assert "raise quarantine_limit" in raised.value.remedy
        assert (await holds_everything(client)).generation == 0

        migration = await client.start_migration(
            "in-place-upgrade", requested_by="test", quarantine_limit=before.quarantined_count
        )
        migration = await client.wait_for_migration(migration.id)
        assert (migration.state, migration.digest_equal) == ("SUCCEEDED", True), migration.message
        after = await holds_everything(client)
        assert after.generation == 1
        assert unexpected(cluster) == []

    now = {meta.key: meta.etag async for page in store.list("") for meta in page}
    assert {key: etag for key, etag in now.items() if not key.startswith("cluster/")} == untouched
    await store.close()


async def holds_everything(client: AsyncBrainy) -> Statistics:
    """Whatever the generation: the good is found, the unsearchable read, the garbage listed, all of it counted."""
    statistics = await client.get_statistics()
    listed = {entry.key: entry async for entry in client.quarantined()}
    reasons = {
        noun_id: listed[f"nouns/{noun_id}.json"].reason for noun_id in GARBAGE if f"nouns/{noun_id}.json" in listed
    }
    assert reasons == {noun_id: reason for noun_id, (_, reason) in GARBAGE.items()}
    for noun_id, (body, _) in GARBAGE.items():
        assert listed[f"nouns/{noun_id}.json"].size == len(body)
    assert statistics.quarantined_count == len(listed)

    assert {entry.id: entry.reason async for entry in client.unindexed()} == {
        noun_id: reason for noun_id, (_, reason) in UNINDEXABLE.items()
    }
    assert statistics.unindexed_count == len(UNINDEXABLE)
    assert statistics.noun_count == len(GOOD) + len(UNINDEXABLE)

    everything = {**GOOD, **{noun_id: vector for noun_id, (vector, _) in UNINDEXABLE.items()}}
    scanned = {noun.id: noun async for noun in client.scan()}
    fetched = await client.get_many([*everything, *GARBAGE])
    assert scanned.keys() == fetched.keys() == everything.keys()
    for noun_id, vector in everything.items():
        for noun in (scanned[noun_id], fetched[noun_id]):
            np.testing.assert_array_equal(noun.vector, as_stored(vector), err_msg=noun_id)
    hits = await client.search(GOOD["good-3"], 100)
    assert {hit.id for hit in hits} == GOOD.keys()
    assert hits[0].id == "good-3"
    return statistics
