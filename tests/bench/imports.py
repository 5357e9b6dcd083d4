"""Speed and memory of an import."""

from __future__ import annotations

from functools import partial
from statistics import median

from tests.bench.bucket import QUARTER, WHOLE
from tests.bench.figures import Report, at_least, at_most
from tests.bench.importing import run_child
from tests.bench.turns import compare

_SPEED_BAR = 0.8
_MEMORY_BAR = 1.25


async def measure_import(report: Report, *, rounds: int) -> None:
    """Tree against raw GETs, turn by turn; then memory of a quarter against the whole."""
    kinds = ("tree", "raw-threads", "raw-async")
    compared = await compare(report, kinds, partial(run_child, namespace=WHOLE), rounds=rounds)
    ratio = compared.rate("tree") / max(compared.rate("raw-threads"), compared.rate("raw-async"))
    report.add(at_least("import / faster of the raw GETs", ratio, _SPEED_BAR, raw=compared.raw))

    quarters = [await run_child("tree", QUARTER) for _ in range(rounds)]
    trees = compared.runs["tree"]
    quarter = median(run.peak_bytes for run in quarters)
    whole = median(run.peak_bytes for run in trees)
    shown = f"{whole / quarter:.2f} ({quarter / 2**20:.0f} → {whole / 2**20:.0f} MiB)"
    items = (quarters[0].items, trees[0].items)
    report.add(
        at_most(
            f"peak memory, {items[0]:,} → {items[1]:,} items",
            whole / quarter,
            _MEMORY_BAR,
            shown=shown,
            raw={"quarter_bytes": quarter, "whole_bytes": whole},
        )
    )
