"""Blue-green: the target lives on nodes of its own; reads and writes move there together, in the one swap.

Before: nodes of the target's pool (green) are there and hold nothing of it; the source is on others (blue).
Steps: those of every migration; the target is placed on green and nowhere else, filled, and follows. Blue serves all
the while. In the swap of the cut-over everything moves to green; every front door, those on blue nodes as well,
fans out to green from then on.
After: the source leaves the routing record, and blue nodes drop their copies of it. They can be drained.
If green loses a node: its shards go to other green nodes, at a higher epoch; with none left they wait for one.
If blue loses a node: as without a migration. Green never takes over the source while a blue node is there.
Abort: the target leaves the record; green holds nothing again.
"""

from __future__ import annotations

from brainy_coordinator.migration.actions import Action
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import MigrationRecord


class BlueGreen:
    """Generation n to n+1, from the nodes of one pool to those of another."""

    def before_promotion(self, record: MigrationRecord, seen: Observation) -> tuple[Action, ...]:
        """Nothing moves early."""
        return ()
