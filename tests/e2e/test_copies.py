"""A copy with real processes: held to a rate, paused, told, and let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from brainy.errors import InvalidRequestError, PreconditionError
from brainy.samples import sample_truth
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.copies import CopyProgress, StageProgress
from brainy.sdk.migration import Migration
from tests.e2e.conftest import RunCluster
from tests.e2e.test_crashes import sample_bucket
from tests.e2e.truth import entries

NOUNS, VERBS = entries(sample_truth()["nouns"]), entries(sample_truth()["verbs"])
ITEMS = len(NOUNS) + len(VERBS)


def stage(copy: CopyProgress | None, name: str) -> StageProgress | None:
    return next((found for found in (copy.stages if copy else ()) if found.stage == name), None)


async def until(client: AsyncBrainy, migration: Migration, holds: Callable[[Migration], bool]) -> Migration:
    async with asyncio.timeout(200):
        while True:
            seen = await client.get_migration(migration.id)
            if holds(seen):
                return seen
            assert not seen.ended, seen.story
            await asyncio.sleep(0.05)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_copy_is_slowed_paused_told_and_let_go(tmp_path: Path, run_cluster: RunCluster) -> None:
    namespace = await sample_bucket(tmp_path / "bucket")
    async with run_cluster(namespace, nodes=1) as (_, client):
        migration = await client.start_migration("in-place-upgrade", requested_by="test")
        seen = await client.set_copy_rate(migration.id, 15.0, requested_by="somebody")
        assert [(event.by, event.detail) for event in seen.story if event.trigger == "copy_rate_set"] == [
            ("somebody", "15 items a second on each node")
        ]
        slow = await until(
            client, migration, lambda m: bool(m.copy and m.copy.limits and m.copy.limits[0].reason == "set")
        )
        assert slow.copy is not None
        assert (slow.copy.wanted, slow.copy.limits[0].items_per_second) == (15.0, 15.0)
        # Its speed shows, and is what was asked for; so do the whole and the time left.
        told = await until(
            client, migration, lambda m: bool((s := stage(m.copy, "indexing")) and s.per_second and s.remaining_seconds)
        )
        indexing = stage(told.copy, "indexing")
        assert indexing is not None
        assert indexing.per_second < 50
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
        assert await client.search(np.asarray(next(iter(NOUNS.values()))["vector"], np.float32), 1)
        await client.resume_migration(migration.id)
        await client.set_copy_rate(migration.id, None)
        ended = await client.wait_for_migration(migration.id)
        assert (ended.succeeded, ended.digest_equal, ended.items_copied) == (True, True, ITEMS)
        with pytest.raises(PreconditionError):
            await client.set_copy_rate(migration.id, 5.0)
