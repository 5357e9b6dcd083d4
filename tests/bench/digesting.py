"""The multiset digest: what keeping it costs a writer, and what comparing it costs the switch.

*Upkeep.* 64 writers on one shard of a directory, as a node serves them: group commit, one durable object, and the
shard takes it in. With the digest, and in turns without it: nothing is hashed and nothing summed. *Compare.* The
coordinator's own step (``Barrier.digest`` of both sides, then one comparison) over gRPC, of a million nouns in sixteen
shards a side. Processor times are shown beside: they hardly change when others work on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import control_pb2, control_pb2_grpc
from brainy.api.storage.v1 import log_pb2
from brainy.bucket.digest import BUCKETS, MultisetDigest
from brainy.bucket.items import Noun
from brainy.bucket.namespace import Namespace
from brainy.bucket.records import GenerationPlacement, ShardPlacement, Spec
from brainy.changelog.commits import GroupCommit
from brainy.changelog.writing import LogWriter
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.ids import Ids
from brainy.rpc.channel import ChannelPool
from brainy.rpc.server import Service, build_server
from brainy.store.opening import open_store
from brainy_coordinator.migration.barrier import Barrier
from brainy_coordinator.nodes import GrpcNodeCalls
from brainy_node.shard.base import Base
from brainy_node.shard.shard import Shard
from brainy_node.shard.writer import BaseWriter
from tests.bench.figures import Report, at_most
from tests.bench.quiet import wait_until_quiet, watched

UPKEEP_BAR, COMPARE_BAR_SECONDS = 0.05, 0.1
WRITERS, WRITES, DIMENSIONS = 64, 1_280, 384
#: Of each kind; the first ones warm up.
TURNS, WARM = 26, 2
NODES, SHARDS, NOUNS, COMPARES = 3, 16, 1_000_000, 30
_CLOCK, _IDS = SystemClock(), Ids()
_NOTHING = bytes(32)


class _Unkept(MultisetDigest):
    """A digest that nobody keeps."""

    def add(self, item_id: str, item_hash: bytes) -> None:
        pass

    def add_all(self, ids: Any, hashes: Any) -> None:
        pass

    def remove(self, item_id: str, item_hash: bytes) -> None:
        pass


@contextlib.contextmanager
def _without(shard: Shard) -> Iterator[None]:
    """Hash nothing and sum nothing: the only difference between the two kinds of turns."""
    hashed, kept = Noun.digest, shard._digest
    Noun.digest = lambda self: _NOTHING  # type: ignore[method-assign]
    shard._digest = _Unkept()
    try:
        yield
    finally:
        Noun.digest = hashed  # type: ignore[method-assign]
        shard._digest = kept


async def measure_upkeep(report: Report, *, turns: int = TURNS) -> None:
    """Write in turns with and without the digest."""
    with tempfile.TemporaryDirectory(prefix="brainy-bench-") as name:
        store = open_store(Namespace.parse(f"file://{name}/bucket"), StoreSettings(), clock=_CLOCK, ids=_IDS)
        spec = Spec(generation=1, dimensions=DIMENSIONS, shard_count=1, source="empty")
        with BaseWriter(Path(name) / "base", spec=spec, shard=0) as made:
            made.finish(position=0, threads=1)
        shard = Shard.open(Base.open(Path(name) / "base"), spec, threads=1)
        writer = LogWriter(
            store,
            generation=1,
            shard=0,
            epoch=1,
            writer_node="bench",
            incarnation="1",
            ids=_IDS,
            clock=_CLOCK,
            next_position=1,
        )
        for slot in await writer.fence():
            shard.apply(slot.batch)
        commits = GroupCommit(
            writer, known=lambda request_id: None, on_slot=lambda slot: shard.apply(slot.batch), clock=_CLOCK
        )
        running = asyncio.create_task(commits.run())
        rng = np.random.default_rng(1)
        took: tuple[list[float], list[float]] = ([], [])
        used: tuple[list[float], list[float]] = ([], [])
        for turn in range(2 * turns):
            # The same ids again and again: what is replaced is counted out as well.
            vectors = rng.normal(size=(WRITES, DIMENSIONS)).astype("<f4")
            nouns = [
                common_pb2.Noun(id=f"noun-{at}", vector=vectors[at].tobytes(), metadata=b'{"noun":"thing"}')
                for at in range(WRITES)
            ]
            requests = [[log_pb2.LogRecord(request_id=_IDS.uuid(), upsert_noun=noun)] for noun in nouns]
            bare = turn % 4 in (1, 2)
            with _without(shard) if bare else contextlib.nullcontext():
                began, before = _CLOCK.monotonic(), time.thread_time()
                await asyncio.gather(*(_write(commits, requests[first::WRITERS]) for first in range(WRITERS)))
                took[bare].append(_CLOCK.monotonic() - began)
                used[bare].append(time.thread_time() - before)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()
    kept, bare_seconds = (median(each[WARM:]) for each in took)
    lost = 1.0 - bare_seconds / kept
    micros = [median(each[WARM:]) / WRITES * 1e6 for each in used]
    shown = (
        f"{lost:.1%} ({WRITES / kept:,.0f} writes/s with, {WRITES / bare_seconds:,.0f} without; {micros[0]:.1f} and "
        f"{micros[1]:.1f} µs CPU of the owner's thread a write)"
    )
    report.add(at_most("write throughput that the digest takes", lost, UPKEEP_BAR, shown=shown))


async def _write(commits: GroupCommit, requests: Sequence[list[log_pb2.LogRecord]]) -> None:
    for records in requests:
        await commits.commit(records)


@dataclass(frozen=True, slots=True)
class _Part:
    digest: MultisetDigest
    nouns: int


class _Owner(control_pb2_grpc.ControlServiceServicer):
    """A node as far as ``GetDigest`` goes: copies and adds up its shards' sums, as the runtime does."""

    def __init__(self, parts: dict[int, _Part]) -> None:
        self._parts = parts

    async def GetDigest(self, request: control_pb2.GetDigestRequest, context: object) -> control_pb2.GetDigestResponse:
        total = MultisetDigest()
        for shard in request.shards:
            total.merge(self._parts[shard].digest.copy())
        return control_pb2.GetDigestResponse(
            digest=total.encode(),
            noun_count=sum(self._parts[shard].nouns for shard in request.shards),
            positions=[common_pb2.Position(generation=request.generation, shard=s, position=1) for s in request.shards],
        )


