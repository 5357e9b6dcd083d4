"""What cannot be read is listed, kept, mended and written again; what Brainy deleted comes back from its log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from brainy.bucket.items import Noun
from brainy.bucket.namespace import Namespace
from brainy.changelog.reading import read_log
from brainy.cli.main import app
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.dataset.generation import read_spec
from brainy.errors import PreconditionError
from brainy.ids import Ids
from brainy.sdk.auto import create_auto_brainy_async
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.recovery import Outcome, Recovered, write_back
from brainy.store.base import ObjectStore
from brainy.store.opening import open_store
from brainy.testing.fixtures import fixtures_root, load_fixture, read_truth
from tests.e2e.conftest import RunCluster, legacy_noun, unexpected

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

FEW = {"BRAINY_COORDINATOR__SHARD_COUNT": "2"}
GOOD = {f"good-{number}": [float(number + 1), 2.0, -3.0, 0.5] for number in range(30)}
#: Key -> what is stored there, why it is no item, and what mends it.
DAMAGED: dict[str, tuple[bytes, str, bytes | None]] = {
    "nouns/cut.json": (b'{"id": "cut", "vector": [1, 2', "not-json", legacy_noun("cut", [1, 2, 3, 4])[1]),
    "nouns/taken.json": (b"<html>", "not-json", legacy_noun("taken", [4, 3, 2, 1])[1]),
    "nouns/short.json": (b"", "empty", legacy_noun("short", [1.5, None])[1]),
    "nouns/hopeless.json": (b"\x00\x01\xff", "not-json", None),
    "metadata/good-3.json": (b"{", "not-json", b'{"name": "three"}'),
    "verb-metadata/v.json": (
        b"[]",
        "wrong-shape",
        b'{"sourceId": "good-1", "targetId": "good-2", "type": "likes", "weight": 0.5}',
    ),
}
DAMAGE = {key: body for key, (body, _, _) in DAMAGED.items()}
#: What belongs to them and is whole.
WHOLE = {
    "metadata/cut.json": b'{"name": "cut"}',
    "verbs/v.json": b'{"id": "v", "vector": [1, 0, 0, 0], "connections": {}}',
}


@asynccontextmanager
async def opened(namespace: str) -> AsyncIterator[ObjectStore]:
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    try:
        yield store
    finally:
        await store.close()


async def brainy(*arguments: str, status: int = 0) -> Any:
    """Run the command; returns its JSON."""
    done = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--json"])
    assert done.exit_code == status, (arguments, done.output, done.exception)
    return orjson.loads(done.stdout) if done.stdout else None


async def migrate(client: AsyncBrainy, limit: int) -> None:
    migration = await client.start_migration("in-place-upgrade", requested_by="test", quarantine_limit=limit)
    migration = await client.wait_for_migration(migration.id)
    assert (migration.state, migration.digest_equal) == ("SUCCEEDED", True), migration.message


async def test_damaged_objects_are_kept_through_migrations_mended_and_replayed_once(
    tmp_path: Path, run_cluster: RunCluster
) -> None:
    namespace = f"file://{tmp_path / 'bucket'}"
    async with opened(namespace) as store:
        for noun_id, vector in GOOD.items():
            await store.put(*legacy_noun(noun_id, vector))
        for key, body in {**WHOLE, **DAMAGE}.items():
            await store.put(key, body)
        listed = await brainy("quarantine", "list", namespace)
        assert (listed["generation"], listed["quarantined"], listed["replayed"]) == (None, len(DAMAGED), 0)
        assert {row["key"]: row["reason"] for row in listed["objects"]} == {
            key: reason for key, (_, reason, _) in DAMAGED.items()
        }

        async with run_cluster(namespace, nodes=2, settings=FEW) as (cluster, client):
            with pytest.raises(PreconditionError) as raised:
                await client.start_migration("in-place-upgrade", requested_by="test", quarantine_limit=5)
            assert raised.value.reason == "QUARANTINE_LIMIT"
            assert "6 unreadable objects, 5 accepted (not-json 4" in raised.value.message
            await migrate(client, len(DAMAGED))

            # The tree is cleaned up: what generation 1 kept is all there is.
            for key in (*DAMAGED, *WHOLE):
                await store.delete(key)
            status = await brainy("status", "-c", cluster.coordinator)
            assert status["namespaces"][0]["quarantined"] == len(DAMAGED)
            await _mend_and_replay(namespace, cluster.coordinator, client, tmp_path)
            await _carried_over(namespace, client, tmp_path)
            assert unexpected(cluster) == []


async def _mend_and_replay(namespace: str, coordinator: str, client: AsyncBrainy, tmp_path: Path) -> None:
    directory = tmp_path / "mending"
    await brainy("quarantine", "export", namespace, "-o", str(directory))
    manifest = json.loads((directory / "manifest.json").read_text())
    files = {entry["key"]: directory / entry["file"] for entry in manifest["objects"]}
    assert {key: path.read_bytes() for key, path in files.items()} == DAMAGE
    await brainy("quarantine", "export", namespace, "-o", str(directory), status=4)

    replay = ("quarantine", "replay", namespace, "--from", str(directory), "-c", coordinator)
    before = await brainy(*replay)
    assert before["outcomes"] == {"unreadable": len(DAMAGED)}
    for key, (_, _, mended) in DAMAGED.items():
        if mended is not None:
            files[key].write_bytes(mended)
    # Somebody wrote under one of the ids meanwhile.
    await client.add([9.0, 9.0, 9.0, 9.0], {"mine": True}, id="taken")

    dry = await brainy(*replay, "--dry-run")
    assert dry["outcomes"] == {"would-replay": 4, "superseded": 1, "unreadable": 1}
    assert await client.get("cut") is None

    positions = await client.get_statistics()
    done = await brainy(*replay)
    assert done["outcomes"] == {"replayed": 4, "superseded": 1, "unreadable": 1}
    by_key = {row["key"]: row for row in done["objects"]}
    assert by_key["nouns/taken.json"]["detail"] == "newer data is in place"
    assert by_key["nouns/hopeless.json"]["detail"] == "not-json"
    assert (await client.get_statistics()).noun_count == positions.noun_count + 2
    again = await brainy(*replay)
    assert again["outcomes"] == {"superseded": 1, "unreadable": 1}

    cut = await client.get("cut")
    assert cut is not None
    assert (cut.metadata, cut.vector.tolist() if cut.vector is not None else None) == ({"name": "cut"}, [1, 2, 3, 4])
    assert [hit.id for hit in await client.search([1, 2, 3, 4], 1)] == ["cut"]
    short = (await client.stored_nouns(["short"]))["short"]
    assert short.raw_vector == b"[1.5,null]"
    assert {entry.id for entry in [each async for each in client.unindexed()]} == {"short"}
    three = await client.get("good-3")
    assert three is not None
    assert three.metadata == {"name": "three"}
    verb = await client.get_verb("v")
    assert verb is not None
    assert (verb.source, verb.target, verb.type, verb.weight) == ("good-1", "good-2", "likes", 0.5)
    taken = await client.get("taken")
    assert taken is not None
    assert taken.metadata == {"mine": True}

    only = await brainy(*replay, "--only", "nouns/taken.json", "--overwrite")
    assert only["outcomes"] == {"replayed": 1}
    taken = await client.get("taken")
    assert taken is not None
    assert (taken.metadata, taken.vector.tolist() if taken.vector is not None else None) == (None, [4, 3, 2, 1])
    await brainy(*replay, "--only", "nouns/hopeless.json", status=1)
    await brainy(*replay, "--only", "nouns/nobody.json", status=3)


async def _carried_over(namespace: str, client: AsyncBrainy, tmp_path: Path) -> None:
    listed = await brainy("quarantine", "list", namespace)
    assert (listed["generation"], listed["quarantined"], listed["replayed"]) == (1, 1, 5)
    (open_one,) = [row for row in listed["objects"] if row["state"] == "quarantined"]
    assert open_one["key"] == "nouns/hopeless.json"
    # What was replayed needs no acceptance any more.
    with pytest.raises(PreconditionError, match="1 unreadable objects, 0 accepted"):
        await client.start_migration("in-place-upgrade", requested_by="test", quarantine_limit=0)
    await migrate(client, 1)
    directory = tmp_path / "second"
    await brainy("quarantine", "export", namespace, "-o", str(directory))
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["generation"] == 2
    assert {entry["key"]: (directory / entry["file"]).read_bytes() for entry in manifest["objects"]} == DAMAGE
    assert [entry["beside_key"] for entry in manifest["objects"] if entry["key"] == "nouns/cut.json"] == [
        "metadata/cut.json"
    ]


async def test_a_tree_that_was_damaged_since_it_was_adopted_stops_the_migration(
    tmp_path: Path, run_cluster: RunCluster
) -> None:
    namespace = f"file://{tmp_path / 'bucket'}"
    async with opened(namespace) as store:
        for noun_id, vector in GOOD.items():
            await store.put(*legacy_noun(noun_id, vector))
        async with run_cluster(namespace, nodes=2, settings=FEW) as (cluster, client):
            await store.put("nouns/late.json", b"<html>")
            assert (await client.get_statistics()).quarantined_count == 0
            migration = await client.start_migration("rolling", requested_by="test")
            migration = await client.wait_for_migration(migration.id)
            assert migration.state == "ABORTED"
            assert "QUARANTINE_LIMIT: 1 unreadable objects, 0 accepted (not-json 1)" in migration.message
            assert "raise quarantine_limit" in migration.message
            assert "quarantine_exceeded" in [event.trigger for event in migration.story]
            statistics = await client.get_statistics()
            assert (statistics.generation, statistics.noun_count) == (0, len(GOOD))
            await migrate(client, 1)

            # Mended where it lies; the tree reads well now, the generation in service does not have it.
            await store.put(*legacy_noun("late", [1, 1, 1, 1]))
            done = await brainy("quarantine", "replay", namespace, "-c", cluster.coordinator)
            assert done["outcomes"] == {"replayed": 1}
            assert await client.get("late") is not None
            assert unexpected(cluster) == []


async def test_of_many_writers_with_one_condition_one_wins(tmp_path: Path, run_cluster: RunCluster) -> None:
    namespace = f"file://{tmp_path / 'bucket'}"
    async with run_cluster(namespace, nodes=2, settings=FEW) as (cluster, client):
        await client.add([1.0, 1.0], id="first")

        async def written(noun: Noun, before: bytes) -> bool:
            (result,) = await write_back(client, [Recovered(item=noun, before=before)], purpose="test")
            return result.outcome is Outcome.WRITTEN and (await client.stored_nouns([noun.id]))[noun.id] == noun

        for round_ in range(5):
            held = (await client.stored_nouns(["counter"])).get("counter")
            before = b"" if held is None else held.digest()
            nouns = [
                Noun(id="counter", vector=np.array([round_, number + 1], np.float32).tobytes()) for number in range(20)
            ]
            # Each reads what is in place, and all but one find something newer.
            wins = await asyncio.gather(*(written(noun, before) for noun in nouns))
            assert sum(wins) == 1
            assert (await client.stored_nouns(["counter"]))["counter"] == nouns[wins.index(True)]
        async with opened(namespace) as store:
            records = [
                record
                for shard in range((await read_spec(store, 0)).shard_count)
                async for slot in read_log(store, 0, shard, from_position=1)
                for record in slot.batch.records
                if record.upsert_noun.id == "counter"
            ]
        assert len(records) == 5
        assert unexpected(cluster) == []


@pytest.mark.skipif(fixtures_root() is None, reason="the recorded buckets are not here (set BRAINY_FIXTURES)")
async def test_nouns_a_later_brainy_deleted_are_written_back_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in FEW.items():
        monkeypatch.setenv(name, value)
    root = fixtures_root()
    assert root is not None
    namespace = f"file://{tmp_path / 'bucket'}"
    state = str(tmp_path / "state")
    truth = read_truth(root / "v0.36.0-native512")["nouns"]
    nouns = truth if isinstance(truth, dict) else {noun["id"]: noun for noun in truth}
    async with opened(namespace) as store:
        await load_fixture(store, root / "v0.36.0-native512")
        for noun_id in nouns:
            await store.delete(f"nouns/{noun_id}.json")
        for number in range(40):
            await store.put(*legacy_noun(f"new-{number}", [float(number + 1), *[1.0] * 383]))
    shown = await brainy("rescue", namespace)
    found = {row["id"]: row for row in shown["nouns"] if row["state"] == "found"}
    doubtful = {row["id"] for row in shown["nouns"] if row["state"] == "doubtful"}
    assert len(found) + len(doubtful) == len(nouns) - 1
    assert {row["cause"] for row in found.values()} == {"deleted-for-dimension"}
    assert {row["dimensions"] for row in found.values()} == {512}

    applied = await brainy("rescue", namespace, "--apply", "--dir", state)
    assert applied["counts"]["states"] == {"rescued": len(found), "doubtful": len(doubtful)}
    async with await create_auto_brainy_async(namespace, state_directory=state) as client:
        # The second one finds a cluster that runs.
        again = await brainy("rescue", namespace, "--apply", "--doubtful", "--dir", state)
        assert again["counts"]["states"] == {"exists": len(found), "rescued": len(doubtful)}
        stored = {noun.id: noun async for noun in client.scan()}
        for noun_id in (*found, *doubtful):
            vector = stored[noun_id].vector
            np.testing.assert_array_equal(vector, np.array(nouns[noun_id]["vector"], np.float32))
        assert len(stored) == 40 + len(found) + len(doubtful)
        assert (await client.get_statistics()).dimensions == 384
        # Kept and readable; a search in 384 dimensions cannot find them.
        assert {entry.id async for entry in client.unindexed()} == {*found, *doubtful}
