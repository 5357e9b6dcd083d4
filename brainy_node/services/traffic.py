"""TrafficService: how the target of a migration answers what this front door is asked."""

from __future__ import annotations

from typing import Any

import grpc

from brainy.api.node.v1 import traffic_pb2, traffic_pb2_grpc
from brainy.clock import Deadline
from brainy.rpc.deadlines import deadline_of
from brainy.traffic.comparison import comparison_to_proto
from brainy_node.router.front_door import FrontDoor
from brainy_node.router.nearby import MOST_VECTORS
from brainy_node.router.trials import Pair
from brainy_node.router.validation import check_k

Context = grpc.aio.ServicerContext[Any, Any]

_DEFAULT_QUERIES = 64
_DEFAULT_K = 10
_LARGEST_K = 1000


class TrafficServicer(traffic_pb2_grpc.TrafficServiceServicer):
    """Hands requests to the front door."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door

    async def GetComparison(
        self, request: traffic_pb2.GetComparisonRequest, context: Context
    ) -> traffic_pb2.GetComparisonResponse:
        """Return what was found so far."""
        runtime = self._door.runtimes.get(request.namespace)
        found = self._door.trials.of(runtime, Pair(request.source_generation, request.target_generation))
        return traffic_pb2.GetComparisonResponse(
            node_id=runtime.node_id,
            comparison=None if found is None else comparison_to_proto(found),
            queries_recorded=self._door.recorded.count(runtime.name),
        )

    async def ReplayQueries(
        self, request: traffic_pb2.ReplayQueriesRequest, context: Context
    ) -> traffic_pb2.ReplayQueriesResponse:
        """Ask what is remembered again, or what nouns are, of both generations."""
        runtime = self._door.runtimes.get(request.namespace)
        k = request.k or _DEFAULT_K
        check_k(k, 1)
        left = deadline_of(context, self._door.clock).remaining()
        within = request.within_milliseconds / 1000 if request.within_milliseconds else 0.75 * left
        found = await self._door.replaying.replay(
            runtime,
            Pair(request.source_generation, request.target_generation),
            limit=min(request.limit or _DEFAULT_QUERIES, MOST_VECTORS),
            k=min(k, _LARGEST_K),
            deadline=Deadline.after(self._door.clock, min(within, left)),
            sample_nouns=request.sample_nouns,
            part=request.part,
        )
        return traffic_pb2.ReplayQueriesResponse(
            node_id=runtime.node_id,
            comparison=comparison_to_proto(found.comparison),
            recorded=found.recorded,
            sampled=found.sampled,
        )
