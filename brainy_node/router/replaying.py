"""Queries asked again, of both generations of a migration: those remembered, and others made of nouns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainy.clock import Clock, Deadline
from brainy.traffic.comparison import Comparison
from brainy_node.router.comparing import Comparing
from brainy_node.router.fan_out import FanOut
from brainy_node.router.nearby import VectorsQuestion, nearby, none_of
from brainy_node.router.recorded import RecordedQueries
from brainy_node.router.search import SearchQuestion
from brainy_node.router.trials import Pair, trial_view
from brainy_node.runtime.ports import NamespaceRuntime

_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What was found, and what there was to ask."""

    comparison: Comparison
    #: Queries that clients had asked.
    recorded: int
    #: Queries made of nouns.
    sampled: int


class Replaying:
    """Replays queries at one front door."""

    def __init__(self, comparing: Comparing, recorded: RecordedQueries, fan_out: FanOut, *, clock: Clock) -> None:
        self._comparing = comparing
        self._recorded = recorded
        self._fan_out = fan_out
        self._clock = clock

    async def replay(
        self,
        runtime: NamespaceRuntime,
        pair: Pair,
        *,
        limit: int,
        k: int,
        deadline: Deadline,
        sample_nouns: bool = False,
        part: int = 0,
    ) -> Replayed:
        """Ask both generations, query by query, by index and by scan. Whatever was asked at the deadline is the answer.

        Args:
            runtime: the namespace.
            pair: the generations.
            limit: at most so many queries.
            k: neighbours a query.
            deadline: begin no query after it.
            sample_nouns: where fewer are remembered, fill up with vectors near nouns of the source.
            part: another part has other queries.

        Raises:
            UnavailableError: STALE_ROUTING, one of them is not placed; or no replica answers for a shard.
        """
        trial_view(runtime, pair.source)
        trial_view(runtime, pair.target)
        dimensions = (await runtime.spec(pair.source)).dimensions
        remembered = self._recorded.sample(runtime.name, limit, dimensions=dimensions, part=part)
        made = none_of(dimensions)
        if sample_nouns and dimensions and len(remembered) < limit:
            question = VectorsQuestion(count=limit - len(remembered), seed=part, dimensions=dimensions)
            patience = Deadline.after(self._clock, _PATIENCE_SECONDS)
            made = await nearby(self._fan_out, runtime, pair.source, question, patience)
        total = Comparison()
        for row in np.concatenate([remembered, made]):
            if deadline.passed:
                break
            matrix = np.ascontiguousarray(row.reshape(1, -1), dtype="<f4")
            asked = SearchQuestion(vectors=matrix.tobytes(), matrix=matrix, k=k)
            total += await self._comparing.search(runtime, pair, asked, recall=1)
        return Replayed(comparison=total, recorded=len(remembered), sampled=len(made))
