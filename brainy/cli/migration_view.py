"""A migration on the terminal."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import asdict

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.copy_view import show_copy, slowness
from brainy.cli.exits import Exit
from brainy.cli.generations_view import fate
from brainy.cli.output import Output, facts, table
from brainy.cli.plan_view import show_outcome
from brainy.cli.quality_view import quality_line
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.migration import Migration


async def follow(brainy: AsyncBrainy, migration_id: str, output: Output, *, at_rest: bool = False) -> Migration:
    """Show a migration until it has ended, or (``at_rest``) takes no step before somebody asks."""
    last: Migration | None = None
    reasons: dict[str, str] = {}
    with output.progress("migration") as show_progress:
        async with aclosing(brainy.watch_migration(migration_id)) as changes:
            async for seen in changes:
                if last is None or seen.state != last.state:
                    output.remark(f"{seen.state.lower().replace('_', ' ')} {escape(seen.message)}")
                if last is not None and [wave.state for wave in seen.waves] != [wave.state for wave in last.waves]:
                    output.remark(f"waves: {escape(waves_text(seen))}")
                held = {limit.node_id: limit for limit in seen.copy.limits} if seen.copy is not None else {}
                for node, limit in held.items():
                    if reasons.get(node, "") != limit.reason:
                        output.remark(f"copying on {escape(node)}: {slowness(limit)}")
                reasons = {node: limit.reason for node, limit in held.items()}
                under_way = [s for s in seen.copy.stages if s.done < s.total] if seen.copy is not None else []
                if under_way:
                    show_progress(under_way[0].done, under_way[0].total)
                else:
                    show_progress(seen.items_copied, seen.items_total or None)
                last = seen
                if at_rest and seen.rests:
                    break
    return last if last is not None else await brainy.get_migration(migration_id)


def report(migration: Migration, output: Output, *, ended: bool, reached: bool | None = None) -> None:
    """Print a migration; with ``ended`` exit with 1 if it was aborted, or ended in any way but well.

    ``reached`` says whether it is where the caller wanted it, instead.
    """
    output.result(asdict(migration), lambda console: show(console, migration))
    well = migration.succeeded or (migration.rests and not migration.ended)
    if ended and not (well if reached is None else reached):
        raise typer.Exit(int(Exit.FAILED_RESULT))


def waves_text(migration: Migration) -> str:
    """Return the waves of a rolling migration in order: ``a, b (done), c (baking 12 s), d, e``."""
    told = []
    for wave in migration.waves:
        state = f"baking {wave.baked_seconds:.0f} s" if wave.state == "baking" else wave.state
        complaint = f": {wave.complaint}" if wave.complaint else ""
        told.append(f"{'+'.join(wave.nodes)} ({state}{complaint})")
    return ", ".join(told)


def _left_behind(migration: Migration) -> dict[str, str]:
    left = migration.left_behind
    return {"left behind": f"generation {left.number}: {fate(left)}"} if left is not None else {}


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
            **_quality(migration),
            **({"way back": "kept"} if migration.keep_way_back else {}),
            **({"waves": waves_text(migration)} if migration.waves else {}),
            **_left_behind(migration),
            **({"rolls back if": " or ".join(migration.rollback_if)} if migration.rollback_if else {}),
            **({"served before": migration.served_before.text} if migration.served_before else {}),
            **({"served since": _since(migration)} if migration.served else {}),
            **({"waits for": "; ".join(migration.waits_for)} if migration.waits_for else {}),
        },
    )
    if migration.copy is not None:
        show_copy(console, migration.copy)
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


def _quality(migration: Migration) -> dict[str, str]:
    if migration.quality_wanted is None and migration.quality is None:
        return {}
    return {"quality": quality_line(migration.quality, migration.quality_accepted)}


def _since(migration: Migration) -> str:
    whole = f" of {migration.observe_seconds:g}" if migration.observe_seconds else ""
    figures = migration.served.text if migration.served is not None else "-"
    return f"{figures}; watched for {migration.observed_seconds:.0f}{whole} s"
