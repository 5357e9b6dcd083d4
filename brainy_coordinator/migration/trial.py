"""Reads tried on the side that follows: the change of the routing record, and when it is allowed. Pure.

Before the switch that is the target, and it may answer. After it, while a way back is kept, it is the source: it is
asked besides and compared, and never answers.
"""

from __future__ import annotations

from brainy.bucket.records import Routing
from brainy.bucket.trial import ReadTrial
from brainy.errors import PreconditionError
from brainy_coordinator.migration.interventions import Intervention
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.reembedding import is_reembedded
from brainy_coordinator.migration.state import State, Trigger

_BEFORE_READY = frozenset({State.PENDING, State.PREFLIGHTING, State.COPYING, State.CATCHING_UP})


def setting(*, weight: float, shadow: float, restart: bool) -> Intervention:
    """Return the rule for setting the shares: what is persisted before the record is changed."""

    def asked(record: MigrationRecord, seen: Observation) -> Trigger | None:
        require_triable(record, seen.routing, weight=weight, shadow=shadow)
        wanted = try_reads(seen.routing, record, weight=weight, shadow=shadow, restart=restart)
        return None if wanted is seen.routing else Trigger.READS_SET

    return asked


def require_triable(record: MigrationRecord, routing: Routing, *, weight: float, shadow: float) -> None:
    """Check that reads can be tried on the side that follows; ending it is possible for longer than beginning it.

    Raises:
        PreconditionError: WRONG_PHASE, says what to wait for or what to do instead.
    """
    stops = not weight and not shadow
    if not stops and is_reembedded(record):
        raise _refused(
            record,
            "reads of one embedding model cannot be tried on another's",
            "hold it before the switch (--hold), and ask the target after it, with a way back (--keep-way-back)",
        )
    if record.state is State.OBSERVING and routing.active == record.target and routing.phase == "serving":
        if weight:
            raise _refused(
                record, "the migration has switched", "the source can be asked besides (shadow), not instead"
            )
        return
    if routing.migration != record.id or routing.active == record.target or record.target not in routing.generations:
        placed_soon = record.state in _BEFORE_READY
        raise _refused(
            record,
            "the migration has no target to try reads on",
            "wait until it is READY"
            if placed_soon
            else "it is over, or has switched: reads come from its target or not at all",
        )
    if routing.phase != "serving":
        raise _refused(record, "the namespace is switching", "try again in a few seconds")
    if not stops and record.state is not State.READY:
        raise _refused(record, "the target is not ready", "wait until the migration is READY")


def try_reads(
    routing: Routing, record: MigrationRecord, *, weight: float, shadow: float, restart: bool = False
) -> Routing:
    """Set the shares; returns the record itself if they are set already.

    A trial that begins, or begins afresh, gets a round of its own.

    Turned off (both 0) it stays in the record with its round, so that what was found remains and goes on when it is
    turned on again. It goes with the migration's end.
    """
    now = routing.reads
    fresh = now is None or now.generation != record.following or restart
    wanted = ReadTrial(
        generation=record.following,
        weight=weight,
        shadow=shadow,
        round=routing.epoch + 1 if fresh or now is None else now.round,
    )
    if now == wanted or (now is None and not weight and not shadow):
        return routing
    return routing.model_copy(update={"reads": wanted})


def _refused(record: MigrationRecord, message: str, remedy: str) -> PreconditionError:
    return PreconditionError(
        message, reason="WRONG_PHASE", remedy=remedy, migration=record.id, state=record.state.value.upper()
    )
