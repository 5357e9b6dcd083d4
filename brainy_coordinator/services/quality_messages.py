"""Search quality on the wire."""

from __future__ import annotations

from pydantic import ValidationError

from brainy.api.coordinator.v1 import quality_pb2
from brainy.errors import InvalidRequestError
from brainy_coordinator.migration.quality import DEFAULT_QUERIES, MOST_QUERIES, QualityFound, QualityWish


def wish_value(message: quality_pb2.QualityThresholds) -> QualityWish:
    """Return what a caller wants of the target.

    Raises:
        InvalidRequestError: a share beyond 0 to 1, or too many queries.
    """
    try:
        return QualityWish(
            queries=message.queries or DEFAULT_QUERIES,
            min_overlap=message.min_overlap,
            min_recall=message.min_recall,
            max_latency_ratio=message.max_latency_ratio,
        )
    except ValidationError as error:
        raise InvalidRequestError(
            f"a threshold of the search quality is out of bounds: {error.errors()[0]['loc'][0]}",
            remedy=f"shares are 0 to 1, a ratio is not negative, and there are at most {MOST_QUERIES} queries",
        ) from error


def wish_message(wish: QualityWish | None) -> quality_pb2.QualityThresholds | None:
    """Return what is wanted, as the protos carry it."""
    if wish is None:
        return None
    return quality_pb2.QualityThresholds(
        queries=wish.queries,
        min_overlap=wish.min_overlap,
        min_recall=wish.min_recall,
        max_latency_ratio=wish.max_latency_ratio,
    )


def found_message(found: QualityFound | None) -> quality_pb2.QualityFound | None:
    """Return what was found, as the protos carry it."""
    if found is None:
        return None
    return quality_pb2.QualityFound(
        queries=found.queries,
        recorded=found.recorded,
        sampled=found.sampled,
        overlap=found.overlap,
        source_recall=found.source_recall,
        target_recall=found.target_recall,
        source_median=found.source_median_seconds,
        target_median=found.target_median_seconds,
        source_p99=found.source_p99_seconds,
        target_p99=found.target_p99_seconds,
        reasons=found.reasons,
        left_out=found.left_out,
    )
