"""Brainy processes and the cluster write one bucket, followed and mirrored: both sides end with the same items."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - a seeded source, so that a failing run can be repeated
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from brainy.cli.main import app
from brainy.clock import SystemClock
from brainy.dataset.mirror_report import mirror_report
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.migration import TargetSpec
from brainy.store.local import LocalStore
from brainy.testing.brainy_writer import FLAT_046, MANNERS, BrainyFleet, Manner
from tests.e2e.conftest import RunCluster, unexpected
from tests.e2e.test_follow import QUICK_FOLLOW, SHARDS, caught_up, known, served_digest, tree_digest, until

SEED = 23


async def write_beside(client: AsyncBrainy, rng: random.Random, steps: int) -> None:
    """Updates and deletes of what Brainy processes write too, and items of our own."""
    for number in range(steps):
        # The same few ids, so that both sides meet.
        ids = sorted([noun.id async for noun in client.scan(include_vectors=False)])[:25]
        victim = rng.choice(ids)
        match rng.randrange(4):
            case 0:
                await client.delete(victim)
            case 1:
                await client.add([float(number), 2.0] + [0.0] * 6, {"ours": number}, victim)
            case 2:
                await client.add([float(number), 1.0] + [0.0] * 6, {"ours": 1.0}, f"ours-{number}")
            case _:
                await client.add_verb(victim, rng.choice(ids), "relatedTo", {"ours": number})


async def answer_back(client: AsyncBrainy, store: LocalStore, rng: random.Random, steps: int) -> None:
    """Every second item that we write or delete a Brainy process replaces at once, or up to two seconds later."""
    ids: list[str] = []

    async def answer(item_id: str, number: int, delay: float, half: float) -> None:
        await asyncio.sleep(delay)
        vector = [float(number), 9.0] + [0.0] * 6
        noun = {"id": item_id, "vector": vector, "connections": {}, "level": 0}
        await store.put(f"nouns/{item_id}.json", orjson.dumps(noun))
        await asyncio.sleep(half)
        await store.put(f"metadata/{item_id}.json", orjson.dumps({"theirs": number, "noun": "concept"}))

    async with asyncio.TaskGroup() as answers:
        for number in range(steps):
            if number % 10 == 0:
                ids = sorted([noun.id async for noun in client.scan(include_vectors=False)])[:25]
            victim = rng.choice(ids)
            if rng.random() < 0.25:
                await client.delete(victim)
            else:
                await client.add([float(number), 2.0] + [0.0] * 6, {"ours": number}, victim)
            if rng.random() < 0.5:
                delay, half = rng.choice([0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 2.0]), rng.choice([0.0, 0.05])
                answers.create_task(answer(victim, number, delay, half))


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("event", ["nothing", "death", "upgrade", "resharding"])
@pytest.mark.parametrize("manner", MANNERS, ids=lambda manner: manner.name)
async def test_both_sides_end_with_the_same_items(
    manner: Manner, event: str, tmp_path: Path, run_cluster: RunCluster
) -> None:
    await play(manner, event, tmp_path, run_cluster, at_once=False)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("event", ["nothing", "resharding"])
async def test_what_brainy_replaces_in_the_same_second_ends_the_same(
    event: str, tmp_path: Path, run_cluster: RunCluster
) -> None:
    await play(FLAT_046, event, tmp_path, run_cluster, at_once=True)


async def play(manner: Manner, event: str, tmp_path: Path, run_cluster: RunCluster, *, at_once: bool) -> None:
    """Let both sides write through an event; both end with the same items."""
    place = tmp_path / "bucket"
    store = LocalStore(place, durable=False)
    fleet = BrainyFleet(store, clock=SystemClock(), seed=SEED, manner=manner)
    await fleet.write(150)
    namespace = f"file://{place}"
    async with run_cluster(namespace, nodes=3, settings=QUICK_FOLLOW) as (cluster, client):
        for command in (
            ["follow", namespace, "--dir", str(cluster.directory), "--on"],
            ["mirror", namespace, "--on", "--dialect", manner.name],
        ):
            turned = await asyncio.to_thread(CliRunner().invoke, app, command)
            assert turned.exit_code == 0, turned.output
        await until(lambda: known(client))

        under_way = asyncio.Event()

        async def theirs() -> None:
            for number in range(60):
                await fleet.write(5)
                if number == 15:
                    under_way.set()
                await asyncio.sleep(0.05)

        async def happen() -> None:
            await under_way.wait()
            if event == "death":
                await cluster.kill_node(0)
            elif event != "nothing":
                target = TargetSpec(shard_count=3) if event == "resharding" else None
                migration = await client.start_migration("in-place-upgrade", target, quarantine_limit=1000)
                migration = await client.wait_for_migration(migration.id)
                assert migration.state == "SUCCEEDED", migration

        rng = random.Random(SEED)
        ours = answer_back(client, store, rng, 200) if at_once else write_beside(client, rng, 120)
        await asyncio.gather(ours, theirs(), happen())
        await fleet.finish()
        shards = 3 if event == "resharding" else SHARDS
        await caught_up(client, shards)
        async with asyncio.timeout(60):
            while (await mirror_report(store, clock=SystemClock())).lag_items:
                await asyncio.sleep(0.2)
        await caught_up(client, shards)
        assert (await served_digest(store, set())).differing(await tree_digest(store)) == []
        assert unexpected(cluster) == []
    await store.close()
