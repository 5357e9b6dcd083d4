"""``brainy migrate quality``, and the thresholds that a plan may carry."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from brainy.cli.exits import Exit
from brainy.cli.output import JsonOption, current
from brainy.cli.quality_view import show_quality
from brainy.cli.target import CoordinatorOption, DirectoryOption, NamespaceOption, connect, run
from brainy.cli.turns import IdArgument, ReasonOption, by_whom
from brainy.errors import InvalidRequestError
from brainy.sdk.quality import QualityCheck, QualityFound, QualityThresholds

QualityOption = Annotated[
    bool,
    typer.Option(
        "--quality",
        help="Compare the search quality of source and target before anything moves: overlap 90 %, recall 95 %, "
        "median latency twice the source's, unless said otherwise.",
    ),
]
OverlapOption = Annotated[
    float | None,
    typer.Option(min=0, max=100, metavar="PERCENT", help="Neighbours that both sides name; 0 asks nothing."),
]
RecallOption = Annotated[
    float | None,
    typer.Option(min=0, max=100, metavar="PERCENT", help="Exact neighbours that the target finds; 0 asks nothing."),
]
LatencyOption = Annotated[
    float | None,
    typer.Option(min=0, metavar="TIMES", help="The target's median latency against the source's; 0 asks nothing."),
]
QueriesOption = Annotated[int | None, typer.Option(min=1, max=1024, help="Queries to compare; 64 if left out.")]


def thresholds_of(
    wanted: bool, overlap: float | None, recall: float | None, latency: float | None, queries: int | None
) -> QualityThresholds | None:
    """Return what is asked for; None where nothing is.

    Raises:
        InvalidRequestError: a share was given where percent are wanted.
    """
    if not wanted and overlap is None and recall is None and latency is None and queries is None:
        return None
    default = QualityThresholds()
    for name, percent in (("--min-overlap", overlap), ("--min-recall", recall)):
        if percent is not None and 0.0 < percent <= 1.0:
            raise InvalidRequestError(f"{name} is in percent", remedy=f"{100 * percent:g} for {percent:.0%}")
    return QualityThresholds(
        queries=queries or 0,
        min_overlap=default.min_overlap if overlap is None else overlap / 100,
        min_recall=default.min_recall if recall is None else recall / 100,
        max_latency_ratio=default.max_latency_ratio if latency is None else latency,
    )


def quality(
    migration_id: IdArgument,
    accept: Annotated[
        bool, typer.Option("--accept", help="Let it switch though the last result is below the thresholds.")
    ] = False,
    reason: ReasonOption = "",
    min_overlap: OverlapOption = None,
    min_recall: RecallOption = None,
    max_latency_ratio: LatencyOption = None,
    queries: QueriesOption = None,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Measure how well the target finds what the source finds. Exit status 1 if a threshold is not kept.

    While the migration is READY the result goes into its history and counts for the switch, unless other thresholds
    are given here.
    """
    other = thresholds_of(False, min_overlap, min_recall, max_latency_ratio, queries)
    if accept and other is not None:
        raise InvalidRequestError(
            "what is accepted was measured by the migration's thresholds", remedy="leave the thresholds out"
        )

    async def ask() -> QualityCheck | QualityFound:
        async with connect(namespace, None, coordinator, directory) as brainy:
            if accept:
                return await brainy.accept_quality(migration_id, reason=reason, requested_by=by_whom())
            return await brainy.check_quality(migration_id, thresholds=other, requested_by=by_whom())

    answer = run(ask())
    if isinstance(answer, QualityFound):
        current().result({**asdict(answer), "accepted": True}, lambda console: show_quality(console, answer))
        return
    value = {**asdict(answer), "passed": answer.found.passed}
    current().result(value, lambda console: _show(console, answer))
    if not answer.found.passed:
        raise typer.Exit(int(Exit.FAILED_RESULT))


def _show(console: Console, answer: QualityCheck) -> None:
    show_quality(console, answer.found)
    if not answer.kept:
        console.print("not kept in the history: it does not count for the switch")
