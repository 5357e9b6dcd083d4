"""A lock holder that is stopped for longer than its lease, and wakes up believing.

Real processes: the first takes the lock and writes to a shard's change log under its token; SIGSTOP; the second is
granted the lock when the lease has run out, and writes; SIGCONT. Every later write of the first must be refused
FENCED and leave no byte that can be seen.
"""

from __future__ import annotations

import asyncio
import os  # the number of runs is the caller's
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import pytest

from brainy.bucket import layout
from brainy.bucket.namespace import Namespace
from brainy.changelog.reading import read_log
from brainy.clock import SystemClock
from brainy.config.settings import LockSettings, StoreSettings
from brainy.ids import Ids
from brainy.store.opening import open_store
from brainy.testing.servers import ministack, redis_server
from tests.e2e.lock_holder import GENERATION, SHARD, STUBBORN, Job, start

RUNS = int(os.environ.get("RUNS", "2"))  # noqa: TID251 - a knob of the test, not of the product
#: Runs that go on side by side; they spend their time waiting.
PARALLEL = int(os.environ.get("PARALLEL", "10"))  # noqa: TID251 - likewise
TTL = 1.0
PAUSE = TTL + 2.0
BUCKET = "paused"


@dataclass
class Environment:
    """The servers of one set of runs."""

    locks: LockSettings
    variables: dict[str, str]


@dataclass
class Holder:
    """A holder process and everything it has said."""

    process: Any
    connection: Connection
    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def until(self, what: str, *, times: int = 1, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until it has said something so many times; returns the last one's fields."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds):
            while sum(1 for word, _ in self.said if word == what) < times:
                assert not any(word == "failed" for word, _ in self.said), self.said
                readable = asyncio.Event()
                loop.add_reader(self.connection.fileno(), readable.set)
                try:
                    if not self.connection.poll():
                        await readable.wait()
                finally:
                    loop.remove_reader(self.connection.fileno())
                heard = len(self.said)
                self.drain()
                assert len(self.said) > heard, f"ended without a word: {self.said[-3:]}"
        return [fields for word, fields in self.said if word == what][-1]

    def drain(self) -> None:
        with suppress(EOFError, ConnectionResetError):  # it has ended
            while self.connection.poll():
                self.said.append(self.connection.recv())

    def numbers(self, what: str) -> list[int]:
        return [fields["number"] for word, fields in self.said if word == what]

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()


@pytest.fixture(params=["s3", "redis"])
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    with ExitStack() as servers:
        s3 = servers.enter_context(ministack())
        s3.create_bucket(BUCKET)
        for variable, value in s3.environment.items():
            monkeypatch.setenv(variable, value)
        locks = LockSettings()
        if request.param == "redis":
            locks = LockSettings(provider="redis", redis_url=servers.enter_context(redis_server()).url)
        yield Environment(locks, s3.environment)


async def one_run(environment: Environment, number: int) -> Counter[str]:
    """Carry out one run; returns figures."""
    namespace = f"s3://{BUCKET}/{Ids().short(6)}-{number}"
    clock = SystemClock()
    holders: list[Holder] = []

    def begin(owner: str) -> Holder:
        job = Job(
            namespace=namespace,
            locks=environment.locks,
            owner=owner,
            ttl_seconds=TTL,
            variables=environment.variables,
        )
        holders.append(Holder(*start(job)))
        return holders[-1]

    try:
        first = begin("first")
        old = (await first.until("granted"))["token"]
        await first.until("written", times=3)
        second = begin("second")
        # Stopped at any point of its loop: also in the middle of a write.
        await asyncio.sleep(Ids().jitter(0.0, 0.05))
        os.kill(first.process.pid, signal.SIGSTOP)
        stopped_at = clock.monotonic()
        new = (await second.until("granted"))["token"]
        await second.until("written", times=3)
        await asyncio.sleep(max(0.0, PAUSE - (clock.monotonic() - stopped_at)))
        first.drain()
        before = set(first.numbers("written"))
        os.kill(first.process.pid, signal.SIGCONT)
        await first.until("ended")
        await second.until("written", times=len(second.numbers("written")) + 2)
        second.connection.send("stop")
        await second.until("ended")

        store = open_store(Namespace.parse(namespace), StoreSettings(), clock=clock, ids=Ids())
        slots = [slot async for slot in read_log(store, GENERATION, SHARD, from_position=1)]
        bodies = [page async for page in store.list(layout.generation(GENERATION))]
        await store.close()
    finally:
        for holder in holders:
            holder.end()

    assert new > old
    fence = next(place for place, slot in enumerate(slots) if slot.epoch == new)
    epochs = [slot.epoch for slot in slots]
    assert epochs == [old] * fence + [new] * (len(slots) - fence)
    # Nothing of the first lies behind the fence, under any key: what is in the log is all there is.
    assert sum(len(page) for page in bodies) == len(slots)
    ids_in_log = {record.upsert_noun.id for slot in slots for record in slot.batch.records if record.request_id}
    kept = {int(item.rsplit("-", 1)[1]) for item in ids_in_log if item.startswith("first-")}
    # All it was told to be written is there; one write may have been under way when it was stopped.
    assert before <= kept
    later = set(first.numbers("written")) - before
    assert later <= kept
    assert len(later) <= 1
    refused = [fields for word, fields in first.said if word == "refused"]
    assert len(refused) == STUBBORN + 1
    assert {fields["reason"] for fields in refused} == {"FENCED"}
    assert {int(fields["current_epoch"]) for fields in refused} == {new}
    assert {fields["current_owner"] for fields in refused} == {"second"}
    # After the first refusal nothing more of it is in the log.
    assert not kept & set(first.numbers("refused"))
    # The second was never refused, and all it was told is there.
    assert second.numbers("refused") == []
    assert {f"second-{new}-{place}" for place in second.numbers("written")} <= ids_in_log
    # The first was told to stop, too, by its lease.
    assert any(word == "lost" for word, _ in first.said)
    return Counter(
        runs=1,
        refused=len(refused),
        under_way=len(later),
        written_before=len(before),
        written_by_successor=len(second.numbers("written")),
    )


@pytest.mark.timeout(1800)
async def test_a_paused_holder_changes_nothing_when_it_wakes(environment: Environment) -> None:
    places = asyncio.Semaphore(PARALLEL)

    async def run(number: int) -> Counter[str]:
        async with places:
            return await one_run(environment, number)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(number)) for number in range(RUNS)]
    total: Counter[str] = Counter()
    for task in tasks:
        total += task.result()
    print(f"\n{environment.locks.provider}: " + " ".join(f"{name}={count}" for name, count in sorted(total.items())))
    assert total["runs"] == RUNS
    assert total["refused"] == RUNS * (STUBBORN + 1)
