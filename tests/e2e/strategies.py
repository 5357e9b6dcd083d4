"""The strategies as rows of a table: what each needs around it, and how it is begun, turned and looked at.

A strategy joins every matrix (``test_matrix``, ``test_matrix_crashes``) by one entry in ``ROWS``. Most need a name and
a target; one that moves a namespace elsewhere says with ``begin`` how it is started and with ``arrived`` which client
its users have afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.errors import PreconditionError
from brainy.ids import Ids
from brainy.samples import sample_objects, sample_truth
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.migration import Migration, TargetSpec
from brainy.store.metered import MeteredStore
from brainy.store.opening import open_store
from tests.e2e.load import Load
from tests.e2e.truth import entries

DIMENSIONS = len(next(iter(entries(sample_truth()["nouns"]).values()))["vector"])
#: Longest a migration of the sample may take on a small machine that others use as well.
PATIENCE_SECONDS = 300.0
#: Checks of preflight that fail while a node is gone.
_GONE = ("nodes_reachable", "source_shards_ready", "pool_has_nodes")


@dataclass(slots=True)
class Stage:
    """One cluster on which a strategy is played."""

    cluster: LocalCluster
    #: Of the namespace as it was before.
    client: AsyncBrainy
    load: Load
    namespace: str


async def _begin(row: Row, stage: Stage, *, keep_way_back: bool) -> Migration:
    return await stage.client.start_migration(
        row.name, row.target, keep_way_back=keep_way_back, writers_stopped=row.quiet, requested_by="matrix"
    )


async def _same(stage: Stage) -> AsyncBrainy:
    return stage.client


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One strategy."""

    name: str
    target: TargetSpec = field(default_factory=TargetSpec)
    #: Nodes besides the three: pool -> how many.
    pools: Mapping[str, int] = field(default_factory=dict)
    #: Whether it wants every writer stopped while it switches forward.
    quiet: bool = False
    #: Whether it can keep a way back.
    way_back: bool = True
    begin: Callable[..., Awaitable[Migration]] = _begin
    #: The client that its users have once it has ended.
    arrived: Callable[[Stage], Awaitable[AsyncBrainy]] = _same


ROWS: Mapping[str, Row] = {
    row.name: row
    for row in (
        Row(name="in-place-upgrade"),
        # Another shard count: every target shard follows every source shard.
        Row(name="rolling", target=TargetSpec(shard_count=3)),
        Row(name="blue-green", target=TargetSpec(pool="green"), pools={"green": 2}),
        Row(name="coordinated", quiet=True),
    )
}


def opened(namespace: str, settings: StoreSettings | None = None) -> MeteredStore:
    """The namespace's store, as this process sees it."""
    return open_store(Namespace.parse(namespace), settings or StoreSettings(), clock=SystemClock(), ids=Ids())


async def put_sample(store: MeteredStore) -> None:
    """Put the tree that a real Brainy wrote; 189 nouns, 287 verbs."""
    objects = iter(list(sample_objects()))

    async def put() -> None:
        for key, body, user_metadata in objects:
            await store.put(key, body, user_metadata=user_metadata)

    await asyncio.gather(*(put() for _ in range(16)))


async def to_generation(client: AsyncBrainy) -> None:
    """Leave the tree, so that what comes next starts from a generation."""
    begun = await client.start_migration("in-place-upgrade", requested_by="matrix")
    ended = await asyncio.wait_for(client.wait_for_migration(begun.id), PATIENCE_SECONDS)
    assert ended.succeeded, ended.message


async def _begun(row: Row, stage: Stage, *, keep_way_back: bool) -> Migration:
    """Begin, and once more if preflight found a node gone: then nothing was changed, and somebody asks again."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                begun = await row.begin(row, stage, keep_way_back=keep_way_back)
            except PreconditionError as error:
                # What a node that is being started again fails.
                if not any(check in str(error) for check in _GONE):
                    raise
                await asyncio.sleep(0.2)
                continue
            async with aclosing(stage.client.watch_migration(begun.id)) as changes:
                async for seen in changes:
                    if seen.state not in ("PENDING", "PREFLIGHTING", "ABORTING"):
                        break
            if "preflight_failed" not in {event.trigger for event in seen.story}:
                return begun
            assert any(check in seen.message for check in _GONE), seen.message


async def rested(client: AsyncBrainy, migration: Migration, *, back: int) -> Migration:
    """Wait until it rests after so many rollbacks: switched, held, or ended."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            seen = await client.wait_until_migration_rests(migration.id)
            turned = sum(event.trigger == "rolled_back" for event in seen.story)
            if seen.ended or (turned == back and (seen.held or seen.state == "OBSERVING")):
                return seen
            await asyncio.sleep(0.05)


async def switched(client: AsyncBrainy, migration: Migration, *, times: int) -> Migration:
    """Wait until it has switched so often."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            seen = await client.get_migration(migration.id)
            if sum(event.trigger == "switched" for event in seen.story) >= times or seen.ended:
                return seen
            await asyncio.sleep(0.05)


async def asked(ask: Callable[[], Awaitable[object]]) -> None:
    """Ask for a turn until it is not refused for what has only to be waited for."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await ask()
                return
            except PreconditionError as error:
                if error.reason != "WRONG_PHASE":
                    raise
                await asyncio.sleep(0.1)


async def moved(row: Row, stage: Stage) -> Migration:
    """One way, without a way back."""
    if row.quiet:
        await stage.load.hold_writers()
    begun = await _begun(row, stage, keep_way_back=False)
    ended = await asyncio.wait_for(stage.client.wait_for_migration(begun.id), PATIENCE_SECONDS)
    stage.load.release_writers()
    return ended


async def moved_back_and_forth(row: Row, stage: Stage) -> Migration:
    """Forward, back, forward again and completed, with writes on either side."""
    client, load = stage.client, stage.load
    if row.quiet:
        await load.hold_writers()
    begun = await _begun(row, stage, keep_way_back=True)
    seen = await rested(client, begun, back=0)
    assert (seen.state, seen.digest_equal) == ("OBSERVING", True), seen.story
    load.release_writers()
    await load.wrote()
    await client.rollback_migration(begun.id, reason="matrix", requested_by="matrix")
    seen = await rested(client, begun, back=1)
    assert (seen.state, seen.held, seen.digest_equal) == ("READY", True, True), seen.story
    await load.wrote()
    if row.quiet:
        await load.hold_writers()
    await asked(lambda: client.promote_migration(begun.id, requested_by="matrix"))
    seen = await switched(client, begun, times=2)
    assert (seen.state, seen.digest_equal) == ("OBSERVING", True), seen.story
    load.release_writers()
    await load.wrote()
    await asked(lambda: client.complete_migration(begun.id, requested_by="matrix"))
    return await asyncio.wait_for(client.wait_for_migration(begun.id), PATIENCE_SECONDS)
