"""When to fold a tail into a new base (pure).

Three costs grow with a tail: searches scan its vectors, memory holds its records, and whoever opens the shard
next reads its change-log objects one by one. So a fold is due when there are many records, or many objects; and
when a shard has come to rest with a few objects left over, it is folded once, so that the next cold start finds
almost nothing to replay.
"""

from __future__ import annotations

from dataclasses import dataclass

from brainy.config.settings import NodeSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TailSize:
    """What a tail has come to."""

    records: int
    #: Change-log objects after the base.
    slots: int
    #: Nouns in the base.
    base_rows: int
    #: Seconds since the last record.
    idle_seconds: float


def fold_is_due(tail: TailSize, settings: NodeSettings) -> bool:
    """Say whether the tail should be folded now."""
    if tail.records >= max(settings.fold_records, int(settings.fold_share * tail.base_rows)):
        return True
    if tail.slots >= settings.fold_slots:
        return True
    return tail.slots >= settings.fold_idle_slots and tail.idle_seconds >= settings.fold_idle_seconds
