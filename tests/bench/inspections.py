"""Speed of an inspection: every object of an item and every entry of the change log, read and counted."""

from __future__ import annotations

from functools import partial

from tests.bench.bucket import WHOLE
from tests.bench.figures import Report, at_least
from tests.bench.importing import run_child
from tests.bench.turns import compare

_SPEED_BAR = 0.8


async def measure_inspection(report: Report, *, rounds: int) -> None:
    """An inspection against raw GETs of the same objects, turn by turn."""
    kinds = ("inspect", "raw-threads-all", "raw-async-all")
    compared = await compare(report, kinds, partial(run_child, namespace=WHOLE), rounds=rounds)
    ratio = compared.rate("inspect") / max(compared.rate("raw-threads-all"), compared.rate("raw-async-all"))
    report.add(at_least("inspection / faster of the raw GETs", ratio, _SPEED_BAR, raw=compared.raw))
