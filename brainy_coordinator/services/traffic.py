"""TrafficService: try a migration's target with real reads before anything is switched."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from brainy.api.coordinator.v1 import traffic_pb2, traffic_pb2_grpc
from brainy.api.node.v1 import traffic_pb2 as node_traffic_pb2
from brainy.bucket.records import Routing
from brainy.errors import BrainyError, ConflictError, InvalidRequestError, PreconditionError, UnavailableError
from brainy.rpc.deadlines import deadline_of
from brainy.rpc.errors import legible
from brainy.rpc.interceptors import Context
from brainy.telemetry.logs import get_logger
from brainy.traffic.comparison import Comparison, comparison_from_proto, comparison_to_proto
from brainy_coordinator.control import NamespaceControl
from brainy_coordinator.coordinator import Coordinator
from brainy_coordinator.migration.state import State
from brainy_coordinator.migration.trial import require_triable, setting, try_reads
from brainy_coordinator.services.namespaces import resolve

_log = get_logger(__name__)

_TRIES = 5
_TELL_SECONDS = 5.0
_ASK_SECONDS = 10.0
_MOST_QUERIES = 256
_LARGEST_K = 1000


class TrafficServicer(traffic_pb2_grpc.TrafficServiceServicer):
    """Answered by the leader, which alone changes the routing record and knows every node."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._components = coordinator.components

    async def SetReads(self, request: traffic_pb2.SetReadsRequest, context: Context) -> traffic_pb2.SetReadsResponse:
        """Change the shares in the routing record, and tell the nodes.

        Before: the migration is READY (to end a trial: its target is placed and nothing switches), or has switched and
        keeps a way back.
        Steps: 1. who asks for what goes into the migration's history; 2. one swap of the routing record; 3. every
        reachable node is told, for five seconds.
        After: the record has the shares. Nodes that were told have them in force, the others find them by themselves.
        If it crashes before step 2 is through: they are set or not; asking again sets them, and is in the history too.
        At step 3: as after it.
        Repeating it changes nothing, so it needs no request id, unless it restarts.
        """
        weight, shadow = request.shares.weight, request.shares.shadow
        if not (0.0 <= weight <= 1.0 and 0.0 <= shadow <= 1.0):  # also refuses NaN
            raise InvalidRequestError(
                "a share of reads is out of bounds", remedy="0 to 1", weight=weight, shadow=shadow
            )
        control = self._control(request.namespace)
        await control.migrations.intervene(
            request.migration_id,
            setting(weight=weight, shadow=shadow, restart=request.restart),
            by=request.requested_by,
            detail=f"{weight:.1%} of the reads answered by the side that follows, {shadow:.1%} asked of it besides",
        )
        routing = await self._swap(control, request)
        _log.info(
            "reads_set",
            namespace=control.namespace,
            migration=request.migration_id,
            weight=weight,
            shadow=shadow,
            epoch=routing.epoch,
            by=request.requested_by,
        )
        await self._tell(control, routing)
        return traffic_pb2.SetReadsResponse(
            shares=_shares(routing) or traffic_pb2.ReadShares(),
            target_generation=control.migrations.get(request.migration_id).following,
            routing_epoch=routing.epoch,
        )

    async def CompareReads(
        self, request: traffic_pb2.CompareReadsRequest, context: Context
    ) -> traffic_pb2.CompareReadsResponse:
        """Ask every reachable node, and add up what they say; one that does not answer is named with the reason."""
        if request.limit > _MOST_QUERIES or request.k > _LARGEST_K:
            raise InvalidRequestError(
                "too much to replay", remedy=f"at most {_MOST_QUERIES} queries of {_LARGEST_K} neighbours"
            )
        control = self._control(request.namespace)
        record = control.migrations.get(request.migration_id)
        routing = await self._routing(control)
        if request.sampled and not {record.source, record.target} <= routing.generations.keys():
            raise PreconditionError(
                "the two generations are not both placed",
                reason="WRONG_PHASE",
                remedy="compare while the migration runs, from READY on",
                migration=record.id,
                state=record.state.value.upper(),
            )
        seconds = deadline_of(context, self._components.clock).remaining() if request.sampled else _ASK_SECONDS
        addresses = control.view.reachable()
        kept = record.state in (State.OBSERVING, State.ROLLING_BACK)
        pair = (record.leading, record.following) if kept else (record.source, record.target)
        parts = await asyncio.gather(
            *(self._ask(control, pair, node, address, request, seconds) for node, address in sorted(addresses.items()))
        )
        total = Comparison.total(comparison_from_proto(part.comparison) for part in parts)
        return traffic_pb2.CompareReadsResponse(
            source_generation=pair[0],
            target_generation=pair[1],
            shares=_shares(routing),
            comparison=comparison_to_proto(total),
            nodes=parts,
        )

    async def _swap(self, control: NamespaceControl, request: traffic_pb2.SetReadsRequest) -> Routing:
        """Swap the record; the control loop may be changing it at the same time, so the loser looks again."""
        restart = request.restart
        for left in reversed(range(_TRIES)):
            record = control.migrations.get(request.migration_id)
            before = await self._routing(control)
            shares = request.shares
            require_triable(record, before, weight=shares.weight, shadow=shares.shadow)
            after = try_reads(before, record, weight=shares.weight, shadow=shares.shadow, restart=restart)
            if after is before:
                return before
            try:
                return await control.register.swap(before, after)
            except ConflictError:
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _tell(self, control: NamespaceControl, routing: Routing) -> None:
        async def tell(node: str, address: str) -> None:
            try:
                await self._components.nodes.apply_routing(
                    address, control.namespace, epoch=routing.epoch, timeout=_TELL_SECONDS
                )
            except BrainyError as error:
                _log.info("announcement_missed", node=node, epoch=routing.epoch, reason=error.reason)

        addresses: Mapping[str, str] = control.view.reachable()
        await asyncio.gather(*(tell(node, address) for node, address in addresses.items()))

    async def _ask(
        self,
        control: NamespaceControl,
        pair: tuple[int, int],
        node_id: str,
        address: str,
        request: traffic_pb2.CompareReadsRequest,
        seconds: float,
    ) -> traffic_pb2.NodeComparison:
        nodes = self._components.nodes
        try:
            if request.sampled:
                wanted = node_traffic_pb2.ReplayQueriesRequest(
                    namespace=control.namespace,
                    source_generation=pair[0],
                    target_generation=pair[1],
                    limit=request.limit,
                    k=request.k,
                )
                replayed = await nodes.replay_queries(address, wanted, timeout=seconds)
                return traffic_pb2.NodeComparison(node_id=node_id, comparison=replayed.comparison)
            asked = node_traffic_pb2.GetComparisonRequest(
                namespace=control.namespace, source_generation=pair[0], target_generation=pair[1]
            )
            found = await nodes.get_comparison(address, asked, timeout=seconds)
            return traffic_pb2.NodeComparison(
                node_id=node_id, comparison=found.comparison, queries_recorded=found.queries_recorded
            )
        except BrainyError as error:
            return traffic_pb2.NodeComparison(node_id=node_id, problem=legible(f"{error.message} ({error.reason})"))

    async def _routing(self, control: NamespaceControl) -> Routing:
        routing = await control.register.current()
        if routing is None:
            raise PreconditionError(
                "the namespace is not served yet",
                remedy="start enough nodes, then try again",
                namespace=control.namespace,
            )
        return routing

    def _control(self, namespace: str) -> NamespaceControl:
        term = self._coordinator.term()
        name = resolve(namespace, self._components.stores)
        if name not in term.ready:
            raise term.problems.get(name) or UnavailableError(
                "the leader has not taken the namespace over yet", remedy="try again shortly", namespace=name
            )
        return term.namespaces[name]


def _shares(routing: Routing) -> traffic_pb2.ReadShares | None:
    if routing.reads is None:
        return None
    return traffic_pb2.ReadShares(weight=routing.reads.weight, shadow=routing.reads.shadow)
