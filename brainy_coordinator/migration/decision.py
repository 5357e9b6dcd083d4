"""What to do next: a function of the record, what is seen, and the time. Pure; reads no clock, does no I/O.

A decision names the transition to persist, if any, and then the actions to take. Everything a leader learnt
only by acting (``Facts``) may be missing: a new leader decides rightly from the history and the routing
record alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from brainy_coordinator.migration.actions import (
    Action,
    AwaitCatchUp,
    Commit,
    CompareDigests,
    CountQuarantine,
    CreateTarget,
    Drain,
    PlaceTarget,
    Release,
    RetireSource,
    RunPreflight,
    TakePositions,
    Undo,
    Undrain,
)
from brainy_coordinator.migration.observation import Observation, ReplicaState, count_quarantined, lag_of_shard
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.strategies import STRATEGIES

#: Records a target shard may be behind when the cut-over begins; they are caught up while writes wait.
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
    actions: tuple[Action, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether only the passing of time, or others, can help."""
        return self.trigger is None and not self.actions


_WAIT = Decision()


def decide(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    """Return the next step.

    Args:
        record: the migration, folded from its history.
        seen: the cluster as it is.
        now: monotonic seconds, on the clock of ``seen.facts``.
    """
    if record.state.is_terminal:
        return _WAIT
    if seen.routing.active == record.target and not record.state.is_committed:
        pause = seen.facts.write_pause_seconds
        return Decision(trigger=Trigger.COMMITTED, write_pause_seconds=pause)
    return _DECIDERS[record.state](record, seen, now)


def retry_delay(retries: int) -> float:
    """Seconds to wait before the next attempt, after ``retries`` of them were given up."""
    return min(RETRY_LAST_SECONDS, RETRY_FIRST_SECONDS * 2.0 ** max(0, min(retries, 16) - 1))


def _pending(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    return Decision(trigger=Trigger.BEGUN)


def _preflighting(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    if seen.facts.checks is None:
        return Decision(actions=(RunPreflight(),))
    failed = [check for check in seen.facts.checks if not check.passed]
    if failed:
        detail = "; ".join(f"{check.name}: {check.detail}" for check in failed)
        return Decision(trigger=Trigger.PREFLIGHT_FAILED, detail=detail)
    return Decision(trigger=Trigger.PREFLIGHT_PASSED)


def _copying(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    early = _restore_order(record, seen)
    if early is not None:
        return early
    copied = (ReplicaState.REPLAYING, ReplicaState.READY)
    owners = seen.owners(record.target).values()
    if all(owner is not None and owner.state in copied for owner in owners):
        return Decision(trigger=Trigger.COPY_DONE)
    return _WAIT


def _catching_up(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    early = _restore_order(record, seen)
    if early is not None:
        return early
    if behind(record, seen, LAG_LIMIT):
        return _WAIT
    # What the target could not read never changes once it is filled, so it is counted here, before anything moves.
    if count_quarantined(seen.routing, record.target, seen.replicas) > record.request.quarantine_limit:
        check = seen.facts.quarantine
        if check is None:
            return Decision(actions=(CountQuarantine(record.target),))
        if not check.passed:
            return Decision(
                trigger=Trigger.QUARANTINE_EXCEEDED,
                detail=f"{check.reason}: {check.detail}; the source goes on serving: mend and replay the objects "
                "(brainy quarantine), or raise quarantine_limit",
            )
    return Decision(trigger=Trigger.LAG_IN_BOUNDS)


def _ready(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    early = _restore_order(record, seen)
    if early is not None:
        return early
    problem = behind(record, seen, LAG_EXCEEDED_LIMIT)
    if problem:
        return Decision(trigger=Trigger.LAG_EXCEEDED, detail=problem)
    moves = STRATEGIES[record.request.strategy].before_promotion(record, seen)
    if moves:
        return Decision(actions=moves)
    gave_up_at = seen.facts.gave_up_at
    if gave_up_at is not None and now - gave_up_at < retry_delay(record.retries):
        return _WAIT
    if behind(record, seen, LAG_LIMIT) or _unready_sources(record, seen):
        return _WAIT
    return Decision(trigger=Trigger.PROMOTED)


def _cutting_over(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    attempt = seen.facts.cut_over
    if attempt is None and not seen.is_draining():
        return Decision(actions=(Drain(record.source),))
    given_up = _give_up(record, seen, now)
    if given_up is not None:
        return given_up
    if attempt is None or attempt.positions is None:
        return Decision(actions=(TakePositions(record.source),))
    return Decision(trigger=Trigger.DRAINED)


def _verifying(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    given_up = _give_up(record, seen, now)
    if given_up is not None:
        return given_up
    attempt = seen.facts.cut_over
    if attempt is None or not attempt.caught_up:
        return Decision(actions=(AwaitCatchUp(record.target),))
    if attempt.digest_equal is None:
        return Decision(actions=(CompareDigests(record.source, record.target),))
    if not attempt.digest_equal:
        return Decision(
            trigger=Trigger.DIGEST_UNEQUAL,
            detail="source and target differ; nothing was changed",
            actions=(Undrain(record.source, "the digests differ"),),
        )
    return Decision(actions=(Commit(record.source, record.target),))


def _completing(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    if record.source not in seen.routing.generations:
        return Decision(trigger=Trigger.COMPLETED, write_pause_seconds=seen.facts.write_pause_seconds)
    if seen.reachable - seen.facts.released:
        return Decision(actions=(Release(record.target),))
    return Decision(actions=(RetireSource(record.source),))


def _aborting(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    if seen.routing.migration == record.id:
        return Decision(actions=(Undo(record.target),))
    return Decision(trigger=Trigger.UNDONE)


_DECIDERS: Mapping[State, Callable[[MigrationRecord, Observation, float], Decision]] = {
    State.PENDING: _pending,
    State.PREFLIGHTING: _preflighting,
    State.COPYING: _copying,
    State.CATCHING_UP: _catching_up,
    State.READY: _ready,
    State.CUTTING_OVER: _cutting_over,
    State.VERIFYING: _verifying,
    State.COMPLETING: _completing,
    State.ABORTING: _aborting,
}


def _restore_order(record: MigrationRecord, seen: Observation) -> Decision | None:
    """What every state between preflight and cut-over insists on: writes flow, and the target is placed."""
    if seen.is_draining() and seen.routing.migration == record.id:
        return Decision(actions=(Undrain(record.source, "left by an attempt that was given up"),))
    if record.target not in seen.routing.generations:
        return Decision(actions=(CreateTarget(record.target), PlaceTarget(record.target, record.source)))
    return None


def _give_up(record: MigrationRecord, seen: Observation, now: float) -> Decision | None:
    """Whether the attempt to cut over must end: interrupted, or writes have waited too long."""
    attempt = seen.facts.cut_over
    trigger: Trigger | None = None
    detail = ""
    if attempt is None:
        trigger, detail = Trigger.CUT_OVER_INTERRUPTED, "the leader that stopped the writes is gone"
    elif not seen.is_draining() or attempt.epoch != seen.routing.epoch:
        trigger, detail = Trigger.CUT_OVER_INTERRUPTED, "the routing record changed while writes were stopped"
    elif now - attempt.started_at > record.request.pause_cap_seconds:
        trigger = Trigger.PAUSE_CAP_EXCEEDED
        detail = f"writes had waited {now - attempt.started_at:.3f} s"
    if trigger is None:
        return None
    return Decision(trigger=trigger, detail=detail, actions=(Undrain(record.source, detail),))


def behind(record: MigrationRecord, seen: Observation, limit: int) -> str:
    """Return what keeps the target from being ready, or ""."""
    placed = seen.generation(record.target)
    if placed is None:
        return "the target is not placed"
    for shard, where in sorted(placed.shards.items()):
        for node_id in (where.owner, *where.replicas):
            found = seen.replica(record.target, shard, node_id)
            if found is None or found.state is not ReplicaState.READY:
                state = "unseen" if found is None else found.state.name.lower()
                return f"shard {shard} on {node_id} is {state}"
        lag = lag_of_shard(seen, record.source, record.target, shard)
        if lag is None:
            return f"the lag of shard {shard} is not known"
        if lag > limit:
            return f"shard {shard} is {lag} records behind"
    return ""


def _unready_sources(record: MigrationRecord, seen: Observation) -> bool:
    """Whether stopping the writes now would only wait for an owner that cannot answer."""
    placed = seen.generation(record.source)
    if placed is None:
        return True
    return any(
        where.owner not in seen.reachable
        or (found := seen.replica(record.source, shard, where.owner)) is None
        or found.state is not ReplicaState.READY
        for shard, where in placed.shards.items()
    )
