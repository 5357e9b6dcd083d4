"""ControlService: what the coordinator asks of a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from brainy.api.node.v1 import control_pb2, control_pb2_grpc
from brainy_node.runtime.ports import Runtimes

Context = grpc.aio.ServicerContext[Any, Any]


class ControlServicer(control_pb2_grpc.ControlServiceServicer):
    """Hands requests to the runtime of the namespace; ``on_drain`` starts the node's own shutdown."""

    def __init__(self, runtimes: Runtimes, on_drain: Callable[[], None]) -> None:
        self._runtimes = runtimes
        self._on_drain = on_drain

    async def ApplyRouting(
        self, request: control_pb2.ApplyRoutingRequest, context: Context
    ) -> control_pb2.ApplyRoutingResponse:
        """Answer once a routing record of at least this epoch is in force here; the barrier of a cut-over."""
        runtime = self._runtimes.get(request.namespace)
        positions = await runtime.apply_routing(request.routing_epoch)
        return control_pb2.ApplyRoutingResponse(routing_epoch=runtime.routing.epoch, positions=positions)

    async def ListShardStates(
        self, request: control_pb2.ListShardStatesRequest, context: Context
    ) -> control_pb2.ListShardStatesResponse:
        """List the state of every replica held."""
        runtime = self._runtimes.get(request.namespace)
        return control_pb2.ListShardStatesResponse(replicas=runtime.replicas())

    async def GetDigest(self, request: control_pb2.GetDigestRequest, context: Context) -> control_pb2.GetDigestResponse:
        """Sum item hashes of owned shards."""
        runtime = self._runtimes.get(request.namespace)
        digest, nouns, verbs, positions = await runtime.digest(request.generation, request.shards)
        return control_pb2.GetDigestResponse(
            digest=digest.encode(), noun_count=nouns, verb_count=verbs, positions=positions
        )

    async def Drain(self, request: control_pb2.DrainRequest, context: Context) -> control_pb2.DrainResponse:
        """Begin the shutdown and answer at once."""
        self._on_drain()
        return control_pb2.DrainResponse()
