"""What both ways over have in common: forward from source to target, and back. Pure.

``leading`` is the generation that is active, ``following`` the one that is to be.
"""

from __future__ import annotations

from dataclasses import dataclass

from brainy.traffic.serving import ServingFigures
from brainy_coordinator.migration.actions import (
    Action,
    AwaitCatchUp,
    Commit,
    CompareDigests,
    Drain,
    TakePositions,
    Undrain,
)
from brainy_coordinator.migration.observation import CutOver, Observation, ReplicaState, lag_of_shard
from brainy_coordinator.migration.quality import QualityFound
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.state import Trigger

#: Records a following shard may be behind when the cut-over begins; they are caught up while writes wait.
LAG_LIMIT = 1000
#: READY is left only from here on, so that it does not flutter around the limit.
LAG_EXCEEDED_LIMIT = 10 * LAG_LIMIT
#: Seconds between attempts to cut over: doubled each time, from the first to the last.
RETRY_FIRST_SECONDS = 1.0
RETRY_LAST_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The next step. Without trigger and actions there is nothing to do but wait."""

    trigger: Trigger | None = None
    #: Why, for the story.
    detail: str = ""
    write_pause_seconds: float | None = None
    #: Only with QUALITY_MEASURED.
    quality: QualityFound | None = None
    #: Who caused it; the leader if empty.
    by: str = ""
    observed_seconds: float | None = None
    served: ServingFigures | None = None
    actions: tuple[Action, ...] = ()
    #: Whom the transition is about, for the history.
    nodes: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether only the passing of time, or others, can help."""
        return self.trigger is None and not self.actions


def retry_delay(retries: int) -> float:
    """Seconds to wait before the next attempt, after ``retries`` of them were given up."""
    return min(RETRY_LAST_SECONDS, RETRY_FIRST_SECONDS * 2.0 ** max(0, min(retries, 16) - 1))


def backs_off(record: MigrationRecord, seen: Observation, now: float) -> float:
    """Seconds until the next attempt may begin; 0 when it may."""
    gave_up_at = seen.facts.gave_up_at
    return 0.0 if gave_up_at is None else max(0.0, gave_up_at + retry_delay(record.retries) - now)


def taking_positions(record: MigrationRecord, seen: Observation, now: float, *, interrupted: Trigger) -> Decision:
    """Stop the writes and learn where they ended. The trigger is DRAINED once that is known."""
    attempt = seen.facts.cut_over
    if attempt is None and not seen.is_draining():
        if record.paused:
            return Decision(trigger=interrupted, detail="paused")
        return Decision(actions=(Drain(record.leading),))
    given_up = give_up(record, seen, now, interrupted=interrupted)
    if given_up is not None:
        return given_up
    if attempt is None or attempt.positions is None:
        return Decision(actions=(TakePositions(record.leading),))
    return Decision(trigger=Trigger.DRAINED)


def comparing(
    record: MigrationRecord, seen: Observation, now: float, *, interrupted: Trigger, unequal: Trigger
) -> Decision:
    """With the writes stopped: catch up, compare, and change sides."""
    given_up = give_up(record, seen, now, interrupted=interrupted)
    if given_up is not None:
        return given_up
    attempt = seen.facts.cut_over
    if attempt is None or not attempt.caught_up:
        return Decision(actions=(AwaitCatchUp(record.following),))
    if attempt.digest_equal is None:
        return Decision(actions=(CompareDigests(record.leading, record.following),))
    if not attempt.digest_equal:
        return Decision(
            trigger=unequal,
            detail="source and target differ; nothing was changed",
            actions=(Undrain(record.leading, "the digests differ"),),
        )
    return Decision(actions=(Commit(record.leading, record.following),))


def give_up(record: MigrationRecord, seen: Observation, now: float, *, interrupted: Trigger) -> Decision | None:
    """Whether the attempt to cut over must end: interrupted, or writes have waited too long."""
    attempt: CutOver | None = seen.facts.cut_over
    trigger: Trigger | None = None
    detail = ""
    if attempt is None:
        trigger, detail = interrupted, "the leader that stopped the writes is gone"
    elif not seen.is_draining() or attempt.epoch != seen.routing.epoch:
        trigger, detail = interrupted, "the routing record changed while writes were stopped"
    elif now - attempt.started_at > record.request.pause_cap_seconds:
        trigger = Trigger.PAUSE_CAP_EXCEEDED
        detail = f"writes had waited {now - attempt.started_at:.3f} s"
    if trigger is None:
        return None
    return Decision(trigger=trigger, detail=detail, actions=(Undrain(record.leading, detail),))


def behind(record: MigrationRecord, seen: Observation, limit: int) -> str:
    """Return what keeps the side that follows from being ready, or ""."""
    placed = seen.generation(record.following)
    if placed is None:
        return "the target is not placed"
    for shard, where in sorted(placed.shards.items()):
        for node_id in (where.owner, *where.replicas):
            found = seen.replica(record.following, shard, node_id)
            if found is None or found.state is not ReplicaState.READY:
                state = "unseen" if found is None else found.state.name.lower()
                return f"shard {shard} on {node_id} is {state}"
        lag = lag_of_shard(seen, record.leading, record.following, shard)
        if lag is None:
            return f"the lag of shard {shard} is not known"
        if lag > limit:
            return f"shard {shard} is {lag} records behind"
    return ""


def unready_leaders(record: MigrationRecord, seen: Observation) -> str:
    """Return which owner could not answer if writes were stopped now, or ""."""
    placed = seen.generation(record.leading)
    if placed is None:
        return f"generation {record.leading} is not placed"
    for shard, where in sorted(placed.shards.items()):
        found = seen.replica(record.leading, shard, where.owner)
        if where.owner not in seen.reachable or found is None or found.state is not ReplicaState.READY:
            return f"the owner of shard {shard}, {where.owner}, does not answer"
    return ""
