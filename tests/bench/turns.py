"""Several kinds of work compared in turns, so that what the machine does meanwhile touches all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench.figures import Figure, Report
from tests.bench.importing import Imported
from tests.bench.quiet import FOREIGN_BAR, wait_until_quiet, watched

#: Rounds that others disturbed and that are left out, at most.
_LEFT_OUT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Every run that counts, by kind."""

    runs: dict[str, list[Imported]]
    left_out: int

    def rate(self, kind: str) -> float:
        """Median of a kind's GETs a second."""
        return median(run.rate for run in self.runs[kind])

    def processor_time(self, kind: str) -> float:
        """Median of a kind's processor time a GET, in microseconds."""
        return median(run.cpu_seconds / run.gets * 1e6 for run in self.runs[kind])

    @property
    def raw(self) -> dict[str, object]:
        """What the figures were made of."""
        return {
            "rates": {kind: self.rate(kind) for kind in self.runs},
            "cpu_microseconds_a_get": {kind: self.processor_time(kind) for kind in self.runs},
            "rounds": min(map(len, self.runs.values())),
            "left_out": self.left_out,
        }


async def compare(
    report: Report, kinds: Sequence[str], run: Callable[[str], Awaitable[Imported]], *, rounds: int
) -> Compared:
    """Run every kind once a round and report each one's rate."""
    runs: dict[str, list[Imported]] = {kind: [] for kind in kinds}
    disturbed = 0
    tried = 0
    while min(map(len, runs.values())) < rounds:
        # Each round begins with another kind; a disturbed round is left out, twice at most.
        turn = tried % len(kinds)
        tried += 1
        await wait_until_quiet(report.patience_seconds)
        async with watched() as foreign:
            done = [await run(kind) for kind in (*kinds[turn:], *kinds[:turn])]
        report.say(
            f"  {foreign.share:.0%} other work; GET/s: " + ", ".join(f"{each.kind} {each.rate:,.0f}" for each in done)
        )
        if foreign.share > FOREIGN_BAR and disturbed < _LEFT_OUT:
            disturbed += 1
            continue
        report.disturbance = max(report.disturbance, foreign.share)
        for each in done:
            runs[each.kind].append(each)
    compared = Compared(runs=runs, left_out=disturbed)
    for kind in kinds:
        value = f"{compared.rate(kind):,.0f} ({compared.processor_time(kind):.0f} µs CPU a GET)"
        report.add(Figure(name=f"{kind}: GET/s", value=value))
    return compared
