"""SearchService: nearest neighbours of the whole namespace."""

from __future__ import annotations

from typing import Any

import grpc

from brainy.api.node.v1 import search_pb2, search_pb2_grpc
from brainy.rpc.deadlines import deadline_of
from brainy_node.router.front_door import FrontDoor


class SearchServicer(search_pb2_grpc.SearchServiceServicer):
    """Hands requests to the search router."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door

    async def Search(
        self, request: search_pb2.SearchRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> search_pb2.SearchResponse:
        """Search with one or many queries."""
        runtime = self._door.runtimes.get(request.namespace)
        return await self._door.search.search(runtime, request, deadline_of(context, self._door.clock))
