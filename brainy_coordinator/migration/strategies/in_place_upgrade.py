"""In-place upgrade: reads and writes move together, in the one swap of the cut-over."""

from __future__ import annotations

from brainy_coordinator.migration.actions import Action
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import MigrationRecord


class InPlaceUpgrade:
    """Generation n to n+1 under the same prefix, on the same nodes, writes flowing."""

    def before_promotion(self, record: MigrationRecord, seen: Observation) -> tuple[Action, ...]:
        """Nothing moves early."""
        return ()
