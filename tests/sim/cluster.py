"""Level two: the whole cluster. Real coordinators and nodes, one migration, clients, over a bad world.

Replaced at their seams: the transport (``brainy.testing.network``), the store (``brainy.testing.sim_store``) and the
builder's process, whose jobs run in the node's own.
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - seeded
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from brainy.api.coordinator.v1 import migration_pb2, migration_pb2_grpc, quality_pb2, quality_pb2_grpc
from brainy.bucket import invariants, layout
from brainy.bucket.namespace import Namespace
from brainy.bucket.records import Routing
from brainy.clock import Deadline
from brainy.config.settings import CoordinatorSettings, NodeSettings, Settings
from brainy.errors import BrainyError
from brainy.locks.object_store import ObjectStoreLocks
from brainy.rpc.channel import ChannelPool, call
from brainy.store.metered import MeteredStore
from brainy.store.retrying import RetryingStore
from brainy.testing.loop import SimLoop, simulate
from brainy.testing.network import NetworkWeather, SimNetwork
from brainy.testing.process import SimProcess
from brainy.testing.sim_store import CLEAR, SimBucket, SimStore, StoreWeather
from brainy_coordinator.control import Components
from brainy_coordinator.coordinator import Coordinator
from brainy_coordinator.leadership import Leadership
from brainy_coordinator.nodes import GrpcNodeCalls
from brainy_coordinator.server import services as coordinator_services
from brainy_node.builder.job import Built, Job, Progress
from brainy_node.builder.rates import Rates
from brainy_node.builder.run import run_job
from brainy_node.router.served import ServedBook
from brainy_node.runtime.heartbeat import Heartbeat
from brainy_node.runtime.namespace import HostedNamespace
from brainy_node.runtime.namespaces import HostedNamespaces
from brainy_node.server import ENDLESS
from brainy_node.server import services as node_services
from tests.sim.model import Model
from tests.sim.nemesis import Malice, Nemesis, Victim
from tests.sim.nouns import Nouns
from tests.sim.outcome import Outcome
from tests.sim.strikes import Strike, Strikes, drawn_strikes
from tests.sim.trace import Trace
from tests.sim.validate import check_nouns, check_one_effect

LEVEL = "cluster"
NAMESPACE = "memory://sim"
_GREEN = "green"  # label and name of the nodes that blue-green moves to
_BLUE_GREEN_SHARE, _COORDINATED_SHARE = 0.2, 0.1
#: Of those in which the target's search quality is looked at.
_QUALITY_SHARE = 0.25
#: Of four seeds this one goes there and back.
_TURNING = 2
#: Of eight seeds these are struck at steps of the migration; the second ones there and back.
_STRUCK = (5, 6)
#: And this one deletes what is left behind, once nothing that was sent can still be on its way.
_RETIRING, _RETENTION = 1, 60.0
#: Of these, how many are rolled back and completed by how their target serves, and how long they are left to that.
_JUDGED_SHARE, _PATIENCE = 0.5, 20
_SEVERE: dict[str, Any] = {"observe": {"seconds": 5}, "rollback_if": {"write_p99_seconds": 0.01, "min_calls": 1}}
_ENDED = (migration_pb2.MIGRATION_STATE_SUCCEEDED, migration_pb2.MIGRATION_STATE_ABORTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """One scenario."""

    coordinators: int = 2
    nodes: int = 3
    clients: int = 2
    writes: int = 12
    #: Seconds the harm goes on for.
    seconds: float = 20.0
    store: StoreWeather = CLEAR
    network: NetworkWeather = field(default_factory=NetworkWeather)
    malice: Malice = field(default_factory=lambda: Malice(every=(1.0, 6.0)))
    victims: Literal["all", "coordinators", "nodes", "none"] = "all"
    strategy: migration_pb2.Strategy.ValueType = migration_pb2.STRATEGY_IN_PLACE_UPGRADE
    #: Nodes of a pool of their own, for the target of blue-green.
    green: int = 0
    shards: int = 2
    target_shards: int = 2
    replication: int = 2
    lease: float = 3.0
    node_ttl: float = 2.0
    #: Change-log objects after which a base is folded.
    fold_slots: int = 10_000
    migrates: bool = True
    #: How often the migration is rolled back and promoted again; with any, a way back is kept.
    turns: int = 0
    #: Whether the target's search quality is looked at before the switch.
    quality: bool = False
    #: Seconds that what a migration leaves behind is kept; 0 for longer than anybody looks.
    retention: float = 0.0
    judged: bool = False  # whether it also rolls back, and completes, by how its target serves
    #: Rate of the first coordinator's clock: far below 1 it believes in its lease long after the others do not.
    first_clock: float = 1.0
    #: Steps of the migration, and who is killed at the moment at which each is durable.
    strikes: tuple[Strike, ...] = ()


def drawn(seed: int) -> ClusterSettings:
    """Settings of a seed."""
    rng = random.Random(f"{seed}/settings")
    harshness = rng.choice((0.0, 0.3, 0.6, 1.0))
    shards = rng.choice((1, 2, 2))
    found = ClusterSettings(
        coordinators=rng.choice((1, 2, 2, 3)),
        nodes=rng.choice((2, 3)),
        clients=rng.choice((1, 2)),
        seconds=rng.choice((10.0, 15.0)),
        malice=Malice(every=rng.choice(((0.3, 2.0), (0.5, 4.0))), longest=rng.choice((3.0, 8.0))),
        store=StoreWeather(
            slow_rate=0.01,
            failure=0.02,
            vanishes=0.02,
            landed_unknown=0.02,
            landed_late=0.02,
            landed_lost=0.02,
            conflict=0.01,
            raises=0.01,
        ).scaled(harshness),
        network=NetworkWeather(slow_rate=0.01 * harshness, loss=0.01 * harshness, duplicate=0.02 * harshness),
        victims=rng.choice(("all", "all", "coordinators", "nodes")),
        strategy=rng.choice((migration_pb2.STRATEGY_IN_PLACE_UPGRADE, migration_pb2.STRATEGY_ROLLING)),
        shards=shards,
        target_shards=rng.choice((shards, shards, 2, 3)),
        replication=rng.choice((1, 2)),
        fold_slots=rng.choice((10_000, 10_000, 6)),
        # Drawn apart: seeds that were found before this was drawn stand for the same scenario.
        turns=random.Random(f"{seed}/turns").choice((1, 2, 3)) if seed % 4 == _TURNING else 0,
        retention=_RETENTION if seed % 4 == _RETIRING else 0.0,
    )
    if seed % 8 in _STRUCK:
        found = replace(found, strikes=drawn_strikes(seed, turning=found.turns > 0))
    found = replace(found, quality=random.Random(f"{seed}/quality").random() < _QUALITY_SHARE)
    judged = bool(found.turns) and random.Random(f"{seed}/judged").random() < _JUDGED_SHARE
    found = replace(found, judged=True, seconds=30.0) if judged else found
    # Of a sequence of its own, so that the other seeds mean what they meant.
    apart = random.Random(f"{seed}/pools")
    if apart.random() < _BLUE_GREEN_SHARE:
        return replace(found, strategy=migration_pb2.STRATEGY_BLUE_GREEN, green=apart.choice((1, 2)))
    if apart.random() < _COORDINATED_SHARE:
        return replace(found, strategy=migration_pb2.STRATEGY_COORDINATED)
    return found


class InlineBuilder:
    """``BuilderClient`` without a process: the job runs here, one at a time, and dies with its node."""

    def __init__(self, store: Callable[[], MeteredStore], process: SimProcess) -> None:
        self._store = store
        self._process = process
        self._turn = asyncio.Semaphore(1)
        self.store_calls: defaultdict[str, Counter[str]] = defaultdict(Counter)

    async def run(
        self, job: Job, on_progress: Callable[[Progress], None], *, rates: Rates | None = None
    ) -> dict[int, Built]:
        """Do a job, as fast as it goes."""
        async with self._turn:
            built = await run_job(
                job.model_copy(update={"threads": 1}),
                self._store(),
                clock=self._process.clock,
                ids=self._process.ids,
                report=on_progress,
            )
        return {each.shard: each for each in built}


class Place:
    """A machine: one process at a time, the same address and disk."""

    def __init__(self, world: ClusterWorld, name: str) -> None:
        self.name = name
        self.address = f"{name}:1"
        self.world = world
        self.rng = random.Random(f"{world.loop.seed}/{name}")
        self._rate = self.rng.uniform(0.97, 1.03)
        if name == "coordinator-0":
            self._rate *= world.settings.first_clock
        self._lives = 0
        self.restart()

    def restart(self) -> None:
        """Start the next life."""
        self._lives += 1
        world = self.world
        self.process = SimProcess(
            world.loop, self.name, incarnation=self._lives, rate=self._rate, wall_offset=self.rng.uniform(-5, 5)
        )
        self.raw_store = SimStore(world.bucket, self.process, lambda: world.store_weather)
        world.trace.event("start", process=self.process.incarnation)
        self.process.spawn(self.main())

    def store(self) -> MeteredStore:
        """A store as ``open_store`` makes it."""
        process = self.process
        return MeteredStore(RetryingStore(self.raw_store, max_retries=4, clock=process.clock, ids=process.ids))

    async def main(self) -> None:
        """Be the process."""
        raise NotImplementedError


class CoordinatorPlace(Place):
    """Where a coordinator runs."""

    coordinator: Coordinator | None = None

    async def main(self) -> None:
        """As ``brainy_coordinator.main``."""
        world, process, settings = self.world, self.process, self.world.settings
        store = self.store()
        locks = ObjectStoreLocks(store, process.clock, process.ids)
        components = Components(
            stores={NAMESPACE: store},
            locks={NAMESPACE: locks},
            nodes=GrpcNodeCalls(world.network.pool(process), clock=process.clock),
            settings=CoordinatorSettings(
                coordinator_id=self.name,
                leader_lease_seconds=settings.lease,
                heartbeat_interval_seconds=0.5,
                node_ttl_seconds=settings.node_ttl,
                min_nodes=settings.nodes,
                shard_count=settings.shards,
                replication=settings.replication,
                dimensions=2,
                **self._retention,
            ),
            clock=process.clock,
            ids=process.ids,
        )
        leadership = Leadership(
            locks,
            coordinator_id=self.name,
            address=self.address,
            lease_seconds=settings.lease,
            clock=process.clock,
            ids=process.ids,
        )
        self.coordinator = Coordinator(components, leadership)
        world.network.serve(process, self.address, coordinator_services(self.coordinator))
        self.coordinator.start()

    @property
    def _retention(self) -> dict[str, Any]:
        seconds = self.world.settings.retention
        return {"retain_seconds": seconds, "log_retention_seconds": seconds} if seconds else {}

    @property
    def leads(self) -> bool:
        """Whether its process believes that it leads."""
        return self.process.alive and self.coordinator is not None and self.coordinator.leadership.is_leader


class NodePlace(Place):
    """Where a node runs."""

    @property
    def pool(self) -> str:
        """Its label."""
        return _GREEN if self.name.startswith(_GREEN) else ""

    async def main(self) -> None:
        """As ``brainy_node.main``."""
        world, process = self.world, self.process
        retention: Any = world.settings.retention
        disk = world.disk / self.name
        if self.rng.random() < 0.3:
            shutil.rmtree(disk, ignore_errors=True)
        settings = Settings(
            node=NodeSettings(
                node_id=self.name,
                pool=self.pool,
                advertise=self.address,
                coordinators=tuple(place.address for place in world.coordinators),
                fold_records=world.settings.fold_slots,
                fold_slots=world.settings.fold_slots,
                fold_idle_slots=world.settings.fold_slots,
                # Logs in service are collected at the other level; here only with their generation.
                **({"log_retention_seconds": retention, "log_collection_seconds": 1e9} if retention else {}),
            )
        )
        pool = world.network.pool(process)
        builder: Any = InlineBuilder(self.store, process)
        hosted = HostedNamespace(
            Namespace.parse(NAMESPACE),
            store=self.store(),
            settings=settings,
            node_id=self.name,
            incarnation=process.incarnation,
            data_dir=disk,
            builder=builder,
            peers=pool,
            clock=process.clock,
            ids=process.ids,
        )
        namespaces = HostedNamespaces([hosted])
        served = ServedBook(clock=process.clock)
        world.network.serve(
            process,
            self.address,
            node_services(
                namespaces,
                pool,
                settings=settings.node,
                clock=process.clock,
                ids=process.ids,
                on_drain=lambda: None,
                served=served,
            ),
            ENDLESS,
        )
        heartbeat = Heartbeat(
            node_id=self.name,
            incarnation=process.incarnation,
            address=lambda: self.address,
            pool=self.pool,
            coordinators=settings.node.coordinators,
            namespaces=namespaces,
            peers=pool,
            clock=process.clock,
            served=served.report,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(hosted.run())
            group.create_task(heartbeat.run())


class ClusterWorld:
    """Everything of one simulation."""

    def __init__(self, loop: SimLoop, settings: ClusterSettings, disk: Path) -> None:
        self.loop = loop
        self.settings = settings
        self.disk = disk
        self.trace = Trace(loop, level=LEVEL, settings=asdict(settings))
        self.model = Model(loop, self.trace)
        self.bucket = SimBucket(loop)
        self.bucket.observers += [self.model.saw, self._saw]
        self.store_weather = CLEAR
        self.network = SimNetwork(loop, NetworkWeather(), self._arrived)
        self.routing: Routing | None = None
        #: Routing records written while more than one coordinator believed that it leads.
        self.both_led = 0
        self._looks = 0  # at a migration that is left to itself
        self.coordinators: list[CoordinatorPlace] = []
        self.coordinators += [CoordinatorPlace(self, f"coordinator-{n}") for n in range(settings.coordinators)]
        self.nodes = [NodePlace(self, f"node-{n}") for n in range(settings.nodes)]
        self.nodes += [NodePlace(self, f"{_GREEN}-{n}") for n in range(settings.green)]
        self.nouns = Nouns(self.model, [place.address for place in self.nodes])
        self.strikes = Strikes(loop, settings.strikes, self.coordinators, self.nodes, lambda: self.routing, self.trace)
        self.bucket.observers.append(self.strikes.saw)

    def _arrived(self, source: str, target: str, method: str) -> None:
        self.trace.event("call", by=source, to=target, method=method.rpartition("/")[2])

    def _saw(self, kind: str, key: str, body: bytes | None, done: bool, who: str) -> None:
        """Judge every version of the routing record, and who is there to write it."""
        if not done or key != layout.ROUTING or body is None:
            return
        routing = Routing.decode(body, key=key)
        try:
            invariants.check_routing_swap(self.routing, routing)
        except BrainyError as error:
            self.model.violated("every routing record obeys", error=error, by=who)
        self.routing = routing
        for number, placed in routing.generations.items():
            holders = {node for where in placed.shards.values() for node in (where.owner, *where.replicas)}
            if placed.pool and any(not node.startswith(placed.pool) for node in holders):
                self.model.violated("a generation keeps to its pool", generation=number, holders=sorted(holders))
        leaders = [place.name for place in self.coordinators if place.leads]
        if len(leaders) > 1:
            self.both_led += 1
            if self.settings.first_clock == 1.0:
                self.model.violated("one coordinator leads", leaders=leaders)

    async def play(self) -> None:
        """A cluster comes up, is written to and migrated under harm, and is judged in peace."""
        settings, model = self.settings, self.model
        clients = [SimProcess(self.loop, f"client-{number}") for number in range(settings.clients)]
        pools = [self.network.pool(process) for process in clients]
        first = SimProcess(self.loop, "client-first")
        if not await first.spawn(self.nouns.write(first, self.network.pool(first), attempts=100)):
            model.violated("a new cluster takes writes")
        self.store_weather, self.network.weather = settings.store, settings.network
        victims: list[Victim] = []
        if settings.victims in ("all", "coordinators"):
            victims += self.coordinators
        if settings.victims in ("all", "nodes"):
            victims += self.nodes
        names = [process.name for process in clients]
        nemesis = Nemesis(self.loop, self.network, victims, names, settings.malice, self.trace)
        harm = asyncio.ensure_future(nemesis.run()) if victims else None
        traffic = [
            process.spawn(self.nouns.traffic(process, pool, writes=settings.writes, pause=settings.seconds / 8))
            for process, pool in zip(clients, pools, strict=True)
        ]
        operator = SimProcess(self.loop, "operator")
        migration = operator.spawn(self._migrate(operator)) if settings.migrates else None
        await asyncio.sleep(settings.seconds)
        if harm is not None:
            harm.cancel()
        nemesis.heal()
        self.store_weather, self.network.weather = CLEAR, NetworkWeather()
        try:
            async with asyncio.timeout(900):
                await asyncio.gather(*traffic)
                if migration is not None:
                    await migration
        except TimeoutError:
            model.violated("everything ends once all is well", migrated=migration is not None and migration.done())
        if settings.retention:
            await self._retired(settings.retention)
        last = SimProcess(self.loop, "client-last")
        if not await last.spawn(self.nouns.write(last, self.network.pool(last), attempts=60)):
            model.violated("writes succeed again once all is well")
        self.strikes.over = True
        # What is still on its way arrives now.
        for place in (*self.coordinators, *self.nodes):
            place.process.stop()
        await asyncio.sleep(settings.store.late[1])
        for failure in self.loop.unhandled:
            model.violated("no task fails unseen", failure=repr(failure.get("exception") or failure["message"]))
        await check_nouns(model, self.bucket.objects, self.nouns)
        await check_one_effect(model, self.bucket.objects)
        self.trace.close()

    async def _retired(self, retention: float) -> None:
        """Wait until what the migration left behind is gone."""
        try:
            async with asyncio.timeout(retention + 120):
                while any(state != "deleted" for state in self.model.retired.values()):
                    await asyncio.sleep(1.0)
        except TimeoutError:
            self.model.violated("what is left behind is deleted once all is well", retired=self.model.retired)

    async def _migrate(self, process: SimProcess) -> None:
        """Start a migration and wait for its end; an aborted one is no failure, one that hangs is."""
        pool = self.network.pool(process)
        await process.clock.sleep(process.rng.uniform(0.0, 4.0))
        started = await self._ask(
            process,
            pool,
            "StartMigration",
            migration_pb2.StartMigrationRequest(
                namespace=NAMESPACE,
                strategy=self.settings.strategy,
                target=migration_pb2.TargetSpec(
                    shard_count=self.settings.target_shards, pool=_GREEN if self.settings.green else ""
                ),
                writers_stopped=self.settings.strategy == migration_pb2.STRATEGY_COORDINATED,
                request_id="upgrade",
                keep_way_back=self.settings.turns > 0,
                quality=quality_pb2.QualityThresholds(queries=12, min_overlap=0.9, min_recall=0.9)
                if self.settings.quality
                else None,
                **(_SEVERE if self.settings.judged else {}),
            ),
        )
        question = migration_pb2.GetMigrationRequest(namespace=NAMESPACE, id=started.migration.id)
        state = None
        while state not in _ENDED:
            await process.clock.sleep(1.0)
            seen = (await self._ask(process, pool, "GetMigration", question)).migration
            state = seen.state
            if seen.quality.reasons and not seen.quality_accepted:
                await self._accept(process, pool, seen)
            self.trace.event("migration", state=migration_pb2.MigrationState.Name(state))
            if self.settings.turns:
                await self._turn(process, pool, question)

    async def _accept(self, process: SimProcess, pool: ChannelPool, seen: migration_pb2.Migration) -> None:
        """Nodes that were gone or busy may have left too few answers: somebody lets it switch as it is."""
        asked = sum(event.trigger == "quality_measured" for event in seen.story)
        accept = quality_pb2.AcceptQualityRequest(
            namespace=NAMESPACE, migration_id=seen.id, request_id=f"accept-{asked}"
        )
        self.trace.event("poor quality", reasons=tuple(seen.quality.reasons))
        await self._ask(process, pool, "AcceptQuality", accept, rounds=1, service=quality_pb2_grpc.QualityServiceStub)

    async def _turn(self, process: SimProcess, pool: ChannelPool, question: migration_pb2.GetMigrationRequest) -> None:
        """Ask for the next turn where the migration rests; a refusal or a lost answer is asked again, with its id."""
        seen = (await self._ask(process, pool, "GetMigration", question)).migration
        turned = sum(event.trigger == "rolled_back" for event in seen.story)
        if seen.paused:  # it went back by itself, and says why
            method, key = "ResumeMigration", f"resume-{turned}"
        elif seen.state == migration_pb2.MIGRATION_STATE_READY and seen.held:
            method, key = "PromoteMigration", f"promote-{turned}"
        elif self.settings.judged and self._looks < _PATIENCE:  # until clients have surely gone
            self._looks += 1
            return
        elif seen.state != migration_pb2.MIGRATION_STATE_OBSERVING:
            return
        elif turned < self.settings.turns:
            method, key = "RollbackMigration", f"back-{turned}"
        else:
            method, key = "CompleteMigration", "complete"
        kind = getattr(migration_pb2, f"{method}Request")
        await self._ask(process, pool, method, kind(id=seen.id, namespace=NAMESPACE, request_id=key), rounds=1)

    async def _ask(
        self,
        process: SimProcess,
        pool: ChannelPool,
        method: str,
        request: Any,
        *,
        rounds: float = float("inf"),
        service: Any = migration_pb2_grpc.MigrationServiceStub,
    ) -> Any:
        while rounds > 0:
            rounds -= 1
            for place in self.coordinators:
                stub = pool.stub(place.address, service)
                try:
                    return await call(getattr(stub, method), request, deadline=Deadline.after(process.clock, 5.0))
                except BrainyError as error:
                    self.trace.event("refused", method=method, by=place.name, reason=error.reason)
            await process.clock.sleep(process.rng.uniform(0.3, 1.0))
        return None


def run(seed: int, *, settings: ClusterSettings | None = None, clean_up: bool = True) -> Outcome:
    """Play one seed."""
    return outcome_of(play(seed, settings, clean_up=clean_up))


def play(seed: int, settings: ClusterSettings | None = None, *, clean_up: bool = True) -> ClusterWorld:
    """Play one seed and return its world."""
    played: list[ClusterWorld] = []
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="sim-", dir=fast if fast.is_dir() else None) as disk:

        async def scenario(loop: SimLoop) -> None:
            world = ClusterWorld(loop, settings or drawn(seed), Path(disk))
            played.append(world)
            await world.play()

        simulate(seed, scenario, clean_up=clean_up)
    return played[0]


def outcome_of(world: ClusterWorld) -> Outcome:
    """What a simulation came to."""
    return Outcome(
        level=LEVEL,
        seed=world.loop.seed,
        violations=tuple(world.model.violations),
        trace=world.trace,
        seconds=world.loop.time(),
        steps=world.loop.steps,
        acknowledged=world.nouns.acknowledged,
    )
