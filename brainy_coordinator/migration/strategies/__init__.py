"""What differs between the strategies: which traffic moves before the writes do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from brainy_coordinator.migration import record as records
from brainy_coordinator.migration.actions import Action
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.strategies import (
    backup_restore,
    blue_green,
    coordinated,
    dedicated_namespace,
    in_place_upgrade,
    rolling,
    sparse_import,
)


class StrategyRules(Protocol):
    """One strategy. Pure."""

    def before_promotion(self, record: records.MigrationRecord, seen: Observation) -> tuple[Action, ...]:
        """Return what must still be done at READY before the cut-over may begin; empty when nothing."""


STRATEGIES: Mapping[records.Strategy, StrategyRules] = {
    "in_place_upgrade": in_place_upgrade.InPlaceUpgrade(),
    "rolling": rolling.Rolling(),
    "blue_green": blue_green.BlueGreen(),
    "coordinated": coordinated.Coordinated(),
    "backup_restore": backup_restore.BackupRestore(),
    "sparse_import": sparse_import.SparseImport(),
    "dedicated_namespace": dedicated_namespace.DedicatedNamespace(),
}
