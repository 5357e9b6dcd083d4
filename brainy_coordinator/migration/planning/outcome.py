"""A plan held against the history of its migration. Pure.

The history is *as planned* when its events, disturbances left out, are the plan's, one after the other. A disturbance
is what nobody plans: a leader that takes over, an attempt to cut over that is given up and made again, a target that
falls behind and catches up, an abort. What an attempt did before it was given up belongs to the disturbance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from brainy_coordinator.migration.planning.plan import Plan, PlannedTransition
from brainy_coordinator.migration.record import Event, MigrationRecord
from brainy_coordinator.migration.state import Trigger

#: Kinds of calls as the plan names them.
_KINDS = {"put_conditional": "put"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was planned, and what happened."""

    plan: Plan
    as_planned: bool
    #: Events that the plan does not have, one line each.
    disturbances: tuple[str, ...]
    #: Planned transitions that have not happened (yet).
    remaining: int
    #: From the request to the last event, by the leaders' wall clocks.
    duration_seconds: float
    write_pause_seconds: float
    #: By kind, all nodes and the leader, clients' calls that they made meanwhile included.
    calls: dict[str, int]
    #: False where some calls are missing: a node or the leader began anew meanwhile.
    calls_complete: bool


def outcome_of(plan: Plan, record: MigrationRecord) -> Outcome:
    """Hold a plan against a migration, as far as it has come."""
    kept, disturbances = _without_disturbances(record.story)
    happened = [_transition(event) for event in kept]
    calls, complete = _calls(record.story)
    return Outcome(
        plan=plan,
        as_planned=happened == list(plan.transitions[: len(happened)]) and not record.reason,
        disturbances=tuple(event.line for event in disturbances),
        remaining=max(0, len(plan.transitions) - len(happened)),
        duration_seconds=max(0.0, record.story[-1].at - record.story[0].at),
        write_pause_seconds=record.write_pause_seconds,
        calls=calls,
        calls_complete=complete,
    )


def transitions_of(story: Sequence[Event]) -> tuple[PlannedTransition, ...]:
    """Return a history as a plan would have it: without disturbances."""
    return tuple(_transition(event) for event in _without_disturbances(story)[0])


def _transition(event: Event) -> PlannedTransition:
    # Whether somebody asked or the time was over: that the way back is given up is what was planned.
    trigger = Trigger.COMPLETE_REQUESTED if event.trigger is Trigger.OBSERVED else event.trigger
    return PlannedTransition(trigger=trigger, from_state=event.from_state, to_state=event.to_state)


def _without_disturbances(story: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """Return the events of the straight way, and the others."""
    straight: list[Event] = []
    others: list[Event] = []
    for event in story:
        if event.trigger is Trigger.WAVE_BAKED:
            # Planned as a step; how the nodes are grouped may differ with who is there.
            continue
        if event.trigger is Trigger.QUALITY_MEASURED:
            continue  # a check that was planned, or asked for; it leads nowhere else
        if event.trigger is Trigger.OBSERVED_SO_FAR:
            continue  # what was planned, going on
        if event.trigger is Trigger.LEADER_CHANGED or event.from_state is event.to_state:
            others.append(event)
            continue
        # Led back to where the history has been: the way from there to here was in vain.
        again = next((n for n, was in enumerate(straight) if was.to_state is event.to_state), None)
        if again is not None:
            others.extend(straight[again + 1 :])
            del straight[again + 1 :]
            others.append(event)
            continue
        straight.append(event)
    return straight, sorted(others, key=lambda event: event.sequence)


def _calls(story: Sequence[Event]) -> tuple[dict[str, int], bool]:
    """Add up what was called from event to event; counters that fell began anew."""
    total: Counter[str] = Counter()
    complete = True
    counted = [event for event in story if event.store_calls is not None]
    for before, after in pairwise(counted):
        was, now = before.store_calls or {}, after.store_calls or {}
        if before.leader_epoch != after.leader_epoch or any(now.get(kind, 0) < number for kind, number in was.items()):
            complete = False
            continue
        for kind, number in now.items():
            total[_KINDS.get(kind, kind)] += number - was.get(kind, 0)
    return dict(total), complete and len(counted) > 1
