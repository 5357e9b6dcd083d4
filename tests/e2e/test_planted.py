"""Planted differences between running clusters that are written all the time: each is found, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from brainy.bucket.items import Noun, Verb
from brainy.clock import Deadline, SystemClock
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.quality import QualityThresholds
from tests.e2e.conftest import QUICK, RunCluster

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

CLOCK = SystemClock()
DIMENSIONS, NOUNS, VERBS = 16, 2000, 400
#: Below are planted ones, which the writers leave alone.
FIRST_WRITTEN = 100
#: Writes a second, in calls of so many.
RATE, AT_ONCE = 240.0, 4
#: Calls that may wait for a side.
MOST_WAITING = 20
CLEAN_RUNS = int(os.environ.get("CLEAN_RUNS", "10"))  # noqa: TID251 - how often, not what
#: The last pause is longer than a follower on a busy machine is behind.
PATIENCE = ("--rechecks", "4", "--pause", "0.5")


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to one side, and then to the other."""

    nouns: tuple[Noun, ...] = ()
    verbs: tuple[Verb, ...] = ()
    gone: tuple[str, ...] = ()

    async def take(self, client: AsyncBrainy) -> None:
        if self.nouns or self.verbs:
            await client.write_stored((*self.nouns, *self.verbs))
        if self.gone:
            await client.delete_many(self.gone)

    @property
    def writes(self) -> int:
        return len(self.nouns) + len(self.verbs) + len(self.gone)


def vector(rng: np.random.Generator) -> bytes:
    return rng.normal(size=DIMENSIONS).astype("<f4").tobytes()


def noun(name: str, rng: np.random.Generator) -> Noun:
    return Noun(id=name, vector=vector(rng), metadata=orjson.dumps({"name": name, "turn": int(rng.integers(1 << 30))}))


def verb(name: str, rng: np.random.Generator) -> Verb:
    ends = [f"n{int(rng.integers(FIRST_WRITTEN))}" for _ in range(2)]
    return Verb(id=name, source_id=ends[0], target_id=ends[1], type="knows", weight=float(rng.random()))


def one_ulp(item: Noun) -> Noun:
    values = np.frombuffer(item.vector, "<f4").copy()
    values[3] = np.nextafter(values[3], np.float32(np.inf))
    return replace(item, vector=values.tobytes())


class Writing:
    """Writes at a steady rate, each write to the clients in turn, in one order for all."""

    def __init__(self, *clients: AsyncBrainy) -> None:
        self._clients = clients
        self._stopping = False
        self._began = CLOCK.monotonic()
        self._ways: list[asyncio.Queue[Step | None]] = [asyncio.Queue() for _ in clients]
        self.writes = 0
        self._tasks = [asyncio.create_task(self._make())]
        self._tasks += [asyncio.create_task(self._carry(at)) for at in range(len(clients))]

    async def _make(self) -> None:
        rng, turn, due = np.random.default_rng(7), 0, CLOCK.monotonic()
        while not self._stopping:
            turn += 1
            names = [f"n{int(n)}" for n in rng.integers(FIRST_WRITTEN, NOUNS, size=AT_ONCE)]
            match turn % 5:
                case 0:
                    step = Step(gone=tuple(dict.fromkeys(names)))
                case 1:
                    step = Step(
                        verbs=tuple(verb(f"v{n}", rng) for n in {*rng.integers(20, VERBS, size=AT_ONCE).tolist()})
                    )
                case 2:
                    step = Step(nouns=tuple(noun(f"new{turn}-{n}", rng) for n in range(AT_ONCE)))
                case _:
                    step = Step(nouns=tuple(noun(name, rng) for name in dict.fromkeys(names)))
            # A side that is slower than the rate slows the writing down: the lag of B stays far below the last pause.
            while any(way.qsize() >= MOST_WAITING for way in self._ways):
                await asyncio.sleep(0.005)
            self._ways[0].put_nowait(step)
            due = max(due + AT_ONCE / RATE, CLOCK.monotonic() - 0.5)
            await asyncio.sleep(max(0.0, due - CLOCK.monotonic()))

    async def _carry(self, at: int) -> None:
        while (step := await self._ways[at].get()) is not None:
            await step.take(self._clients[at])
            if at == 0:
                self.writes += step.writes
            if at + 1 < len(self._ways):
                self._ways[at + 1].put_nowait(step)
        if at + 1 < len(self._ways):
            self._ways[at + 1].put_nowait(None)

    @property
    def rate(self) -> float:
        return self.writes / (CLOCK.monotonic() - self._began)

    async def stop(self) -> None:
        self._stopping = True
        await self._tasks[0]
        self._ways[0].put_nowait(None)
        await asyncio.wait_for(asyncio.gather(*self._tasks), 120)


