"""``brainy migrate postpone | can-switch | plans``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.durations import seconds_of, seconds_until
from brainy.cli.exits import Exit
from brainy.cli.migration_view import report, show
from brainy.cli.output import JsonOption, current, table
from brainy.cli.target import CoordinatorOption, DirectoryOption, NamespaceOption, OptionalNamespace, connect, run
from brainy.cli.turns import IdArgument, ReasonOption, by_whom
from brainy.sdk.gates import CanSwitch, PlanSummary
from brainy.sdk.migration import Migration


def postpone(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    duration: Annotated[
        str, typer.Option("--for", metavar="TIME", help="For so long from now: 2h, 90m, 1d; 0s for not any longer.")
    ] = "",
    until: Annotated[
        str, typer.Option(metavar="MOMENT", help="Until then, by the clock of this machine: 2025-01-31T22:00.")
    ] = "",
    reason: ReasonOption = "",
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Do not let a migration switch for a time; brainy migrate promote overrides it.

    The leader counts, also after it has changed: it may become longer, never shorter. Exit status 4 once it switches.
    """
    if bool(duration) == bool(until):
        raise typer.BadParameter("say either --for or --until")
    seconds = seconds_of(duration) if duration else seconds_until(until)

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.postpone_migration(migration_id, seconds, reason=reason, requested_by=by_whom())

    report(run(ask()), current(), ended=False)


def can_switch(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Say whether a migration could switch now, and what is in the way. Exit status 4 if something is.

    A hold and a postponement are not: brainy migrate promote overrides them.
    """

    async def ask() -> CanSwitch:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.can_switch(migration_id)

    found = run(ask())

    def human(console: Console) -> None:
        show(console, found.migration)
        console.print()
        if found.can_switch:
            console.print("it can switch")
        for each in found.obstacles:
            console.print(f"[bold]in the way:[/] {escape(each.reason)}", soft_wrap=True)
            console.print(f"  [bold]what to do:[/] {escape(each.remedy)}", soft_wrap=True)

    current().result(asdict(found), human)
    if not found.can_switch:
        raise typer.Exit(int(Exit.PRECONDITION))


def plans(
    namespace: OptionalNamespace = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """List the stored plans of a namespace, and what became of each."""

    async def ask() -> list[PlanSummary]:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.list_plans()

    found = run(ask())

    def human(console: Console) -> None:
        shown = table(None, "plan", "made", "by", "strategy", "generations", "what became of it")
        for each in found:
            shown.add_row(
                each.id,
                each.created_at,
                escape(each.created_by),
                each.strategy,
                f"{each.source_generation} to {each.target_generation}",
                escape(_fate(each)),
            )
        console.print(shown)

    current().result([asdict(each) for each in found], human)


def _fate(plan: PlanSummary) -> str:
    if plan.migration_id:
        return f"executed: {plan.migration_id} {plan.migration_state}"
    if plan.outdated:
        return f"outdated: {', '.join(plan.outdated)}"
    return f"checks failed: {', '.join(plan.failed_checks)}" if plan.failed_checks else f"holds until {plan.expires_at}"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(postpone)
    app.command("can-switch")(can_switch)
    app.command()(plans)
