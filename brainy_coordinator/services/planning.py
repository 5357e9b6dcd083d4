"""Plans made, kept and executed for ``MigrationService``.

Executing a plan
----------------
*Before.* This process leads. The plan is in the bucket; its id, the request's and the migration's are one.
*Steps.* 1. The plan is read. If its migration exists, that is the answer, whatever else is so. 2. What it rests on is
looked at again: anything changed beyond what it states, its age, or a confirmation that is missing refuse it.
3. Preflight. 4. The migration's first event is created if absent, with the plan's request in it.
*After.* The migration runs as if it had been started with that request.
*Crash* at steps 1 to 3: nothing was changed. At step 4: the event exists or it does not; a repeated call finds it.
*Cancel safety.* As a crash.

A start without a plan makes one first and stores it, by the id of the request: a repeated call finds both. A plan that
an earlier call left is executed as long as it leads from and to the same generations: step 2 is for plans that somebody
read and named.
"""

from __future__ import annotations

from collections.abc import Collection

from pydantic import ValidationError

from brainy.bucket.records import Routing, Spec
from brainy.clock import Clock
from brainy.errors import InvalidRequestError, PreconditionError
from brainy_coordinator.control import NamespaceControl
from brainy_coordinator.migration.planning.basis import require_holds
from brainy_coordinator.migration.planning.plan import Plan
from brainy_coordinator.migration.planning.planner import Wish
from brainy_coordinator.migration.preflight.checks import target_spec
from brainy_coordinator.migration.preflight.preflight import require
from brainy_coordinator.migration.record import MigrationRecord, Request, migration_id_for


async def make_plan(control: NamespaceControl, request: Request, wish: Wish) -> Plan:
    """Make a plan and keep it, unless it is only tried.

    Raises:
        InvalidRequestError: there can be no such target.
        AlreadyExistsError: the request id was used for a plan of something else.
        PreconditionError: the namespace is not served yet.
    """
    routing = await _served(control, request)
    made, _ = await control.planner.make(request, routing, wish, others=_running(control))
    return made if wish.dry_run else await control.plans.keep(made)


async def start_unplanned(
    control: NamespaceControl, request: Request, *, validate_only: bool, clock: Clock
) -> MigrationRecord | None:
    """Make a plan, keep it and execute it; None where it was only tried.

    Raises:
        PreconditionError: a check did not pass, with its reason and remedy.
    """
    found = control.migrations.same(migration_id_for(control.namespace, request.request_id), request)
    if found is not None:
        return found
    routing = await _served(control, request)
    wish = Wish(dry_run=validate_only)
    made, checks = await control.planner.make(request, routing, wish, others=_running(control))
    require(checks)
    if validate_only:
        return None
    kept = await control.plans.keep(made)
    if _way(kept) != _way(made):
        # An earlier call with this id got as far as the plan, and the generations have moved on since. Growth alone
        # holds up nobody who starts without a plan: the checks have just passed on what there is now.
        require_holds(kept, made.basis, now=clock.wall(), confirmed=_all(kept))
    return await control.migrations.start(kept.migration_id, kept.request)


async def execute(
    control: NamespaceControl,
    plan_id: str,
    *,
    next_generation: int,
    confirmed: Collection[str],
    requested_by: str,
    validate_only: bool,
    clock: Clock,
) -> tuple[Plan, MigrationRecord | None]:
    """Execute a stored plan, or answer with the migration that did; None where it was only tried.

    Raises:
        NotFoundError: there is no such plan.
        PreconditionError: PLAN_OUTDATED, CONFIRMATION_MISSING, or a check did not pass.
    """
    plan = await control.plans.get(plan_id)
    request = plan.request.model_copy(update={"requested_by": requested_by or plan.created_by})
    found = control.migrations.same(plan.migration_id, request)
    if found is not None:
        return plan, found
    routing = await _served(control, request)
    basis = await control.planner.basis(request, routing, target_generation=next_generation)
    require_holds(plan, basis, now=clock.wall(), confirmed=confirmed)
    require(await control.preflight.run(request, routing, others=_running(control), dry_run=validate_only))
    if validate_only:
        return plan, None
    return plan, await control.migrations.start(plan.migration_id, request)


async def _served(control: NamespaceControl, request: Request) -> Routing:
    routing = await control.register.current()
    spec = await control.generations.spec(request.source_generation)
    if routing is None or spec is None:
        raise not_adopted(control.namespace)
    _check_target(spec, request)
    return routing


def _check_target(source: Spec, request: Request) -> None:
    try:
        target_spec(source, request, created_at="")
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRequestError(
            f"the target cannot be so: {first['msg'].lower()}",
            remedy="correct the target; nothing was changed",
            field=".".join(map(str, first["loc"])),
        ) from error


def not_adopted(namespace: str) -> PreconditionError:
    """Return what is answered before a namespace is served."""
    return PreconditionError(
        "the namespace is not served yet", remedy="start enough nodes, then try again", namespace=namespace
    )


def _running(control: NamespaceControl) -> list[str]:
    running = control.migrations.running()
    return [running.id] if running else []


def _way(plan: Plan) -> tuple[int, int]:
    return plan.request.source_generation, plan.request.target_generation


def _all(plan: Plan) -> list[str]:
    """Names of everything a plan asks for: who starts without a plan answers for all of it."""
    return [each.name for each in plan.confirmations]
