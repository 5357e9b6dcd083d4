"""How far a migration's copy is, as the client sees it."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.api.coordinator.v1 import copy_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress:
    """One stage over all shards, from exact counts."""

    #: reading, publishing and indexing: items. following: records of the source.
    stage: str
    done: int
    #: 0 while it is not known.
    total: int
    #: Over the last seconds; 0 while nothing moves.
    per_second: float
    #: Seconds until it is through at that rate; None while nothing moves, or the total is not known.
    remaining_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLimit:
    """How fast the copy of a node may be, and why."""

    node_id: str
    #: Items a second and stage, 0 while it stands; None for as many as it can.
    items_per_second: float | None
    #: paused; set (somebody chose the rate); latency (searches got slower); store (it had to be asked again);
    #: starting; "" where nothing holds it back.
    reason: str
    #: Calls of the store that had to be repeated.
    store_repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyProgress:
    """A copy, or the catching up after it, at one moment."""

    stages: tuple[StageProgress, ...]
    #: Items a second and stage on each node, as asked for; None for what the nodes can bear.
    wanted: float | None
    limits: tuple[CopyLimit, ...]
    #: Items that were not read again after a node had died.
    resumed: int


def copy_from_proto(message: copy_pb2.CopyProgress) -> CopyProgress:
    """Convert from the wire."""
    return CopyProgress(
        stages=tuple(
            StageProgress(
                stage=stage.stage,
                done=stage.done,
                total=stage.total,
                per_second=stage.per_second,
                remaining_seconds=stage.remaining.ToNanoseconds() / 1e9 if stage.HasField("remaining") else None,
            )
            for stage in message.stages
        ),
        wanted=message.wanted if message.HasField("wanted") else None,
        limits=tuple(
            CopyLimit(
                node_id=limit.node_id,
                items_per_second=limit.items_per_second if limit.HasField("items_per_second") else None,
                reason=limit.reason,
                store_repeats=limit.store_repeats,
            )
            for limit in message.limits
        ),
        resumed=message.resumed,
    )
