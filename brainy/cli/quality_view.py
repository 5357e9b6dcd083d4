"""Search quality on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from brainy.cli.output import facts
from brainy.sdk.quality import QualityFound


def show_quality(console: Console, found: QualityFound) -> None:
    """Print what was measured for people."""
    facts(console, quality_facts(found))
    for node, why in sorted(found.left_out.items()):
        console.print(f"[yellow]{escape(node)} is left out:[/] {escape(why)}")
    for reason in found.reasons:
        console.print(f"[red]not kept:[/] {escape(reason)}")


def quality_facts(found: QualityFound) -> dict[str, str]:
    """Return the figures in words."""
    return {
        "queries": f"{found.queries:,} compared, {found.recorded:,} of clients and {found.sampled:,} of nouns",
        "overlap": _percent(found.overlap),
        "recall": f"{_percent(found.source_recall)} source, {_percent(found.target_recall)} target",
        "median": f"{1000 * found.source_median_seconds:.2f} ms source, "
        f"{1000 * found.target_median_seconds:.2f} target",
        "99th percentile": f"{1000 * found.source_p99_seconds:.2f} ms source, "
        f"{1000 * found.target_p99_seconds:.2f} target",
    }


def quality_line(found: QualityFound | None, accepted: bool) -> str:
    """Return one line for a migration."""
    if found is None:
        return "not measured yet"
    verdict = "kept" if found.passed else "below its thresholds, accepted" if accepted else "below its thresholds"
    return f"{verdict}: overlap {_percent(found.overlap)}, recall {_percent(found.target_recall)}"


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.2%}"
