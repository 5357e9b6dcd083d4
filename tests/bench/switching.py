"""The switch under load, again and again: a migration that keeps a way back is rolled back and promoted in turns.

Each turn is a whole switch: writes are stopped, final positions taken, digests compared, the routing record swapped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.errors import PreconditionError
from brainy.ids import Ids
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.migration import Migration, TargetSpec
from brainy.store.opening import open_store
from tests.bench.figures import Figure, Report, at_most
from tests.bench.offered import Call, Offer, Offered, Seen, quantile

#: Writes may wait so long at a switch: at the 99th percentile, and ever.
PAUSE_P99_SECONDS, PAUSE_EVER_SECONDS = 0.5, 3.0
#: How much slower than the slowest read of quiet moments the slowest read of a switch may be, and what is too little
#: to be called a pause.
READ_RATIO, READ_SECONDS = 2.0, 0.25
_PATIENCE_SECONDS = 300.0
_WRONG_SHOWN = 5
#: One switch of so many is told when it happens.
_SAID = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One switch."""

    back: bool
    #: Monotonic seconds: asked for, and seen to be over.
    began: float
    ended: float
    #: How long writes were stopped, as the leader measured it.
    pause: float


@dataclass(slots=True)
class Turned:
    """All of a run."""

    turns: list[Turn] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    wrong: list[str] = field(default_factory=list)
    migration: Migration | None = None
    #: Turns at which the sides were not equal, or that had to be begun again.
    unequal: int = 0
    given_up: int = 0
    seconds: float = 0.0

    def waits(self) -> list[float]:
        """For each turn the longest that any write that was due while it went on took."""
        return [max((c.seconds for c in self._during(turn, self.seen.writes)), default=0.0) for turn in self.turns]

    @staticmethod
    def _during(turn: Turn, calls: list[Call]) -> list[Call]:
        return [call for call in calls if turn.began <= call.due <= turn.ended]

    def reads(self) -> tuple[list[Call], list[Call]]:
        """Reads while a switch went on, and the others."""
        during: list[Call] = []
        others: list[Call] = []
        for call in self.seen.reads:
            within = any(turn.began <= call.due <= turn.ended for turn in self.turns)
            (during if within else others).append(call)
        return during, others


