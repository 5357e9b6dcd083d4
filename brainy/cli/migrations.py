"""``brainy migrate``."""

from __future__ import annotations

import getpass
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.exits import Exit
from brainy.cli.output import JsonOption, Output, current, facts, table
from brainy.cli.plan_view import show_outcome, show_plan
from brainy.cli.target import (
    CoordinatorOption,
    DirectoryOption,
    NamespaceOption,
    OptionalNamespace,
    connect,
    run,
)
from brainy.errors import InvalidRequestError
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.migration import Migration, Strategy, TargetSpec
from brainy.sdk.plans import MigrationPlan

app = typer.Typer(help="Plan, run and watch the change to the next generation.", no_args_is_help=True)

StrategyOption = Annotated[Strategy, typer.Option(help="How nodes are moved.")]
ShardsOption = Annotated[int, typer.Option(min=0, help="Shards of the target; 0 for as many as now.")]
MetricOption = Annotated[str, typer.Option(help="cos, l2sq or ip; as now if left out.")]
ScalarOption = Annotated[str, typer.Option(help="f32, f16, bf16 or i8 in the index; as now if left out.")]
ConnectivityOption = Annotated[int, typer.Option(min=0, help="Edges of an index node; 0 for as now.")]
QuarantineOption = Annotated[
    int, typer.Option(min=0, help="How many unreadable source objects are accepted; see brainy quarantine list.")
]
PauseOption = Annotated[float, typer.Option(min=0, help="Seconds writes may wait at the cut-over; 0 for the default.")]
BackupOption = Annotated[
    str, typer.Option(metavar="FILE", help="Backup that must be whole; its path as the coordinator sees it.")
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the migration.")]


@app.command()
def plan(
    namespace: OptionalNamespace = None,
    strategy: Annotated[
        Strategy | None, typer.Option(help="How nodes are moved; as the decision graph prefers if left out.")
    ] = None,
    shards: ShardsOption = 0,
    metric: MetricOption = "",
    scalar_kind: ScalarOption = "",
    connectivity: ConnectivityOption = 0,
    quarantine_limit: QuarantineOption = 0,
    pause_cap: PauseOption = 0.0,
    require_backup: BackupOption = "",
    tolerance: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share by which the number of items may change until then; 0 for a tenth."),
    ] = 0.0,
    shared: Annotated[
        bool | None, typer.Option("--shared/--exclusive", help="Whether other processes use the bucket and prefix.")
    ] = None,
    downtime: Annotated[
        float | None,
        typer.Option(min=0, metavar="S", help="Seconds nobody may be able to write; inf for as long as it takes."),
    ] = None,
    old_writers: Annotated[
        bool | None,
        typer.Option("--old-writers/--no-old-writers", help="Whether Brainy processes go on writing meanwhile."),
    ] = None,
    rollback: Annotated[
        bool | None,
        typer.Option("--rollback/--no-rollback", help="Whether there must be a way back after the switch."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing at the store: the plan is not kept.")
    ] = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Say what a migration would do, why and what it takes, and keep that as a plan. Changes nothing else.

    Exit status 4 if a check stands in its way.
    """
    target = TargetSpec(shard_count=shards, metric=metric, scalar_kind=scalar_kind, connectivity=connectivity)

    async def ask() -> MigrationPlan:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.plan_migration(
                strategy,
                target,
                quarantine_limit=quarantine_limit,
                pause_cap_seconds=pause_cap,
                require_backup=_seen_by_all(require_backup),
                item_tolerance=tolerance,
                dry_run=dry_run,
                requested_by=_asker(),
                shared=shared,
                downtime_seconds=downtime,
                old_writers=old_writers,
                rollback=rollback,
            )

    found = run(ask())
    current().result(asdict(found), lambda console: show_plan(console, found))
    if not found.passes:
        raise typer.Exit(int(Exit.PRECONDITION))


@app.command()
def start(
    namespace: OptionalNamespace = None,
    plan_id: Annotated[
        str, typer.Option("--plan", metavar="ID", help="Execute this plan; what is wished for is the plan's then.")
    ] = "",
    confirm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Confirm what the plan asks for; may be repeated.")
    ] = None,
    strategy: StrategyOption = Strategy.ROLLING,
    shards: ShardsOption = 0,
    metric: MetricOption = "",
    scalar_kind: ScalarOption = "",
    connectivity: ConnectivityOption = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Fail where the real call would, and write nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--watch", help="Stay until it has ended.")] = False,
    pause_cap: PauseOption = 0.0,
    quarantine_limit: QuarantineOption = 0,
    require_backup: BackupOption = "",
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Start a migration. Reads and writes go on while it runs.

    Without --plan a plan is made, kept and executed, and what it asks to be confirmed counts as confirmed.
    """
    output = current()
    target = TargetSpec(shard_count=shards, metric=metric, scalar_kind=scalar_kind, connectivity=connectivity)
    if plan_id and (target != TargetSpec() or pause_cap or quarantine_limit or require_backup):
        raise InvalidRequestError(
            "a plan says itself what is wished for", remedy="leave the other options out, or make another plan"
        )
    if confirm and not plan_id:
        raise InvalidRequestError("there is no plan to confirm", remedy="name it with --plan")

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            if plan_id:
                begun = await brainy.execute_plan(
                    plan_id, confirm=confirm or (), validate_only=dry_run, requested_by=_asker()
                )
            else:
                begun = await brainy.start_migration(
                    strategy,
                    target,
                    validate_only=dry_run,
                    requested_by=_asker(),
                    pause_cap_seconds=pause_cap,
                    quarantine_limit=quarantine_limit,
                    require_backup=_seen_by_all(require_backup),
                )
            return await _follow(brainy, begun.id, output) if wait and not dry_run else begun

    _report(run(ask()), output, ended=wait and not dry_run)


def _seen_by_all(file: str) -> str:
    """Return a file that is here by its whole path, for the coordinator stands in another directory."""
    return str(Path(file).resolve()) if file and Path(file).exists() else file


@app.command()
def watch(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Show a migration until it has ended. Exit status 1 if it was aborted."""
    output = current()

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await _follow(brainy, migration_id, output)

    _report(run(ask()), output, ended=True)


@app.command()
def show(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Print a migration and its story, held against its plan; or a plan, by its id."""

    async def ask() -> Migration | MigrationPlan:
        async with connect(namespace, None, coordinator, directory) as brainy:
            if migration_id.startswith("p-"):
                return await brainy.get_plan(migration_id)
            return await brainy.get_migration(migration_id)

    found = run(ask())
    if isinstance(found, MigrationPlan):
        current().result(asdict(found), lambda console: show_plan(console, found))
    else:
        _report(found, current(), ended=False)


@app.command("list")
def list_all(
    namespace: OptionalNamespace = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """List the migrations of a namespace."""

    async def ask() -> list[Migration]:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.list_migrations()

    found = run(ask())

    def human(console: Console) -> None:
        shown = table(None, "migration", "strategy", "state", "generations", "copied#")
        for migration in found:
            shown.add_row(
                escape(migration.id),
                migration.strategy,
                migration.state,
                f"{migration.source_generation} to {migration.target_generation}",
                f"{migration.items_copied:,}",
            )
        console.print(shown)

    current().result([asdict(migration) for migration in found], human)


@app.command()
def abort(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Undo a migration that has not cut over yet. Exit status 4 if it has."""

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.abort_migration(migration_id, requested_by=_asker())

    _report(run(ask()), current(), ended=False)


def _asker() -> str:
    return f"{getpass.getuser()} by the brainy command"


async def _follow(brainy: AsyncBrainy, migration_id: str, output: Output) -> Migration:
    last: Migration | None = None
    with output.progress("migration") as show_progress:
        async with aclosing(brainy.watch_migration(migration_id)) as changes:
            async for seen in changes:
                if last is None or seen.state != last.state:
                    output.remark(f"{seen.state.lower().replace('_', ' ')} {escape(seen.message)}")
                show_progress(seen.items_copied, seen.items_total or None)
                last = seen
    return last if last is not None else await brainy.get_migration(migration_id)


def _report(migration: Migration, output: Output, *, ended: bool) -> None:
    output.result(asdict(migration), lambda console: _show(console, migration))
    if ended and not migration.succeeded:
        raise typer.Exit(int(Exit.FAILED_RESULT))


def _show(console: Console, migration: Migration) -> None:
    facts(
        console,
        {
            "migration": migration.id,
            "plan": migration.plan_id or "-",
            "namespace": migration.namespace,
            "strategy": migration.strategy,
            "state": migration.state,
            "generations": f"{migration.source_generation} to {migration.target_generation}",
            "items": f"{migration.items_copied:,} of {migration.items_total:,}",
            "lag": f"{migration.lag:,} records",
            "adopted by": ", ".join(migration.adopted_nodes) or "-",
            "writes waited": f"{migration.write_pause_seconds * 1000:.0f} ms",
            "digest equal": "yes" if migration.digest_equal else "not compared yet",
            "message": migration.message or "-",
        },
    )
    if migration.story:
        console.print()
        story = table(None, "at", "from", "to", "by", "trigger", "detail")
        for event in migration.story:
            story.add_row(
                event.at,
                event.from_state,
                event.to_state,
                escape(event.by),
                escape(event.trigger),
                escape(event.detail),
            )
        console.print(story)
    if migration.outcome is not None:
        show_outcome(console, migration.outcome)
