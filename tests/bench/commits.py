"""Group commit against what the store allows: ``python -m tests.bench.commits``.

64 writers on one shard, each with one write under way. The log's throughput is compared with the store's own
sequential conditional PUTs of bodies of the same size, in turns, times the writes a PUT carried.

All 64 wait for the same PUT, so whatever the owner does between two PUTs counts in full; its processor time there is
shown. Against a server on the same two cores that is a good part of its PUT; what a store as far away as S3 would allow
is shown beside it, unjudged. Slots are not kept: an owner keeps a bounded window of them, whose memory goes round.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import uvloop

from brainy.api.common.v1 import common_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket.namespace import Namespace
from brainy.changelog.batch import Slot
from brainy.changelog.commits import GroupCommit
from brainy.changelog.writing import LogWriter
from brainy.clock import SystemClock
from brainy.config.environment import export
from brainy.config.settings import StoreSettings
from brainy.ids import Ids
from brainy.store.base import ObjectStore, PutOutcome
from brainy.store.metered import MeteredStore
from brainy.store.opening import open_store
from brainy.telemetry.logs import configure_logs
from brainy.testing.servers import ministack, seaweedfs
from tests.bench.figures import Figure, Report, at_least

WRITERS, WRITES, DIMENSIONS, TURNS = 64, 6_400, 384, 5
#: A PUT of 100 KB to S3 from the same region takes about this long.
DISTANCE_SECONDS = 0.02
_CLOCK, _IDS = SystemClock(), Ids()


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of both."""

    writes_a_put: float
    #: Share of the sequential PUT rate times the batch size that the log reached.
    share: float
    writes_a_second: float
    #: Processor time of the owner's thread from the answer to one PUT to the next PUT, a write.
    between_micros: float


class Watched(MeteredStore):
    """Notes the processor time that its caller takes between two PUTs."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.between: list[float] = []
        self._answered = 0.0

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        self.between.append(time.thread_time() - self._answered)
        try:
            return await super().put_if_absent(key, body)
        finally:
            self._answered = time.thread_time()


class Distant(MeteredStore):
    """A store with a way to it."""

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        await _CLOCK.sleep(DISTANCE_SECONDS)
        return await super().put_if_absent(key, body)


async def turn(store: ObjectStore, number: int) -> Turn:
    """Write with 64 writers, then PUT bodies of the same mean size one after the other."""
    sizes: list[int] = []
    positions: dict[str, int] = {}

    def applied(slot: Slot) -> None:
        sizes.append(len(slot.body))
        for position, record in enumerate(slot.batch.records, slot.first):
            positions[record.request_id] = position

    watched = Watched(store)
    writer = LogWriter(
        watched,
        generation=1,
        shard=number,
        epoch=1,
        writer_node="bench",
        incarnation="1",
        ids=_IDS,
        clock=_CLOCK,
        next_position=1,
    )
    await writer.fence()
    commits = GroupCommit(writer, known=positions.get, on_slot=applied, clock=_CLOCK)
    running = asyncio.create_task(commits.run())
    vector = np.random.default_rng(number).normal(size=DIMENSIONS).astype("<f4").tobytes()

    # Made beforehand: building requests is the callers' work.
    nouns = [common_pb2.Noun(id=f"noun-{at}", vector=vector, metadata=b'{"noun":"thing"}') for at in range(WRITES)]
    requests = [[log_pb2.LogRecord(request_id=_IDS.uuid(), upsert_noun=noun)] for noun in nouns]

    async def write(first: int) -> None:
        for records in requests[first::WRITERS]:
            await commits.commit(records)

    began = _CLOCK.monotonic()
    await asyncio.gather(*(write(first) for first in range(WRITERS)))
    log_seconds = _CLOCK.monotonic() - began
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    body = bytes(sum(sizes) // len(sizes))
    began = _CLOCK.monotonic()
    for at in range(len(sizes)):
        assert (await store.put_if_absent(f"sequential/{number}/{at}", body)).won
    put_seconds = _CLOCK.monotonic() - began
    writes_a_put = WRITES / len(sizes)
    return Turn(
        writes_a_put=writes_a_put,
        share=(WRITES / log_seconds) / (len(sizes) / put_seconds * writes_a_put),
        writes_a_second=WRITES / log_seconds,
        between_micros=median(watched.between[2:]) / writes_a_put * 1e6,  # behind the fence and the first batch
    )


async def measure(report: Report, label: str) -> None:
    """Take the turns on a running server, as it is and from a distance."""
    store = open_store(Namespace.parse("s3://bench/commits"), StoreSettings(), clock=_CLOCK, ids=_IDS)
    near = [await turn(store, number) for number in range(TURNS)]
    far = [await turn(Distant(store), TURNS + number) for number in range(TURNS)]
    await store.close()
    share, speed = median(one.share for one in near), median(one.writes_a_second for one in near)
    name = f"{label}: log / sequential PUTs x batch"
    report.add(at_least(name, share, 0.8, shown=f"{share:.2f} ({speed:,.0f} writes/s)"))
    report.add(at_least(f"{label}: writes a PUT, {WRITERS} writers", median(one.writes_a_put for one in near), 20))
    between = median(one.between_micros for one in near)
    report.add(Figure(name=f"{label}: processor time between two PUTs, a write", value=f"{between:.1f} µs"))
    share, speed = median(one.share for one in far), median(one.writes_a_second for one in far)
    name = f"{label}, {DISTANCE_SECONDS * 1000:.0f} ms away: log / sequential PUTs x batch"
    report.add(Figure(name=name, value=f"{share:.2f} ({speed:,.0f} writes/s)"))


def main() -> int:
    """Measure; 1 if a bar was missed."""
    configure_logs(level="error", form="json", role="bench")
    report = Report()
    for label, start in (("seaweedfs", seaweedfs), ("ministack", ministack)):
        with start() as server:
            server.create_bucket("bench")
            export(**server.environment)
            uvloop.run(measure(report, label))  # as a node does
    report.show()
    return 1 if report.short else 0


if __name__ == "__main__":
    sys.exit(main())