class Watch:
    """The newest state of a migration, as its stream tells it."""

    def __init__(self, client: AsyncBrainy, migration: Migration) -> None:
        self.last = migration
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._follow(client))

    async def _follow(self, client: AsyncBrainy) -> None:
        async with aclosing(client.watch_migration(self.last.id)) as changes:
            async for seen in changes:
                async with self._changed:
                    self.last = seen
                    self._changed.notify_all()

    async def until(self, state: str, trigger: str, count: int) -> Migration:
        """Wait until something has happened so often and it is in that state."""

        def reached() -> bool:
            seen = self.last
            happened = sum(event.trigger == trigger for event in seen.story)
            return (happened >= count and seen.state == state) or seen.ended

        async with asyncio.timeout(_PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(reached)
        if self.last.ended and state not in ("SUCCEEDED", "ABORTED"):
            raise AssertionError(f"the migration ended: {self.last.state} {self.last.message}")
        return self.last

    async def close(self) -> None:
        """Stop looking."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def turn_again_and_again(
    cluster: LocalCluster,
    offer: Offer,
    *,
    turns: int,
    target: TargetSpec,
    strategy: str,
    rest_seconds: float,
    say: Callable[[str], None],
) -> Turned:
    """Fill a namespace, migrate it with a way back, and switch ``turns`` times under load, the first forward."""
    clock, result = SystemClock(), Turned()
    vectors = np.random.default_rng(7).normal(size=(offer.nouns, offer.dimensions)).astype(np.float32)
    store = open_store(Namespace.parse(str(cluster.namespace)), StoreSettings(), clock=clock, ids=Ids())
    client = cluster.client()
    try:
        await client.add_many(vectors, [{"version": 0}] * offer.nouns, ids=[f"noun-{n}" for n in range(offer.nouns)])
        begun = await client.start_migration(
            strategy, target, keep_way_back=True, hold_before_switch=True, requested_by="bench"
        )
        watch = Watch(client, begun)
        load = Offered(cluster.client, offer, store=store, vectors=vectors)
        try:
            began = clock.monotonic()
            await watch.until("READY", "lag_in_bounds", 1)
            await asyncio.sleep(rest_seconds)
            for number in range(turns):
                turn = await _turn(client, watch, number, clock)
                result.turns.append(turn)
                if number % _SAID == 0:
                    say(f"  switch {number + 1} of {turns}: writes stopped for {turn.pause * 1000:.0f} ms")
                await asyncio.sleep(rest_seconds)
            result.seconds = clock.monotonic() - began
        finally:
            result.seen = await load.stop()
            await watch.close()
        result.migration = await client.get_migration(begun.id)
        triggers = [event.trigger for event in result.migration.story]
        result.unequal = sum(triggers.count(each) for each in ("digest_unequal", "rollback_unequal"))
        stopped = ("cut_over_interrupted", "pause_cap_exceeded", "rollback_interrupted")
        result.given_up = sum(triggers.count(each) for each in stopped)
        result.wrong = await load.wrong(client)
    finally:
        await client.close()
        await store.close()
    return result


async def _turn(client: AsyncBrainy, watch: Watch, number: int, clock: SystemClock) -> Turn:
    back, began = number % 2 == 1, clock.monotonic()
    if back:
        await client.rollback_migration(watch.last.id, requested_by="bench")
        seen = await watch.until("READY", "rolled_back", number // 2 + 1)
    else:
        # It is asked for when somebody would: as soon as it is ready to.
        while True:
            try:
                await client.promote_migration(watch.last.id, requested_by="bench")
                break
            except PreconditionError:
                await asyncio.sleep(0.05)
        seen = await watch.until("OBSERVING", "switched", number // 2 + 1)
    return Turn(back=back, began=began, ended=clock.monotonic(), pause=seen.write_pause_seconds)


def show(report: Report, label: str, offer: Offer, result: Turned) -> None:
    """Report a run against its bars."""
    waits, pauses = result.waits(), [turn.pause for turn in result.turns]
    rate = len(result.seen.writes) * offer.batch / max(result.seconds, 1e-9)
    during, others = result.reads()
    puts = result.seen.puts
    raw: dict[str, object] = {
        "pauses": pauses,
        "longest_writes": waits,
        "turns": len(pauses),
        "seconds": result.seconds,
    }
    calm = [
        call.seconds
        for call in result.seen.writes
        if not any(turn.began - 0.1 <= call.due <= turn.ended for turn in result.turns)
    ]

    def add(what: str, value: str, ok: bool | None = None, bar: str = "") -> None:
        report.add(Figure(name=f"{label}: {what}", value=value, bar=bar, ok=ok))

    add("switches; writes offered and acknowledged a second", f"{len(pauses)}; {offer.writes:,}, {rate:,.0f}")
    name = f"{label}: writes stopped at a switch, p99 (the leader's clock)"
    report.add(at_most(name, quantile(pauses, 0.99), PAUSE_P99_SECONDS, shown=_spread(pauses), raw=raw))
    name = f"{label}: longest write of a switch, p99 (from when it was due)"
    report.add(at_most(name, quantile(waits, 0.99), PAUSE_P99_SECONDS, shown=_spread(waits)))
    report.add(at_most(f"{label}: longest write ever", max(waits), PAUSE_EVER_SECONDS, shown=f"{max(waits):.3f} s"))
    add("writes between switches", _spread(calm))
    add("the store's own PUT beside them", _spread([call.seconds for call in puts]))
    slowest, before = quantile(during, 1.0), quantile(others, 1.0)
    bar = max(READ_RATIO * before, READ_SECONDS)
    shown = f"{_spread([c.seconds for c in during])}; between: {_spread([c.seconds for c in others])}"
    report.add(at_most(f"{label}: slowest read of a switch, s", slowest, round(bar, 3), shown=shown))
    failed = len(result.seen.failed_writes), len(result.seen.failed_reads)
    add("failed writes, failed reads", f"{failed[0]}, {failed[1]}", failed == (0, 0), "= 0")
    # Each of these events follows a comparison that came out equal; one that did not is an event of another name.
    story = result.migration.story if result.migration is not None else ()
    compared = sum(event.trigger in ("switched", "rolled_back") for event in story)
    equal = compared == len(pauses) and not result.unequal
    add("digests equal at every switch", "yes" if equal else "NO", equal, "yes")
    add("acknowledged nouns missing or stale at the end", str(len(result.wrong)), not result.wrong, "= 0")
    add("attempts given up and made again", str(result.given_up))
    failures = Counter((*result.seen.failed_writes, *result.seen.failed_reads))
    for line, times in failures.most_common(_WRONG_SHOWN):
        report.say(f"  {times} x {line}")
    for line in result.wrong[:_WRONG_SHOWN]:
        report.say(f"  {line}")


def _spread(seconds: list[float]) -> str:
    middle, high, most = (quantile(seconds, share) * 1000 for share in (0.5, 0.99, 1.0))
    return f"{middle:.0f} / {high:.0f} / {most:.0f} ms (p50/p99/max)"


async def measure_switch(report: Report, directory: Path, *, server: Mapping[str, str], turns: int = 40) -> None:
    """Switch in turns under 1,000 writes a second, on the object server and on a directory."""
    offer = Offer()
    for label, namespace in (("SeaweedFS", "s3://bench/switch"), ("directory", f"file://{directory / 'bucket'}")):
        cluster = LocalCluster(namespace, nodes=3, directory=directory / label, settings=dict(server))
        async with cluster:
            result = await turn_again_and_again(
                cluster,
                offer,
                turns=turns,
                target=TargetSpec(),
                strategy="in-place-upgrade",
                rest_seconds=1.0,
                say=report.say,
            )
        show(report, f"switch, {label}", offer, result)
