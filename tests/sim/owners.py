"""Level one: owners that contend for one shard's lock and log, clients that write, over a bad store and network."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - seeded
from dataclasses import asdict, dataclass, field

from brainy.store.retrying import RetryingStore
from brainy.testing.loop import SimLoop, simulate
from brainy.testing.network import NetworkWeather, SimNetwork
from brainy.testing.process import SimProcess
from brainy.testing.sim_store import CLEAR, SimBucket, SimStore, StoreWeather
from tests.sim.model import Model
from tests.sim.nemesis import Malice, Nemesis
from tests.sim.outcome import Outcome
from tests.sim.owner import GENERATION, SHARD, Owner
from tests.sim.planted import REAL, Kit
from tests.sim.trace import Trace
from tests.sim.traffic import client, write
from tests.sim.validate import check_log

LEVEL = "owners"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One scenario. Everything not set is drawn from the seed."""

    owners: int = 3
    clients: int = 3
    writes: int = 8
    ttl: float = 2.0
    #: Seconds the harm goes on for.
    seconds: float = 20.0
    store: StoreWeather = CLEAR
    network: NetworkWeather = field(default_factory=NetworkWeather)
    malice: Malice = field(default_factory=Malice)
    #: Share of owners that go on writing without a lease.
    reckless: float = 0.5


def drawn(seed: int) -> Settings:
    """Settings of a seed: from a friendly world to a hostile one."""
    rng = random.Random(f"{seed}/settings")
    harshness = rng.choice((0.0, 0.5, 1.0, 1.0, 2.0))
    store = StoreWeather(
        slow_rate=0.02,
        failure=0.04,
        vanishes=0.03,
        landed_unknown=0.03,
        landed_late=0.03,
        landed_lost=0.02,
        conflict=0.02,
        raises=0.02,
        stale_listing=rng.choice((0.0, 0.0, 0.0, 0.3)),
    ).scaled(harshness)
    network = NetworkWeather(slow_rate=0.03 * harshness, loss=0.02 * harshness, duplicate=0.05 * harshness)
    return Settings(
        owners=rng.choice((2, 2, 3, 4)),
        clients=rng.choice((1, 2, 3)),
        writes=rng.choice((6, 10)),
        ttl=rng.choice((1.0, 2.0, 3.0)),
        seconds=rng.choice((10.0, 15.0)),
        store=store,
        network=network,
        malice=Malice(
            every=(0.3, 3.0),
            stop=rng.choice((0.5, 3.0)),
            kill=rng.choice((0.5, 3.0)),
            set_clock=rng.choice((0.5, 3.0)),
        ),
        reckless=rng.choice((0.0, 0.5, 1.0)),
    )


class OwnerPlace:
    """A machine on which an owner runs, one life after the other."""

    def __init__(self, world: World, number: int) -> None:
        self.name = f"owner-{number}"
        self.address = f"{self.name}:1"
        self._world = world
        self._rng = random.Random(f"{world.loop.seed}/{self.name}")
        self._rate = self._rng.uniform(0.96, 1.04)
        self._lives = 0
        self.restart()

    def restart(self) -> None:
        """Start the next life: nothing is remembered."""
        world, settings = self._world, self._world.settings
        self._lives += 1
        self.process = process = SimProcess(
            world.loop,
            self.name,
            incarnation=self._lives,
            rate=self._rate,
            wall_offset=self._rng.uniform(-5, 5),
        )
        self.raw_store = SimStore(world.bucket, process, lambda: world.store_weather)
        store = RetryingStore(self.raw_store, max_retries=2, clock=process.clock, ids=process.ids)
        owner = Owner(
            process,
            store,
            world.model,
            world.kit,
            ttl=settings.ttl,
            reckless=self._rng.random() < settings.reckless,
            tolerates_corruption=settings.store.stale_listing > 0,
        )
        world.network.serve(process, self.address, [owner.service()])
        world.trace.event("start", process=process.incarnation)
        process.spawn(owner.live())


class World:
    """Everything of one simulation."""

    def __init__(self, loop: SimLoop, settings: Settings, kit: Kit) -> None:
        self.loop = loop
        self.settings = settings
        self.kit = kit
        self.trace = Trace(loop, level=LEVEL, settings=asdict(settings))
        self.model = Model(loop, self.trace)
        self.bucket = SimBucket(loop)
        self.bucket.observers.append(self.model.saw)
        self.store_weather = settings.store
        self.network = SimNetwork(loop, settings.network, self._arrived)
        self.places = [OwnerPlace(self, number) for number in range(settings.owners)]
        self.addresses = [place.address for place in self.places]

    def _arrived(self, source: str, target: str, method: str) -> None:
        self.trace.event("call", by=source, to=target, method=method.rpartition("/")[2])

    def calm(self) -> None:
        """Good weather."""
        self.store_weather = CLEAR
        self.network.weather = NetworkWeather()

    async def play(self) -> None:
        """Traffic under harm, then peace, then one last write each must get through, then the judgement."""
        clients = [SimProcess(self.loop, f"client-{number}") for number in range(self.settings.clients)]
        pools = [self.network.pool(process) for process in clients]
        nemesis = Nemesis(
            self.loop,
            self.network,
            self.places,
            [process.name for process in clients],
            self.settings.malice,
            self.trace,
        )
        harm = asyncio.ensure_future(nemesis.run())
        pause = self.settings.seconds / self.settings.writes
        traffic = [
            process.spawn(client(process, pool, self.addresses, self.model, writes=self.settings.writes, pause=pause))
            for process, pool in zip(clients, pools, strict=True)
        ]
        await asyncio.sleep(self.settings.seconds)
        harm.cancel()
        nemesis.heal()
        self.calm()
        async with asyncio.timeout(600):
            await asyncio.gather(*traffic)
        last = SimProcess(self.loop, "client-last")
        pool = self.network.pool(last)
        if not await last.spawn(write(last, pool, self.addresses, self.model, name="last", attempts=400)):
            self.model.violated("writes succeed again once all is well")
        # What is still on its way arrives now; owners that go on renewing would only cost time.
        for place in self.places:
            place.process.stop()
        await asyncio.sleep(self.settings.store.late[1])
        for failure in self.loop.unhandled:
            self.model.violated("no task fails unseen", failure=repr(failure.get("exception") or failure["message"]))
        await check_log(self.model, self.bucket.objects, GENERATION, SHARD)
        self.trace.close()


def run(seed: int, *, kit: Kit = REAL, settings: Settings | None = None, clean_up: bool = True) -> Outcome:
    """Play one seed."""
    played: list[World] = []

    async def scenario(loop: SimLoop) -> None:
        world = World(loop, settings or drawn(seed), kit)
        played.append(world)
        await world.play()

    simulate(seed, scenario, clean_up=clean_up)
    world = played[0]
    return Outcome(
        level=LEVEL,
        seed=seed,
        violations=tuple(world.model.violations),
        trace=world.trace,
        seconds=world.loop.time(),
        steps=world.loop.steps,
        acknowledged=sum(request.position is not None for request in world.model.requests),
    )
