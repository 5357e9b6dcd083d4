"""``brainy migrate sample``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.exits import Exit
from brainy.cli.output import JsonOption, current, facts
from brainy.cli.quality import LatencyOption, OverlapOption, QueriesOption, RecallOption, thresholds_of
from brainy.cli.quality_view import quality_facts
from brainy.cli.target import run
from brainy.clock import SystemClock
from brainy.sdk.migration import Strategy, TargetSpec
from brainy.sdk.sample_run import SampleRun, run_sample


def sample(
    namespace: Annotated[str, typer.Argument(metavar="NAMESPACE", help="s3://bucket/prefix or file:///directory.")],
    percent: Annotated[float, typer.Option(min=0, max=100, help="How much of it, by the hash of ids.")] = 1.0,
    strategy: Annotated[Strategy, typer.Option(help="in-place-upgrade or rolling.")] = Strategy.IN_PLACE_UPGRADE,
    shards: Annotated[int, typer.Option(min=0, help="Shards of the target; 0 for as many as now.")] = 0,
    metric: Annotated[str, typer.Option(help="cos, l2sq or ip; as now if left out.")] = "",
    scalar_kind: Annotated[str, typer.Option(help="f32, f16, bf16 or i8 in the index; as now if left out.")] = "",
    connectivity: Annotated[int, typer.Option(min=0, help="Edges of an index node; 0 for as now.")] = 0,
    quarantine_limit: Annotated[int, typer.Option(min=0, help="Unreadable objects accepted of the whole.")] = 0,
    min_overlap: OverlapOption = None,
    min_recall: RecallOption = None,
    max_latency_ratio: LatencyOption = None,
    quality_queries: QueriesOption = None,
    work: Annotated[Path | None, typer.Option(help="Directory to work in; a temporary one if left out.")] = None,
    json: JsonOption = False,
) -> None:
    """Migrate a sample of a namespace on this machine, and say what the whole would take. Writes nothing there.

    Needs no cluster. Exit status 1 if something stands in the way of the whole.
    """
    output = current()
    target = TargetSpec(shard_count=shards, metric=metric, scalar_kind=scalar_kind, connectivity=connectivity)
    found = run(
        run_sample(
            namespace,
            percent=percent,
            strategy=strategy,
            target=target,
            quality=thresholds_of(True, min_overlap, min_recall, max_latency_ratio, quality_queries),
            quarantine_limit=quarantine_limit,
            directory=work,
            clock=SystemClock(),
            on_remark=output.remark,
        )
    )
    value = {
        **asdict(found),
        "passed": found.passed,
        "copy_seconds_at_most": found.copy_seconds_at_most,
        "bucket_bytes_expected": found.bucket_bytes_expected,
    }
    output.result(value, lambda console: _show(console, found))
    if not found.passed:
        raise typer.Exit(int(Exit.FAILED_RESULT))


def _show(console: Console, found: SampleRun) -> None:
    console.print("[green]passes[/]" if found.passed else "[red]does not pass[/]")
    calls = ", ".join(f"{count:,} {kind}" for kind, count in found.read_calls.items())
    seconds, size = found.copy_seconds_at_most, found.bucket_bytes_expected
    facts(
        console,
        {
            "sample": f"{found.nouns:,} nouns and {found.verbs:,} verbs, one of {found.of:,} ids",
            "read": f"in {found.read_seconds:.1f} s, {calls}",
            "copied": f"in {found.copy_seconds:.1f} s, index built; the migration took {found.migration_seconds:.1f} s",
            "writes waited": f"{1000 * found.write_pause_seconds:.0f} ms",
            "digest": "equal" if found.digest_equal else "not equal",
            **(quality_facts(found.quality) if found.quality is not None else {}),
            "unreadable": _counts(found.quarantined),
            "not searchable": _counts(found.unindexed),
            "the whole": f"about {found.items_expected:,} items: at most {seconds:,.0f} s of reading and copying on "
            f"one machine like this, about {size:,} bytes in the bucket",
        },
    )
    for problem in found.problems:
        console.print(f"[red]stands in the way:[/] {escape(problem)}", soft_wrap=True)


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(found.items())) or "nothing"
