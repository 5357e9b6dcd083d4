"""The control loop: what one leader does, for every namespace, for as long as it leads."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from brainy.bucket.follow import read_choice
from brainy.bucket.records import Routing
from brainy.clock import Clock
from brainy.config.settings import CoordinatorSettings, StoreSettings
from brainy.dataset.elsewhere import Elsewhere
from brainy.errors import BrainyError, ConflictError, FencedError, PreconditionError
from brainy.ids import Ids
from brainy.locks.base import LockProvider
from brainy.store.base import ObjectStore
from brainy.store.capability import probe_conditional_writes
from brainy.store.metered import MeteredStore
from brainy.telemetry.logs import get_logger
from brainy_coordinator.adoption import Adoption, first_routing
from brainy_coordinator.announcer import Announcer
from brainy_coordinator.changes import ChangeSignal
from brainy_coordinator.departures import Departures
from brainy_coordinator.generations import Generations
from brainy_coordinator.leadership import Leader
from brainy_coordinator.membership.registry import Registry
from brainy_coordinator.migration.arrival.executor import ArrivalExecutor
from brainy_coordinator.migration.arrival.origins import Origins
from brainy_coordinator.migration.barrier import Barrier
from brainy_coordinator.migration.cluster_executor import ClusterExecutor
from brainy_coordinator.migration.history import History
from brainy_coordinator.migration.planning.planner import Planner
from brainy_coordinator.migration.planning.store import Plans
from brainy_coordinator.migration.preflight.preflight import Preflight
from brainy_coordinator.migration.quality_probe import QualityProbe
from brainy_coordinator.migration.quarantine import QuarantineCount
from brainy_coordinator.migration.reconciler import Reconciler
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.switch_countdown import SwitchCountdown
from brainy_coordinator.move_away import MoveAway
from brainy_coordinator.nodes import NodeCalls
from brainy_coordinator.placing import Placing
from brainy_coordinator.retirement.retirements import Retirements
from brainy_coordinator.routing import RoutingRegister, open_register
from brainy_coordinator.view import NamespaceView
from brainy_coordinator.vigil import Vigil

_log = get_logger(__name__)

#: Steps of a migration taken one right after the other before others get a turn.
_MOST_STEPS_A_TURN = 64
_LONGEST_BACK_OFF_SECONDS = 5.0
#: Where a person has to change something first, looking again soon only costs requests.
_REFUSED_BACK_OFF_SECONDS = 30.0
#: A turn this late is worth a line in the log: the process is starved, or a call blocks the loop.
_LATE_SECONDS = 1.0
_PROBE_AGAIN_SECONDS = 30.0
#: Nodes that have left or are silent for this many TTLs, and hold nothing, are forgotten.
_FORGET_TTLS = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """What the composition root hands in."""

    stores: Mapping[str, ObjectStore]
    locks: Mapping[str, LockProvider]
    nodes: NodeCalls
    settings: CoordinatorSettings
    clock: Clock
    ids: Ids
    #: Stores of other namespaces, for what comes from there; with default settings if left out.
    elsewhere: Elsewhere | None = None


class NamespaceControl:
    """One namespace under one leader."""

    def __init__(
        self,
        namespace: str,
        components: Components,
        *,
        leader: Leader,
        registry: Registry,
        announcer: Announcer,
        changes: ChangeSignal,
    ) -> None:
        store, locks, clock = components.stores[namespace], components.locks[namespace], components.clock
        self.namespace = namespace
        self._store = store
        self._locks = locks
        self._leader = leader
        self._components = components
        self._clock = clock
        self._announcer = announcer
        self._barrier = Barrier(components.nodes, namespace=namespace)
        self._registry = registry
        self._fitness: str | None = None
        self._probed_at = float("-inf")
        self._routing_read = False
        self._histories_sealed = False
        self.view = NamespaceView(registry, namespace=namespace, clock=clock)
        self.generations = Generations(store)
        self.register = RoutingRegister(
            open_register(store, clock=clock, ids=components.ids), ids=components.ids, leader_epoch=leader.epoch
        )
        self._quarantine = QuarantineCount(store, components.nodes, namespace=namespace)
        self.quality = QualityProbe(components.nodes, namespace=namespace, clock=clock)
        elsewhere = components.elsewhere or Elsewhere(StoreSettings(), clock=clock, ids=components.ids)
        self._departure = MoveAway(self.register, elsewhere, namespace=namespace)
        self.preflight = Preflight(
            store_fitness=self.store_fitness,
            generations=self.generations,
            nodes=components.nodes,
            view=self.view,
            quarantine=self._quarantine,
            store=store,
            clock=clock,
            ids=components.ids,
            tree_choice=lambda: read_choice(store),
            origins=Origins(namespace, elsewhere, components.nodes),
        )
        self._adoption = Adoption(store, self.generations, components.settings, namespace=namespace, clock=clock)
        self._placing = Placing(
            register=self.register, view=self.view, locks=locks, generations=self.generations, clock=clock
        )
        self.retirements = Retirements(
            store,
            register=self.register,
            generations=self.generations,
            barrier=self._barrier,
            view=self.view,
            wanted=self._wanted,
            choice=lambda: read_choice(store),
            settings=components.settings,
            leader=leader,
            clock=clock,
            ids=components.ids,
        )
        self.migrations = Reconciler(
            history=History(store, clock=clock, ids=components.ids, leader=leader),
            executor_for=self._executor_for,
            clock=clock,
            changes=changes,
            store_calls=self._store_calls,
        )
        self.plans = Plans(store, clock=clock, ids=components.ids)
        self.planner = Planner(
            store=store, generations=self.generations, preflight=self.preflight, view=self.view, clock=clock
        )

    def _executor_for(self, record: MigrationRecord, others: Collection[str]) -> ClusterExecutor:
        executor = ClusterExecutor if record.request.source is None else ArrivalExecutor
        return executor(
            register=self.register,
            view=self.view,
            barrier=self._barrier,
            announcer=self._announcer,
            locks=self._locks,
            generations=self.generations,
            preflight=self.preflight,
            quarantine=self._quarantine,
            quality=self.quality,
            others=others,
            retirements=self.retirements,
            switch_countdown=SwitchCountdown(
                self._store, record.id, leader_epoch=self._leader.epoch, clock=self._clock, ids=self._components.ids
            ),
            clock=self._clock,
        )

    def _wanted(self) -> Mapping[int, str]:
        """Generations that a running migration builds or is made of."""
        running = self.migrations.running()
        return {} if running is None else {running.source: running.id, running.target: running.id}

    def _store_calls(self) -> Mapping[str, int]:
        """Calls of this namespace's store by all nodes, as they last said, and by this process."""
        total = Counter(self._store.calls if isinstance(self._store, MeteredStore) else {})
        for report in self.view.reports().values():
            total.update(report.store_calls.get(self.namespace, {}))
        return total

    async def store_fitness(self) -> str:
        """Return "" when the store keeps its conditions, else what is wrong.

        Probed once per leader while the answer is good. A bad one is tried again after a while: it may have been
        a moment's fault, or somebody may have mended the store.
        """
        now = self._clock.monotonic()
        if self._fitness is None or (self._fitness and now - self._probed_at >= _PROBE_AGAIN_SECONDS):
            self._probed_at = now
            try:
                await probe_conditional_writes(self._store, self._components.ids)
            except PreconditionError as error:
                self._fitness = f"{error.message} (check {error.fields.get('check', '')})"
            else:
                self._fitness = ""
        return self._fitness

    async def take_over(self) -> None:
        """Read the routing record; its nodes get one full TTL before they are judged."""
        routing = await self.register.load()
        if routing is not None:
            self._registry.expect(routing.nodes, self._clock.monotonic())
        self._routing_read = True

    @property
    def taken_over(self) -> bool:
        """Whether everything that earlier leaders left has been read, and running migrations are sealed."""
        return self._routing_read and self._histories_sealed

    async def tick(self) -> bool:
        """Do what can be done now. Returns whether more could follow at once.

        Placement comes first: a history that cannot be read must not keep a dead node's shards from moving.
        """
        if not self._routing_read:
            await self.take_over()
        routing = await self.register.current()
        if routing is None:
            return await self._adopt()
        left = await self._departure.settle(routing)
        if left is not None:
            self._announcer.tell(left, self.view.reachable())
            routing = left
        repaired = await self._placing.repair(routing)
        if repaired is not None:
            self._announcer.tell(repaired, self.view.reachable())
        if not self._histories_sealed:
            await self._seal()
        moved = await self.migrations.tick()
        # There is no hurry about what is left behind: a few objects a turn, and the others have theirs.
        await self.retirements.tick()
        return moved or repaired is not None

    async def _seal(self) -> None:
        await self.migrations.take_over()
        self._histories_sealed = True

    async def _adopt(self) -> bool:
        if not self._histories_sealed:
            await self._seal()
        problem = await self.store_fitness()
        if problem:
            raise PreconditionError(
                problem,
                reason="STORE_UNFIT",
                remedy="use a store that honours If-None-Match and If-Match; nothing outside cluster/ was touched",
                namespace=self.namespace,
            )
        spec = await self._adoption.spec()
        if len(self.view.usable()) < max(1, self._components.settings.min_nodes):
            return False
        self._announcer.tell(await self._placing.create(first_routing(self.namespace, spec)), self.view.reachable())
        return True