def _parts() -> dict[int, _Part]:
    """Every bucket of every shard in use, as with a million nouns: 15 in each."""
    rng = np.random.default_rng(2)
    made = {}
    for shard in range(SHARDS):
        sums = {bucket: int.from_bytes(rng.bytes(32), "little") for bucket in range(BUCKETS)}
        made[shard] = _Part(MultisetDigest(sums), NOUNS // SHARDS)
    return made


async def measure_compare(report: Report, *, compares: int = COMPARES) -> None:
    """Compare both sides as the switch does, again and again."""
    parts = _parts()
    servers = []
    for _ in range(NODES):
        service = Service(
            control_pb2.DESCRIPTOR.services_by_name["ControlService"],
            control_pb2_grpc.add_ControlServiceServicer_to_server,
            _Owner(parts),
        )
        servers.append(await build_server([service], "127.0.0.1:0", clock=_CLOCK, ids=_IDS))
    addresses = {f"n{at}": server.address for at, server in enumerate(servers)}
    shards = {s: ShardPlacement(owner=f"n{s % NODES}", epoch=1) for s in range(SHARDS)}
    placed = GenerationPlacement(state="serving", shard_count=SHARDS, shards=shards)
    pool = ChannelPool()
    barrier = Barrier(GrpcNodeCalls(pool, clock=_CLOCK), namespace="memory://bench")
    took, used = [], []
    for turn in range(compares + 1):
        began, before = _CLOCK.monotonic(), time.process_time()
        source, target = await asyncio.gather(
            *(barrier.digest(placed, number, addresses, timeout=10.0) for number in (0, 1))
        )
        assert source is not None
        assert target is not None
        assert source.nouns == SHARDS * (NOUNS // SHARDS)
        equal = source.digest == target.digest
        if turn:
            took.append(_CLOCK.monotonic() - began)
            used.append(time.process_time() - before)
        assert equal
    await pool.close()
    for server in servers:
        await server.drain(0.0)
    middle, longest = median(took), max(took)
    shown = (
        f"{1000 * middle:.1f} ms, {1000 * longest:.1f} ms at most; {1000 * median(used):.1f} ms CPU of "
        f"{NODES} nodes and the leader together"
    )
    report.add(at_most("compare of both sides at the switch, 1 M nouns", middle, COMPARE_BAR_SECONDS, shown=shown))


async def measure_digest(report: Report, *, rounds: int) -> None:
    """Both figures."""
    await wait_until_quiet(report.patience_seconds)
    async with watched() as foreign:
        await measure_upkeep(report, turns=max(WARM + 3, TURNS * rounds // 5))
        await measure_compare(report)
    report.disturbance = max(report.disturbance, foreign.share)
