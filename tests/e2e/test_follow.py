"""A live bucket: Brainy processes write while real nodes serve, follow, migrate and die."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from brainy.bucket.digest import MultisetDigest
from brainy.cli.main import app
from brainy.clock import SystemClock
from brainy.dataset.base import ItemBatch
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.dataset.snapshot import stream_current
from brainy.sdk.client import AsyncBrainy
from brainy.store.base import ObjectStore
from brainy.store.local import LocalStore
from brainy.testing.brainy_writer import FLAT_046, BrainyFleet
from tests.e2e.conftest import RunCluster, unexpected

SHARDS = 4
QUICK_FOLLOW = {"BRAINY_NODE__FOLLOW_SECONDS": "1", "BRAINY_NODE__FOLLOW_HINT_SECONDS": "0.2"}


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 90.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.1)


async def lag(client: AsyncBrainy, shards: int) -> float | None:
    """The longest of all shards of the write generation; None until each has an owner that knows."""
    (info,) = await client.namespaces()
    owners: list[float | None] = [
        None
        if replica.following is None or replica.following.lag_seconds is None
        # As of the node's last word.
        else replica.following.lag_seconds + node.silent_seconds
        for node in await client.nodes()
        if node.state == "alive"
        for replica in node.replicas
        if replica.role == "owner" and replica.generation == info.write_generation
    ]
    known = [each for each in owners if each is not None]
    return max(known) if len(known) == len(owners) == shards else None


async def caught_up(client: AsyncBrainy, shards: int = SHARDS) -> None:
    """Wait for a pass of every owner that began after this call."""
    clock = SystemClock()
    began = clock.monotonic()

    async def holds() -> bool:
        found = await lag(client, shards)
        return found is not None and found < clock.monotonic() - began - 0.5

    await until(holds)


def added(digest: MultisetDigest, batch: ItemBatch) -> None:
    for noun in batch.nouns:
        digest.add(noun.id, noun.digest())
    for verb in batch.verbs:
        digest.add(verb.id, verb.digest())


async def tree_digest(store: ObjectStore) -> MultisetDigest:
    digest = MultisetDigest()
    async for batch in BrainyTreeSource(store, ("flat", "entity")).stream(shards=(0,), shard_count=1):
        added(digest, batch)
    return digest


async def served_digest(store: ObjectStore, without: set[str]) -> MultisetDigest:
    digest = MultisetDigest()
    async for batch in stream_current(store):
        nouns = [noun for noun in batch.nouns if noun.id not in without]
        added(digest, ItemBatch(nouns=nouns, verbs=batch.verbs))
    return digest


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_live_bucket_is_followed_through_an_upgrade_and_a_death(
    tmp_path: Path, run_cluster: RunCluster
) -> None:
    place = tmp_path / "bucket"
    store = LocalStore(place, durable=False)
    fleet = BrainyFleet(store, clock=SystemClock(), seed=5, manner=FLAT_046)
    await fleet.write(150)
    namespace = f"file://{place}"
    async with run_cluster(namespace, nodes=2, settings=QUICK_FOLLOW) as (cluster, client):
        await fleet.write(50)  # after adoption, before anybody follows
        command = [*("follow", namespace, "--dir", str(cluster.directory), "--json")]
        turned = await asyncio.to_thread(CliRunner().invoke, app, [*command, "--on"])
        assert turned.exit_code == 0, turned.output
        assert orjson.loads(turned.stdout)["follow"] is True
        await until(lambda: known(client))

        own = set(await client.add_many([[float(n), 1.0] + [0.0] * 6 for n in range(30)]))
        await fleet.write(100)
        await caught_up(client)

        writing = asyncio.create_task(fleet.write(150))
        migration = await client.start_migration("in-place-upgrade", quarantine_limit=1000)
        finished = await client.wait_for_migration(migration.id)
        assert finished.state == "SUCCEEDED", finished
        await writing
        await fleet.write(50)

        await cluster.kill_node(0)
        await fleet.write(50)
        await fleet.finish()
        await caught_up(client)
        expected = await tree_digest(store)
        assert (await served_digest(store, own)).differing(expected) == []
        assert len(await client.get_many(sorted(own))) == 30

        said = await asyncio.to_thread(CliRunner().invoke, app, command)
        found = orjson.loads(said.stdout)
        assert (found["follow"], found["conflicts"], found["last_error"]) == (True, 0, "")
        assert found["lag_seconds"] is not None
        assert unexpected(cluster) == []
    await store.close()


async def known(client: AsyncBrainy) -> bool:
    return await lag(client, SHARDS) is not None
