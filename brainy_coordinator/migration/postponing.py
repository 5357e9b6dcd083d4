"""A switch that is put off, as a decision sees it. Pure; ``switch_countdown`` counts."""

from __future__ import annotations

from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import MigrationRecord


def postponed_for(record: MigrationRecord, seen: Observation) -> float:
    """Return for how many seconds the switch must still wait because somebody put it off; 0 for none."""
    if record.postponed is None:
        return 0.0
    left = seen.facts.postponed_left
    return record.postponed.seconds if left is None else left


def postponed_text(record: MigrationRecord, seen: Observation) -> str:
    """Return that in words."""
    left = postponed_for(record, seen)
    wait = f"{left / 3600:.1f} h" if left >= 3600 else f"{left:.0f} s"
    why = f": {record.postponed.reason}" if record.postponed is not None and record.postponed.reason else ""
    return f"postponed for another {wait}{why} (promote it, or brainy migrate postpone --for 0s)"
