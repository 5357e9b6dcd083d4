"""NounService: read, scan and write nouns of the whole namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from brainy.api.node.v1 import data_pb2, data_pb2_grpc
from brainy.errors import InvalidRequestError
from brainy.rpc.deadlines import deadline_of, stream_deadline_of
from brainy_node.router.embeddings import embedding_of
from brainy_node.router.front_door import FrontDoor
from brainy_node.router.scans import NounScan
from brainy_node.router.writes import position_messages

Context = grpc.aio.ServicerContext[Any, Any]


class NounServicer(data_pb2_grpc.NounServiceServicer):
    """Hands requests to the routers."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door

    async def GetNouns(self, request: data_pb2.GetNounsRequest, context: Context) -> data_pb2.GetNounsResponse:
        """Read by id."""
        runtime = self._door.runtimes.get(request.namespace)
        return await self._door.reads.nouns(runtime, request, deadline_of(context, self._door.clock))

    async def ScanNouns(
        self, request: data_pb2.ScanNounsRequest, context: Context
    ) -> AsyncIterator[data_pb2.ScanNounsResponse]:
        """Stream every noun."""
        door = self._door
        runtime = door.runtimes.get(request.namespace)
        view = await door.refresher.view(runtime, (), deadline_of(context, door.clock))
        header = view.header(runtime.node_id)
        scan = NounScan(include_vectors=request.include_vectors, include_soft_deleted=request.include_soft_deleted)
        async for batch in door.scans.scan(runtime, view, scan, stream_deadline_of(context, door.clock)):
            yield data_pb2.ScanNounsResponse(header=header, nouns=batch)

    async def UpsertNouns(self, request: data_pb2.UpsertNounsRequest, context: Context) -> data_pb2.UpsertNounsResponse:
        """Insert or replace."""
        runtime = self._door.runtimes.get(request.namespace)
        deadline = deadline_of(context, self._door.clock)
        writes = self._door.writes
        if request.as_stored:
            written = await writes.put_back_nouns(
                runtime,
                request.nouns,
                request.dimensions,
                request.request_id,
                deadline,
                expected=request.expected,
            )
        else:
            written = await writes.upsert_nouns(
                runtime,
                request.nouns,
                request.request_id,
                deadline,
                embedding=embedding_of(request),
                expected=request.expected,
            )
        return data_pb2.UpsertNounsResponse(header=written.header, positions=written.positions)

    async def DeleteNouns(self, request: data_pb2.DeleteNounsRequest, context: Context) -> data_pb2.DeleteNounsResponse:
        """Delete by id."""
        runtime = self._door.runtimes.get(request.namespace)
        deadline = deadline_of(context, self._door.clock)
        written = await self._door.writes.delete_nouns(runtime, request.ids, request.request_id, deadline)
        return data_pb2.DeleteNounsResponse(header=written.header, positions=written.positions)

    async def ImportNouns(
        self, request_iterator: AsyncIterator[data_pb2.ImportNounsRequest], context: Context
    ) -> data_pb2.ImportNounsResponse:
        """Write message after message; the answer has the totals.

        Message n (from 0) is written under the request id ``<request_id>.<n>``, so that messages may share one
        id and the same stream may be sent again. Later messages inherit namespace and id from the first. The
        messages before one that fails are written.
        """
        door = self._door
        namespace = request_id = ""
        positions: dict[tuple[int, int], int] = {}
        written = 0
        header = None
        number = 0
        async for message in request_iterator:
            if number == 0:
                namespace, request_id = message.namespace, message.request_id or door.ids.uuid()
            elif message.namespace not in ("", namespace):
                raise InvalidRequestError(
                    "an import writes to one namespace",
                    remedy="open another stream for the other namespace",
                    message_number=number,
                    records_written=written,
                )
            runtime = door.runtimes.get(namespace)
            done = await door.writes.upsert_nouns(
                runtime,
                message.nouns,
                f"{message.request_id or request_id}.{number}",
                deadline_of(context, door.clock),
                embedding=embedding_of(message),
            )
            header = done.header
            written += len(message.nouns)
            for position in done.positions:
                positions[position.generation, position.shard] = position.position
            number += 1
        return data_pb2.ImportNounsResponse(header=header, written=written, positions=position_messages(positions))
