"""``brainy migrate``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.migration_view import follow, report
from brainy.cli.output import JsonOption, current, table
from brainy.cli.target import (
    CoordinatorOption,
    DirectoryOption,
    NamespaceOption,
    OptionalNamespace,
    connect,
    run,
)
from brainy.cli.turns import IdArgument, add_to, by_whom
from brainy.sdk.migration import Migration, MigrationPlan, Strategy, TargetSpec

app = typer.Typer(help="Plan, run and watch the change to the next generation.", no_args_is_help=True)

StrategyOption = Annotated[Strategy, typer.Option(help="How nodes are moved.")]
ShardsOption = Annotated[int, typer.Option(min=0, help="Shards of the target; 0 for as many as now.")]
MetricOption = Annotated[str, typer.Option(help="cos, l2sq or ip; as now if left out.")]
ScalarOption = Annotated[str, typer.Option(help="f32, f16, bf16 or i8 in the index; as now if left out.")]
ConnectivityOption = Annotated[int, typer.Option(min=0, help="Edges of an index node; 0 for as now.")]
QuarantineOption = Annotated[
    int, typer.Option(min=0, help="How many unreadable source objects are accepted; see brainy quarantine list.")
]
WayBackOption = Annotated[
    bool,
    typer.Option("--keep-way-back", help="Let the source follow the target after the switch, until it is completed."),
]
HoldOption = Annotated[bool, typer.Option("--hold", help="Do not switch before brainy migrate promote.")]


@app.command()
def plan(
    namespace: OptionalNamespace = None,
    strategy: StrategyOption = Strategy.ROLLING,
    shards: ShardsOption = 0,
    metric: MetricOption = "",
    scalar_kind: ScalarOption = "",
    connectivity: ConnectivityOption = 0,
    quarantine_limit: QuarantineOption = 0,
    keep_way_back: WayBackOption = False,
    hold: HoldOption = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Print what a migration would do. Nothing is written."""
    target = TargetSpec(shard_count=shards, metric=metric, scalar_kind=scalar_kind, connectivity=connectivity)

    async def ask() -> MigrationPlan:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.plan_migration(
                strategy,
                target,
                quarantine_limit=quarantine_limit,
                keep_way_back=keep_way_back,
                hold_before_switch=hold,
            )

    found = run(ask())

    def human(console: Console) -> None:
        console.print(f"generation {found.source_generation} to {found.target_generation}")
        steps = table(None, "nr#", "step", "detail")
        for number, step in enumerate(found.steps, 1):
            steps.add_row(str(number), escape(step.action), escape(step.detail))
        console.print(steps)

    current().result(asdict(found), human)


@app.command()
def start(
    namespace: OptionalNamespace = None,
    strategy: StrategyOption = Strategy.ROLLING,
    shards: ShardsOption = 0,
    metric: MetricOption = "",
    scalar_kind: ScalarOption = "",
    connectivity: ConnectivityOption = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Fail where the real call would, and write nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--watch", help="Stay until it has ended, or waits for somebody.")] = False,
    pause_cap: Annotated[
        float, typer.Option(min=0, help="Seconds writes may wait at the cut-over; 0 for the default.")
    ] = 0.0,
    quarantine_limit: QuarantineOption = 0,
    keep_way_back: WayBackOption = False,
    hold: HoldOption = False,
    observe: Annotated[
        float, typer.Option(min=0, help="With --keep-way-back: complete by itself after so many seconds; 0 for never.")
    ] = 0.0,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Start a migration. Reads and writes go on while it runs."""
    output = current()
    target = TargetSpec(shard_count=shards, metric=metric, scalar_kind=scalar_kind, connectivity=connectivity)

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            begun = await brainy.start_migration(
                strategy,
                target,
                validate_only=dry_run,
                requested_by=by_whom(),
                pause_cap_seconds=pause_cap,
                quarantine_limit=quarantine_limit,
                keep_way_back=keep_way_back,
                hold_before_switch=hold,
                observe_seconds=observe,
            )
            return await follow(brainy, begun.id, output, at_rest=True) if wait and not dry_run else begun

    report(run(ask()), output, ended=wait and not dry_run)


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
            return await follow(brainy, migration_id, output)

    report(run(ask()), output, ended=True)


@app.command()
def show(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Print a migration and its story."""

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.get_migration(migration_id)

    report(run(ask()), current(), ended=False)


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
            return await brainy.abort_migration(migration_id, requested_by=by_whom())

    report(run(ask()), current(), ended=False)


add_to(app)
