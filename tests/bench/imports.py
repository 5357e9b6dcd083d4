"""Speed and memory of an import."""

from __future__ import annotations

from statistics import median

from tests.bench.bucket import QUARTER, WHOLE
from tests.bench.figures import Figure, Report, at_least, at_most
from tests.bench.importing import Imported, run_child
from tests.bench.quiet import FOREIGN_BAR, wait_until_quiet, watched

_SPEED_BAR = 0.8
_MEMORY_BAR = 1.25
#: Rounds that others disturbed and that are left out, at most.
_LEFT_OUT = 2
_KINDS = ("tree", "raw-threads", "raw-async")


async def measure_import(report: Report, *, rounds: int) -> None:
    """Tree against raw GETs, turn by turn; then memory of a quarter against the whole."""
    runs: dict[str, list[Imported]] = {kind: [] for kind in _KINDS}
    disturbed = 0
    tried = 0
    while min(map(len, runs.values())) < rounds:
        # Each round begins with another kind; a disturbed round is left out, twice at most.
        turn = tried % len(_KINDS)
        tried += 1
        await wait_until_quiet(report.patience_seconds)
        async with watched() as foreign:
            done = [await run_child(kind, WHOLE) for kind in (*_KINDS[turn:], *_KINDS[:turn])]
        report.say(
            f"  {foreign.share:.0%} other work; GET/s: " + ", ".join(f"{run.kind} {run.rate:,.0f}" for run in done)
        )
        if foreign.share > FOREIGN_BAR and disturbed < _LEFT_OUT:
            disturbed += 1
            continue
        report.disturbance = max(report.disturbance, foreign.share)
        for run in done:
            runs[run.kind].append(run)
    rates = {kind: median(run.rate for run in some) for kind, some in runs.items()}
    cpu = {kind: median(run.cpu_seconds / run.gets * 1e6 for run in some) for kind, some in runs.items()}
    raw = {"rates": rates, "cpu_microseconds_a_get": cpu, "rounds": rounds, "left_out": disturbed}
    for kind in _KINDS:
        report.add(Figure(name=f"{kind}: GET/s", value=f"{rates[kind]:,.0f} ({cpu[kind]:.0f} µs CPU a GET)"))
    ratio = rates["tree"] / max(rates["raw-threads"], rates["raw-async"])
    report.add(at_least("import / faster of the raw GETs", ratio, _SPEED_BAR, raw=raw))

    quarters = [await run_child("tree", QUARTER) for _ in range(rounds)]
    quarter = median(run.peak_bytes for run in quarters)
    whole = median(run.peak_bytes for run in runs["tree"])
    shown = f"{whole / quarter:.2f} ({quarter / 2**20:.0f} → {whole / 2**20:.0f} MiB)"
    items = (quarters[0].items, runs["tree"][0].items)
    report.add(
        at_most(
            f"peak memory, {items[0]:,} → {items[1]:,} items",
            whole / quarter,
            _MEMORY_BAR,
            shown=shown,
            raw={"quarter_bytes": quarter, "whole_bytes": whole},
        )
    )
