"""``brainy migrate promote | pause | resume | rollback | complete``."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.migration_view import follow, report, show
from brainy.cli.output import JsonOption, current
from brainy.cli.target import CoordinatorOption, DirectoryOption, NamespaceOption, connect, run
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.migration import Completed, Migration

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the migration.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Stay until it has ended, or waits for somebody.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the history.")]

_Call = Callable[[AsyncBrainy, str], Awaitable[Migration]]


def by_whom() -> str:
    """Who asks, for the history."""
    return f"{getpass.getuser()} by the brainy command"


def _turn(
    call: _Call,
    migration_id: str,
    namespace: str | None,
    coordinator: list[str] | None,
    directory: Path | None,
    wait: bool,
) -> None:
    output = current()

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            turned = await call(brainy, migration_id)
            return await follow(brainy, migration_id, output, at_rest=True) if wait else turned

    report(run(ask()), output, ended=wait)


def promote(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    wait: WaitOption = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Let a migration that is held switch. Exit status 4, with what is missing, if it is not ready."""
    _turn(
        lambda brainy, number: brainy.promote_migration(number, requested_by=by_whom()),
        migration_id,
        namespace,
        coordinator,
        directory,
        wait,
    )


def pause(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    reason: ReasonOption = "",
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Let a migration take no further step. Reads and writes go on."""
    _turn(
        lambda brainy, number: brainy.pause_migration(number, reason=reason, requested_by=by_whom()),
        migration_id,
        namespace,
        coordinator,
        directory,
        False,
    )


def resume(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    wait: WaitOption = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Let a paused migration go on."""
    _turn(
        lambda brainy, number: brainy.resume_migration(number, requested_by=by_whom()),
        migration_id,
        namespace,
        coordinator,
        directory,
        wait,
    )


def rollback(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    reason: ReasonOption = "",
    wait: WaitOption = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Make the source active again, with every write since the switch. Exit status 4 where no way back is kept."""
    _turn(
        lambda brainy, number: brainy.rollback_migration(number, reason=reason, requested_by=by_whom()),
        migration_id,
        namespace,
        coordinator,
        directory,
        wait,
    )


def complete(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be retired, and change nothing.")] = False,
    wait: WaitOption = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Give up the way back. The source is not served any more; its objects stay."""
    output = current()

    async def ask() -> Completed:
        async with connect(namespace, None, coordinator, directory) as brainy:
            done = await brainy.complete_migration(migration_id, validate_only=dry_run, requested_by=by_whom())
            if not wait or dry_run:
                return done
            ended = await follow(brainy, migration_id, output)
            return Completed(migration=ended, retired=done.retired)

    done = run(ask())

    def human(console: Console) -> None:
        show(console, done.migration)
        what = "would not be" if dry_run else "is not"
        console.print(f"\n{', '.join(map(escape, done.retired))} {what} served any more; its objects stay")

    output.result({**asdict(done.migration), "retired": list(done.retired)}, human)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (promote, pause, resume, rollback, complete):
        app.command()(command)
