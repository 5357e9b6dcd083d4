"""Copies with real processes: held to a rate, paused, told, and taken up again after a node was killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from brainy.errors import InvalidRequestError, PreconditionError
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.copies import CopyProgress, StageProgress
from brainy.sdk.migration import Migration
from tests.e2e.conftest import RunCluster

ITEMS, DIMENSIONS = 6000, 16
#: Everything is folded soon, so that there is a base to copy.
FOLDS = {
    "BRAINY_NODE__FOLD_RECORDS": "100",
    "BRAINY_NODE__FOLD_SHARE": "0.01",
    "BRAINY_NODE__FOLD_IDLE_SLOTS": "1",
    "BRAINY_NODE__FOLD_IDLE_SECONDS": "1",
}


def vectors() -> np.ndarray:
    return np.random.default_rng(4).normal(size=(ITEMS, DIMENSIONS)).astype(np.float32)


def stage(copy: CopyProgress | None, name: str) -> StageProgress | None:
    return next((found for found in (copy.stages if copy else ()) if found.stage == name), None)


async def until(client: AsyncBrainy, migration: Migration, holds: Callable[[Migration], bool]) -> Migration:
    async with asyncio.timeout(120):
        while True:
            seen = await client.get_migration(migration.id)
            if holds(seen):
                return seen
            assert not seen.ended, seen.story
            await asyncio.sleep(0.05)


async def filled(client: AsyncBrainy) -> None:
    await client.add_many(vectors(), ids=[f"n{i}" for i in range(ITEMS)])
    # A generation that begins empty is its log alone; the next one is folded, and there is something to copy.
    first = await client.start_migration("in-place-upgrade", requested_by="test")
    assert (await client.wait_for_migration(first.id)).succeeded
    async with asyncio.timeout(120):
        while (await client.get_performance_metrics()).tail_size:
            await asyncio.sleep(0.1)


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_a_copy_is_slowed_paused_told_and_let_go(tmp_path: Path, run_cluster: RunCluster) -> None:
    namespace = f"file://{tmp_path / 'bucket'}"
    (tmp_path / "bucket").mkdir()
    async with run_cluster(namespace, nodes=1, settings=FOLDS) as (_, client):
        await filled(client)
        migration = await client.start_migration("in-place-upgrade", requested_by="test")
        seen = await client.set_copy_rate(migration.id, 400.0, requested_by="somebody")
        assert [(event.by, event.detail) for event in seen.story if event.trigger == "copy_rate_set"] == [
            ("somebody", "400 items a second on each node")
        ]
        slow = await until(
            client, migration, lambda m: bool(m.copy and m.copy.limits and m.copy.limits[0].reason == "set")
        )
        assert slow.copy is not None
        assert (slow.copy.wanted, slow.copy.limits[0].items_per_second) == (400.0, 400.0)
        # Its speed shows, and is what was asked for; so do the whole and the time left.
        told = await until(client, migration, lambda m: bool((s := stage(m.copy, "reading")) and s.per_second))
        reading = stage(told.copy, "reading")
        assert reading is not None
        assert reading.total == ITEMS
        assert reading.per_second < 1200
        with pytest.raises(InvalidRequestError):
            await client.set_copy_rate(migration.id, 0.0)
        await client.pause_migration(migration.id, reason="lunch")
        await until(client, migration, lambda m: bool(m.copy and m.copy.limits and m.copy.limits[0].reason == "paused"))
        counts = []
        for _ in range(2):
            stood = await client.get_migration(migration.id)
            assert stood.copy is not None
            counts.append([(s.stage, s.done) for s in stood.copy.stages])
            await asyncio.sleep(1.5)
        assert counts[0] == counts[1]
        # One that stands keeps nobody from searching.
        assert await client.search(vectors()[0], 1)
        await client.resume_migration(migration.id)
        await client.set_copy_rate(migration.id, None)
        ended = await client.wait_for_migration(migration.id)
        assert (ended.succeeded, ended.digest_equal, ended.items_copied) == (True, True, ITEMS)
        with pytest.raises(PreconditionError):
            await client.set_copy_rate(migration.id, 5.0)


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_a_copy_whose_node_is_killed_goes_on_where_it_was(tmp_path: Path, run_cluster: RunCluster) -> None:
    namespace = f"file://{tmp_path / 'bucket'}"
    (tmp_path / "bucket").mkdir()
    async with run_cluster(namespace, nodes=2, settings=FOLDS) as (cluster, client):
        await filled(client)
        migration = await client.start_migration("in-place-upgrade", requested_by="test")
        await client.set_copy_rate(migration.id, 300.0)
        # Everything is in parts, and the indexes, which are held to the rate as well, take their time.
        await until(client, migration, lambda m: bool((s := stage(m.copy, "publishing")) and s.done == ITEMS))
        await cluster.kill_node(0)
        resumed = await until(client, migration, lambda m: bool(m.copy and m.copy.resumed))
        assert resumed.copy is not None
        assert 0 < resumed.copy.resumed <= ITEMS
        await client.set_copy_rate(migration.id, None)
        ended = await client.wait_for_migration(migration.id)
        assert (ended.succeeded, ended.digest_equal) == (True, True), ended.story
        assert (await client.get_statistics()).noun_count == ITEMS