@asynccontextmanager
async def writing(*clients: AsyncBrainy) -> AsyncIterator[Writing]:
    found = Writing(*clients)
    try:
        yield found
    finally:
        await found.stop()


async def started(*words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brainy.cli.main", "verify", *words, *PATIENCE, "--relations", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def verified(*words: str) -> tuple[int, dict[str, Any]]:
    process = await started(*words)
    said, complained = await asyncio.wait_for(process.communicate(), 300)
    assert process.returncode is not None
    assert said, complained.decode()
    return process.returncode, orjson.loads(said)


def found(result: dict[str, Any]) -> dict[tuple[str, str], tuple[str, tuple[str, ...]]]:
    return {(d["kind"], d["id"]): (d["what"], tuple(d["fields"])) for d in result["differences"]}


async def filled(*clients: AsyncBrainy) -> dict[str, Noun | Verb]:
    rng = np.random.default_rng(1)
    nouns = [noun(f"n{n}", rng) for n in range(NOUNS)]
    verbs = [verb(f"v{n}", rng) for n in range(VERBS)]
    verbs[0] = replace(verbs[0], source_id="n6")
    verbs[1] = replace(verbs[1], target_id="n7")
    for client in clients:
        for at in range(0, NOUNS, 500):
            await client.write_stored(nouns[at : at + 500], dimensions=DIMENSIONS)
        await client.write_stored(verbs)
    return {item.id: item for item in (*nouns, *verbs)}


async def test_every_planted_difference_is_found_while_both_sides_are_written(tmp_path: Path) -> None:
    uris = [f"file://{tmp_path / name}" for name in ("a", "b")]
    async with AsyncExitStack() as stack:
        clients = []
        for at, uri in enumerate(uris):
            cluster = LocalCluster(uri, nodes=1, directory=tmp_path / f"cluster{at}", settings=QUICK)
            await stack.enter_async_context(cluster)
            clients.append(await stack.enter_async_context(cluster.client()))
        a, b = clients
        items = await filled(a, b)
        n3, n4, n7 = (item for name in ("n3", "n4", "n7") if isinstance(item := items[name], Noun))
        v5 = items["v5"]
        assert isinstance(v5, Verb)
        # One ulp, metadata only, a verb only, missing, extra; each on one side alone.
        extra = noun("only-b", np.random.default_rng(5))
        changed = Step(
            nouns=(one_ulp(n3), replace(n4, metadata=b'{"name":"n4"}'), extra),
            verbs=(replace(v5, weight=0.123),),
            gone=("n6",),
        )
        await changed.take(b)
        # Deleted on both, and back on B as a slow writer would bring it.
        await Step(gone=("n7",)).take(a)
        await Step(gone=("n7",)).take(b)
        await Step(nouns=(n7,)).take(b)
        expected = {
            ("noun", "n3"): ("mismatched", ("vector",)),
            ("noun", "n4"): ("mismatched", ("metadata",)),
            ("verb", "v5"): ("mismatched", ("weight",)),
            ("noun", "n6"): ("missing", ()),
            ("noun", "n7"): ("extra", ()),
            ("noun", "only-b"): ("extra", ()),
        }
        # Verbs that lost an end on one side with them; those that the writers leave alone.
        lost = {
            item.id
            for item in items.values()
            if isinstance(item, Verb) and {item.source_id, item.target_id} & {"n6", "n7"} and int(item.id[1:]) < 20
        }
        assert lost
        async with writing(a, b) as traffic:
            code, result = await verified(*uris)
            assert (code, result["verdict"]) == (1, "different")
            assert found(result) == expected
            details = {d["id"]: d["detail"] for d in result["differences"]}
            assert details["n3"]["vector"]["largest_ulps"] == details["n3"]["vector"]["components"] == 1
            assert result["suspected"] > len(expected), "some were caught between two writes, and let go"
            relations = {one["id"] for one in result["relations"]["examples"]}
            assert lost <= relations, "verbs whose ends are on one side only"
            first = dict(result)

            # Killed half way it goes on, and finds the same.
            state = tmp_path / "state"
            process = await started(*uris, "--resume", str(state))
            deadline = Deadline.after(CLOCK, 120.0)
            while not state.exists():
                assert not deadline.passed
                assert process.returncode is None
                await asyncio.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            await process.communicate()
            assert process.returncode == -signal.SIGKILL
            code, result = await verified(*uris, "--resume", str(state))
            assert (code, result["resumed"]) == (1, True)
            assert found(result) == expected
            assert not state.exists()
            rate = traffic.rate
        print(f"\n{rate:.0f} writes a second to both sides; suspected {first['suspected']} and {result['suspected']}")
        # Nothing is under way any more: mend what was planted, and they are equal.
        await Step(nouns=(n3, n4, *(i for i in (items["n6"],) if isinstance(i, Noun))), verbs=(v5,)).take(b)
        await Step(gone=("n7", "only-b")).take(b)
        code, result = await verified(*uris)
        assert (code, result["verdict"], result["relations"]["different"]) == (0, "equal", 0)
        assert rate >= 200.0, "this wants a machine that has little else to do"


async def test_clean_runs_of_a_migration_under_load_raise_no_alarm(tmp_path: Path, run_cluster: RunCluster) -> None:
    namespace = f"file://{tmp_path / 'bucket'}"
    async with run_cluster(namespace, nodes=2) as (cluster, client):
        await filled(client)
        begun = await client.start_migration(
            "in-place-upgrade", hold_before_switch=True, quality=QualityThresholds(max_latency_ratio=0.0)
        )
        async with writing(client) as traffic:
            assert (await client.wait_until_migration_rests(begun.id)).state == "READY"
            suspected = 0
            for run in range(CLEAN_RUNS):
                code, result = await verified(f"{namespace}@0", f"{namespace}@1")
                assert code == 0, (run, result)
                assert result["relations"]["different"] == 0
                suspected += result["suspected"]
            rate = traffic.rate
        print(f"\n{rate:.0f} writes a second; {CLEAN_RUNS} clean runs, {suspected} items suspected and let go")
        assert suspected > 0
        deadline = Deadline.after(CLOCK, 120.0)
        while (seen := await client.get_migration(begun.id)).quality is None:
            assert not deadline.passed, seen
            await asyncio.sleep(0.2)
        assert seen.quality.passed, seen.quality
        # On demand, by the command: it counts as well, and says what it found.
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "brainy.cli.main", "migrate", "quality", begun.id, "--json"),
            *("--dir", str(cluster.directory)),
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asyncio.wait_for(command.communicate(), 120)
        asked = orjson.loads(said)
        assert (command.returncode, asked["passed"], asked["kept"]) == (0, True, True), asked
        assert asked["found"]["queries"] >= 64
        await client.promote_migration(begun.id)
        ended = await client.wait_for_migration(begun.id)
        assert ended.succeeded, ended.message
        assert rate >= 200.0, "this wants a machine that has little else to do"
