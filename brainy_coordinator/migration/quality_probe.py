"""Measures the search quality of a target, a few queries at a time (``quality`` is the protocol)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from brainy.api.node.v1 import traffic_pb2
from brainy.clock import Clock
from brainy.errors import BrainyError
from brainy.rpc.errors import legible
from brainy.traffic.comparison import Comparison, comparison_from_proto
from brainy_coordinator.migration.quality import NEIGHBOURS, Measured, QualityFound, QualityWish, verdict
from brainy_coordinator.nodes import NodeCalls

#: Queries a node and turn.
_TURN_QUERIES = 8
#: A node begins no query after this; the leader has other things to do than to wait for one turn.
_TURN_SECONDS = 0.5
_CALL_SECONDS = 5.0
#: Between turns in which no node answered.
_PAUSE_SECONDS = 0.2


class QualityProbe:
    """Measures for one namespace."""

    def __init__(self, nodes: NodeCalls, *, namespace: str, clock: Clock) -> None:
        self._nodes = nodes
        self._namespace = namespace
        self._clock = clock

    async def turn(
        self,
        so_far: Measured | None,
        wish: QualityWish,
        addresses: Mapping[str, str],
        *,
        source: int,
        target: int,
    ) -> Measured:
        """Take one turn, of a second or so, and return what is known after it."""
        now = so_far or Measured(since=self._clock.monotonic())
        missing = max(1, wish.queries - now.comparison.queries)
        request = traffic_pb2.ReplayQueriesRequest(
            namespace=self._namespace,
            source_generation=source,
            target_generation=target,
            limit=min(_TURN_QUERIES, -(-missing // max(1, len(addresses)))),
            k=NEIGHBOURS,
            sample_nouns=True,
            within_milliseconds=round(1000 * _TURN_SECONDS),
        )
        # Each node asks other queries: what clients asked it, or another part of the nouns.
        asked = sorted(addresses.items())
        answers = await asyncio.gather(
            *(self._ask(address, request, now.turns * len(asked) + place) for place, (_, address) in enumerate(asked))
        )
        found = [answer for answer in answers if not isinstance(answer, str)]
        if not found:
            await self._clock.sleep(_PAUSE_SECONDS)
        # Those of clients are asked first; time may have run out before the last ones.
        recorded = [min(answer.recorded, answer.comparison.asked) for answer in found]
        return replace(
            now,
            comparison=Comparison.total(
                [now.comparison, *(comparison_from_proto(answer.comparison) for answer in found)]
            ),
            recorded=now.recorded + sum(recorded),
            sampled=now.sampled + sum(answer.comparison.asked for answer in found) - sum(recorded),
            turns=now.turns + 1,
            empty=bool(found) and not any(answer.recorded + answer.sampled for answer in found),
            left_out={
                node: answer for (node, _), answer in zip(asked, answers, strict=True) if isinstance(answer, str)
            },
        )

    async def measure(
        self, wish: QualityWish, addresses: Mapping[str, str], *, source: int, target: int, seconds: float
    ) -> tuple[Measured, QualityFound]:
        """Take turns until there are enough, or the time is over."""
        now = self._clock.monotonic()
        until = now + seconds
        measured = Measured(since=now)
        while not measured.ended(wish, now) and now <= until:
            measured = await self.turn(measured, wish, addresses, source=source, target=target)
            now = self._clock.monotonic()
        return measured, verdict(measured, wish)

    async def _ask(
        self, address: str, request: traffic_pb2.ReplayQueriesRequest, part: int
    ) -> traffic_pb2.ReplayQueriesResponse | str:
        wanted = traffic_pb2.ReplayQueriesRequest()
        wanted.CopyFrom(request)
        wanted.part = part
        try:
            return await self._nodes.replay_queries(address, wanted, timeout=_CALL_SECONDS)
        except BrainyError as error:
            return legible(f"{error.message} ({error.reason})")
