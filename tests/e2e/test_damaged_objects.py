"""Bytes that changed behind our back: what is made of them is not served, everything else is, and it is said."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from brainy.bucket import layout
from brainy.bucket.namespace import Namespace
from brainy.bucket.partition import shard_of
from brainy.bucket.records import Manifest
from brainy.cli.main import app
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.errors import UnavailableError
from brainy.ids import Ids
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.values import ShardReplica
from brainy.store.base import ObjectStore
from brainy.store.opening import open_store
from tests.e2e.conftest import RunCluster, events, legacy_noun

pytestmark = pytest.mark.timeout(150)

SHARDS = 9
INDEX_FLIPPED, INDEX_CUT, SEGMENT, FLIPPED, NO_JSON, NEWER, SLOT, GONE, WHOLE = range(SHARDS)
HEALTHY = {INDEX_FLIPPED, INDEX_CUT, WHOLE}
ITEMS = 270
SETTINGS = {"BRAINY_COORDINATOR__SHARD_COUNT": str(SHARDS)}


@asynccontextmanager
async def opened(namespace: str) -> AsyncIterator[ObjectStore]:
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    try:
        yield store
    finally:
        await store.close()


async def change(store: ObjectStore, key: str, how: Callable[[bytes], bytes]) -> bytes:
    """Overwrite an object with what ``how`` makes of it; returns what it was."""
    found = await store.get(key)
    assert found is not None, key
    changed = how(found.body)
    assert changed != found.body
    await store.put(key, changed)
    return found.body


def flipped(body: bytes) -> bytes:
    """One bit in the middle."""
    at = len(body) // 2
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def newer(body: bytes) -> bytes:
    return re.sub(rb'"format_version": ?\d+', b'"format_version": 99', body)


def moved(body: bytes) -> bytes:
    """Another position: still JSON, still a manifest."""
    return re.sub(rb'"position": ?(\d)', rb'"position": 7\1', body)


async def until(condition: Callable[[], Awaitable[object]], what: str, seconds: float = 60.0) -> None:
    clock = SystemClock()
    end = clock.monotonic() + seconds
    while not await condition():
        assert clock.monotonic() < end, what
        await asyncio.sleep(0.1)


async def replicas(client: AsyncBrainy) -> dict[int, ShardReplica]:
    """The replicas of generation 1 on the only node."""
    (node,) = await client.nodes()
    return {replica.shard: replica for replica in node.replicas if replica.generation == 1}


def place(item: str) -> int:
    return shard_of(item, SHARDS)


async def upgraded(namespace: str, run_cluster: RunCluster) -> dict[str, np.ndarray]:
    """A namespace in generation 1, with a few writes after it in the logs."""
    rows = np.random.default_rng(5).normal(size=(ITEMS, 8)).astype(np.float32)
    items = {f"item-{number}": row for number, row in enumerate(rows)}
    names = list(items)
    async with opened(namespace) as store:
        for name in names[:200]:
            await store.put(*legacy_noun(name, items[name].tolist()))
    async with run_cluster(namespace, nodes=1, settings=SETTINGS) as (_, client):
        migration = await client.start_migration("in-place-upgrade", requested_by="test")
        migration = await client.wait_for_migration(migration.id)
        assert migration.state == "SUCCEEDED", migration.message
        await client.add_many(rows[200:], ids=names[200:])
    return items


async def test_what_is_damaged_is_not_served_and_everything_else_is(tmp_path: Path, run_cluster: RunCluster) -> None:
    namespace = f"file://{tmp_path / 'bucket'}"
    items = await upgraded(namespace, run_cluster)
    async with opened(namespace) as store:
        whole = await _damage(store)
        # The caches would hide it.
        shutil.rmtree(tmp_path / "cluster" / "data")
        async with run_cluster(namespace, nodes=1) as (cluster, client):
            (node,) = cluster.nodes
            # It says that it serves: five of its shards do.
            await _named(client)
            await _shown(cluster)
            await _the_rest_answers(cluster, items)
            seen = {event["event"] for event in events(node)}
            assert {"index_damaged", "index_rebuilt", "shard_state"} <= seen
            assert not any("exception" in event for event in events(node) if event["event"] == "shard_duty_crashed")

            # Restored from a copy, each comes back by itself.
            for key, body in whole.items():
                await store.put(key, body)

            async def back() -> bool:
                return all(replica.state == "ready" for replica in (await replicas(client)).values())

            await until(back, "the shards do not come back")
            await _all_there(client, items)
            assert all(not replica.message for replica in (await replicas(client)).values())

            await _newer_routing(store, cluster, client, items)
            assert node.alive()

    # What is damaged on local disk is removed and made anew.
    (vectors,) = (tmp_path / "cluster" / "data" / "node-1").glob(f"*/g1-*/s{WHOLE}/*/vectors.npy")
    vectors.write_bytes(flipped(vectors.read_bytes()))
    async with run_cluster(namespace, nodes=1) as (cluster, client):
        await _all_there(client, items)
        (event,) = [event for event in events(cluster.nodes[0]) if event["event"] == "local_base_damaged"]
        assert event["directory"] == str(vectors.parent)
        assert "vectors.npy" in event["cause"]
        assert not vectors.exists()


async def _damage(store: ObjectStore) -> dict[str, bytes]:
    """Damage one thing of each shard; returns what must be restored by key. Indexes are rebuilt, not restored."""
    manifests = {}
    for shard in range(SHARDS):
        found = await store.get(layout.manifest(1, shard))
        assert found is not None
        manifests[shard] = Manifest.decode(found.body, key="manifest")
    for shard, how in ((INDEX_FLIPPED, flipped), (INDEX_CUT, lambda body: body[: len(body) // 3])):
        index = manifests[shard].index
        assert index is not None
        await change(store, index.key, how)
    slots = [meta.key async for page in store.list(layout.log(1, SLOT)) for meta in page]
    wanted: dict[str, Callable[[bytes], bytes]] = {
        manifests[SEGMENT].nouns[0].key: flipped,
        layout.manifest(1, FLIPPED): moved,
        layout.manifest(1, NO_JSON): lambda body: b"<html>" + body,
        layout.manifest(1, NEWER): newer,
        slots[-1]: flipped,
    }
    whole = {key: await change(store, key, how) for key, how in wanted.items()}
    gone = manifests[GONE].nouns[0].key
    found = await store.get(gone)
    assert found is not None
    await store.delete(gone)
    return {**whole, gone: found.body}


#: Shard -> the reason, and what the message must name.
EXPECTED = {
    SEGMENT: ("CORRUPT_DATA", "nouns/"),
    FLIPPED: ("CORRUPT_DATA", "checksum"),
    NO_JSON: ("CORRUPT_DATA", f"manifests/{NO_JSON}.json"),
    NEWER: ("UNSUPPORTED_FORMAT", "newer version"),
    SLOT: ("CORRUPT_DATA", "change-log/"),
    GONE: ("CORRUPT_DATA", "nouns/"),
}


async def _named(client: AsyncBrainy) -> None:
    async def settled() -> bool:
        found = await replicas(client)
        return all(found[shard].reason if shard in EXPECTED else found[shard].state == "ready" for shard in found)

    await until(settled, "not every shard has said how it is")
    found = await replicas(client)
    assert found.keys() == set(range(SHARDS))
    for shard, (reason, says) in EXPECTED.items():
        assert found[shard].state != "ready"
        assert found[shard].reason == reason, found[shard]
        assert says in found[shard].message
    for shard in HEALTHY:
        assert (found[shard].state, found[shard].message) == ("ready", "")


async def _shown(cluster: LocalCluster) -> None:
    arguments = ("status", "-c", cluster.coordinator)
    shown = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert shown.exit_code == 0, shown.output
    for reason, says in EXPECTED.values():
        assert reason in shown.stdout
        assert says in shown.stdout
    machine = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--json"])
    (node,) = orjson.loads(machine.stdout)["nodes"]
    reasons = {replica["shard"]: replica["reason"] for replica in node["replicas"] if replica["generation"] == 1}
    assert reasons == {shard: EXPECTED.get(shard, ("", ""))[0] for shard in range(SHARDS)}


async def _the_rest_answers(cluster: LocalCluster, items: dict[str, np.ndarray]) -> None:
    async with AsyncBrainy(cluster.endpoints, read_deadline_seconds=2.0, write_deadline_seconds=2.0) as client:
        healthy = {item: row for item, row in items.items() if place(item) in HEALTHY}
        found = await client.get_many(healthy)
        assert found.keys() == healthy.keys()
        for item, noun in found.items():
            np.testing.assert_array_equal(noun.vector, healthy[item])
        hits = await client.search(next(iter(items.values())), ITEMS, allow_partial=True)
        assert {hit.id for hit in hits} == healthy.keys()
        writable = next(f"new-{n}" for n in range(1000) if place(f"new-{n}") == WHOLE)
        await client.add(np.ones(8), id=writable)
        await client.delete(writable)
        for shard in (SEGMENT, SLOT):
            damaged = next(item for item in items if place(item) == shard)
            with pytest.raises(UnavailableError) as raised:
                await client.get(damaged)
            assert raised.value.reason == "SHARD_NOT_READY"
        with pytest.raises(UnavailableError):
            await client.search(np.ones(8))


async def _all_there(client: AsyncBrainy, items: dict[str, np.ndarray]) -> None:
    scanned = {noun.id: noun.vector async for noun in client.scan()}
    assert scanned.keys() == items.keys()
    for item, row in items.items():
        np.testing.assert_array_equal(scanned[item], row)


async def _newer_routing(
    store: ObjectStore, cluster: LocalCluster, client: AsyncBrainy, items: dict[str, np.ndarray]
) -> None:
    """A record that a newer version wrote is not followed; the one in force stays."""
    before = await change(store, layout.ROUTING, newer)

    async def noticed() -> bool:
        return any(
            event["event"] == "routing_unreadable" and "newer version" in event["cause"]
            for event in events(cluster.nodes[0])
        )

    await until(noticed, "nobody noticed the routing record")
    await _all_there(client, items)
    await store.put(layout.ROUTING, before)
