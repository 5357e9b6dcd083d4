"""A cluster of real processes on an object server, with a strategy's nodes, a source to start from, and load."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from brainy.ids import Ids
from brainy.samples import sample_truth
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster
from brainy.store.metered import MeteredStore
from tests.conftest import BUCKET
from tests.e2e.conftest import RunCluster
from tests.e2e.holding import Holding
from tests.e2e.load import Load
from tests.e2e.strategies import DIMENSIONS, Row, Stage, opened, put_sample, to_generation
from tests.e2e.truth import assert_holds

_NODES = 3
_PATIENCE_SECONDS = 90.0
#: Long enough that a machine with several of these clusters does not take a slow process for a dead one.
CALM = {
    "BRAINY_COORDINATOR__LEADER_LEASE_SECONDS": "5",
    "BRAINY_COORDINATOR__NODE_TTL_SECONDS": "4",
}


def _patient(cluster: LocalCluster) -> AsyncBrainy:
    """A client that goes on asking while killed processes start anew: what fails has failed for good."""
    return AsyncBrainy(
        cluster.endpoints,
        coordinators=cluster.coordinator_addresses,
        namespace=str(cluster.namespace),
        read_deadline_seconds=_PATIENCE_SECONDS,
        write_deadline_seconds=_PATIENCE_SECONDS,
    )


@asynccontextmanager
async def staged(
    row: Row,
    source: str,
    run_cluster: RunCluster,
    *,
    seed: int,
    settings: Mapping[str, str],
    nodes: int = _NODES,
) -> AsyncIterator[tuple[Stage, MeteredStore]]:
    """Run everything a strategy needs, under load, from a ``tree`` or a ``generation``.

    Args:
        row: the strategy.
        source: what the namespace is at first.
        run_cluster: the fixture.
        seed: of the load.
        settings: variables of the processes; those of the object server at least.
        nodes: how many without a pool.
    """
    namespace = f"s3://{BUCKET}/matrix-{Ids().short()}"
    store = opened(namespace)
    try:
        await put_sample(store)
        async with run_cluster(namespace, nodes=nodes, settings={**CALM, **settings}) as (cluster, client):
            for pool, count in row.pools.items():
                for _ in range(count):
                    await cluster.start_node(pool=pool)
            await assert_holds(client, sample_truth())
            if source == "generation":
                await to_generation(client)
            before = await Holding.served(client)
            load = Load(lambda: _patient(cluster), DIMENSIONS, before=before, seed=seed)
            try:
                await load.wrote()
                yield Stage(cluster=cluster, client=client, load=load, namespace=namespace), store
            finally:
                await load.stop()
    finally:
        await store.close()
