"""Is the target good enough? A verdict on a comparison, with reasons. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.traffic.comparison import Comparison

#: Below this a ratio says more of the clock and the machine than of an index.
_NEVER_SLOW_SECONDS = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What a target must keep to. None asks nothing."""

    #: Queries, and items, that must have been compared before the figures count.
    min_queries: int = 0
    min_items: int = 0
    #: Mean share of the nearest neighbours that both sides return, 0 to 1.
    min_overlap: float | None = None
    #: Share of calls the target does not answer, 0 to 1.
    max_error_share: float | None = None
    #: The target's 99th percentile of latency divided by the source's.
    max_p99_ratio: float | None = None
    #: Share of the exact neighbours that the target's index finds, 0 to 1.
    min_recall: float | None = None
    #: The target's median latency divided by the source's. A median below a millisecond is never too slow.
    max_median_ratio: float | None = None
    #: By how much the target's recall may lie below the source's, 0 to 1.
    max_recall_loss: float | None = None
    #: Items that may differ between the two sides.
    max_items_differing: int | None = None
    #: Largest difference of the distances the two sides give one item.
    max_distance_difference: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Whether every threshold is kept, and for each that is not, why."""

    reasons: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there is nothing to object to."""
        return not self.reasons


def judge(comparison: Comparison, thresholds: Thresholds) -> Judgement:
    """Hold a comparison against thresholds.

    A figure that is asked for and was never taken does not pass: silence proves nothing. Figures can only be
    worsened by bad answers, never by their number, so that a verdict does not depend on how many nodes they come
    from.
    """
    checks = (
        _too_few("queries", comparison.queries, thresholds.min_queries),
        _too_few("items", comparison.items, thresholds.min_items),
        _overlap(comparison, thresholds.min_overlap),
        _errors(comparison, thresholds.max_error_share),
        _latency(comparison, thresholds.max_p99_ratio),
        _median(comparison, thresholds.max_median_ratio),
        _least_recall(comparison, thresholds.min_recall),
        _recall(comparison, thresholds.max_recall_loss),
        _items(comparison, thresholds.max_items_differing),
        _distances(comparison, thresholds.max_distance_difference),
    )
    return Judgement(reasons=tuple(reason for reason in checks if reason))


def _too_few(what: str, seen: int, wanted: int) -> str:
    return f"{seen:,} {what} were compared, {wanted:,} are wanted" if seen < wanted else ""


def _overlap(comparison: Comparison, least: float | None) -> str:
    if least is None:
        return ""
    if comparison.overlap is None:
        return "no nearest neighbours were compared"
    if comparison.overlap < least:
        return f"{comparison.overlap:.2%} of the nearest neighbours are shared, {least:.2%} are wanted"
    return ""


def _errors(comparison: Comparison, most: float | None) -> str:
    if most is None or comparison.error_share <= most:
        return ""
    return f"the target did not answer {comparison.error_share:.2%} of the calls, {most:.2%} are allowed"


def _latency(comparison: Comparison, most: float | None) -> str:
    if most is None:
        return ""
    source, target = comparison.source_seconds(0.99), comparison.target_seconds(0.99)
    if not source or not target:
        return "no latency was measured"
    if target <= most * source:
        return ""
    return (
        f"99 % of the target's answers came within {1000 * target:.1f} ms, the source's within {1000 * source:.1f} ms: "
        f"{target / source:.2f} times as long, {most:.2f} times are allowed"
    )


def _median(comparison: Comparison, most: float | None) -> str:
    if most is None:
        return ""
    source, target = comparison.source_seconds(0.5), comparison.target_seconds(0.5)
    if not source or not target:
        return "no latency was measured"
    if target <= max(most * source, _NEVER_SLOW_SECONDS):
        return ""
    return (
        f"the median of the target is {1000 * target:.1f} ms, {target / source:.2f} times the source's "
        f"{1000 * source:.1f} ms, {most:.2f} times are allowed"
    )


def _least_recall(comparison: Comparison, least: float | None) -> str:
    if least is None:
        return ""
    if comparison.target_recall is None:
        return "recall was not measured"
    if comparison.target_recall >= least:
        return ""
    source = "" if comparison.source_recall is None else f" ({comparison.source_recall:.2%} on the source)"
    return f"recall is {comparison.target_recall:.2%} on the target{source}, {least:.2%} is wanted"


def _recall(comparison: Comparison, most: float | None) -> str:
    if most is None:
        return ""
    source, target = comparison.source_recall, comparison.target_recall
    if source is None or target is None:
        return "recall was not measured"
    if source - target <= most:
        return ""
    return f"recall is {target:.2%} on the target and {source:.2%} on the source, a loss of {most:.2%} is allowed"


def _items(comparison: Comparison, most: int | None) -> str:
    if most is None or comparison.items_differing <= most:
        return ""
    return f"{comparison.items_differing:,} items differ, {most:,} may"


def _distances(comparison: Comparison, most: float | None) -> str:
    if most is None or comparison.distance_difference <= most:
        return ""
    return f"distances differ by up to {comparison.distance_difference:.3g}, {most:.3g} is allowed"
