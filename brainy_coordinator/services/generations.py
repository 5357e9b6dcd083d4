"""GenerationService: which generations there are, and what becomes of those that are not served any more."""

from __future__ import annotations

from brainy.api.coordinator.v1 import generation_pb2, generation_pb2_grpc
from brainy.errors import InvalidRequestError, UnavailableError
from brainy.rpc.interceptors import Context
from brainy_coordinator.control import NamespaceControl
from brainy_coordinator.coordinator import Coordinator
from brainy_coordinator.services.generation_messages import generation_message
from brainy_coordinator.services.namespaces import resolve


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Answered by the leader, which alone counts retentions."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def ListGenerations(
        self, request: generation_pb2.ListGenerationsRequest, context: Context
    ) -> generation_pb2.ListGenerationsResponse:
        """Return every generation that left a trace."""
        control = self._control(request.namespace)
        routing = await control.register.current()
        retired = await control.retirements.all()
        numbers = {*await control.generations.numbers(), *retired, *(routing.generations if routing else ())}
        return generation_pb2.ListGenerationsResponse(
            generations=[
                generation_message(
                    number,
                    routing=routing,
                    retired=retired.get(number),
                    contents=await control.retirements.contents(number) if request.sizes else None,
                )
                for number in sorted(numbers)
            ]
        )

    async def SetRetention(
        self, request: generation_pb2.SetRetentionRequest, context: Context
    ) -> generation_pb2.SetRetentionResponse:
        """Keep a generation, or say for how long. Repeating it counts from anew."""
        if request.keep == request.HasField("retain"):
            raise InvalidRequestError("either keep a generation, or say for how long", generation=request.generation)
        control = self._control(request.namespace)
        if request.keep:
            found = await control.retirements.keep(request.generation, by=request.requested_by)
        else:
            seconds = request.retain.ToNanoseconds() / 1e9
            if seconds < 0.0:
                raise InvalidRequestError("a retention is not negative", retain=seconds)
            found = await control.retirements.retain(request.generation, seconds, by=request.requested_by)
        routing = await control.register.current()
        return generation_pb2.SetRetentionResponse(
            generation=generation_message(request.generation, routing=routing, retired=found)
        )

    def _control(self, namespace: str) -> NamespaceControl:
        term = self._coordinator.term()
        name = resolve(namespace, self._coordinator.components.stores)
        if name not in term.ready:
            raise term.problems.get(name) or UnavailableError(
                "the leader has not taken the namespace over yet", remedy="try again shortly", namespace=name
            )
        return term.namespaces[name]
