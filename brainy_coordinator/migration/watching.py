"""What to make of how the target serves while a way back is kept. Pure.

**Time.** What counts is time that some leader has watched, by its own clock; no two clocks are compared. After every
twentieth part of the time to observe it writes down how much that was in all (OBSERVED_SO_FAR), unless a limit is
broken. The next leader goes on from there: it is watched for no less than was asked, and a twentieth at most is
watched twice.

**Verdict.** Figures of the last minutes since the switch are held against the limits (``brainy.traffic.limits``). One
that is broken asks for the rollback, under the name ``automatic``. Where a rollback found that both sides differ
nothing is asked for any more: somebody has to look. A pause holds this as it holds everything.

**End.** When the time is over it completes by itself, if every limit could be judged and is kept. Where too few calls
were seen it waits for more, or for somebody.
"""

from __future__ import annotations

from brainy.traffic.limits import RollbackLimits, Verdict, judge_serving
from brainy.traffic.serving import ServingFigures
from brainy_coordinator.migration.actions import ShadowReads
from brainy_coordinator.migration.cut_over import Decision
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import AUTOMATIC, MigrationRecord
from brainy_coordinator.migration.state import Trigger

#: Into so many parts the time to observe is divided; what each leader has watched is written down after each.
PARTS = 20
_SHORTEST_PART_SECONDS = 1.0


def watching(record: MigrationRecord, seen: Observation, now: float) -> Decision:
    """Decide in OBSERVING while nobody wants anything else."""
    limits = record.request.rollback_if
    found = verdict(record, seen)
    figures = seen.facts.served.get(record.target) if limits is not None else None
    if found.breaches and not record.differs:
        return Decision(
            trigger=Trigger.ROLLBACK_REQUESTED, detail="; ".join(found.breaches), by=AUTOMATIC, served=figures
        )
    if limits is not None and limits.overlap is not None and seen.routing.reads is None:
        return Decision(actions=(ShadowReads(record.following, limits.shadow),))
    asked, watched = record.request.observe_seconds, watched_seconds(seen, now)
    if not asked or watched is None or record.differs:
        return Decision()
    if watched >= asked:
        if found.lacking:
            return Decision()
        detail = f"observed for {asked:g} s"
        return Decision(trigger=Trigger.OBSERVED, detail=detail, observed_seconds=watched, served=figures)
    if watched - record.observed_seconds >= max(asked / PARTS, _SHORTEST_PART_SECONDS):
        detail = f"{watched:.0f} s of {asked:g} s" + (f": {figures.text}" if figures is not None else "")
        return Decision(trigger=Trigger.OBSERVED_SO_FAR, detail=detail, observed_seconds=watched, served=figures)
    return Decision()


def verdict(record: MigrationRecord, seen: Observation) -> Verdict:
    """Judge the target by what is seen of it; without limits nothing is wrong and nothing is missing."""
    limits: RollbackLimits | None = record.request.rollback_if
    if limits is None:
        return Verdict()
    return judge_serving(limits, seen.facts.served.get(record.target, ServingFigures()), record.served_before)


def watched_seconds(seen: Observation, now: float) -> float | None:
    """Seconds since the switch that leaders have watched; None before this one has begun to."""
    since = seen.facts.observing_since
    return None if since is None else seen.facts.observed_before + now - since


def seconds_left(record: MigrationRecord, seen: Observation, now: float) -> float | None:
    """Seconds until the time to observe is over; None for never."""
    watched = watched_seconds(seen, now)
    if not record.request.observe_seconds or watched is None:
        return None
    return record.request.observe_seconds - watched


def complaints(record: MigrationRecord, seen: Observation, now: float) -> list[str]:
    """What there is to say of the target, in words, each with what to do about it."""
    found = verdict(record, seen)
    said = [f"{breach} (it rolls back by itself)" for breach in found.breaches] if not record.differs else []
    left = seconds_left(record, seen, now)
    if found.lacking and not record.differs:
        over = (
            "the time to observe is over, but it cannot be judged"
            if left is not None and left <= 0
            else "not judged yet"
        )
        said.append(f"{over}: {'; '.join(found.lacking)} (let clients use it, or complete it)")
    return said
