"""``brainy migrate reads`` and ``brainy migrate compare``."""

from __future__ import annotations

import asyncio
import getpass
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.exits import Exit
from brainy.cli.output import JsonOption, Output, current, facts, table
from brainy.cli.target import CoordinatorOption, DirectoryOption, NamespaceOption, connect, run
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.traffic import ReadComparison, ReadShares
from brainy.traffic.comparison import Comparison
from brainy.traffic.judging import Judgement, Thresholds, judge

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the migration.")]

_WATCH_SECONDS = 1.0


def reads(
    migration_id: IdArgument,
    weight: Annotated[float, typer.Option(min=0, max=100, help="Percent of reads the target answers.")] = 0.0,
    shadow: Annotated[
        float, typer.Option(min=0, max=100, help="Percent of reads the target is asked besides, and compared.")
    ] = 0.0,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what was compared so far.")] = False,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Try reads on the target of a READY migration. Without shares, end it. Exit status 4 if it is not READY.

    After the switch, while a way back is kept, the source is asked besides instead (--shadow).
    """

    async def ask() -> ReadShares:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.set_reads(
                migration_id,
                weight=weight / 100,
                shadow=shadow / 100,
                restart=restart,
                requested_by=f"{getpass.getuser()} by the brainy command",
            )

    shares = run(ask())
    current().result(
        asdict(shares),
        lambda console: facts(
            console,
            {
                "answered by the target": f"{shares.weight:.1%} of reads",
                "asked besides": f"{shares.shadow:.1%} of reads",
            },
        ),
    )


def compare(
    migration_id: IdArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Print the figures each second until interrupted.")] = False,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Replay recorded queries on both sides, by index and by scan.")
    ] = False,
    queries: Annotated[int, typer.Option(min=1, max=256, help="With --sampled: queries a node.")] = 64,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="With --sampled: neighbours a query.")] = 10,
    min_queries: Annotated[int, typer.Option(min=0, help="Fail if fewer queries were compared.")] = 0,
    min_overlap: Annotated[
        float | None, typer.Option(min=0, max=100, help="Fail below so many percent of shared neighbours.")
    ] = None,
    max_errors: Annotated[
        float | None, typer.Option(min=0, max=100, help="Fail above so many percent of calls without an answer.")
    ] = None,
    max_p99_ratio: Annotated[
        float | None, typer.Option(min=0, help="Fail if the target's 99th percentile is so many times the source's.")
    ] = None,
    max_recall_loss: Annotated[
        float | None, typer.Option(min=0, max=100, help="Fail if recall is so many percent points lower.")
    ] = None,
    max_differing: Annotated[int | None, typer.Option(min=0, help="Fail if more items differ.")] = None,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Print how the target answers what the source is asked. Exit status 1 if a threshold is not kept."""
    output = current()
    thresholds = Thresholds(
        min_queries=min_queries,
        min_overlap=_share(min_overlap),
        max_error_share=_share(max_errors),
        max_p99_ratio=max_p99_ratio,
        max_recall_loss=_share(max_recall_loss),
        max_items_differing=max_differing,
    )

    async def ask() -> ReadComparison:
        async with connect(namespace, None, coordinator, directory) as brainy:
            if sampled:
                return await brainy.replay_reads(migration_id, limit=queries, k=k)
            if watch:
                await _watch(brainy, migration_id, output, thresholds)
            return await brainy.compare_reads(migration_id)

    found = run(ask())
    judgement = judge(found.comparison, thresholds)
    _print(output, found, judgement)
    if not judgement.passed:
        raise typer.Exit(int(Exit.FAILED_RESULT))


async def _watch(brainy: AsyncBrainy, migration_id: str, output: Output, thresholds: Thresholds) -> None:
    while True:
        found = await brainy.compare_reads(migration_id)
        _print(output, found, judge(found.comparison, thresholds))
        await asyncio.sleep(_WATCH_SECONDS)


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _print(output: Output, found: ReadComparison, judgement: Judgement) -> None:
    value = {
        **asdict(found),
        "figures": _figures(found.comparison),
        "passed": judgement.passed,
        "reasons": list(judgement.reasons),
    }
    output.result(value, lambda console: _show(console, found, judgement))


def _figures(comparison: Comparison) -> dict[str, float | None]:
    return {
        "overlap": comparison.overlap,
        "source_recall": comparison.source_recall,
        "target_recall": comparison.target_recall,
        "error_share": comparison.error_share,
        **{
            f"{side}_p{round(100 * share)}_milliseconds": 1000 * seconds(share)
            for side, seconds in (("source", comparison.source_seconds), ("target", comparison.target_seconds))
            for share in (0.5, 0.99)
        },
    }


def _show(console: Console, found: ReadComparison, judgement: Judgement) -> None:
    seen = found.comparison
    shares = found.shares
    facts(
        console,
        {
            "generations": f"{found.source_generation} and {found.target_generation}",
            "reads": f"{shares.weight:.1%} answered by the target, {shares.shadow:.1%} asked besides"
            if shares
            else "-",
            "calls compared": f"{seen.asked:,}, {seen.dropped:,} dropped, {seen.failed:,} without an answer",
            "queries": f"{seen.queries:,}, {seen.queries_differing:,} differ, {seen.queries_healed:,} healed, "
            f"{seen.queries_unsettled:,} unsettled",
            "shared neighbours": _percent(seen.overlap),
            "distances apart": f"{seen.distance_difference:.3g} at most",
            "recall": f"{_percent(seen.source_recall)} source, {_percent(seen.target_recall)} target",
            "median": _milliseconds(seen, 0.5),
            "99th percentile": _milliseconds(seen, 0.99),
            "items": f"{seen.items:,}, {seen.items_differing:,} differ, {seen.items_healed:,} healed, "
            f"{seen.items_unsettled:,} unsettled",
            "answered for clients": f"{seen.reads_answered:,} by the target, {seen.reads_fallen_back:,} fell back",
        },
    )
    if seen.differences:
        console.print()
        differences = table(None, "kind", "id", "difference")
        for one in seen.differences:
            differences.add_row(one.kind, escape(one.id), escape(one.detail))
        console.print(differences)
    for node in found.nodes:
        if node.problem:
            console.print(f"[yellow]{escape(node.node_id)} is left out:[/] {escape(node.problem)}")
    for reason in judgement.reasons:
        console.print(f"[red]not kept:[/] {escape(reason)}")


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.2%}"


def _milliseconds(seen: Comparison, share: float) -> str:
    return f"{1000 * seen.source_seconds(share):.2f} ms source, {1000 * seen.target_seconds(share):.2f} ms target"
