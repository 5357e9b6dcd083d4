"""Clusters of real processes on the recorded bucket."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster
from tests.bench.bucket import WHOLE, opened

#: Seldom, so that polls of the routing record do not count as the cost of a cold start.
_SETTINGS = {"BRAINY_NODE__ROUTING_POLL_SECONDS": "5"}


@asynccontextmanager
async def fresh_cluster(
    directory: Path, *, nodes: int, settings: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[LocalCluster, AsyncBrainy]]:
    """Run a cluster whose nodes have nothing on disk."""
    shutil.rmtree(directory, ignore_errors=True)
    cluster = LocalCluster(WHOLE, nodes=nodes, directory=directory, settings={**_SETTINGS, **(settings or {})})
    await cluster.start(timeout_seconds=300.0)
    client = cluster.client()
    try:
        yield cluster, client
    finally:
        await client.close()
        await cluster.stop()


async def store_calls(cluster: LocalCluster) -> list[dict[str, int]]:
    """What each node asked of the store since it started, its builders included."""
    found = []
    for endpoint in cluster.endpoints:
        async with AsyncBrainy([endpoint]) as node:
            found.append({kind: n for kind, n in (await node.get_performance_metrics()).store_calls.items() if n})
    return found


async def forget_cluster() -> None:
    """Remove everything the product wrote, so that the bucket is as Brainy left it."""
    async with opened(WHOLE) as store:
        keys = [meta.key async for page in store.list("cluster/") for meta in page]
        for key in keys:
            await store.delete(key)
