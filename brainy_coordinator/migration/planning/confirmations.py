"""What a person has to confirm before a plan is executed. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from brainy_coordinator.migration.planning.plan import Confirmation, PlanBasis
from brainy_coordinator.migration.record import Request

WRITERS_STOPPED = "writers-stopped"
QUARANTINED_LEFT_OUT = "quarantined-left-out"
MIXED_DIMENSIONS = "mixed-dimensions"
NO_WAY_BACK = "no-way-back"
VECTORS_MADE_ANEW = "vectors-made-anew"


def confirmations(request: Request, basis: PlanBasis, dimensions: Mapping[int, int]) -> tuple[Confirmation, ...]:
    """Return what has to be confirmed.

    Args:
        request: what is asked for.
        basis: what there is.
        dimensions: vector length -> nouns, as far as they were looked at.
    """
    found: list[Confirmation] = []
    if basis.trees and not basis.following:
        found.append(
            Confirmation(
                name=WRITERS_STOPPED,
                message="no Brainy process writes any more: what one writes now would not be seen"
                " (brainy follow --on takes it over)",
            )
        )
    if basis.quarantined:
        found.append(
            Confirmation(
                name=QUARANTINED_LEFT_OUT,
                message=f"{basis.quarantined:,} objects that cannot be read may stay out (brainy quarantine list)",
            )
        )
    lengths = sorted(length for length in dimensions if length)
    if basis.trees and len(lengths) > 1:
        found.append(
            Confirmation(
                name=MIXED_DIMENSIONS,
                message=f"{basis.dimensions} is the right vector length of {', '.join(map(str, lengths))};"
                " nouns of another are kept and not searched",
            )
        )
    if request.target.embedding is not None:
        found.append(
            Confirmation(
                name=VECTORS_MADE_ANEW,
                message=f"{request.target.embedding.model} may make every noun's vector anew out of its text: vectors"
                " that callers brought are dropped, a noun without a text keeps none, and other neighbours are found",
            )
        )
    if request.source is not None:
        found.append(
            Confirmation(
                name=NO_WAY_BACK,
                message=f"after the switch {request.source.name} is not kept up to date: what is written from then on"
                f" is in {request.namespace} only",
            )
        )
    elif not request.keep_way_back:
        found.append(
            Confirmation(
                name=NO_WAY_BACK,
                message=f"after the switch generation {request.source_generation} is not kept up to date:"
                " what is written from then on is in the new one only (--keep-way-back keeps it)",
            )
        )
    return tuple(found)
