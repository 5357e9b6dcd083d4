"""What goes wrong, and when: processes stopped, killed and cut off, clocks set, all drawn from the seed."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - seeded from the simulation's own
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from brainy.testing.loop import SimLoop
from brainy.testing.network import SimNetwork
from brainy.testing.process import SimProcess
from brainy.testing.sim_store import SimStore
from tests.sim.trace import Trace


class Victim(Protocol):
    """A place where one process runs at a time."""

    name: str
    process: SimProcess
    raw_store: SimStore

    def restart(self) -> None:
        """Start the next life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Malice:
    """How often what happens; weights of one choice."""

    every: tuple[float, float] = (0.5, 4.0)
    stop: float = 3.0
    kill: float = 3.0
    cut_store: float = 2.0
    cut_peer: float = 2.0
    set_clock: float = 2.0
    #: Seconds a process is stopped or cut off for.
    longest: float = 6.0


class Nemesis:
    """Does harm until told to end."""

    def __init__(
        self,
        loop: SimLoop,
        network: SimNetwork,
        victims: Sequence[Victim],
        peers: Sequence[str],
        malice: Malice,
        trace: Trace,
    ) -> None:
        self._loop = loop
        self._rng = random.Random(f"{loop.seed}/nemesis")
        self._network = network
        self._victims = list(victims)
        self._peers = list(peers)
        self._malice = malice
        self._trace = trace
        self._over = False

    async def run(self) -> None:
        """Until cancelled."""
        malice, rng = self._malice, self._rng
        harms: list[tuple[Callable[[Victim], None], float]] = [
            (self._stop, malice.stop),
            (self._kill, malice.kill),
            (self._cut_store, malice.cut_store),
            (self._cut_peer, malice.cut_peer),
            (self._set_clock, malice.set_clock),
        ]
        while True:
            await asyncio.sleep(rng.uniform(*malice.every))
            harm = rng.choices([h for h, _ in harms], [weight for _, weight in harms])[0]
            harm(rng.choice(self._victims))

    def heal(self) -> None:
        """Undo everything: all run, all can talk."""
        self._over = True
        self._network.heal()
        for victim in self._victims:
            victim.raw_store.cut = False
            if not victim.process.alive:
                victim.restart()
            victim.process.go_on()
        self._trace.event("healed")

    def _for(self, seconds: float, undo: Callable[[], None]) -> None:
        def later() -> None:
            if not self._over:
                undo()

        self._loop.after(seconds, later)

    def _length(self) -> float:
        return self._rng.uniform(0.05, self._malice.longest)

    def _stop(self, victim: Victim) -> None:
        seconds, process = self._length(), victim.process
        self._trace.event("stop", process=process.incarnation, seconds=round(seconds, 3))
        process.stop()
        self._for(seconds, process.go_on)

    def _kill(self, victim: Victim) -> None:
        if victim.process.alive:
            self._trace.event("kill", process=victim.process.incarnation)
            victim.process.kill()
            self._for(self._rng.uniform(0.1, 3.0), victim.restart)

    def _cut_store(self, victim: Victim) -> None:
        seconds, store = self._length(), victim.raw_store
        self._trace.event("cut_store", process=victim.process.incarnation, seconds=round(seconds, 3))
        store.cut = True
        self._for(seconds, lambda: setattr(store, "cut", False))

    def _cut_peer(self, victim: Victim) -> None:
        peer = self._rng.choice([*self._peers, *(other.name for other in self._victims if other is not victim)])
        seconds = self._length()
        self._trace.event("cut", one=victim.name, other=peer, seconds=round(seconds, 3))
        self._network.cut(victim.name, peer)
        self._for(seconds, self._network.heal)

    def _set_clock(self, victim: Victim) -> None:
        seconds = self._rng.choice((-1, 1)) * self._rng.choice((0.5, 5.0, 60.0, 3600.0, 86_400.0))
        self._trace.event("set_clock", process=victim.process.incarnation, seconds=seconds)
        victim.process.clock.jump_wall(seconds)
