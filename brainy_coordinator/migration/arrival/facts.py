"""What advice is given about data that come from elsewhere: they, and not the empty namespace, are weighed. Pure."""

from __future__ import annotations

import math
from dataclasses import replace

from brainy.advice.facts import Facts
from brainy.advice.values import Answers
from brainy_coordinator.migration.arrival.origins import OriginSeen
from brainy_coordinator.migration.record import Request, SourceWish


def arriving_facts(facts: Facts, wish: SourceWish, seen: OriginSeen) -> Facts:
    """Return facts, with figures of the data that come, as facts of where they are."""
    return replace(
        facts,
        namespace=wish.name,
        state="brainy" if seen.trees else "generation",
        trees=seen.trees,
        generation=seen.origin.generation,
        following=False,
        mirroring=False,
    )


def arriving_answers(said: Answers, request: Request) -> Answers:
    """Return what the operator says, and what is said by asking for this."""
    stopped = {"downtime_seconds": math.inf, "old_writers": False} if request.writers_stopped else {}
    return said.model_copy(
        update={
            "target": request.namespace,
            "isolate": bool(request.source and request.source.namespace),
            "vectors": False if request.source and request.source.without_vectors else said.vectors,
            **stopped,
        }
    )
