"""What one shard's following has come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
