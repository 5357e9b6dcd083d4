"""Backup and restore: a backup becomes the first generation of a namespace that is empty.

Before: the backup was read from its first to its last byte and is whole; the namespace holds nothing, and its front
doors refuse writes from when the target is placed until the switch.
Steps: 1. the target's owners read the backup, each the items of its own shards; 2. the coordinator reads it once more,
by itself, for its digest; 3. the cut-over, in which nothing has to be caught up and the target's digest must be that of
the backup.
After: as after every migration.
If it crashes at any step: as every migration; a shard that was published is not read again.
"""

from __future__ import annotations

from brainy_coordinator.migration.actions import Action, MeasureSource
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import MigrationRecord


class BackupRestore:
    """A backup to generation 1."""

    def before_promotion(self, record: MigrationRecord, seen: Observation) -> tuple[Action, ...]:
        """Ask for the digest to compare with."""
        return measured(seen)


def measured(seen: Observation) -> tuple[Action, ...]:
    """Return what is left to do before data that nobody changes can be compared with."""
    return () if seen.facts.measured else (MeasureSource(),)
