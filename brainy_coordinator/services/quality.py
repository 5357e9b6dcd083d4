"""QualityService: how well the target of a migration finds what the source finds."""

from __future__ import annotations

from brainy.api.coordinator.v1 import quality_pb2, quality_pb2_grpc
from brainy.errors import PreconditionError, UnavailableError
from brainy.rpc.deadlines import deadline_of
from brainy.rpc.interceptors import Context
from brainy.traffic.comparison import comparison_to_proto
from brainy_coordinator.control import NamespaceControl
from brainy_coordinator.coordinator import Coordinator
from brainy_coordinator.migration import interventions
from brainy_coordinator.migration.quality import LONGEST_SECONDS, QualityWish
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.services.namespaces import resolve
from brainy_coordinator.services.quality_messages import found_message, wish_message, wish_value

#: Share of the caller's time that measuring may take; the rest is for keeping the result.
_SHARE = 0.7


class QualityServicer(quality_pb2_grpc.QualityServiceServicer):
    """Answered by the leader, which knows every node and writes the history."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._components = coordinator.components

    async def CheckQuality(
        self, request: quality_pb2.CheckQualityRequest, context: Context
    ) -> quality_pb2.CheckQualityResponse:
        """Measure now, and keep the result where it counts; a repeated request id changes nothing more."""
        control = self._control(request.namespace)
        record = control.migrations.get(request.migration_id)
        await self._require_placed(control, record)
        asked = wish_value(request.thresholds) if request.HasField("thresholds") else None
        wish = asked or record.request.quality or QualityWish()
        left = deadline_of(context, self._components.clock).remaining()
        measured, found = await control.quality.measure(
            wish,
            control.view.reachable(),
            source=record.source,
            target=record.target,
            seconds=min(LONGEST_SECONDS, _SHARE * left),
        )
        kept = False
        if asked is None:
            after = await control.migrations.intervene(
                record.id,
                interventions.measured,
                by=request.requested_by,
                detail=found.line,
                request_id=request.request_id,
                quality=found,
            )
            kept = after.quality == found
        return quality_pb2.CheckQualityResponse(
            found=found_message(found),
            thresholds=wish_message(wish),
            kept=kept,
            comparison=comparison_to_proto(measured.comparison),
        )

    async def AcceptQuality(
        self, request: quality_pb2.AcceptQualityRequest, context: Context
    ) -> quality_pb2.AcceptQualityResponse:
        """Let it switch as it is; who and why are in the history."""
        record = await self._control(request.namespace).migrations.intervene(
            request.migration_id,
            interventions.accept_quality,
            by=request.requested_by,
            detail=request.reason,
            request_id=request.request_id,
        )
        return quality_pb2.AcceptQualityResponse(accepted=found_message(record.quality))

    async def _require_placed(self, control: NamespaceControl, record: MigrationRecord) -> None:
        routing = await control.register.current()
        if routing is None or not {record.source, record.target} <= routing.generations.keys():
            raise PreconditionError(
                "the two generations are not both placed",
                reason="WRONG_PHASE",
                remedy="measure while the migration runs, from READY on",
                migration=record.id,
                state=record.state.value.upper(),
            )

    def _control(self, namespace: str) -> NamespaceControl:
        term = self._coordinator.term()
        name = resolve(namespace, self._components.stores)
        if name not in term.ready:
            raise term.problems.get(name) or UnavailableError(
                "the leader has not taken the namespace over yet", remedy="try again shortly", namespace=name
            )
        return term.namespaces[name]
