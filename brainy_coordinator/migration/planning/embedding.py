"""What another embedding model adds to a plan. Pure."""

from __future__ import annotations

from brainy.advice.figures import Rates
from brainy.advice.values import Risk
from brainy_coordinator.migration.planning.plan import Prediction
from brainy_coordinator.migration.record import Request
from brainy_coordinator.migration.reembedding import REEMBEDDED_LAG_LIMIT


def with_embedding(found: Prediction, request: Request, *, nouns: int, texts_per_second: float) -> Prediction:
    """Add the time that every text takes, once; where no node could be asked, at the rate of the advice."""
    if request.target.embedding is None:
        return found
    rate = texts_per_second or Rates().embedded
    # Before writes are stopped all but the last records are embedded; nobody writes what comes from elsewhere.
    late = 0 if request.source is not None else REEMBEDDED_LAG_LIMIT
    pause = min(found.write_pause_seconds + late / rate, found.write_pause_cap_seconds)
    return found.model_copy(
        update={
            "duration_seconds": round(found.duration_seconds + nouns / rate, 1),
            "write_pause_seconds": round(pause, 1),
            "texts": nouns,
            "texts_per_second": round(rate, 1),
        }
    )


def embedding_risks(request: Request) -> tuple[Risk, ...]:
    """Return what can go wrong."""
    if request.target.embedding is None:
        return ()
    written = Risk(
        code="WRITES_OUTRUN_MODEL",
        message="texts that are written faster than the model embeds them keep the target from catching up",
    )
    return (
        Risk(
            code="OTHER_RESULTS", message="another model finds other neighbours: try your own queries after the switch"
        ),
        Risk(code="NO_TEXT", message="a noun without a text gets no vector, and is not found by a search any more"),
        *(() if request.source is not None else (written,)),
    )
