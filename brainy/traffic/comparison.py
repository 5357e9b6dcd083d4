"""What was found when two generations were asked the same: counts, sums and maxima, so that parts add up exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

from brainy.api.node.v1 import traffic_pb2
from brainy.traffic.latencies import added, quantile

MOST_DIFFERENCES = 10
TENTHS = 11

_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """One item or query that the two sides answer differently."""

    #: noun, verb or search.
    kind: str
    id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Figures of any number of calls on any number of nodes.

    The empty one is the zero of ``+``, which is associative and commutative: sums of integers, a maximum, and the
    ten smallest differences.
    """

    #: Calls that were chosen to be asked of the target as well.
    asked: int = 0
    #: Chosen, but not asked: too many were waiting.
    dropped: int = 0
    #: Asked, and the target gave no answer.
    failed: int = 0
    #: Queries whose answers were compared.
    queries: int = 0
    #: Of them, those with other nearest neighbours.
    queries_differing: int = 0
    #: Differed at first, and no longer once both sides had the same writes.
    queries_healed: int = 0
    #: Not compared: the source changed, or the target did not catch up, while both were looked at.
    queries_unsettled: int = 0
    #: Neighbours that both sides returned, and how many could have been.
    hits_shared: int = 0
    hits_wanted: int = 0
    #: Queries by tenths of their neighbours that are shared: 11 numbers, 0 to 10 tenths, or none.
    overlaps: tuple[int, ...] = ()
    #: Largest difference of the distances that both sides give one item.
    distance_difference: float = 0.0
    #: Of each side's exact neighbours, how many its index found.
    recall_queries: int = 0
    source_found: int = 0
    source_exact: int = 0
    target_found: int = 0
    target_exact: int = 0
    #: Calls by time taken (``brainy.traffic.latencies``).
    source_latency: tuple[int, ...] = ()
    target_latency: tuple[int, ...] = ()
    #: Items read by id and compared.
    items: int = 0
    items_differing: int = 0
    items_healed: int = 0
    items_unsettled: int = 0
    #: At most ten.
    differences: tuple[Difference, ...] = ()
    #: Reads that the target answered for clients, and those it should have but that the source answered.
    reads_answered: int = 0
    reads_fallen_back: int = 0

    def __add__(self, other: Comparison) -> Comparison:
        """Add the figures of other calls."""
        values: dict[str, Any] = {}
        for name in _SUMS:
            values[name] = getattr(self, name) + getattr(other, name)
        for name in _HISTOGRAMS:
            values[name] = added(getattr(self, name), getattr(other, name))
        values["distance_difference"] = max(self.distance_difference, other.distance_difference)
        values["differences"] = tuple(sorted({*self.differences, *other.differences})[:MOST_DIFFERENCES])
        return Comparison(**values)

    @classmethod
    def total(cls, parts: Iterable[Comparison]) -> Comparison:
        """Add up any number."""
        return reduce(cls.__add__, parts, cls())

    @property
    def overlap(self) -> float | None:
        """Share of the nearest neighbours that both sides return, 0 to 1; None before any was compared."""
        return self.hits_shared / self.hits_wanted if self.hits_wanted else None

    @property
    def source_recall(self) -> float | None:
        """Share of the source's exact neighbours that its index finds, 0 to 1; None before any was looked at."""
        return self.source_found / self.source_exact if self.source_exact else None

    @property
    def target_recall(self) -> float | None:
        """As ``source_recall``, of the target."""
        return self.target_found / self.target_exact if self.target_exact else None

    @property
    def error_share(self) -> float:
        """Share of the calls asked of the target that it did not answer, 0 to 1."""
        tried = self.asked - self.dropped + self.reads_answered + self.reads_fallen_back
        return (self.failed + self.reads_fallen_back) / tried if tried > 0 else 0.0

    def source_seconds(self, share: float) -> float:
        """Seconds that ``share`` of the calls to the source did not exceed."""
        return quantile(self.source_latency, share)

    def target_seconds(self, share: float) -> float:
        """Seconds that ``share`` of the calls to the target did not exceed."""
        return quantile(self.target_latency, share)


_HISTOGRAMS = ("overlaps", "source_latency", "target_latency")
_SUMS = tuple(
    field.name for field in fields(Comparison) if field.name not in (*_HISTOGRAMS, "distance_difference", "differences")
)


def overlap_counts(shared: int, wanted: int) -> tuple[int, ...]:
    """Return the histogram of one query; a query with nothing to find is fully shared."""
    tenths = 10 * shared // wanted if wanted else 10
    return (*(0,) * tenths, 1, *(0,) * (TENTHS - 1 - tenths))


def difference(kind: str, item_id: str, detail: str) -> Difference:
    """Make a difference to begin looking with; long texts are cut."""
    return Difference(kind, item_id[:_MOST_CHARACTERS], detail[:_MOST_CHARACTERS])


def comparison_to_proto(value: Comparison) -> traffic_pb2.Comparison:
    """Convert for the wire."""
    message = traffic_pb2.Comparison(distance_difference=value.distance_difference)
    for name in _SUMS:
        setattr(message, name, getattr(value, name))
    for name in _HISTOGRAMS:
        getattr(message, name).extend(getattr(value, name))
    message.differences.extend(
        traffic_pb2.Difference(kind=one.kind, id=one.id, detail=one.detail) for one in value.differences
    )
    return message


def comparison_from_proto(message: traffic_pb2.Comparison) -> Comparison:
    """Convert from the wire."""
    values: dict[str, Any] = {name: getattr(message, name) for name in _SUMS}
    values |= {name: tuple(getattr(message, name)) for name in _HISTOGRAMS}
    values["differences"] = tuple(Difference(one.kind, one.id, one.detail) for one in message.differences)
    return Comparison(distance_difference=message.distance_difference, **values)
