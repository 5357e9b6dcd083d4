"""Three nodes, sixty nouns, and the calls that tests of the front door share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from node_cluster import NAMESPACE, Cluster, spec, world_of

from brainy.api.common.v1.common_pb2 import Noun
from brainy.api.node.v1 import data_pb2, search_pb2
from brainy.clock import Deadline, SystemClock
from brainy.rpc.channel import call

RNG = np.random.default_rng(7)


VECTORS = RNG.normal(size=(60, 4)).astype("<f4")


IDS = [f"noun-{n}" for n in range(60)]


def noun(number: int, **fields: Any) -> Noun:
    document = b'{"n": %d}' % number
    return Noun(**{"id": IDS[number], "vector": VECTORS[number].tobytes(), "metadata": document} | fields)


def upsert(*nouns: Noun, request_id: str = "") -> data_pb2.UpsertNounsRequest:
    return data_pb2.UpsertNounsRequest(namespace=NAMESPACE, request_id=request_id, nouns=nouns)


def query(rows: slice = slice(0, 1), **fields: Any) -> search_pb2.SearchRequest:
    return search_pb2.SearchRequest(
        **{"namespace": NAMESPACE, "vectors": VECTORS[rows].tobytes(), "dimensions": 4, "k": 5} | fields
    )


def nearest(row: int, k: int, among: range = range(60)) -> list[str]:
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    distances = 1 - unit @ unit[row]
    return [IDS[n] for n in sorted(among, key=lambda n: distances[n])[:k]]


def within(seconds: float) -> Deadline:
    return Deadline.after(SystemClock(), seconds)


async def fill(cluster: Cluster, node_id: str = "a") -> data_pb2.UpsertNounsResponse:
    answer = await call(cluster[node_id].nouns.UpsertNouns, upsert(*[noun(n) for n in range(60)]))
    cluster.settle()
    return answer


@asynccontextmanager
async def three_nodes(directory: Path) -> AsyncIterator[Cluster]:
    """Nodes a, b, c; four shards, each with an owner and one replica; none is on all nodes."""
    made = Cluster(world_of(directory, spec()))
    for node_id in "abc":
        await made.add(node_id)
    for shard, holders in enumerate(["ab", "bc", "ca", "bc"]):
        made.world.place(0, shard, *holders)
    made.settle()
    try:
        yield made
    finally:
        await made.close()