class Term:
    """One leader's time: created when leadership is gained, thrown away when it is lost."""

    def __init__(self, components: Components, *, leader: Leader, on_fenced: Callable[[str], None]) -> None:
        self._components = components
        self._leader = leader
        self._on_fenced = on_fenced
        self._announcer = Announcer(components.nodes)
        self.registry = Registry(ttl_seconds=components.settings.node_ttl_seconds)
        self.departures = Departures(self.registry, components.nodes, clock=components.clock)
        self._vigil = Vigil(
            self.registry,
            components.nodes,
            interval_seconds=components.settings.heartbeat_interval_seconds,
            clock=components.clock,
        )
        self.changes = ChangeSignal()
        self.namespaces = {
            name: NamespaceControl(
                name,
                components,
                leader=leader,
                registry=self.registry,
                announcer=self._announcer,
                changes=self.changes,
            )
            for name in components.stores
        }
        #: Namespaces taken over; the others are not answered for yet.
        self.ready: set[str] = set()
        #: Newest routing record seen, by namespace, for heartbeats.
        self.routings: dict[str, Routing] = {}
        #: Seconds the last turn of each namespace came later than it should have.
        self.loop_lag_seconds: dict[str, float] = {}
        #: Why a namespace is not served, by namespace.
        self.problems: dict[str, BrainyError] = {}

    async def run(self) -> None:
        """Drive every namespace until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for control in self.namespaces.values():
                    tasks.create_task(self._drive(control))
        finally:
            await self._announcer.close()
            await self.departures.close()
            await self._vigil.close()

    async def _drive(self, control: NamespaceControl) -> None:
        name, clock = control.namespace, self._components.clock
        tick_seconds = self._components.settings.tick_seconds
        failures = 0
        while True:
            due = clock.monotonic() + tick_seconds
            refused = False
            try:
                await self._turn(control)
                failures = 0
                self.problems.pop(name, None)
            except ConflictError as error:
                # Somebody else was first; look again. What is not ours to win is fenced soon enough.
                _log.info("control_conflict", namespace=name, detail=error.message)
                control.register.forget()
            except FencedError as error:
                self._on_fenced(error.message)
            except BrainyError as error:
                failures += 1
                refused = isinstance(error, PreconditionError)
                self.problems[name] = error
                control.register.forget()
                if failures & (failures - 1) == 0:
                    _log.warning("control_failed", namespace=name, reason=error.reason, detail=str(error))
            except Exception:
                failures += 1
                control.register.forget()
                _log.exception("control_crashed", namespace=name)
            longest = _REFUSED_BACK_OFF_SECONDS if refused else _LONGEST_BACK_OFF_SECONDS
            back_off = min(longest, tick_seconds * 2.0 ** min(failures, 10)) if failures else 0.0
            await clock.sleep(max(0.0, due - clock.monotonic()) + back_off)
            lag = self.loop_lag_seconds[name] = max(0.0, clock.monotonic() - due - back_off)
            if lag > _LATE_SECONDS:
                _log.warning("control_loop_late", namespace=name, seconds=round(lag, 3))

    async def _turn(self, control: NamespaceControl) -> None:
        for _ in range(_MOST_STEPS_A_TURN):
            more = await control.tick()
            if control.taken_over:
                self.ready.add(control.namespace)
            routing = await control.register.current()
            if routing is not None and routing != self.routings.get(control.namespace):
                self.routings[control.namespace] = routing
                self.changes.bump()
            if not more:
                break
        self._forget_strangers()
        self._vigil.look()
        if self.ready == self.namespaces.keys():
            self.departures.dismiss(self.routings)

    def _forget_strangers(self) -> None:
        patience = _FORGET_TTLS * self._components.settings.node_ttl_seconds
        named = {node for routing in self.routings.values() for node in routing.nodes}
        members = self.registry.members(self._components.clock.monotonic())
        self.registry.forget(
            m.node_id for m in members if not m.reachable and m.silent_for > patience and m.node_id not in named
        )
