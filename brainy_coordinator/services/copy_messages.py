"""The progress of copies on the wire."""

from __future__ import annotations

from brainy.api.coordinator.v1 import copy_pb2
from brainy_coordinator.migration.copy_progress import CopyProgress
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.services.membership import duration


def copy_message(record: MigrationRecord, progress: CopyProgress) -> copy_pb2.CopyProgress:
    """Return a copy as the protos carry it."""
    return copy_pb2.CopyProgress(
        stages=[
            copy_pb2.StageProgress(
                stage=stage.stage,
                done=stage.done,
                total=stage.total,
                per_second=stage.per_second,
                remaining=None if stage.remaining_seconds is None else duration(stage.remaining_seconds),
            )
            for stage in progress.stages
        ],
        wanted=record.copy_rate,
        limits=[
            copy_pb2.CopyLimit(
                node_id=limit.node_id,
                items_per_second=limit.items_per_second,
                reason=limit.reason,
                store_repeats=limit.store_repeats,
            )
            for limit in progress.limits
        ],
        resumed=progress.resumed,
    )
