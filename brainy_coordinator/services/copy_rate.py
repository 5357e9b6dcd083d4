"""CopyService: how fast the copy of a running migration may be."""

from __future__ import annotations

from brainy.api.coordinator.v1 import copy_rate_pb2, copy_rate_pb2_grpc
from brainy.errors import InvalidRequestError, UnavailableError
from brainy.rpc.interceptors import Context
from brainy_coordinator.coordinator import Coordinator
from brainy_coordinator.migration.interventions import set_copy_rate
from brainy_coordinator.services.migration_messages import migration_message
from brainy_coordinator.services.namespaces import resolve

_HIGHEST = 10_000_000.0


class CopyServicer(copy_rate_pb2_grpc.CopyServiceServicer):
    """Answered by the leader, which alone writes histories and answers heartbeats."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def SetCopyRate(
        self, request: copy_rate_pb2.SetCopyRateRequest, context: Context
    ) -> copy_rate_pb2.SetCopyRateResponse:
        """Write the rate into the history; every node hears of it with its next heartbeat.

        Before: there is something left to copy.
        Steps: 1. one event of the history; 2. it is part of the answer to every heartbeat from then on.
        After: the rate counts on each node until another is set, or the copy has ended.
        If it crashes at step 1: the event is there or not, and a repeat with the same request id finds out. At step 2:
        nodes go on as told last until the next leader has read the history.
        """
        rate = request.items_per_second if request.HasField("items_per_second") else None
        if rate is not None and not 1.0 <= rate <= _HIGHEST:  # also refuses NaN
            raise InvalidRequestError(
                "a rate is out of bounds",
                remedy="1 to 10,000,000 items a second, or auto; to stop the copy pause the migration",
                items_per_second=rate,
            )
        term = self._coordinator.term()
        name = resolve(request.namespace, self._coordinator.components.stores)
        if name not in term.ready:
            raise term.problems.get(name) or UnavailableError(
                "the leader has not taken the namespace over yet", remedy="try again shortly", namespace=name
            )
        migrations = term.namespaces[name].migrations
        record = await migrations.intervene(
            request.id,
            set_copy_rate,
            by=request.requested_by,
            detail="auto" if rate is None else f"{rate:g} items a second on each node",
            request_id=request.request_id,
            copy_rate=rate,
        )
        return copy_rate_pb2.SetCopyRateResponse(migration=migration_message(record, migrations.progress(record.id)))
