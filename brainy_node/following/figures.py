"""What one shard's following has come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from google.protobuf.duration_pb2 import Duration

from brainy.api.node.v1 import control_pb2

Stage = Literal["pinning", "transferring", "following"]


@dataclass(slots=True)
class FollowFigures:
    """Counts since this owner began."""

    stage: Stage = "transferring"
    passes: int = 0
    applied: int = 0
    #: Items of which our clients' word was kept.
    conflicts: int = 0
    #: Items that could not be read in the last pass.
    unreadable: int = 0
    #: Items found changed and not settled yet.
    open_items: int = 0
    #: Monotonic seconds at the beginning of the last pass that left nothing open; None before the first.
    caught_up_at: float | None = None
    last_error: str = ""


def following_message(figures: FollowFigures, now: float) -> control_pb2.Following:
    """Return the figures for reports; ``now`` is monotonic."""
    message = control_pb2.Following(
        stage=figures.stage,
        open_items=figures.open_items,
        passes=figures.passes,
        applied=figures.applied,
        conflicts=figures.conflicts,
        unreadable=figures.unreadable,
        last_error=figures.last_error,
    )
    if figures.caught_up_at is not None:
        lag = Duration()
        lag.FromNanoseconds(int(1e9 * max(0.0, now - figures.caught_up_at)))
        message.lag.CopyFrom(lag)
    return message
