"""Dedicated namespace: another namespace moves into this one, which is empty (docs/protocols/move.md).

Before: this namespace holds nothing; its front doors refuse writes from when the target is placed until the switch.
Steps: the target's owners read the other namespace; *served by a cluster* they follow its change logs, its own
nodes serving on, and the cut-over stops the writes over there; *as Brainy left it*, with its writers stopped, it is
read once more for its digest.
After: this namespace serves; the other one, if a cluster serves it, answers that it has moved.
If it crashes at any step: one of the two takes writes, never both.
"""

from __future__ import annotations

from brainy_coordinator.migration.actions import Action
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.strategies.backup_restore import measured


class DedicatedNamespace:
    """A namespace elsewhere to generation 1 of this one."""

    def before_promotion(self, record: MigrationRecord, seen: Observation) -> tuple[Action, ...]:
        """Ask for the digest to compare with, where no nodes can be asked for it at the switch."""
        placed = seen.generation(record.target)
        followed = placed is not None and placed.origin is not None and placed.origin.is_followed
        return () if followed else measured(seen)
