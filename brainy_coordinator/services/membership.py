"""MembershipService: nodes report themselves."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf import duration_pb2

from brainy.api.coordinator.v1 import membership_pb2, membership_pb2_grpc
from brainy.errors import InvalidRequestError, NotFoundError, PreconditionError
from brainy.rpc.interceptors import Context
from brainy.traffic.serving import served_from_proto
from brainy_coordinator.coordinator import Coordinator
from brainy_coordinator.copy_orders import copy_orders
from brainy_coordinator.departures import held
from brainy_coordinator.membership.registry import NodeState, Report
from brainy_coordinator.pools import heirless
from brainy_coordinator.routing import open_register

_STATES: Mapping[NodeState, membership_pb2.NodeState.ValueType] = {
    NodeState.ALIVE: membership_pb2.NODE_STATE_ALIVE,
    NodeState.SILENT: membership_pb2.NODE_STATE_SILENT,
    NodeState.DRAINING: membership_pb2.NODE_STATE_DRAINING,
    NodeState.LEFT: membership_pb2.NODE_STATE_LEFT,
}


def duration(seconds: float) -> duration_pb2.Duration:
    """Return seconds as the protos carry them."""
    message = duration_pb2.Duration()
    message.FromNanoseconds(int(seconds * 1e9))
    return message


class MembershipServicer(membership_pb2_grpc.MembershipServiceServicer):
    """Only the leader takes heartbeats; anybody says which nodes there are, as far as it knows."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._clock = coordinator.components.clock

    async def Heartbeat(
        self, request: membership_pb2.HeartbeatRequest, context: Context
    ) -> membership_pb2.HeartbeatResponse:
        """Take a node's word, and tell it the newest routing epochs."""
        term = self._coordinator.term()
        if not (request.node_id and request.incarnation and request.address):
            raise InvalidRequestError(
                "a heartbeat needs node_id, incarnation and address", remedy="fill them in", node=request.node_id
            )
        term.registry.heartbeat(
            Report(
                node_id=request.node_id,
                incarnation=request.incarnation,
                address=request.address,
                replicas=tuple(request.replicas),
                draining=request.draining,
                memory_bytes=request.memory_bytes,
                pool=request.pool,
                version=request.version,
                protocol_version=request.protocol_version,
                disk_free_bytes=request.disk_free_bytes if request.HasField("disk_free_bytes") else None,
                store_calls={each.namespace: dict(each.calls) for each in request.store_calls},
                served=served_from_proto(request.served),
            ),
            self._clock.monotonic(),
        )
        return membership_pb2.HeartbeatResponse(
            leader_id=self._coordinator.leadership.id,
            routing_epochs={name: routing.epoch for name, routing in term.routings.items()},
            interval=duration(self._coordinator.components.settings.heartbeat_interval_seconds),
            may_leave=request.draining
            and term.ready == term.namespaces.keys()
            and term.departures.may_leave(request.node_id, term.routings),
            copy_orders=copy_orders(term),
        )

    async def DrainNode(
        self, request: membership_pb2.DrainNodeRequest, context: Context
    ) -> membership_pb2.DrainNodeResponse:
        """Take a node out of service; see ``departures``.

        Raises:
            NotFoundError: there is no such node.
            PreconditionError: no other node could serve.
        """
        term = self._coordinator.term()
        members = {member.node_id: member for member in term.registry.members(self._clock.monotonic())}
        if request.node_id not in members:
            raise NotFoundError("there is no such node", node=request.node_id, nodes=", ".join(sorted(members)))
        others = [m for m in members.values() if m.state is NodeState.ALIVE and m.node_id != request.node_id]
        if members[request.node_id].state is not NodeState.LEFT:
            if not others:
                raise PreconditionError(
                    "no other node could take its shards",
                    remedy="start another node first, or stop the cluster",
                    node=request.node_id,
                )
            labels = {member.node_id: member.report.pool for member in others}
            for name, routing in term.routings.items():
                if stuck := heirless(routing, request.node_id, labels):
                    raise PreconditionError(
                        "no other node of the pool could take its shards",
                        remedy="start another node of that pool first, or stop the cluster",
                        node=request.node_id,
                        namespace=name,
                        pool=routing.generations[stuck[0]].pool,
                    )
            term.registry.drain(request.node_id)
        owned, total = held(term.routings, request.node_id)
        (state,) = (
            member.state
            for member in term.registry.members(self._clock.monotonic())
            if member.node_id == request.node_id
        )
        return membership_pb2.DrainNodeResponse(state=_STATES[state], shards_owned=owned, shards_held=total)

    async def Leave(self, request: membership_pb2.LeaveRequest, context: Context) -> membership_pb2.LeaveResponse:
        """Take a good-bye; the node's shards move in the next turn."""
        term = self._coordinator.term()
        term.registry.leave(request.node_id, request.incarnation, self._clock.monotonic())
        return membership_pb2.LeaveResponse()

    async def ListNodes(
        self, request: membership_pb2.ListNodesRequest, context: Context
    ) -> membership_pb2.ListNodesResponse:
        """Return the nodes; a follower knows only those the routing records name, and judges none."""
        leadership = self._coordinator.leadership
        response = membership_pb2.ListNodesResponse(
            leader_id=leadership.leader_id,
            leader_epoch=leadership.leader_epoch,
            leader_address=leadership.leader_address,
        )
        term = self._coordinator.term_or_none()
        if term is None:
            response.nodes.extend(await self._named())
            return response
        for member in term.registry.members(self._clock.monotonic()):
            response.nodes.append(
                membership_pb2.NodeInfo(
                    node_id=member.node_id,
                    incarnation=member.report.incarnation,
                    address=member.report.address,
                    state=_STATES[member.state],
                    silent_for=duration(member.silent_for),
                    replicas=member.report.replicas,
                    memory_bytes=member.report.memory_bytes,
                    pool=member.report.pool,
                    version=member.report.version,
                    protocol_version=member.report.protocol_version,
                    disk_free_bytes=member.report.disk_free_bytes,
                )
            )
        return response

    async def _named(self) -> list[membership_pb2.NodeInfo]:
        components = self._coordinator.components
        nodes: dict[str, membership_pb2.NodeInfo] = {}
        for store in components.stores.values():
            found = await open_register(store, clock=components.clock, ids=components.ids).load()
            for node_id, node in found[0].nodes.items() if found else ():
                nodes[node_id] = membership_pb2.NodeInfo(
                    node_id=node_id, incarnation=node.incarnation, address=node.address, pool=node.pool
                )
        return [nodes[node_id] for node_id in sorted(nodes)]
