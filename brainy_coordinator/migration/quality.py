"""How well the target finds what the source finds: what is wanted, what was found, what keeps it from the switch. Pure.

*Before.* The migration is READY: the target follows the source closely. Its plan asks for the check.
*Steps.* 1. The reachable nodes ask both generations the same queries, by index and by scan: those that clients asked
them lately, and where these are too few, vectors of the source's nouns, slightly moved. A few at a time, so that
nothing else waits for it; what they find adds up (docs/protocols/reads.md). 2. What was found is held against the
thresholds, and both are persisted: one event, which changes no state. 3. With every threshold kept, the migration goes
on; else it stays READY until it is measured again and passes, somebody accepts the result, or it is aborted.
*After.* Nothing has moved to the target whose quality was not measured in this history, after the sides changed last.
*Crash* at step 1: the next leader begins to measure anew. At step 2: the event is in the history or it is not.
*Cancel safety.* As a crash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from brainy.traffic.comparison import Comparison
from brainy.traffic.judging import Thresholds, judge

DEFAULT_QUERIES: Final = 64
MOST_QUERIES: Final = 1024
#: Neighbours a query.
NEIGHBOURS: Final = 10
#: After so long it is judged by what was found until then.
LONGEST_SECONDS: Final = 60.0

REMEDY: Final = (
    "measure again (brainy migrate quality), accept it (brainy migrate quality --accept), "
    "or abort it and start one with another target, such as a higher connectivity or f32"
)


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class QualityWish(_Value):
    """What the target must keep to; 0 asks nothing of a figure."""

    queries: int = Field(DEFAULT_QUERIES, ge=1, le=MOST_QUERIES)
    #: Share of the neighbours that both sides name, 0 to 1.
    min_overlap: float = Field(0.0, ge=0.0, le=1.0)
    #: Share of the exact neighbours that the target's index finds, 0 to 1.
    min_recall: float = Field(0.0, ge=0.0, le=1.0)
    #: The target's median latency divided by the source's.
    max_latency_ratio: float = Field(0.0, ge=0.0)


class QualityFound(_Value):
    """What was measured, as it is kept in the history."""

    #: Queries that were compared.
    queries: int
    #: Of those asked, how many clients had asked, and how many were made of nouns.
    recorded: int = 0
    sampled: int = 0
    #: 0 to 1; None where nothing could be compared.
    overlap: float | None = None
    source_recall: float | None = None
    target_recall: float | None = None
    source_median_seconds: float = 0.0
    target_median_seconds: float = 0.0
    source_p99_seconds: float = 0.0
    target_p99_seconds: float = 0.0
    #: Which thresholds are not kept.
    reasons: tuple[str, ...] = ()
    #: Node -> why it did not answer.
    left_out: dict[str, str] = {}

    @property
    def passed(self) -> bool:
        """Whether there is nothing to object to."""
        return not self.reasons

    @property
    def line(self) -> str:
        """The figures in one line, for stories."""
        if not self.queries:
            return "; ".join(self.reasons) or "there is nothing to search for"
        text = (
            f"{self.queries:,} queries: overlap {_percent(self.overlap)}, recall {_percent(self.source_recall)} to "
            f"{_percent(self.target_recall)}, median {1000 * self.source_median_seconds:.2f} to "
            f"{1000 * self.target_median_seconds:.2f} ms"
        )
        return f"{text}; {'; '.join(self.reasons)}" if self.reasons else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What has been measured so far. Never stored."""

    #: Monotonic seconds at which it began.
    since: float
    comparison: Comparison = field(default_factory=Comparison)
    recorded: int = 0
    sampled: int = 0
    #: Turns that were taken: which part of the queries comes next.
    turns: int = 0
    #: Every node that answered had nothing to ask.
    empty: bool = False
    left_out: dict[str, str] = field(default_factory=dict)

    def ended(self, wish: QualityWish, now: float) -> bool:
        """Whether it is time to judge."""
        enough = self.comparison.queries >= wish.queries
        return enough or self.empty or now - self.since > LONGEST_SECONDS


def verdict(measured: Measured, wish: QualityWish) -> QualityFound:
    """Hold what was measured against what is wanted. A namespace without anything to search for passes."""
    seen = measured.comparison
    reasons: tuple[str, ...] = ()
    if not (measured.empty and not seen.queries):
        # Nodes that were busy or gone may leave some out; a few queries of many say nothing.
        wanted = Thresholds(
            min_queries=max(1, wish.queries // 2),
            min_overlap=wish.min_overlap or None,
            min_recall=wish.min_recall or None,
            max_median_ratio=wish.max_latency_ratio or None,
        )
        reasons = judge(seen, wanted).reasons
    return QualityFound(
        queries=seen.queries,
        recorded=measured.recorded,
        sampled=measured.sampled,
        overlap=seen.overlap,
        source_recall=seen.source_recall,
        target_recall=seen.target_recall,
        source_median_seconds=seen.source_seconds(0.5),
        target_median_seconds=seen.target_seconds(0.5),
        source_p99_seconds=seen.source_seconds(0.99),
        target_p99_seconds=seen.target_seconds(0.99),
        reasons=reasons,
        left_out=dict(measured.left_out),
    )


def complaint(wish: QualityWish | None, found: QualityFound | None, *, accepted: bool) -> str:
    """Return what keeps a READY migration from moving anything, with what to do about it; "" for nothing."""
    if wish is None or accepted or (found is not None and found.passed):
        return ""
    if found is None:
        return "the search quality of the target is being measured (wait)"
    return f"the search quality is below its thresholds: {'; '.join(found.reasons)} ({REMEDY})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
