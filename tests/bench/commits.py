"""Group commit against what the store allows: ``python -m tests.bench.commits``.

64 writers on one shard, each with one write under way. The log's throughput is compared with the store's own
sequential conditional PUTs of bodies of the same size, in turns, times the writes a PUT carried.

All 64 wait for the same PUT, so whatever the owner does between two PUTs counts in full; its processor time there is
shown. Against a server on the same two cores that is a good part of its PUT; what a store as far away as S3 would allow
is shown beside it, unjudged. Slots are not kept: an owner keeps a bounded window of them, whose memory goes round.
"""

from __future__ import annotations

import asyncio
import gc
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
from brainy_node.main import COLLECT_EVERY
from tests.bench.figures import Figure, Report, at_least

#: Short turns, and many: a machine that is shared changes its pace from one second to the next.
WRITERS, WRITES, DIMENSIONS, TURNS = 64, 1_280, 384, 60
#: A PUT of 100 KB to S3 from the same region takes about this long.
DISTANCE_SECONDS = 0.02
_CLOCK, _IDS = SystemClock(), Ids()


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """All turns of both."""

    writes_a_put: float
    #: Share of the sequential PUT rate times the batch size that the log reached.
    share: float
    writes_a_second: float
    #: Processor time of the owner's thread between two PUTs, microseconds a write; says what the wall clock of a
    #: machine that is shared does not.
    between_micros: float


class Watched(MeteredStore):
    """Notes the processor time that its caller takes between two PUTs."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.between: list[float] = []
        self.answered = 0.0

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        self.between.append(time.thread_time() - self.answered)
        try:
            return await super().put_if_absent(key, body)
        finally:
            self.answered = time.thread_time()


class Distant(MeteredStore):
    """A store with a way to it."""

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        await _CLOCK.sleep(DISTANCE_SECONDS)
        return await super().put_if_absent(key, body)


async def take_turns(store: ObjectStore, number: int) -> Turns:
    """Write with 64 writers, then PUT a body of theirs as often, one after the other; again and again.

    What a shard does with a batch that has become durable is the shard's, and is not counted.
    """
    # A real one: servers look into what they store (hashes, compression), and zeros would be cheap for them.
    body, puts = b"", 0

    def durable(slot: Slot) -> None:
        nonlocal body, puts
        body, puts = slot.body, puts + 1

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
    commits = GroupCommit(writer, known=lambda request_id: None, on_slot=durable, clock=_CLOCK)
    running = asyncio.create_task(commits.run())
    vector = np.random.default_rng(number).normal(size=DIMENSIONS).astype("<f4").tobytes()
    log_seconds = put_seconds = 0.0
    for turn in range(TURNS):
        # Made beforehand: building requests is the callers' work.
        nouns = [common_pb2.Noun(id=f"noun-{at}", vector=vector, metadata=b'{"noun":"thing"}') for at in range(WRITES)]
        requests = [[log_pb2.LogRecord(request_id=_IDS.uuid(), upsert_noun=noun)] for noun in nouns]

        async def write(first: int, requests: list[list[log_pb2.LogRecord]] = requests) -> None:
            for records in requests[first::WRITERS]:
                await commits.commit(records)

        before, watched.answered = puts, time.thread_time()
        began = _CLOCK.monotonic()
        await asyncio.gather(*(write(first) for first in range(WRITERS)))
        log_seconds += _CLOCK.monotonic() - began
        began = _CLOCK.monotonic()
        for at in range(puts - before):
            assert (await store.put_if_absent(f"sequential/{number}/{turn}/{at}", body)).won
        put_seconds += _CLOCK.monotonic() - began
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    writes_a_put = TURNS * WRITES / puts
    return Turns(
        writes_a_put=writes_a_put,
        share=put_seconds / log_seconds,
        writes_a_second=TURNS * WRITES / log_seconds,
        between_micros=median(watched.between) / writes_a_put * 1e6,
    )


async def measure(report: Report, label: str, *, judged: bool) -> None:
    """Take the turns on a running server, as it is and from a distance."""
    store = open_store(Namespace.parse("s3://bench/commits"), StoreSettings(), clock=_CLOCK, ids=_IDS)
    near, far = await take_turns(store, 1), await take_turns(Distant(store), 2)
    await store.close()
    name = f"{label}: log / sequential PUTs x batch"
    shown = f"{near.share:.2f} ({near.writes_a_second:,.0f} writes/s)"
    report.add(at_least(name, near.share, 0.8, shown=shown) if judged else Figure(name=name, value=shown))
    report.add(at_least(f"{label}: writes a PUT, {WRITERS} writers", near.writes_a_put, 20))
    name = f"{label}: processor time between two PUTs, a write"
    report.add(Figure(name=name, value=f"{near.between_micros:.1f} µs"))
    name = f"{label}, {DISTANCE_SECONDS * 1000:.0f} ms away: log / sequential PUTs x batch"
    report.add(Figure(name=name, value=f"{far.share:.2f} ({far.writes_a_second:,.0f} writes/s)"))


def main() -> int:
    """Measure; 1 if a bar was missed."""
    configure_logs(level="error", form="json", role="bench")
    report = Report()
    gc.freeze()  # as a node does
    gc.set_threshold(*COLLECT_EVERY)
    for label, start in (("seaweedfs", seaweedfs), ("ministack", ministack)):
        with start() as server:
            server.create_bucket("bench")
            export(**server.environment)
            uvloop.run(measure(report, label, judged=label == "seaweedfs"))  # as a node does
    report.show()
    return 1 if report.short else 0


if __name__ == "__main__":
    sys.exit(main())
