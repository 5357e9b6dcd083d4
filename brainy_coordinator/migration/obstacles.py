"""What a migration waits for, in words, each with what to do about it. Pure; for people and for refusals."""

from __future__ import annotations

from brainy_coordinator.migration.cut_over import LAG_LIMIT, backs_off, behind, unready_leaders
from brainy_coordinator.migration.observation import Observation, ReplicaState
from brainy_coordinator.migration.observing import seconds_left
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.state import State

_FILLING = (State.COPYING, State.CATCHING_UP, State.READY)


def obstacles(record: MigrationRecord, seen: Observation, now: float) -> tuple[str, ...]:
    """Return what keeps it from its next step; empty when nothing does, or nothing is left to do."""
    if record.state.is_terminal:
        return ()
    found: list[str] = []
    if record.paused:
        found.append(f"paused: {'; '.join(record.paused)} (resume it)")
    if record.state in _FILLING:
        found += not_ready(record, seen)
        wait = backs_off(record, seen, now)
        if wait:
            found.append(f"the next attempt begins in {wait:.0f} s")
        if record.state is State.READY and seen.facts.still is not None and seen.facts.still.complaint:
            found.append(seen.facts.still.complaint)
        if seen.facts.elsewhere:
            found.append(f"{record.request.source.name if record.request.source else 'source'}: {seen.facts.elsewhere}")
        if record.held:
            found.append("held before the switch (promote it)" if not record.rolled_back else _HELD_AFTER)
    elif record.state is State.OBSERVING:
        if record.wants_rollback:
            found += not_ready(record, seen)
            wait = backs_off(record, seen, now)
            if wait:
                found.append(f"the next attempt to roll back begins in {wait:.0f} s")
        else:
            left = None if record.differs else seconds_left(record, seen, now)
            if record.differs:
                found.append("a rollback found that both sides differ (compare them: brainy verify)")
            when = "when it is asked to" if left is None else f"in {max(0.0, left):.0f} s"
            found.append(f"the source follows; it completes {when} (complete it, or roll it back)")
    return tuple(found)


_HELD_AFTER = "held after a rollback (promote it, or abort it)"


def not_ready(record: MigrationRecord, seen: Observation) -> list[str]:
    """Return what must be mended before the sides can change."""
    placed = seen.generation(record.following)
    owners = seen.owners(record.following).values() if placed is not None else ()
    if record.state is State.COPYING:
        copied = sum(owner is not None and owner.state is not ReplicaState.COPYING for owner in owners)
        return [f"{copied} of {len(owners)} shards are copied (wait)"]
    problems = [behind(record, seen, LAG_LIMIT), unready_leaders(record, seen)]
    return [f"{problem} (wait, or see brainy status)" for problem in problems if problem]
