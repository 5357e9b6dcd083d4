"""MigrationService: plan, run and watch migrations."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from brainy.api.coordinator.v1 import migration_pb2, migration_pb2_grpc
from brainy.bucket import layout
from brainy.bucket.records import Routing
from brainy.errors import InvalidRequestError, NotFoundError, UnavailableError
from brainy.rpc.interceptors import Context
from brainy.traffic.limits import RollbackLimits, limits_from_proto
from brainy_coordinator.control import NamespaceControl
from brainy_coordinator.coordinator import Coordinator
from brainy_coordinator.migration import interventions
from brainy_coordinator.migration.history import History
from brainy_coordinator.migration.planning.outcome import outcome_of
from brainy_coordinator.migration.planning.planner import Wish
from brainy_coordinator.migration.planning.store import Plans
from brainy_coordinator.migration.preflight.preflight import require
from brainy_coordinator.migration.quality import QualityWish
from brainy_coordinator.migration.reconciler import Progress
from brainy_coordinator.migration.record import MigrationRecord, Request, SourceWish
from brainy_coordinator.migration.state import State
from brainy_coordinator.services import gates
from brainy_coordinator.services.generation_messages import counts_message, generation_message, retention_message
from brainy_coordinator.services.migration_messages import (
    DEFAULT_PAUSE_CAP_SECONDS,
    STRATEGY_NUMBERS,
    migration_message,
    request_value,
)
from brainy_coordinator.services.namespaces import resolve
from brainy_coordinator.services.plan_messages import answers_value, outcome_message, plan_message, steps_of
from brainy_coordinator.services.planning import execute, make_plan, not_adopted, start_unplanned
from brainy_coordinator.services.quality_messages import wish_value
from brainy_coordinator.services.source_messages import source_value, strategy_for

_DEFAULT_PAGE = 50
_LONGEST_PAGE = 1000
#: How often a watcher looks when nothing wakes it: on a follower, or after the leadership has moved.
_WATCH_SECONDS = 1.0

_Asked = (
    migration_pb2.PromoteMigrationRequest
    | migration_pb2.PauseMigrationRequest
    | migration_pb2.ResumeMigrationRequest
    | migration_pb2.RollbackMigrationRequest
    | migration_pb2.CompleteMigrationRequest
)
Seen = tuple[MigrationRecord, Progress | None]


class MigrationServicer(migration_pb2_grpc.MigrationServiceServicer):
    """Reads are answered by any coordinator, from the bucket; the rest by the leader."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._components = coordinator.components

    async def PlanMigration(
        self, request: migration_pb2.PlanMigrationRequest, context: Context
    ) -> migration_pb2.PlanMigrationResponse:
        """Say what a migration would do and why, and keep the plan; with ``dry_run`` nothing is written."""
        control = self._control(request.namespace)
        source = source_value(request)
        chosen = request.strategy == migration_pb2.STRATEGY_UNSPECIFIED and source is None
        wish = await self._request(
            control,
            migration_pb2.STRATEGY_IN_PLACE_UPGRADE if chosen else _strategy(request.strategy, source),
            request.target,
            request_id=request.request_id or self._components.ids.uuid(),
            requested_by=request.requested_by,
            pause_cap_seconds=_pause_cap(request),
            quarantine_limit=request.quarantine_limit,
            writers_stopped=request.writers_stopped,
            require_backup=request.require_backup,
            keep_way_back=request.keep_way_back,
            hold_before_switch=request.hold_before_switch,
            observe_seconds=_observe(request),
            max_unavailable=request.max_unavailable,
            bake_seconds=request.bake.ToNanoseconds() / 1e9,
            quality=wish_value(request.quality) if request.HasField("quality") else None,
            rollback_if=_rollback_if(request),
            source=source,
        )
        if not 0.0 <= request.item_tolerance <= 1.0:
            raise InvalidRequestError(
                "item_tolerance is a share", remedy="0 to 1", item_tolerance=request.item_tolerance
            )
        what = Wish(
            answers=answers_value(request.answers),
            choose=chosen,
            tolerance=request.item_tolerance,
            dry_run=request.dry_run,
        )
        made = await make_plan(control, wish, what)
        return migration_pb2.PlanMigrationResponse(
            source_generation=made.request.source_generation,
            target_generation=made.request.target_generation,
            steps=steps_of(made),
            plan=plan_message(made, stored=not request.dry_run),
        )

    async def GetMigrationPlan(
        self, request: migration_pb2.GetMigrationPlanRequest, context: Context
    ) -> migration_pb2.GetMigrationPlanResponse:
        """Return a stored plan; any coordinator does."""
        found = await self._plans(resolve(request.namespace, self._components.stores)).get(request.id)
        return migration_pb2.GetMigrationPlanResponse(plan=plan_message(found))

    async def StartMigration(
        self, request: migration_pb2.StartMigrationRequest, context: Context
    ) -> migration_pb2.StartMigrationResponse:
        """Execute a plan, or make one and execute it; a repeated request_id or plan returns the first migration."""
        control = self._control(request.namespace)
        if request.plan_id:
            plan, found = await execute(
                control,
                request.plan_id,
                next_generation=await self._next_generation(control, await self._routing(control)),
                confirmed=request.confirm,
                requested_by=request.requested_by,
                validate_only=request.validate_only,
                clock=self._components.clock,
            )
            wish, strategy = plan.request, STRATEGY_NUMBERS[plan.request.strategy]
        else:
            wish = await self._wished(control, request)
            strategy = STRATEGY_NUMBERS[wish.strategy]
            found = await start_unplanned(
                control, wish, validate_only=request.validate_only, clock=self._components.clock
            )
        if found is None:
            return migration_pb2.StartMigrationResponse(
                migration=migration_pb2.Migration(
                    namespace=control.namespace,
                    strategy=strategy,
                    source_generation=wish.source_generation,
                    target_generation=wish.target_generation,
                    message="every check passes; nothing was started",
                    plan_id=request.plan_id,
                )
            )
        progress = control.migrations.progress(found.id)
        return migration_pb2.StartMigrationResponse(migration=migration_message(found, progress))

    async def _wished(self, control: NamespaceControl, request: migration_pb2.StartMigrationRequest) -> Request:
        source = source_value(request)
        return await self._request(
            control,
            _strategy(request.strategy, source),
            request.target,
            request_id=request.request_id or self._components.ids.uuid(),
            requested_by=request.requested_by,
            pause_cap_seconds=_pause_cap(request),
            quarantine_limit=request.quarantine_limit,
            writers_stopped=request.writers_stopped,
            require_backup=request.require_backup,
            keep_way_back=request.keep_way_back,
            hold_before_switch=request.hold_before_switch,
            observe_seconds=_observe(request),
            max_unavailable=request.max_unavailable,
            bake_seconds=request.bake.ToNanoseconds() / 1e9,
            quality=wish_value(request.quality) if request.HasField("quality") else None,
            rollback_if=_rollback_if(request),
            source=source,
        )

    async def GetMigration(
        self, request: migration_pb2.GetMigrationRequest, context: Context
    ) -> migration_pb2.GetMigrationResponse:
        """Return one migration, held against its plan."""
        record, progress = await self._get(request.namespace, request.id)
        response = migration_pb2.GetMigrationResponse(migration=migration_message(record, progress))
        if record.request.plan_id:
            name = resolve(request.namespace, self._components.stores)
            planned = await self._plans(name).load(record.request.plan_id)
            if planned is not None:
                response.outcome.CopyFrom(outcome_message(outcome_of(planned, record)))
        await self._tell_what_is_left(response.migration, record)
        return response

    async def _tell_what_is_left(self, message: migration_pb2.Migration, record: MigrationRecord) -> None:
        """Say what becomes of the generation that a migration has left behind, where this process leads."""
        term = self._coordinator.term_or_none()
        if term is None or record.request.namespace not in term.ready or not gates.has_left_something(record):
            return
        control, number = term.namespaces[record.request.namespace], gates.left_behind(record)
        found = (await control.retirements.all()).get(number)
        if found is not None and found.record.migration == record.id:
            routing = await control.register.current()
            message.left_behind.CopyFrom(generation_message(number, routing=routing, retired=found))

    async def ListMigrations(
        self, request: migration_pb2.ListMigrationsRequest, context: Context
    ) -> migration_pb2.ListMigrationsResponse:
        """Return migrations, the latest first. The page token is the id of the last one returned."""
        seen = await self._all(request.namespace)
        start = 0
        if request.page_token:
            ids = [record.id for record, _ in seen]
            if request.page_token not in ids:
                raise InvalidRequestError(
                    "not a page token of this list",
                    remedy="begin again without a page token",
                    page_token=request.page_token,
                )
            start = ids.index(request.page_token) + 1
        if request.page_size < 0:
            raise InvalidRequestError(
                "page_size is negative", remedy="leave it out, or give a positive number", page_size=request.page_size
            )
        size = min(request.page_size or _DEFAULT_PAGE, _LONGEST_PAGE)
        page = seen[start : start + size]
        more = start + size < len(seen)
        return migration_pb2.ListMigrationsResponse(
            migrations=[migration_message(record, progress) for record, progress in page],
            next_page_token=page[-1][0].id if more else "",
        )

    async def WatchMigration(
        self, request: migration_pb2.WatchMigrationRequest, context: Context
    ) -> AsyncIterator[migration_pb2.WatchMigrationResponse]:
        """Stream the migration now and at each change, until it has ended."""
        last: migration_pb2.Migration | None = None
        while True:
            term = self._coordinator.term_or_none()
            changes = term.changes if term is not None else None
            count = changes.count if changes is not None else 0
            record, progress = await self._get(request.namespace, request.id)
            message = migration_message(record, progress)
            if message != last:
                yield migration_pb2.WatchMigrationResponse(migration=message)
                last = message
            if record.state.is_terminal:
                return
            if changes is None:
                await self._components.clock.sleep(_WATCH_SECONDS)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changes.after(count), _WATCH_SECONDS)

    async def AbortMigration(
        self, request: migration_pb2.AbortMigrationRequest, context: Context
    ) -> migration_pb2.AbortMigrationResponse:
        """Ask for the way back. Repeating it changes nothing, so ``request_id`` is not needed to be safe."""
        control = self._control(request.namespace)
        record = await control.migrations.abort(request.id, by=request.requested_by)
        progress = control.migrations.progress(record.id)
        return migration_pb2.AbortMigrationResponse(migration=migration_message(record, progress))

    async def PromoteMigration(
        self, request: migration_pb2.PromoteMigrationRequest, context: Context
    ) -> migration_pb2.PromoteMigrationResponse:
        """Release the hold, where everything is ready."""
        return migration_pb2.PromoteMigrationResponse(migration=await self._intervene(request, interventions.promote))

    async def PauseMigration(
        self, request: migration_pb2.PauseMigrationRequest, context: Context
    ) -> migration_pb2.PauseMigrationResponse:
        """Take no further step."""
        detail = request.reason or f"asked for by {request.requested_by}"
        migration = await self._intervene(request, interventions.pause, detail=detail)
        return migration_pb2.PauseMigrationResponse(migration=migration)

    async def ResumeMigration(
        self, request: migration_pb2.ResumeMigrationRequest, context: Context
    ) -> migration_pb2.ResumeMigrationResponse:
        """Go on."""
        return migration_pb2.ResumeMigrationResponse(migration=await self._intervene(request, interventions.resume))

    async def RollbackMigration(
        self, request: migration_pb2.RollbackMigrationRequest, context: Context
    ) -> migration_pb2.RollbackMigrationResponse:
        """Ask for the source back; the loop does it when the source is close behind."""
        control = self._control(request.namespace)
        record = control.migrations.get(request.id)
        if record.state is State.OBSERVING:
            # Somebody may have turned following or mirroring of the tree on since the switch.
            require((await control.preflight.way_back(),))
        migration = await self._intervene(request, interventions.rollback, detail=request.reason)
        return migration_pb2.RollbackMigrationResponse(migration=migration)

    async def CompleteMigration(
        self, request: migration_pb2.CompleteMigrationRequest, context: Context
    ) -> migration_pb2.CompleteMigrationResponse:
        """Give up the way back. What leaves the record and is deleted later is listed."""
        control = self._control(request.namespace)
        record = control.migrations.get(request.id)
        source = record.source
        wished = request.retain.ToNanoseconds() / 1e9 if request.HasField("retain") else None
        migration = await self._intervene(request, interventions.complete, validate_only=True)
        contents = await control.retirements.contents(source)
        if not request.validate_only:
            if wished is not None and record.state is State.OBSERVING:
                await control.retirements.begin(
                    source, migration=record.id, by=request.requested_by, retain_seconds=wished
                )
            migration = await self._intervene(request, interventions.complete)
        return migration_pb2.CompleteMigrationResponse(
            migration=migration,
            retired=[layout.generation(source)],
            deletes=counts_message(contents.deleted),
            retain=retention_message(control.retirements.retention(wished)),
        )

    async def PostponeMigration(
        self, request: migration_pb2.PostponeMigrationRequest, context: Context
    ) -> migration_pb2.PostponeMigrationResponse:
        """Put the switch off; see ``migration.postponing``."""
        return await gates.postpone(self._control(request.namespace), request)

    async def CanSwitchMigration(
        self, request: migration_pb2.CanSwitchMigrationRequest, context: Context
    ) -> migration_pb2.CanSwitchMigrationResponse:
        """Say what is in the way of the switch."""
        return await gates.can_switch(self._control(request.namespace), request.id, self._components.clock)

    async def ListMigrationPlans(
        self, request: migration_pb2.ListMigrationPlansRequest, context: Context
    ) -> migration_pb2.ListMigrationPlansResponse:
        """Return the stored plans, each held against what there is now."""
        control = self._control(request.namespace)
        routing = await self._routing(control)
        found = await gates.list_plans(
            control,
            routing,
            next_generation=await self._next_generation(control, routing),
            now=self._components.clock.wall(),
        )
        return migration_pb2.ListMigrationPlansResponse(plans=[gates.summary_message(each) for each in found])

    async def _intervene(
        self,
        request: _Asked,
        intervention: interventions.Intervention,
        *,
        detail: str = "",
        validate_only: bool = False,
    ) -> migration_pb2.Migration:
        control = self._control(request.namespace)
        record = await control.migrations.intervene(
            request.id,
            intervention,
            by=request.requested_by,
            detail=detail,
            request_id=request.request_id,
            validate_only=validate_only,
        )
        return migration_message(record, control.migrations.progress(record.id))

    def _control(self, namespace: str) -> NamespaceControl:
        """The namespace under this leader."""
        term = self._coordinator.term()
        name = resolve(namespace, self._components.stores)
        if name not in term.ready:
            problem = term.problems.get(name)
            raise problem or UnavailableError(
                "the leader has not taken the namespace over yet", remedy="try again shortly", namespace=name
            )
        return term.namespaces[name]

    async def _request(
        self,
        control: NamespaceControl,
        strategy: int,
        target: migration_pb2.TargetSpec,
        *,
        request_id: str = "",
        requested_by: str = "",
        pause_cap_seconds: float = DEFAULT_PAUSE_CAP_SECONDS,
        quarantine_limit: int = 0,
        writers_stopped: bool = False,
        require_backup: str = "",
        keep_way_back: bool = False,
        hold_before_switch: bool = False,
        observe_seconds: float = 0.0,
        max_unavailable: int = 0,
        bake_seconds: float = 0.0,
        quality: QualityWish | None = None,
        rollback_if: RollbackLimits | None = None,
        source: SourceWish | None = None,
    ) -> Request:
        routing = await self._routing(control)
        return request_value(
            namespace=control.namespace,
            strategy=strategy,
            target=target,
            source_generation=routing.active,
            target_generation=await self._next_generation(control, routing),
            request_id=request_id,
            requested_by=requested_by,
            pause_cap_seconds=pause_cap_seconds,
            quarantine_limit=quarantine_limit,
            writers_stopped=writers_stopped,
            require_backup=require_backup,
            keep_way_back=keep_way_back,
            hold_before_switch=hold_before_switch,
            observe_seconds=observe_seconds,
            max_unavailable=max_unavailable,
            bake_seconds=bake_seconds,
            quality=quality,
            rollback_if=rollback_if,
            source=source,
        )

    async def _routing(self, control: NamespaceControl) -> Routing:
        routing = await control.register.current()
        if routing is None:
            raise not_adopted(control.namespace)
        return routing

    async def _next_generation(self, control: NamespaceControl, routing: Routing) -> int:
        return max({*await control.generations.numbers(), *routing.generations, routing.active}) + 1

    async def _get(self, namespace: str, migration_id: str) -> Seen:
        name = resolve(namespace, self._components.stores)
        term = self._coordinator.term_or_none()
        if term is not None and name in term.ready:
            migrations = term.namespaces[name].migrations
            return migrations.get(migration_id), migrations.progress(migration_id)
        legal = layout.parse_migration_event(layout.migration_event(migration_id, 1)) is not None
        record = await self._history(name).load(migration_id) if legal else None
        if record is None:
            raise NotFoundError(
                "no such migration", remedy="list the migrations of the namespace", migration=migration_id
            )
        return record, None

    async def _all(self, namespace: str) -> Sequence[Seen]:
        name = resolve(namespace, self._components.stores)
        term = self._coordinator.term_or_none()
        if term is not None and name in term.ready:
            migrations = term.namespaces[name].migrations
            return [(record, migrations.progress(record.id)) for record in migrations.all()]
        loaded = (await self._history(name).load_all()).values()
        return [(record, None) for record in sorted(loaded, key=lambda r: (-r.story[0].at, r.id))]

    def _plans(self, name: str) -> Plans:
        return Plans(self._components.stores[name], clock=self._components.clock, ids=self._components.ids)

    def _history(self, name: str) -> History:
        return History(
            self._components.stores[name],
            clock=self._components.clock,
            ids=self._components.ids,
            leader=self._coordinator.leadership,
        )


def _strategy(asked: int, source: SourceWish | None) -> int:
    """The strategy asked for; where data come from elsewhere it need not be named."""
    unsaid = asked == migration_pb2.STRATEGY_UNSPECIFIED and source is not None
    return STRATEGY_NUMBERS[strategy_for(source)] if unsaid and source is not None else asked


def _pause_cap(request: migration_pb2.StartMigrationRequest | migration_pb2.PlanMigrationRequest) -> float:
    return request.pause_cap.ToNanoseconds() / 1e9 if request.HasField("pause_cap") else DEFAULT_PAUSE_CAP_SECONDS


def _observe(request: migration_pb2.StartMigrationRequest | migration_pb2.PlanMigrationRequest) -> float:
    return request.observe.ToNanoseconds() / 1e9 if request.HasField("observe") else 0.0


def _rollback_if(
    request: migration_pb2.StartMigrationRequest | migration_pb2.PlanMigrationRequest,
) -> RollbackLimits | None:
    return limits_from_proto(request.rollback_if) if request.HasField("rollback_if") else None
