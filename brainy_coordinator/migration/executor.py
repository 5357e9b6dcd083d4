"""The two sides of acting: what a decision needs to see, and how its actions are done."""

from __future__ import annotations

from typing import Protocol

from brainy_coordinator.migration.actions import Action
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import MigrationRecord


class Executor(Protocol):
    """One migration's hands and eyes. ``ClusterExecutor`` acts, ``DryRunExecutor`` only writes down.

    Every action is idempotent. An action that cannot be finished now returns with its effect missing from the
    next observation, or raises ``BrainyError``; either way it is decided again.
    """

    async def observe(self, record: MigrationRecord) -> Observation:
        """Return what is seen now."""

    async def perform(self, action: Action, record: MigrationRecord) -> None:
        """Do one action."""
