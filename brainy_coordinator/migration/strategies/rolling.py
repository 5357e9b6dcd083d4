"""Rolling: nodes are adopted in waves, readers first; the writes move last, through the cut-over.

Before: the target is READY on every replica.
Steps, for each wave of reachable nodes (one node, unless ``max_unavailable`` says otherwise; ``migration.waves``),
those that own the fewest source shards first: 1. swap ``adopted[node] = target`` for all of them;
2. barrier on these nodes: their front doors answer reads from the target from then on;
3. with ``bake_seconds``: watch that every node and replica is healthy for so long; what is not begins the time anew;
4. where waves are asked for: ``wave_baked`` in the history.
After: every node reads from the target, every write still goes to the source, which the target follows.
If it crashes at step 1 or 2: the new leader repeats the wave's adoption; nothing is lost, for reads may move
back and forth as long as both generations are served. At step 3 the time to bake begins anew.
Pause: no further step; time that nobody watched is not baked.
Abort: every adoption is undone in one swap.
A node that joins meanwhile is adopted like the others before the writes move.
"""

from __future__ import annotations

from brainy_coordinator.migration.actions import Action, AdoptNode, AdoptWave, AwaitBake
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.waves import current_wave, moved, next_wave, waiting


class Rolling:
    """Generation n to n+1, wave by wave."""

    def before_promotion(self, record: MigrationRecord, seen: Observation) -> tuple[Action, ...]:
        """Return what is next of: a wave's adoption, its time to bake; nothing when all nodes are through."""
        unconfirmed = tuple(node for node in moved(record, seen) if node not in seen.facts.adopted_in_force)
        if unconfirmed:
            return _adopt(unconfirmed if record.request.in_waves else unconfirmed[:1], record.target)
        baking = current_wave(record, seen)
        if baking:
            return (AwaitBake(baking),)
        wave = next_wave(record, seen, waiting(record, seen))
        return _adopt(wave, record.target) if wave else ()


def _adopt(nodes: tuple[str, ...], target: int) -> tuple[Action, ...]:
    return (AdoptNode(nodes[0], target),) if len(nodes) == 1 else (AdoptWave(nodes, target),)
