"""Advice as people read it: the answer first, then what it rests on, then the others."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from brainy.advice.values import Advice, Figures, Proposal
from brainy.cli.census_view import money_text, size_text
from brainy.cli.output import facts, table
from brainy.legacy.wording import span

_BY = {"operator": "you say so", "bucket": "told from the bucket", "assumed": "assumed"}


def show(console: Console, found: Advice) -> None:
    """Print advice."""
    console.print(f"[bold]{escape(found.namespace)}[/]", soft_wrap=True)
    for warning in found.warnings:
        console.print(f"[yellow]{warning.code}[/] {escape(warning.message)}", soft_wrap=True)
    _answers(console, found)
    _path(console, found)
    first = found.strategies[0]
    console.print()
    if found.advised is None:
        console.print("[bold red]nothing fits[/]")
    else:
        console.print(f"[bold green]{found.advised}[/]")
    console.print(f"  {escape(found.reason)}", soft_wrap=True)
    if found.advised is not None:
        _proposal(console, first, found)
    _others(console, found.strategies[0 if found.advised is None else 1 :])


def _answers(console: Console, found: Advice) -> None:
    console.print()
    console.print("[bold]What counts[/]")
    shown = Table.grid(padding=(0, 2))
    for _ in range(3):
        shown.add_column(overflow="fold")
    for answer in found.answers:
        why = _BY[answer.by] + (f": {answer.why}" if answer.why else "")
        shown.add_row(f"  {escape(answer.question)}", f"[bold]{escape(answer.answer)}[/]", f"[dim]{escape(why)}[/]")
    console.print(shown)


def _path(console: Console, found: Advice) -> None:
    console.print()
    console.print("[bold]The way through the decision graph[/]")
    for crossing in found.path:
        why = f" [dim]({escape(crossing.why)})[/]" if crossing.why else ""
        console.print(f"  {escape(crossing.question)} [bold]{crossing.answer}[/]{why}", soft_wrap=True)
    if found.guide is not None:
        console.print(f"  [dim]the guide's own questions lead to {found.guide}[/]")


def _proposal(console: Console, proposal: Proposal, found: Advice) -> None:
    console.print()
    facts(console, _figures(proposal.figures, found.assumed.currency))
    console.print()
    console.print("[bold]Steps[/]")
    steps = Table.grid(padding=(0, 2))
    steps.add_column(justify="right", style="dim")
    steps.add_column(overflow="fold")
    for number, step in enumerate(proposal.steps, 1):
        if step.command:
            steps.add_row(f"  {number}", f"[bold]{escape(step.command)}[/]\n[dim]{escape(step.what)}[/]")
        else:
            steps.add_row(f"  {number}", escape(step.what))
    console.print(steps)
    console.print()
    console.print(f"[bold]Way back[/]  {escape(proposal.way_back)}", soft_wrap=True)
    _list(console, "What else speaks for it", proposal.why[1:])
    _list(console, "What speaks against it", proposal.why_not)
    _list(console, "What can go wrong", (f"{risk.code}: {risk.message}" for risk in proposal.risks))
    _list(console, "Confirm first", proposal.confirm)
    console.print(f"\n[dim]more: {proposal.runbook}[/]")


def _others(console: Console, others: Iterable[Proposal]) -> None:
    console.print()
    shown = table(None, "", "strategy", "takes#", "writes wait#", "bucket#", "why not, or why")
    for proposal in others:
        figures = proposal.figures
        against = proposal.why_not[:1] or proposal.why[:1]
        shown.add_row(
            "[green]fits[/]" if proposal.fits else "[red]no[/]",
            proposal.strategy,
            _time(figures.duration_seconds),
            _time(figures.write_pause_seconds),
            "?" if figures.bucket_bytes is None else size_text(figures.bucket_bytes),
            escape("; ".join(against)),
        )
    console.print(shown)


def _figures(figures: Figures, currency: str) -> dict[str, str]:
    cap = figures.write_pause_cap_seconds
    rows = {
        "takes": f"about {_time(figures.duration_seconds)}" if figures.duration_seconds is not None else "?",
        "writes wait": _time(figures.write_pause_seconds) + (f", at most {cap:g} s a try" if cap is not None else ""),
    }
    if figures.calls is not None:
        calls = figures.calls
        partial = f", {calls.partial_get:,} of a part" if calls.partial_get else ""
        rows["calls"] = f"{calls.get:,} GET{partial}, {calls.list:,} LIST, {calls.put:,} PUT"
    if figures.bucket_bytes is not None and figures.disk_bytes is not None:
        rows["space"] = f"{size_text(figures.bucket_bytes)} in buckets, {size_text(figures.disk_bytes)} of disk"
    if figures.request_cost is not None and figures.storage_cost_per_month is not None:
        rows["money"] = (
            f"{money_text(figures.request_cost)} {currency} for calls, "
            f"{money_text(figures.storage_cost_per_month)} a month while both are kept"
        )
    return rows


def _list(console: Console, title: str, lines: Iterable[str]) -> None:
    told = list(lines)
    if not told:
        return
    console.print(f"\n[bold]{title}[/]")
    for line in told:
        console.print(f"  - {escape(line)}", soft_wrap=True)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if 0 < seconds < 1:
        return f"{seconds * 1000:,.0f} ms"
    return span(seconds)
