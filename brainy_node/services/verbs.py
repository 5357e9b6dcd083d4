"""VerbService: read, find and write verbs of the whole namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import data_pb2, data_pb2_grpc
from brainy.clock import Deadline
from brainy.rpc.deadlines import deadline_of, stream_deadline_of
from brainy_node.router.embeddings import embedding_of
from brainy_node.router.front_door import FrontDoor
from brainy_node.router.held import sliced
from brainy_node.router.reads import VerbsQuestion
from brainy_node.router.scans import VerbScan
from brainy_node.router.view import View

Context = grpc.aio.ServicerContext[Any, Any]


class VerbServicer(data_pb2_grpc.VerbServiceServicer):
    """Hands requests to the routers."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door

    async def GetVerbs(self, request: data_pb2.GetVerbsRequest, context: Context) -> data_pb2.GetVerbsResponse:
        """Read by id."""
        runtime = self._door.runtimes.get(request.namespace)
        return await self._door.reads.verbs(runtime, request, deadline_of(context, self._door.clock))

    async def FindVerbs(
        self, request: data_pb2.FindVerbsRequest, context: Context
    ) -> AsyncIterator[data_pb2.FindVerbsResponse]:
        """Find by source, target and type.

        With a source or a target all shards are asked at once and the answer is gathered first; without, shards
        are streamed one after the other.
        """
        door = self._door
        runtime = door.runtimes.get(request.namespace)
        deadline = deadline_of(context, door.clock)
        question = VerbsQuestion(
            source_id=request.source_id if request.HasField("source_id") else None,
            target_id=request.target_id if request.HasField("target_id") else None,
            type=request.type if request.HasField("type") else None,
            include_vectors=request.include_vectors,
            session=request.session,
        )
        if question.source_id is None and question.target_id is None:
            view = await door.refresher.view(runtime, request.session, deadline)
            scan = VerbScan(question=question)
            async for batch in door.scans.scan(runtime, view, scan, stream_deadline_of(context, door.clock)):
                yield data_pb2.FindVerbsResponse(header=view.header(runtime.node_id), verbs=batch)
            return

        async def act(view: View, deadline: Deadline) -> tuple[common_pb2.ResponseHeader, list[common_pb2.Verb]]:
            answer = await door.fan_out.ask(runtime, view, question, view.shards, deadline)
            return view.header(runtime.node_id), [verb for part in answer.parts for verb in part]

        header, verbs = await door.weighted.reading(runtime, request.session, request.session_id, deadline, act)
        for part in sliced(verbs):
            yield data_pb2.FindVerbsResponse(header=header, verbs=part)

    async def UpsertVerbs(self, request: data_pb2.UpsertVerbsRequest, context: Context) -> data_pb2.UpsertVerbsResponse:
        """Insert or replace."""
        runtime = self._door.runtimes.get(request.namespace)
        deadline = deadline_of(context, self._door.clock)
        written = await self._door.writes.upsert_verbs(
            runtime,
            request.verbs,
            request.request_id,
            deadline,
            as_stored=request.as_stored,
            embedding=embedding_of(request),
            expected=request.expected,
        )
        return data_pb2.UpsertVerbsResponse(header=written.header, positions=written.positions)

    async def DeleteVerbs(self, request: data_pb2.DeleteVerbsRequest, context: Context) -> data_pb2.DeleteVerbsResponse:
        """Delete by id."""
        runtime = self._door.runtimes.get(request.namespace)
        deadline = deadline_of(context, self._door.clock)
        written = await self._door.writes.delete_verbs(runtime, request.ids, request.request_id, deadline)
        return data_pb2.DeleteVerbsResponse(header=written.header, positions=written.positions)
