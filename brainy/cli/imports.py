"""``brainy import``."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.exits import Exit
from brainy.cli.output import JsonOption, Output, current, facts, table
from brainy.cli.target import (
    CoordinatorOption,
    DirectoryOption,
    EndpointOption,
    NamespaceArgument,
    connect,
    run,
)
from brainy.clock import SystemClock
from brainy.config.settings import load_settings
from brainy.sdk.auto import create_auto_brainy_async
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.values import ImportResult

_SHOWN = 10

#: The option of every command that embeds texts.
EmbedOption = Annotated[
    str | None,
    typer.Option(
        "--embed",
        metavar="MODEL",
        help="What to embed texts with: minilm, or an OpenAI-style endpoint as http://host:8080#model. "
        "By default what the namespace records, else minilm.",
    ),
]


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Sparse data as JSON, or JSON Lines (.jsonl).")],
    namespace: NamespaceArgument,
    embed: EmbedOption = None,
    endpoint: EndpointOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Import nouns and verbs; texts become vectors on the way. Run it again to go on after an interruption.

    Needs no running cluster: without one it runs its own for as long as it takes. Ends with status 1 if rows were
    skipped; they are listed with their reasons.
    """
    output = current()
    result, seconds = run(_import(file, namespace, embed, endpoint, coordinator, directory, output))
    rate = result.embedded / seconds if seconds else 0.0
    told = {**asdict(result), "seconds": round(seconds, 3)}
    output.result(told, lambda console: _show(console, result, rate))
    if result.skipped:
        raise typer.Exit(int(Exit.FAILED_RESULT))


async def _import(
    file: Path,
    namespace: str,
    embed: str | None,
    endpoints: list[str] | None,
    coordinators: list[str] | None,
    directory: Path | None,
    output: Output,
) -> tuple[ImportResult, float]:
    clock = SystemClock()
    async with await _client(namespace, endpoints, coordinators, directory) as client:
        began = clock.monotonic()
        with output.progress("importing") as show:
            result = await client.import_sparse_data(file, embed, on_progress=show)
        return result, clock.monotonic() - began


async def _client(
    namespace: str, endpoints: list[str] | None, coordinators: list[str] | None, directory: Path | None
) -> AsyncBrainy:
    if directory is not None:
        return await create_auto_brainy_async(namespace, state_directory=directory)
    known = load_settings()
    if endpoints or coordinators or known.endpoints or known.coordinators:
        return connect(namespace, endpoints, coordinators)
    return await create_auto_brainy_async(namespace)


def _show(console: Console, result: ImportResult, rate: float) -> None:
    facts(
        console,
        {
            "nouns": f"{result.nouns_imported:,}",
            "verbs": f"{result.verbs_imported:,}",
            "embedded": f"{result.embedded:,} ({rate:,.0f}/s)" if result.embedded else "0",
            "there already": f"{result.unchanged:,}",
            "skipped": f"{len(result.skipped):,}",
        },
    )
    if not result.skipped:
        return
    console.print()
    reasons = Counter(row.reason for row in result.skipped)
    console.print("skipped for " + ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common()))
    shown = table(None, "skipped", "row#", "id", "reason", "why")
    for row in result.skipped[:_SHOWN]:
        shown.add_row(row.kind, str(row.number), escape(row.id), row.reason, escape(row.message))
    console.print(shown)
    if len(result.skipped) > _SHOWN:
        console.print(f"[dim]and {len(result.skipped) - _SHOWN:,} more: --json lists all[/]")
