"""The traps that others fell into, each by its name."""

from __future__ import annotations

import asyncio
import itertools
from typing import Literal

import orjson
import pytest

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.records import Record
from brainy.changelog.writing import LogWriter
from brainy.errors import FencedError
from brainy.ids import Ids
from brainy.store.cas import CasRegister
from brainy.testing.loop import SimLoop, simulate
from brainy.testing.process import SimProcess
from brainy.testing.sim_store import CLEAR, SimBucket, SimStore, StoreWeather
from tests.sim import cluster, owners
from tests.sim.model import Model
from tests.sim.nemesis import Malice
from tests.sim.owner import GENERATION, SHARD
from tests.sim.planted import SameNonces
from tests.sim.trace import Trace

# --- create-if-absent after collection ----------------------------------------------------------


def stalled_writer_and_a_collector(*, collects: bool) -> tuple[bool, list[str]]:
    """A writer is stopped inside a PUT; a newer owner takes over; somebody deletes old slots; the writer wakes.

    Returns whether the writer was fenced, and the rules that were broken.
    """

    async def scenario(loop: SimLoop) -> tuple[bool, list[str]]:
        model = Model(loop, Trace(loop, level="trap", settings={}))
        bucket = SimBucket(loop)
        bucket.observers.append(model.saw)

        def writer(process: SimProcess, epoch: int, end: int) -> tuple[SimStore, LogWriter]:
            store = SimStore(bucket, process, lambda: CLEAR)
            return store, LogWriter(
                store,
                generation=GENERATION,
                shard=SHARD,
                epoch=epoch,
                writer_node=process.name,
                incarnation=process.incarnation,
                ids=process.ids,
                clock=process.clock,
                next_position=end,
            )

        def records(name: str) -> list[log_pb2.LogRecord]:
            return [log_pb2.LogRecord(request_id=name, delete_noun=name)]

        old, new = SimProcess(loop, "old"), SimProcess(loop, "new")
        old_store, stale = writer(old, 1, 1)
        await old.spawn(stale.fence())
        await old.spawn(stale.commit(records("a")))
        old_store.cut = True  # the PUT never arrives; the writer resends it
        late = old.spawn(stale.commit(records("b")))
        await asyncio.sleep(0.5)
        old.stop()
        _, fresh = writer(new, 2, 3)
        await new.spawn(fresh.fence())
        for name in ("c", "d"):
            await new.spawn(fresh.commit(records(name)))
        if collects:
            for position in (1, 2, 3):
                await bucket.act("delete", layout.log_slot(GENERATION, SHARD, position), (), "collector")
        old_store.cut = False
        old.go_on()
        try:
            await late
        except FencedError:
            return True, model.violations
        return False, model.violations

    return simulate(1, scenario)


def test_create_if_absent_after_collection() -> None:
    assert stalled_writer_and_a_collector(collects=False) == (True, [])
    # Why nothing may ever be deleted from a log: the emptied slot would admit the stale batch. It is noticed.
    fenced, broken = stalled_writer_and_a_collector(collects=True)
    assert any(rule.startswith("nothing of a generation is deleted before") for rule in broken)
    assert fenced or any(rule.startswith("no un-fencing") for rule in broken)


# --- ETag ABA -----------------------------------------------------------------------------------


class Switch(Record):
    """A value that often comes back."""

    state: Literal["on", "off"]
    nonce: str


def flips_of(seed: int, ids_of: type[Ids]) -> tuple[int, int]:
    """Processes flip a switch by compare-and-swap; returns (swaps that were won, flips that took effect)."""

    async def scenario(loop: SimLoop) -> tuple[int, int]:
        bucket = SimBucket(loop)
        weather = StoreWeather(slow_rate=0.3, slow=(0.1, 3.0))
        written: list[str] = ["off"]
        won: list[bool] = []

        def saw(kind: str, key: str, body: bytes | None, done: bool, who: str) -> None:
            if done and body is not None:
                written.append(orjson.loads(body)["state"])

        async def flip(process: SimProcess) -> None:
            ids = ids_of(process.rng)
            register = CasRegister(
                SimStore(bucket, process, lambda: weather),
                "cluster/switch.json",
                encode=Switch.encode,
                decode=lambda body: Switch.decode(body, key="switch"),
                clock=process.clock,
                ids=ids,
            )
            for _ in range(8):
                found = await register.load()
                state: Literal["on", "off"] = "on" if found is None or found[0].state == "off" else "off"
                flipped = Switch(state=state, nonce=ids.nonce().hex())
                won.append(await register.swap(flipped, found[1] if found else None))

        bucket.observers.append(saw)
        processes = [SimProcess(loop, f"p{number}") for number in range(3)]
        await asyncio.gather(*(process.spawn(flip(process)) for process in processes))
        return sum(won), sum(one != other for one, other in itertools.pairwise(written))

    return simulate(seed, scenario)


def test_etag_aba() -> None:
    results = [flips_of(seed, Ids) for seed in range(20)]
    assert all(won == effects for won, effects in results)
    assert sum(won for won, _ in results) > 20
    # Without fresh nonces equal contents share an ETag, and both who wrote them believe that they did it.
    assert any(won != effects for won, effects in (flips_of(seed, SameNonces) for seed in range(100)))


# --- a client library's retry turns success into 412 --------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_retry_that_turns_success_into_412(seed: int) -> None:
    weather = StoreWeather(landed_lost=0.5)
    outcome = owners.run(seed, settings=owners.Settings(store=weather, seconds=10.0))
    assert outcome.violations == ()
    assert outcome.acknowledged >= 5
    assert cluster.run(seed, settings=cluster.ClusterSettings(store=weather, seconds=8.0)).violations == ()


# --- two coordinators that both believe they lead -----------------------------------------------


def test_two_coordinators_that_both_lead() -> None:
    both = 0
    for seed in range(6):
        world = cluster.play(
            seed,
            cluster.ClusterSettings(
                coordinators=2,
                victims="coordinators",
                malice=Malice(every=(1.0, 3.0), kill=0.5, set_clock=0.0, longest=10.0),
                # Its clock is slower than leases allow for: it leads on while the other one leads too.
                first_clock=0.25,
            ),
        )
        assert world.model.violations == [], f"seed {seed}"
        both += world.both_led
    assert both > 0
