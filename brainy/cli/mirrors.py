"""``brainy mirror``: write this cluster's commits back into Brainy's tree, and see how far that is."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.output import JsonOption, current, facts, table
from brainy.cli.target import NamespaceArgument, bucket, run
from brainy.clock import SystemClock
from brainy.dataset.mirror_report import MirrorReport, mirror_report
from brainy.errors import InvalidRequestError, PreconditionError
from brainy.ids import Ids
from brainy.legacy.dialect.dialects import DIALECTS
from brainy.legacy.living import living_dialect
from brainy.legacy.mirror_choice import choose_dialect
from brainy.store.base import ObjectStore

_SHOWN = 10


def mirror(
    namespace: NamespaceArgument,
    switch: Annotated[
        bool | None, typer.Option("--on/--off", help="Begin or stop mirroring; nothing is taken back.")
    ] = None,
    dialect: Annotated[
        str,
        typer.Option(
            help=f"What the Brainy that lives there reads: {', '.join(DIALECTS)}. Found out unless given.",
        ),
    ] = "",
    json: JsonOption = False,
) -> None:
    """Mirror commits into Brainy's own tree, so that old Brainy processes read them; show how far that is."""
    if dialect and switch is not True:
        raise InvalidRequestError("a dialect is chosen when mirroring begins", remedy="add --on")
    if dialect and dialect not in DIALECTS:
        raise InvalidRequestError("no such dialect", remedy=f"use one of {', '.join(DIALECTS)}", dialect=dialect)
    output = current()
    what: Literal["on", "off", ""] = "" if switch is None else "on" if switch else "off"
    found = run(_mirror(bucket(namespace), what, dialect))
    output.result(found, lambda console: _show(console, namespace, found))


async def _mirror(store: ObjectStore, switch: Literal["on", "off", ""], dialect: str) -> MirrorReport:
    clock, ids = SystemClock(), Ids()
    try:
        if switch == "off":
            await choose_dialect(store, "", clock=clock, ids=ids)
        elif switch == "on":
            await choose_dialect(store, dialect or await _living(store), clock=clock, ids=ids)
        return await mirror_report(store, clock=clock)
    finally:
        await store.close()


async def _living(store: ObjectStore) -> str:
    found = await living_dialect(store)
    if found is None:
        raise PreconditionError(
            "the bucket does not say which Brainy lives there",
            remedy=f"name what it reads: --dialect {'|'.join(DIALECTS)}",
        )
    return found.name


def _show(console: Console, namespace: str, found: MirrorReport) -> None:
    if not found.dialect:
        console.print(f"{escape(namespace)}: not mirrored (brainy mirror {escape(namespace)} --on)")
        return
    facts(
        console,
        {
            "dialect": found.dialect,
            "behind": f"{found.lag_items:,} records, {found.lag_seconds:,.1f} s",
            "written": f"{found.written:,}",
            "of Brainy's own": f"{found.foreign:,}",
            "conflicts": f"{found.conflicts:,}",
            "limits met": ", ".join(f"{kind} {count:,}" for kind, count in found.limits.items()) or "none",
        },
    )
    console.print()
    shown = table(None, "shard", "cursor#", "log end#", "behind#", "seconds#", "conflicts#", "problem")
    for shard in found.shards:
        shown.add_row(
            f"{shard.generation}/{shard.shard}",
            *(f"{number:,}" for number in (shard.position, shard.log_end, shard.lag_items)),
            f"{shard.lag_seconds:,.1f}",
            f"{shard.conflicts:,}",
            escape(shard.problem),
        )
    console.print(shown)
    if found.newest_limits:
        console.print()
        shown = table(None, "item", "limit", "", "")
        for limit in found.newest_limits[-_SHOWN:]:
            said = "withheld" if limit.withheld else "written"
            shown.add_row(escape(f"{limit.item} {limit.id}"), limit.kind, escape(limit.detail), said)
        console.print(shown)
    console.print()
    for sentence in found.standing_limits:
        console.print(f"[dim]- {escape(sentence)}[/]")
