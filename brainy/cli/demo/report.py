"""What the demonstration found, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from brainy.cli.demo.oracle import Differences
from brainy.cli.demo.traffic import Counters
from brainy.cli.output import Output
from brainy.clock import Clock
from brainy.sdk.migration import Migration


@dataclass(slots=True, kw_only=True)
class Report:
    """The result. ``good`` decides the exit status."""

    store: str
    namespace: str
    seed: int
    nodes: int
    seconds: float = 0.0
    sample_nouns: int = 0
    sample_verbs: int = 0
    #: From starting the cluster on a bucket it never saw to the first answered search.
    first_search_seconds: float = 0.0
    counters: Counters = field(default_factory=Counters)
    killed_node: str = ""
    #: State of the migration when the node was killed.
    killed_during: str = ""
    replacement_node: str = ""
    migration_id: str = ""
    migration_state: str = ""
    migration_seconds: float = 0.0
    write_pause_seconds: float = 0.0
    source_generation: int = 0
    target_generation: int = 0
    #: The coordinator's own comparison at the cut-over.
    cluster_digest_equal: bool = False
    #: Sum over a scan against the sum over what was acknowledged.
    scan_digest_equal: bool = False
    nouns: Differences = field(default_factory=Differences)
    verbs: Differences = field(default_factory=Differences)
    #: Items of the sample that are not bit for bit what Brainy wrote.
    sample_faults: list[str] = field(default_factory=list)
    #: The same differences once every process and its disk were replaced.
    after_restart: int = 0
    recall_at_10: float = 0.0
    #: Store calls of all nodes from a cold start until all shards answer: from Brainy's tree, and upgraded.
    store_calls_before: int = 0
    store_calls_after: int = 0

    @property
    def lost(self) -> int:
        """Acknowledged operations whose effect is not there, or items that should not be."""
        return self.nouns.count + self.verbs.count + len(self.sample_faults) + self.after_restart

    @property
    def good(self) -> bool:
        """Nothing lost, nothing failed, digests equal."""
        return (
            self.lost == 0
            and self.counters.failed == 0
            and self.counters.wrong == 0
            and self.migration_state == "SUCCEEDED"
            and self.cluster_digest_equal
            and self.scan_digest_equal
        )


def show(console: Console, report: Report) -> None:
    """Print the report for people."""
    counters = report.counters
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")

    def row(name: str, text: str, good: bool | None = None) -> None:
        style = {True: "green", False: "bold red", None: ""}[good]
        grid.add_row(name, Text(text, style=style))

    row(
        "bucket",
        f"{report.sample_nouns:,} nouns and {report.sample_verbs:,} verbs written by Brainy 0.46, read in place",
    )
    row("first search", f"{report.first_search_seconds:.1f} s after the start")
    row(
        "traffic",
        f"{counters.writes:,} upserts, {counters.deletes:,} deletes, {counters.verbs:,} verbs acknowledged; "
        f"{counters.searches:,} searches",
    )
    row(
        "slowest",
        f"write {counters.slowest_write * 1000:,.0f} ms, search {counters.slowest_search * 1000:,.0f} ms",
    )
    row(
        "migration",
        f"{report.migration_state} in {report.migration_seconds:.1f} s, generation {report.source_generation} "
        f"to {report.target_generation}, writes waited {report.write_pause_seconds * 1000:,.0f} ms",
        report.migration_state == "SUCCEEDED",
    )
    row(
        "killed",
        f"{report.killed_node} while {report.killed_during.lower().replace('_', ' ')}, "
        f"replaced by {report.replacement_node}",
    )
    row("failed calls", f"{counters.failed:,}", counters.failed == 0)
    row("wrong answers", f"{counters.wrong:,}", counters.wrong == 0)
    row(
        "lost or resurrected",
        f"{report.nouns.count + report.verbs.count:,}",
        not (report.nouns.count + report.verbs.count),
    )
    row("sample, bit for bit", _count(len(report.sample_faults)), not report.sample_faults)
    row("after replacing every process and disk", _count(report.after_restart), not report.after_restart)
    row(
        "digests equal",
        f"cluster {_yes(report.cluster_digest_equal)}, own scan {_yes(report.scan_digest_equal)}",
        report.cluster_digest_equal and report.scan_digest_equal,
    )
    row("recall@10", f"{report.recall_at_10:.3f} against an exact scan, 100 queries")
    row(
        "store calls of a cold start",
        f"{report.store_calls_before:,} from Brainy's tree, {report.store_calls_after:,} upgraded",
    )
    row("took", f"{report.seconds:.1f} s, seed {report.seed}")
    console.print()
    console.print(grid)
    for example in counters.examples:
        console.print(f"  [red]{escape(example)}[/]")
    console.print()
    if report.good:
        console.print("[bold green]good:[/] no acknowledged write was lost and no call failed")
    else:
        console.print("[bold red]bad:[/] see the red lines; run again with --keep and look at the logs")


def _count(faults: int) -> str:
    return "all there" if not faults else f"{faults:,} faults"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


class LiveView:
    """What happens now, on standard error: a few lines that renew themselves, or one line a phase."""

    def __init__(self, output: Output, report: Report, clock: Clock) -> None:
        self._output = output
        self._report = report
        self._clock = clock
        self._began = clock.monotonic()
        self._phase = ""
        self._migration: Migration | None = None

    def phase(self, text: str) -> None:
        """Say what begins."""
        self._phase = text
        if not self._output.err.is_terminal:
            self._output.remark(f"{self._clock.monotonic() - self._began:5.1f} s  {text}")

    def migration(self, seen: Migration) -> None:
        """Remember the newest state."""
        if self._migration is None or seen.state != self._migration.state:
            self._migration = seen
            if not self._output.err.is_terminal:
                self.phase(f"migration {seen.state.lower().replace('_', ' ')}")
        self._migration = seen

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while the block runs."""
        if self._output.json or not self._output.err.is_terminal:
            yield
            return
        with Live(get_renderable=self._render, console=self._output.err, refresh_per_second=5, transient=True):
            yield

    def _render(self) -> Group:
        counters = self._report.counters
        lines = [f"[bold]{self._clock.monotonic() - self._began:5.1f} s[/]  {escape(self._phase)}"]
        if self._migration is not None:
            seen = self._migration
            lines.append(
                f"  migration {seen.state}  copied {seen.items_copied:,}/{seen.items_total:,}  lag {seen.lag:,}  "
                f"adopted {', '.join(seen.adopted_nodes) or '-'}"
            )
        lines.append(
            f"  acknowledged {counters.acknowledged:,}  searches {counters.searches:,}  "
            f"failed {counters.failed:,}  wrong {counters.wrong:,}"
        )
        return Group(*(Text.from_markup(line) for line in lines))
