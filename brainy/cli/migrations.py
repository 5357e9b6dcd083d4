"""``brainy migrate``."""

from __future__ import annotations

import getpass
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.exits import Exit
from brainy.cli.output import JsonOption, Output, current, facts, table
from brainy.cli.target import (
    CoordinatorOption,
    DirectoryOption,
    NamespaceOption,
    OptionalNamespace,
    connect,
    run,
)
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.migration import Migration, MigrationPlan, Strategy, TargetSpec

app = typer.Typer(help="Plan, run and watch the change to the next generation.", no_args_is_help=True)

StrategyOption = Annotated[Strategy, typer.Option(help="How nodes are moved.")]
ShardsOption = Annotated[int, typer.Option(min=0, help="Shards of the target; 0 for as many as now.")]
MetricOption = Annotated[str, typer.Option(help="cos, l2sq or ip; as now if left out.")]
ScalarOption = Annotated[str, typer.Option(help="f32, f16, bf16 or i8 in the index; as now if left out.")]
ConnectivityOption = Annotated[int, typer.Option(min=0, help="Edges of an index node; 0 for as now.")]
PoolOption = Annotated[
    str, typer.Option(help="Label of the nodes that shall hold the target; blue-green needs one. As now if left out.")
]
QuarantineOption = Annotated[
    int, typer.Option(min=0, help="How many unreadable source objects are accepted; see brainy quarantine list.")
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the migration.")]


@app.command()
def plan(
    namespace: OptionalNamespace = None,
    strategy: StrategyOption = Strategy.ROLLING,
    shards: ShardsOption = 0,
    metric: MetricOption = "",
    scalar_kind: ScalarOption = "",
    connectivity: ConnectivityOption = 0,
    pool: PoolOption = "",
    quarantine_limit: QuarantineOption = 0,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Print what a migration would do. Nothing is written."""
    target = TargetSpec(
        shard_count=shards, metric=metric, scalar_kind=scalar_kind, connectivity=connectivity, pool=pool
    )

    async def ask() -> MigrationPlan:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.plan_migration(strategy, target, quarantine_limit=quarantine_limit)

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
    pool: PoolOption = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Fail where the real call would, and write nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--watch", help="Stay until it has ended.")] = False,
    pause_cap: Annotated[
        float, typer.Option(min=0, help="Seconds writes may wait at the cut-over; 0 for the default.")
    ] = 0.0,
    quarantine_limit: QuarantineOption = 0,
    writers_stopped: Annotated[
        bool, typer.Option("--writers-stopped", help="Coordinated: your word that nobody writes until it has ended.")
    ] = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Start a migration. Reads and writes go on while it runs."""
    output = current()
    target = TargetSpec(
        shard_count=shards, metric=metric, scalar_kind=scalar_kind, connectivity=connectivity, pool=pool
    )

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            begun = await brainy.start_migration(
                strategy,
                target,
                validate_only=dry_run,
                requested_by=f"{getpass.getuser()} by the brainy command",
                pause_cap_seconds=pause_cap,
                quarantine_limit=quarantine_limit,
                writers_stopped=writers_stopped,
            )
            return await _follow(brainy, begun.id, output) if wait and not dry_run else begun

    _report(run(ask()), output, ended=wait and not dry_run)


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
    """Print a migration and its story."""

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.get_migration(migration_id)

    _report(run(ask()), current(), ended=False)


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
            return await brainy.abort_migration(migration_id, requested_by=f"{getpass.getuser()} by the brainy command")

    _report(run(ask()), current(), ended=False)


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
