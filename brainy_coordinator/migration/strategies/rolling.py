"""Rolling: nodes are adopted one by one, readers first; the writes move last, through the cut-over.

Before: the target is READY on every replica.
Steps, for each reachable node, those that own the fewest source shards first: 1. swap ``adopted[node] =
target``;
2. barrier on that one node: its front door answers reads from the target from then on.
After: every node reads from the target, every write still goes to the source, which the target follows.
If it crashes at step 1 or 2: the new leader repeats the node's adoption; nothing is lost, for reads may move
back and forth as long as both generations are served.
Abort: every adoption is undone in one swap.
A node that joins meanwhile is adopted like the others before the writes move.
"""

from __future__ import annotations

from collections import Counter

from brainy_coordinator.migration.actions import Action, AdoptNode
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import MigrationRecord


class Rolling:
    """Generation n to n+1, node by node."""

    def before_promotion(self, record: MigrationRecord, seen: Observation) -> tuple[Action, ...]:
        """Return the adoption of the next node, or nothing when all are adopted and say so."""
        source = seen.generation(record.source)
        owned = Counter(placed.owner for placed in source.shards.values()) if source else Counter[str]()
        for node_id in sorted(seen.reachable, key=lambda node: (owned[node], node)):
            adopted = seen.routing.adopted.get(node_id) == record.target
            if not adopted or node_id not in seen.facts.adopted_in_force:
                return (AdoptNode(node_id, record.target),)
        return ()
