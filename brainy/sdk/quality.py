"""How well the target of a migration finds what the source finds."""

from __future__ import annotations

from dataclasses import dataclass, field

from brainy.api.coordinator.v1 import quality_pb2
from brainy.sdk.connection import Connection
from brainy.sdk.retry import CONTROL_CHANGE, REPLAY
from brainy.traffic.comparison import Comparison, comparison_from_proto


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityThresholds:
    """What the target must keep to before anything moves to it; 0 asks nothing of a figure."""

    #: Queries to compare, 1 to 1,024; 0 for 64.
    queries: int = 0
    #: Share of the ten nearest neighbours that source and target both name, 0 to 1.
    min_overlap: float = 0.9
    #: Share of the ten exact neighbours that the target's index finds, 0 to 1.
    min_recall: float = 0.95
    #: The target's median latency divided by the source's. A median below a millisecond is never too slow.
    max_latency_ratio: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFound:
    """What was measured."""

    #: Queries that were compared; of those asked, how many clients had asked, and how many were made of nouns.
    queries: int
    recorded: int
    sampled: int
    #: 0 to 1; None where nothing could be compared.
    overlap: float | None
    source_recall: float | None
    target_recall: float | None
    source_median_seconds: float
    target_median_seconds: float
    source_p99_seconds: float
    target_p99_seconds: float
    #: Which thresholds are not kept.
    reasons: tuple[str, ...] = ()
    #: Node -> why it did not answer.
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether there is nothing to object to."""
        return not self.reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityCheck:
    """One measurement."""

    found: QualityFound
    thresholds: QualityThresholds
    #: Whether it is in the migration's history, and counts for the switch.
    kept: bool
    comparison: Comparison


def thresholds_to_proto(wanted: QualityThresholds | None) -> quality_pb2.QualityThresholds | None:
    """Convert for the wire."""
    if wanted is None:
        return None
    return quality_pb2.QualityThresholds(
        queries=wanted.queries,
        min_overlap=wanted.min_overlap,
        min_recall=wanted.min_recall,
        max_latency_ratio=wanted.max_latency_ratio,
    )


def thresholds_from_proto(message: quality_pb2.QualityThresholds) -> QualityThresholds:
    """Convert from the wire."""
    return QualityThresholds(
        queries=message.queries,
        min_overlap=message.min_overlap,
        min_recall=message.min_recall,
        max_latency_ratio=message.max_latency_ratio,
    )


def found_from_proto(message: quality_pb2.QualityFound) -> QualityFound:
    """Convert from the wire."""
    return QualityFound(
        queries=message.queries,
        recorded=message.recorded,
        sampled=message.sampled,
        overlap=message.overlap if message.HasField("overlap") else None,
        source_recall=message.source_recall if message.HasField("source_recall") else None,
        target_recall=message.target_recall if message.HasField("target_recall") else None,
        source_median_seconds=message.source_median,
        target_median_seconds=message.target_median,
        source_p99_seconds=message.source_p99,
        target_p99_seconds=message.target_p99,
        reasons=tuple(message.reasons),
        left_out=dict(message.left_out),
    )


class QualityCalls(Connection):
    """Needs ``coordinators``; without them every call raises ``UnavailableError``."""

    async def check_quality(
        self,
        id: str,  # noqa: A002 - as the field is called
        *,
        thresholds: QualityThresholds | None = None,
        requested_by: str = "",
    ) -> QualityCheck:
        """Ask source and target of a migration the same queries now, by index and by scan.

        Queries are those that the front doors remember, and where these are too few, vectors near nouns of the source.
        While the migration is READY the result goes into its history: one that passes lets it switch.

        Args:
            id: of the migration.
            thresholds: instead of the migration's own; the result is then not kept.
            requested_by: who asks, for the history.

        Raises:
            InvalidRequestError: a threshold out of bounds.
            NotFoundError: there is no such migration.
            PreconditionError: WRONG_PHASE, its target is not placed.
        """
        request = quality_pb2.CheckQualityRequest(
            namespace=self.namespace,
            migration_id=id,
            request_id=self._changing(),
            requested_by=requested_by,
            thresholds=thresholds_to_proto(thresholds),
        )
        answer = await self._coordinators.unary(lambda leader: leader.quality.CheckQuality, request, REPLAY)
        return QualityCheck(
            found=found_from_proto(answer.found),
            thresholds=thresholds_from_proto(answer.thresholds),
            kept=answer.kept,
            comparison=comparison_from_proto(answer.comparison),
        )

    async def accept_quality(
        self,
        id: str,  # noqa: A002 - as the field is called
        *,
        reason: str = "",
        requested_by: str = "",
    ) -> QualityFound:
        """Let a migration switch whose quality lies below its thresholds; who and why go into its history.

        Raises:
            NotFoundError: there is no such migration.
            PreconditionError: WRONG_PHASE, there is no such result.
        """
        request = quality_pb2.AcceptQualityRequest(
            namespace=self.namespace,
            migration_id=id,
            request_id=self._changing(),
            requested_by=requested_by,
            reason=reason,
        )
        answer = await self._coordinators.unary(lambda leader: leader.quality.AcceptQuality, request, CONTROL_CHANGE)
        return found_from_proto(answer.accepted)
