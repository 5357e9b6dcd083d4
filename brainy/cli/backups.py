"""``brainy backup``, ``brainy restore`` and ``brainy verify-backup``: on the bucket itself, without a cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.backup.opening import check_backup
from brainy.backup.restoring import RestoreOptions, restore_backup
from brainy.backup.values import BackupFormat, BackupSummary, CheckedBackup, RestoreResult, Skipped, Verification
from brainy.backup.writing import BackupOptions, write_backup
from brainy.bucket.namespace import Namespace
from brainy.cli.output import JsonOption, Output, current, facts, table
from brainy.cli.target import (
    CoordinatorOption,
    DirectoryOption,
    EndpointOption,
    NamespaceArgument,
    bucket,
    connect,
    run,
)
from brainy.clock import SystemClock
from brainy.errors import InvalidRequestError
from brainy.ids import Ids
from brainy.sdk.auto import create_auto_brainy_async
from brainy.sdk.backups import ClientTarget
from brainy.sdk.client import AsyncBrainy

_SHOWN = 10

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The backup file.")]
RewrittenOption = Annotated[
    bool,
    typer.Option(
        "--accept-rewritten",
        help="Take a JSON backup that another program pretty-printed or stringified, if its values are unchanged.",
    ),
]


def backup(
    namespace: NamespaceArgument,
    output_file: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The backup file; replaced once the new one is whole."),
    ],
    kind: Annotated[
        BackupFormat,
        typer.Option("--format", help="brainy: the JSON that Brainy restores too. native: compressed, resumable."),
    ] = BackupFormat.BRAINY,
    since: Annotated[
        Path | None,
        typer.Option(metavar="OLD", help="A native backup beside FILE: write only what changed since."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Do not go on with a killed native backup.")] = False,
    json: JsonOption = False,
) -> None:
    """Write the state of a namespace to one file. Reads the bucket; no cluster needs to run, none is slowed."""
    output = current()
    summary = run(_backup(namespace, output_file, kind, since, not restart, output))
    output.result(summary, lambda console: _show_backup(console, summary))


async def _backup(
    namespace: str, path: Path, kind: BackupFormat, since: Path | None, resume: bool, output: Output
) -> BackupSummary:
    store = bucket(namespace)
    try:
        with output.progress("reading the namespace") as show:
            return await write_backup(
                store,
                str(Namespace.parse(namespace)),
                path,
                BackupOptions(format=kind, since=since, resume=resume, on_progress=show),
                clock=SystemClock(),
                ids=Ids(),
            )
    finally:
        await store.close()


def _show_backup(console: Console, summary: BackupSummary) -> None:
    what = f"{summary.nouns:,} nouns and {summary.verbs:,} verbs"
    if summary.since:
        what = f"{summary.changed:,} changed and {summary.deleted:,} deleted items (of now {what})"
    console.print(f"{what} in {escape(summary.file)} ({summary.bytes / 1e6:,.1f} MB)")
    if summary.resumed:
        console.print("went on with a killed backup: the state is that of its beginning")
    if summary.quarantined:
        console.print(f"{len(summary.quarantined):,} objects could not be read and are in no backup:")
        shown = table(None, "object", "reason", "bytes#")
        for entry in summary.quarantined[:_SHOWN]:
            shown.add_row(escape(entry.key), escape(entry.reason), f"{entry.size:,}")
        console.print(shown)


def verify_backup(file: FileArgument, accept_rewritten: RewrittenOption = False, json: JsonOption = False) -> None:
    """Read a backup from its first to its last byte and say whether it is whole. Exit status 6 if it is not."""
    output = current()
    found = _check(file, accept_rewritten, output).verification
    output.result(found, lambda console: _show_verification(console, found))


def _check(file: Path, accept_rewritten: bool, output: Output) -> CheckedBackup:
    with output.progress("checking the backup") as show:
        return check_backup(file, accept_rewritten=accept_rewritten, on_progress=show)


def _show_verification(console: Console, found: Verification) -> None:
    facts(
        console,
        {
            "file": found.file,
            "format": found.format.value,
            "whole": "yes, by its hashes" if found.sealed else "readable; it has no hashes",
            "nouns": f"{found.nouns:,}",
            "verbs": f"{found.verbs:,} ({found.dangling_verbs:,} with an end that is no noun)",
            "dimensions": found.dimensions,
            "digest": found.digest,
            **({"builds on": ", ".join(found.chain[1:])} if len(found.chain) > 1 else {}),
        },
    )
    for warning in found.warnings:
        console.print(f"[yellow]note:[/] {escape(warning)}")
    _show_skipped(console, found.skipped)


def _show_skipped(console: Console, skipped: tuple[Skipped, ...]) -> None:
    if not skipped:
        return
    console.print(f"{len(skipped):,} skipped:")
    shown = table(None, "kind", "id", "reason")
    for entry in skipped[:_SHOWN]:
        shown.add_row(entry.kind, escape(entry.id), escape(entry.reason))
    console.print(shown)


def restore(
    file: FileArgument,
    namespace: NamespaceArgument,
    clear_existing: Annotated[
        bool, typer.Option("--clear-existing", help="In the end the namespace holds the backup and nothing else.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--keep", help="Whether items that exist are replaced or left alone.")
    ] = True,
    dimensions: Annotated[
        int, typer.Option(min=0, help="Length of the namespace's vectors, if the backup's own is not meant.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare; change nothing.")] = False,
    accept_rewritten: RewrittenOption = False,
    endpoint: EndpointOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Restore a backup, once it is proven whole. Uses the cluster that runs, or one of its own for the time."""
    if clear_existing and not overwrite:
        raise InvalidRequestError("--keep and --clear-existing exclude each other", remedy="give one of them")
    output = current()
    checked = _check(file, accept_rewritten, output)

    async def work() -> RestoreResult:
        client = await _client(namespace, checked.verification, endpoint, coordinator, directory)
        async with client:
            with output.progress("restoring") as show:
                options = RestoreOptions(
                    run=Ids().uuid(),
                    clear_existing=clear_existing,
                    keep=not overwrite,
                    dimensions=dimensions,
                    dry_run=dry_run,
                    on_progress=show,
                )
                return await restore_backup(checked, ClientTarget(client), options)

    done = run(work())
    output.result(done, lambda console: _show_restore(console, namespace, done))


async def _client(
    namespace: str,
    found: Verification,
    endpoints: list[str] | None,
    coordinators: list[str] | None,
    directory: Path | None,
) -> AsyncBrainy:
    if endpoints or coordinators or directory is not None:
        return connect(namespace, endpoints, coordinators, directory)
    return await create_auto_brainy_async(
        str(await asyncio.to_thread(Namespace.parse, namespace)), expected_dataset_size=found.nouns
    )


def _show_restore(console: Console, namespace: str, done: RestoreResult) -> None:
    verb = "would be restored" if done.dry_run else "restored and compared"
    console.print(
        f"{done.nouns_restored:,} nouns and {done.verbs_restored:,} verbs {verb} in {escape(namespace)} "
        f"({done.unchanged:,} were there already)"
    )
    if done.nouns_deleted or done.verbs_deleted:
        gone = "would be deleted" if done.dry_run else "deleted"
        console.print(f"{done.nouns_deleted:,} nouns and {done.verbs_deleted:,} verbs that it does not hold {gone}")
    for warning in done.warnings:
        console.print(f"[yellow]note:[/] {escape(warning)}")
    _show_skipped(console, done.skipped)
