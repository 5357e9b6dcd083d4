"""``brainy migrate promote | pause | resume | rollback | complete``."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.durations import seconds_of
from brainy.cli.exits import Exit
from brainy.cli.generations_view import kinds
from brainy.cli.migration_view import follow, report, show
from brainy.cli.output import JsonOption, current
from brainy.cli.target import CoordinatorOption, DirectoryOption, NamespaceOption, connect, run
from brainy.legacy.wording import span
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
    reached: Callable[[Migration], bool] = lambda turned: turned.state in ("OBSERVING", "SUCCEEDED"),
) -> None:
    output = current()

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            turned = await call(brainy, migration_id)
            return await follow(brainy, migration_id, output, at_rest=True) if wait else turned

    turned = run(ask())
    report(turned, output, ended=wait, reached=reached(turned))


def promote(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    wait: WaitOption = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Let a migration that is held or postponed switch. Exit status 4, with what is missing, if it is not ready.

    With --wait it is 0 once it has switched, 1 if it was aborted or led back.
    """
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
    """Let a paused migration go on. With --wait: exit status 1 if it was aborted."""
    _turn(
        lambda brainy, number: brainy.resume_migration(number, requested_by=by_whom()),
        migration_id,
        namespace,
        coordinator,
        directory,
        wait,
        lambda turned: turned.state != "ABORTED",
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
    """Make the source active again, with every write since the switch. Exit status 4 where no way back is kept.

    With --wait it is 0 once the source is active, 1 if both sides differ.
    """
    _turn(
        lambda brainy, number: brainy.rollback_migration(number, reason=reason, requested_by=by_whom()),
        migration_id,
        namespace,
        coordinator,
        directory,
        wait,
        lambda turned: turned.state in ("READY", "ABORTED"),
    )


def complete(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and change nothing.")] = False,
    retain: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Keep the source for so long before it is deleted: 7d, 12h, ... or for-good."
        ),
    ] = "",
    wait: WaitOption = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Give up the way back. The source is not served any more, and deleted after its retention.

    Until then brainy generations --keep keeps it. With --wait: exit status 1 if it did not end well.
    """
    output = current()
    retained = None if not retain else -1.0 if retain == "for-good" else seconds_of(retain)

    async def ask() -> Completed:
        async with connect(namespace, None, coordinator, directory) as brainy:
            done = await brainy.complete_migration(
                migration_id, validate_only=dry_run, retain_seconds=retained, requested_by=by_whom()
            )
            if not wait or dry_run:
                return done
            ended = await follow(brainy, migration_id, output)
            return replace(done, migration=ended)

    done = run(ask())

    def human(console: Console) -> None:
        show(console, done.migration)
        what = "would not be" if dry_run else "is not"
        console.print(f"\n{', '.join(map(escape, done.retired))} {what} served any more")
        when = "is kept" if done.retain_seconds is None else f"is deleted after {span(done.retain_seconds)}"
        console.print(f"what lies there {when}: {escape(kinds(done.deletes))}", soft_wrap=True)
        console.print("Brainy's own objects are never touched")

    told = {name: value for name, value in asdict(done).items() if name != "migration"}
    output.result({**asdict(done.migration), **told}, human)
    if wait and not dry_run and not done.migration.succeeded:
        raise typer.Exit(int(Exit.FAILED_RESULT))


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (promote, pause, resume, rollback, complete):
        app.command()(command)
