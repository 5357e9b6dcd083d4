"""What a migration waits for, in words, each with what to do about it. Pure; for people and for refusals."""

from __future__ import annotations

from dataclasses import dataclass

from brainy_coordinator.migration.cut_over import backs_off, behind, unready_leaders
from brainy_coordinator.migration.observation import Observation, ReplicaState
from brainy_coordinator.migration.postponing import postponed_for, postponed_text
from brainy_coordinator.migration.quality import complaint
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.reembedding import lag_limit
from brainy_coordinator.migration.state import State
from brainy_coordinator.migration.watching import complaints, seconds_left

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
        if record.state is State.READY and seen.facts.bake is not None and seen.facts.bake.complaint:
            found.append(f"a wave begins to bake anew: {seen.facts.bake.complaint} (mend it, pause it, or abort it)")
        if seen.facts.elsewhere:
            found.append(f"{record.request.source.name if record.request.source else 'source'}: {seen.facts.elsewhere}")
        if record.held:
            found.append(HELD if not record.rolled_back else _HELD_AFTER)
        if postponed_for(record, seen):
            found.append(postponed_text(record, seen))
    elif record.state is State.OBSERVING:
        if record.wants_rollback:
            if record.breach:
                found.append(f"it rolls back by itself: {record.breach} (wait)")
            found += not_ready(record, seen)
            wait = backs_off(record, seen, now)
            if wait:
                found.append(f"the next attempt to roll back begins in {wait:.0f} s")
        else:
            left = None if record.differs else seconds_left(record, seen, now)
            if record.differs:
                found.append("a rollback found that both sides differ (compare them: brainy verify)")
            found += complaints(record, seen, now)
            when = "when it is asked to" if left is None else f"in {max(0.0, left):.0f} s"
            found.append(f"the source follows; it completes {when} (complete it, or roll it back)")
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One thing in the way of a switch."""

    reason: str
    remedy: str


def switch_obstacles(record: MigrationRecord, seen: Observation | None, now: float) -> tuple[Obstacle, ...]:
    """Return what is in the way of a switch, a hold and a postponement apart: ``promote`` overrides those.

    Empty: it switches now, or would once it is promoted.
    """
    if record.state is State.SUCCEEDED or record.state.is_committed:
        return (Obstacle(reason="it has switched", remedy="roll it back first, where a way back is kept"),)
    if record.state in (State.ABORTING, State.ABORTED) or seen is None:
        return (Obstacle(reason="it was aborted", remedy="start another migration"),)
    if record.state in (State.CUTTING_OVER, State.VERIFYING):
        return ()
    overridden = {HELD, _HELD_AFTER, postponed_text(record, seen)}
    found = [_split(text) for text in obstacles(record, seen, now) if text not in overridden]
    if not found and record.state is not State.READY:
        state = record.state.value.replace("_", " ")
        found.append(Obstacle(reason=f"it is {state}", remedy="wait (brainy migrate watch)"))
    return tuple(found)


def _split(text: str) -> Obstacle:
    reason, parenthesis, remedy = text.rpartition(" (")
    if not parenthesis or not text.endswith(")"):
        return Obstacle(reason=text, remedy="wait")
    return Obstacle(reason=reason, remedy=remedy.removesuffix(")"))


HELD = "held before the switch (promote it)"
_HELD_AFTER = "held after a rollback (promote it, or abort it)"


def not_ready(record: MigrationRecord, seen: Observation) -> list[str]:
    """Return what must be mended before the sides can change."""
    placed = seen.generation(record.following)
    owners = seen.owners(record.following).values() if placed is not None else ()
    if record.state is State.COPYING:
        copied = sum(owner is not None and owner.state is not ReplicaState.COPYING for owner in owners)
        return [f"{copied} of {len(owners)} shards are copied (wait)"]
    problems = [behind(record, seen, lag_limit(record)), unready_leaders(record, seen)]
    found = [f"{problem} (wait, or see brainy status)" for problem in problems if problem]
    if record.state is State.READY:
        found.append(complaint(record.request.quality, record.quality, accepted=record.quality_accepted))
    return [problem for problem in found if problem]
