"""Generations on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape

from brainy.cli.census_view import size_text
from brainy.cli.output import table
from brainy.legacy.wording import span
from brainy.sdk.generations import Generation, ObjectCount


def show(console: Console, found: Iterable[Generation]) -> None:
    """Print generations for people."""
    shown = table(None, "generation#", "state", "objects#", "size#", "left by", "what becomes of it")
    for each in found:
        objects, size = total(each.deletes)
        stay, stay_size = total(each.stays)
        shown.add_row(
            str(each.number),
            each.state,
            f"{objects + stay:,}",
            size_text(size + stay_size),
            escape(each.migration_id) or "-",
            escape(fate(each)),
        )
    console.print(shown)


def fate(each: Generation) -> str:
    """Return what becomes of a generation, in words."""
    gone = f"{each.deleted_objects:,} objects, {size_text(each.deleted_bytes)}"
    match each.state:
        case "retained" if each.waits_for:
            return f"deletion is due and waits: {each.waits_for}"
        case "retained":
            return f"deleted in {span(each.remaining_seconds or 0.0)} (brainy generations --keep {each.number})"
        case "kept":
            return f"stays (brainy generations --delete {each.number})"
        case "deleting":
            return f"being deleted: {gone}"
        case "deleted":
            return f"deleted: {gone}"
        case _:
            return "in service"


def total(counts: Iterable[ObjectCount]) -> tuple[int, int]:
    """Return objects and bytes of all kinds."""
    listed = list(counts)
    return sum(each.objects for each in listed), sum(each.bytes for each in listed)


def kinds(counts: Iterable[ObjectCount]) -> str:
    """Return objects and bytes by kind, in words."""
    return ", ".join(f"{each.objects:,} {each.kind} ({size_text(each.bytes)})" for each in counts) or "nothing"
