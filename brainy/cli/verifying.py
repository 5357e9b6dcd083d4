"""``brainy verify``: whether two datasets hold the same, while both may be written; without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.exits import Exit
from brainy.cli.output import JsonOption, Output, current, table
from brainy.cli.target import bucket, run
from brainy.clock import SystemClock
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.verify.opening import open_side
from brainy.verify.rechecking import Patience
from brainy.verify.values import Comparison, SideReport, Verdict
from brainy.verify.verifying import VerifyOptions
from brainy.verify.verifying import verify as compare

_SHOWN = 20
_GIVEN = Patience()
_SIDE = "A namespace (URI, URI@GENERATION, URI@tree) or a backup file."
_EXITS = {Verdict.EQUAL: Exit.OK, Verdict.DIFFERENT: Exit.FAILED_RESULT, Verdict.UNSETTLED: Exit.UNAVAILABLE}


def verify(
    a: Annotated[str, typer.Argument(metavar="A", help=_SIDE)],
    b: Annotated[str, typer.Argument(metavar="B", help=_SIDE)],
    rechecks: Annotated[
        int, typer.Option(min=0, max=20, help="How often what differs is read again before it counts.")
    ] = _GIVEN.rechecks,
    pause: Annotated[
        float, typer.Option(min=0, help="Seconds before the first recheck; each further pause is twice as long.")
    ] = _GIVEN.pause,
    sample: Annotated[int, typer.Option(min=0, help="Compare about so many items only, chosen by hash.")] = 0,
    relations: Annotated[bool, typer.Option("--relations", help="Also check the ends of verbs.")] = False,
    resume: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep in FILE what is done; go on with it after a kill.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare two datasets item by item; both may be written meanwhile. Reads only.

    Exit status 0: equal. 1: something differs and went on differing. 5: nothing differs for good, but some items
    changed at every look.
    """
    output = current()
    patience = Patience(rechecks=rechecks, pause=pause)
    found = run(_verify(a, b, patience, sample, relations, resume, output))
    output.result(found, lambda console: _show(console, found))
    if found.verdict is not Verdict.EQUAL:
        raise typer.Exit(int(_EXITS[found.verdict]))


async def _verify(
    a: str, b: str, patience: Patience, sample: int, relations: bool, resume: Path | None, output: Output
) -> Comparison:
    clock = SystemClock()
    stores: list[ObjectStore | None] = []
    try:
        sides = []
        for text in (a, b):
            side, store = await open_side(text, bucket, clock)
            sides.append(side)
            stores.append(store)
        with output.progress("comparing") as show:
            options = VerifyOptions(
                patience=patience,
                relations=relations,
                sample=sample,
                resume=resume,
                on_progress=show,
                on_remark=output.remark,
            )
            return await compare(sides[0], sides[1], options, clock=clock, ids=Ids())
    finally:
        for store in stores:
            if store is not None:
                await store.close()


def _show(console: Console, found: Comparison) -> None:
    place_a, place_b = found.settled_a or found.a.read_at, found.settled_b or found.b.read_at
    if found.verdict is Verdict.EQUAL:
        console.print(f"[green]equal[/]: A at {place_a}; B at {place_b}", soft_wrap=True)
    elif found.verdict is Verdict.DIFFERENT:
        console.print(
            f"[red]different[/]: {found.missing:,} missing in B, {found.extra:,} only in B, "
            f"{found.mismatched:,} mismatched"
        )
    else:
        console.print(f"[yellow]unsettled[/]: {found.unsettled:,} items changed at every look, none is known to differ")
    sides = table(None, "", "what", "nouns#", "verbs#", "unreadable#", "read at")
    for label, side in (("A", found.a), ("B", found.b)):
        sides.add_row(label, *_row(side))
    console.print(sides)
    if found.sample is not None:
        console.print(f"a sample: part {found.sample.part:,} of {found.sample.of:,}, by the hash of the id")
    console.print(
        f"{found.unequal_buckets:,} of {found.buckets:,} buckets differed as they were read; {found.suspected:,} items "
        f"were suspected, {found.missing + found.extra + found.mismatched:,} differ"
        + (f", {found.unsettled:,} unsettled" if found.unsettled else "")
        + (f", {found.unexamined:,} not read again" if found.unexamined else "")
    )
    if found.differences:
        rows = table(None, "kind", "id", "what", "fields", "detail")
        for one in found.differences[:_SHOWN]:
            detail = "; ".join(f"{name}: {_words(value)}" for name, value in one.detail.items())
            rows.add_row(one.kind, escape(one.id), one.what.value, ", ".join(one.fields), escape(detail))
        console.print(rows)
        if len(found.differences) > _SHOWN:
            console.print(f"… {len(found.differences):,} of them with --json")
    if (relations := found.relations) is not None:
        console.print(
            f"ends of verbs that are no nouns: {relations.dangling_a:,} in A, {relations.dangling_b:,} in B; "
            f"{relations.different:,} verbs differ in that"
        )
        for each in relations.examples[:_SHOWN]:
            console.print(
                f"  {escape(each.id)}: A {', '.join(each.a) or 'whole'}, B {', '.join(each.b) or 'whole'}",
                soft_wrap=True,
            )


def _row(side: SideReport) -> tuple[str, ...]:
    return (
        escape(side.name),
        f"{side.nouns:,}",
        f"{side.verbs:,}",
        f"{side.quarantined:,}",
        escape(str(side.read_at)),
    )


def _words(detail: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in detail.items())
