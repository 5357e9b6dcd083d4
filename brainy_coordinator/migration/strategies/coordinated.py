"""Coordinated: a window in which nobody writes; the reads of all nodes move first, together, the writes last.

Before: the operator has stopped every writer and said so (``writers_stopped``; preflight asks for it). The target is
READY on every replica.
Steps: 1. wait until no shard of the source took a record for ``QUIET_SECONDS``: the operator's word is looked at, not
only believed; 2. swap ``adopted[node] = target`` for every node at once, and one barrier: all front doors answer
reads from the target; 3. if a record arrived since step 1, step 1 again; 4. the cut-over.
After: as after every migration. Between steps 2 and 4 nothing was written, so that no read was older than another,
and giving up loses nothing.
A writer that was forgotten: its writes are acknowledged, and the target follows them, as in every strategy. The
migration waits, names the shards that move, and goes on once they are still.
If it crashes at any step: the new leader repeats them; reads may move back and forth, both sides being equal.
Abort: every adoption is undone in one swap.
"""

from __future__ import annotations

from brainy_coordinator.migration.actions import Action, AdoptAll, AwaitQuiet
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import MigrationRecord

#: How long the source must have taken no record before reads move.
QUIET_SECONDS = 2.0


class Coordinated:
    """Generation n to n+1 under stopped writers, reads before writes."""

    def before_promotion(self, record: MigrationRecord, seen: Observation) -> tuple[Action, ...]:
        """Return what is next of: stillness, all adoptions; nothing when both are so."""
        still = seen.facts.still
        if still is None or not still.quiet or still.positions != seen.ends(record.source):
            return (AwaitQuiet(record.source),)
        adopted = {node for node in seen.reachable if seen.routing.adopted.get(node) == record.target}
        if adopted & seen.facts.adopted_in_force != seen.reachable:
            return (AdoptAll(record.target),)
        return ()
