"""A migration on the terminal."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import asdict

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.exits import Exit
from brainy.cli.output import Output, facts, table
from brainy.cli.plan_view import show_outcome
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.migration import Migration


async def follow(brainy: AsyncBrainy, migration_id: str, output: Output, *, at_rest: bool = False) -> Migration:
    """Show a migration until it has ended, or (``at_rest``) takes no step before somebody asks."""
    last: Migration | None = None
    with output.progress("migration") as show_progress:
        async with aclosing(brainy.watch_migration(migration_id)) as changes:
            async for seen in changes:
                if last is None or seen.state != last.state:
                    output.remark(f"{seen.state.lower().replace('_', ' ')} {escape(seen.message)}")
                show_progress(seen.items_copied, seen.items_total or None)
                last = seen
                if at_rest and seen.rests:
                    break
    return last if last is not None else await brainy.get_migration(migration_id)


def report(migration: Migration, output: Output, *, ended: bool) -> None:
    """Print a migration; with ``ended`` exit with 1 if it was aborted, or ended in any way but well."""
    output.result(asdict(migration), lambda console: show(console, migration))
    if ended and not (migration.succeeded or (migration.rests and not migration.ended)):
        raise typer.Exit(int(Exit.FAILED_RESULT))


def show(console: Console, migration: Migration) -> None:
    """Print a migration and its story for people."""
    facts(
        console,
        {
            "migration": migration.id,
            "plan": migration.plan_id or "-",
            "namespace": migration.namespace,
            "strategy": migration.strategy,
            **({"from": migration.source.namespace or migration.source.backup} if migration.source else {}),
            "state": migration.state,
            "generations": f"{migration.source_generation} to {migration.target_generation}",
            "items": f"{migration.items_copied:,} of {migration.items_total:,}",
            "lag": f"{migration.lag:,} records",
            "adopted by": ", ".join(migration.adopted_nodes) or "-",
            "writes waited": f"{migration.write_pause_seconds * 1000:.0f} ms",
            "digest equal": "yes" if migration.digest_equal else "not compared yet",
            "message": migration.message or "-",
            **({"way back": "kept"} if migration.keep_way_back else {}),
            **({"waits for": "; ".join(migration.waits_for)} if migration.waits_for else {}),
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
