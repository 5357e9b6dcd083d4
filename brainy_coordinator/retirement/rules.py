"""What may be done with a generation that is not served any more, and when. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from brainy.bucket.follow import FollowChoice
from brainy.bucket.records import Routing
from brainy.bucket.retirement import Retirement
from brainy.errors import PastPointOfNoReturnError, PreconditionError


def effective_seconds(wished: float, *, log_retention_seconds: float) -> float:
    """Return for how long a generation is kept when so long was asked for.

    Never less than a change log's beginning is kept after a checkpoint: within that time an owner that was stopped, and
    replaced, takes a PUT that it won for its own (``brainy.changelog.writing``, *Proof*).
    """
    return max(wished, log_retention_seconds)


def waits_for(
    record: Retirement,
    routing: Routing,
    choice: FollowChoice,
    *,
    unconfirmed: Collection[str],
    wanted: Mapping[int, str],
) -> str:
    """Return what holds up the deletion of a generation whose time is over; "" when nothing does.

    Args:
        record: of the generation.
        routing: the record in force.
        choice: whether Brainy's tree is followed or mirrored to.
        unconfirmed: nodes that have not said that they have ``routing`` in force.
        wanted: generation -> running migration that builds it or is made of it.
    """
    number = record.generation
    if number in routing.generations:
        return "it is in service"
    if number in wanted:
        return f"migration {wanted[number]} needs it"
    if choice.mirror:
        return "commits are mirrored to Brainy's tree, from its log as well (brainy mirror --off)"
    if choice.follow:
        return "Brainy's tree is followed, and what was said before is looked up in its log (brainy follow --off)"
    if unconfirmed:
        return f"not confirmed by {', '.join(sorted(unconfirmed))} that it is out of service (brainy status)"
    return ""


def require_out_of_service(number: int, routing: Routing, wanted: Mapping[int, str]) -> None:
    """Check that a generation is not served and nobody needs it.

    Raises:
        PreconditionError: WRONG_PHASE.
    """
    if number in routing.generations or number in wanted:
        raise PreconditionError(
            "the generation is in service",
            reason="WRONG_PHASE",
            remedy="wait until its migration has ended (brainy migrate complete, or abort)",
            generation=number,
            migration=wanted.get(number, routing.migration or ""),
        )


def require_undecided(record: Retirement) -> None:
    """Check that the deletion of a generation has not begun.

    Raises:
        PastPointOfNoReturnError: it has.
    """
    if record.state in ("deleting", "deleted"):
        raise PastPointOfNoReturnError(
            "the generation is deleted" if record.state == "deleted" else "the generation is being deleted",
            remedy="restore a backup into another namespace to have what it held",
            generation=record.generation,
            objects=record.objects,
        )
