"""Plans as people read them: what and why first, then what is to be done, what it takes, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape

from brainy.cli.census_view import money_text, size_text
from brainy.cli.output import facts, table
from brainy.legacy.wording import many, span
from brainy.sdk.plans import MigrationPlan, PlanFigures, PlanOutcome


def show_plan(console: Console, plan: MigrationPlan) -> None:
    """Print a plan."""
    console.print(f"[bold]{plan.strategy}[/]: generation {plan.source_generation} to {plan.target_generation}")
    console.print(f"  {escape(plan.reason.text)}", soft_wrap=True)
    if plan.reason.path:
        console.print("\n[bold]The way through the decision graph[/]")
        for crossing in plan.reason.path:
            why = f" [dim]({escape(crossing.why)})[/]" if crossing.why else ""
            console.print(f"  {escape(crossing.question)} [bold]{escape(crossing.answer)}[/]{why}", soft_wrap=True)
    console.print()
    steps = table(None, "nr#", "step", "detail")
    for number, step in enumerate(plan.steps, 1):
        steps.add_row(str(number), escape(step.action), escape(step.detail))
    console.print(steps)
    console.print()
    facts(console, _figures(plan.figures))
    console.print()
    facts(console, _basis(plan))
    _list(console, "What else speaks for it", plan.reason.why[1:])
    _list(console, "What speaks against it", plan.reason.why_not)
    _list(console, "What can go wrong", (f"{risk.code}: {risk.message}" for risk in plan.risks))
    if plan.way_back:
        console.print(f"\n[bold]Way back[/]  {escape(plan.way_back)}", soft_wrap=True)
    if plan.rollback_if:
        console.print(f"  rolls back by itself if {escape(' or '.join(plan.rollback_if))}", soft_wrap=True)
    _list(
        console,
        "Checks that do not pass",
        (f"{check.name}: {check.detail} ({check.remedy})" for check in plan.checks if not check.passed),
    )
    _list(console, "Not tried", (check.name for check in plan.checks if not check.tried))
    _list(console, "To be confirmed", (f"{each.name}: {each.message}" for each in plan.confirmations))
    if plan.id:
        confirm = "".join(f" --confirm {each.name}" for each in plan.confirmations)
        console.print(f"\n[bold]{plan.id}[/], until {plan.expires_at}; execute it with")
        console.print(f"  brainy migrate start {escape(plan.namespace)} --plan {plan.id}{confirm}", soft_wrap=True)


def show_outcome(console: Console, outcome: PlanOutcome) -> None:
    """Print a plan against what happened."""
    console.print()
    so_far = f", {many(outcome.remaining, 'transition')} to come" if outcome.remaining else ""
    console.print(
        f"[bold]{outcome.plan_id}[/]: the history is "
        + (f"as planned{so_far}" if outcome.as_planned else "[yellow]not as planned[/]")
    )
    predicted, measured = outcome.predicted, outcome.measured
    shown = table(None, "", "predicted#", "measured#")
    shown.add_row("takes", span(predicted.duration_seconds), span(measured.duration_seconds))
    shown.add_row("writes wait", _milliseconds(predicted), _milliseconds(measured))
    for kind in sorted({*predicted.calls, *measured.calls}):
        seen = measured.calls.get(kind, 0)
        more = "" if outcome.calls_complete else " or more"
        shown.add_row(f"{kind} calls", f"{predicted.calls.get(kind, 0):,}", f"{seen:,}{more}")
    console.print(shown)
    _list(console, "What nobody planned", outcome.disturbances)


def _milliseconds(figures: PlanFigures) -> str:
    return f"{figures.write_pause_seconds * 1000:,.0f} ms"


def _figures(figures: PlanFigures) -> dict[str, str]:
    calls = figures.calls
    texts = {"embeds": f"{figures.texts:,} texts, {figures.texts_per_second:,.0f} a second"} if figures.texts else {}
    return {
        "takes": f"about {span(figures.duration_seconds)}",
        **texts,
        "writes wait": f"{_milliseconds(figures)}, at most {figures.write_pause_cap_seconds:g} s a try",
        "calls": ", ".join(f"{number:,} {kind.upper().replace('_', ' ')}" for kind, number in calls.items()),
        "space": f"{size_text(figures.bucket_bytes)} in the bucket, {size_text(figures.disk_bytes)} of disk",
        "money": (
            f"{money_text(figures.request_cost)} USD for calls, "
            f"{money_text(figures.storage_cost_per_month)} a month while both are kept"
        ),
    }


def _basis(plan: MigrationPlan) -> dict[str, str]:
    basis = plan.basis
    nodes = ", ".join(f"{node} {version}".strip() for node, version in sorted(basis.nodes.items()))
    return {
        "rests on": f"generation {basis.source_generation}, {basis.dimensions} dimensions"
        + (f", Brainy's {' and '.join(basis.trees)} tree" if basis.trees else ""),
        "items": f"{basis.nouns:,} nouns, {basis.verbs:,} verbs; holds for {basis.items_at_least:,}"
        f" to {basis.items_at_most:,}",
        "nodes": nodes or "-",
        "unreadable": f"{basis.quarantined:,}",
    }


def _list(console: Console, title: str, lines: Iterable[str]) -> None:
    told = list(lines)
    if not told:
        return
    console.print(f"\n[bold]{title}[/]")
    for line in told:
        console.print(f"  - {escape(line)}", soft_wrap=True)
