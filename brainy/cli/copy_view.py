"""How far a copy is, on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from brainy.cli.output import table
from brainy.sdk.copies import CopyLimit, CopyProgress

_REASONS = {
    "paused": "the migration is paused",
    "set": "set by somebody",
    "latency": "searches got slower",
    "store": "the store had to be asked again",
    "starting": "begins slowly, beside searches",
}


def show_copy(console: Console, copy: CopyProgress) -> None:
    """Print stages, speeds and limits for people."""
    console.print()
    stages = table(None, "stage", "done#", "of#", "a second#", "left")
    for stage in copy.stages:
        stages.add_row(
            stage.stage,
            f"{stage.done:,}",
            f"{stage.total:,}" if stage.total else "?",
            f"{stage.per_second:,.0f}",
            "?" if stage.remaining_seconds is None else f"{stage.remaining_seconds:,.0f} s",
        )
    console.print(stages)
    if copy.wanted is not None:
        console.print(f"asked for: {copy.wanted:,.0f} items a second on each node")
    if copy.resumed:
        console.print(f"taken over from a copy that was cut short: {copy.resumed:,} items")
    for limit in copy.limits:
        if limit.reason or limit.store_repeats:
            console.print(f"{escape(limit.node_id)}: {slowness(limit)}")


def slowness(limit: CopyLimit) -> str:
    """Say what holds a copy back."""
    held = "nothing holds it back"
    if limit.reason:
        speed = "as fast as it goes" if limit.items_per_second is None else f"{limit.items_per_second:,.0f} a second"
        held = f"{speed}, {_REASONS.get(limit.reason, limit.reason)}"
    return f"{held}; {limit.store_repeats:,} store calls repeated" if limit.store_repeats else held
