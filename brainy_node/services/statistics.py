"""StatisticsService: counted figures, unindexed items and quarantined objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from brainy.api.node.v1 import data_pb2, data_pb2_grpc
from brainy.rpc.deadlines import deadline_of, stream_deadline_of
from brainy_node.router.front_door import FrontDoor
from brainy_node.router.scans import QuarantineScan, UnindexedScan
from brainy_node.router.statistics import StatisticsQuestion

Context = grpc.aio.ServicerContext[Any, Any]


class StatisticsServicer(data_pb2_grpc.StatisticsServiceServicer):
    """Hands requests to the routers."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door

    async def GetStatistics(
        self, request: data_pb2.GetStatisticsRequest, context: Context
    ) -> data_pb2.GetStatisticsResponse:
        """Sum the figures of every shard."""
        runtime = self._door.runtimes.get(request.namespace)
        question = StatisticsQuestion(include_digest=request.include_digest, session=request.session)
        return await self._door.statistics.statistics(runtime, deadline_of(context, self._door.clock), question)

    async def GetPerformanceMetrics(
        self, request: data_pb2.GetPerformanceMetricsRequest, context: Context
    ) -> data_pb2.GetPerformanceMetricsResponse:
        """Figures of this node."""
        runtime = self._door.runtimes.get(request.namespace)
        return await self._door.statistics.performance(runtime, deadline_of(context, self._door.clock))

    async def ListUnindexed(
        self, request: data_pb2.ListUnindexedRequest, context: Context
    ) -> AsyncIterator[data_pb2.ListUnindexedResponse]:
        """Stream the items that are stored but not in the index."""
        door = self._door
        runtime = door.runtimes.get(request.namespace)
        view = await door.refresher.view(runtime, (), deadline_of(context, door.clock))
        deadline = stream_deadline_of(context, door.clock)
        async for batch in door.scans.scan(runtime, view, UnindexedScan(), deadline):
            yield data_pb2.ListUnindexedResponse(items=batch)

    async def ListQuarantine(
        self, request: data_pb2.ListQuarantineRequest, context: Context
    ) -> AsyncIterator[data_pb2.ListQuarantineResponse]:
        """Stream the objects of the source that could not be read."""
        door = self._door
        runtime = door.runtimes.get(request.namespace)
        view = await door.refresher.view(runtime, (), deadline_of(context, door.clock))
        deadline = stream_deadline_of(context, door.clock)
        async for batch in door.scans.scan(runtime, view, QuarantineScan(), deadline):
            yield data_pb2.ListQuarantineResponse(objects=batch)
