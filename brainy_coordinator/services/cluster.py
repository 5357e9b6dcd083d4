"""ClusterService: what the cluster is and serves."""

from __future__ import annotations

from brainy.api.coordinator.v1 import cluster_pb2, cluster_pb2_grpc
from brainy.bucket import layout
from brainy.bucket.records import Routing
from brainy.errors import BrainyError, NotFoundError
from brainy.rpc.errors import code_of, legible
from brainy.rpc.interceptors import Context
from brainy_coordinator.coordinator import Coordinator
from brainy_coordinator.routing import open_register
from brainy_coordinator.services.namespaces import resolve


def problem_of(error: BrainyError) -> cluster_pb2.Problem:
    """Convert an error for the wire; ``brainy.rpc.errors.error_of`` is the way back."""
    return cluster_pb2.Problem(
        code=code_of(error).value[0],
        reason=error.reason,
        message=legible(error.message),
        remedy=legible(error.remedy),
        fields={name: legible(value) for name, value in error.fields.items()},
    )


class ClusterServicer(cluster_pb2_grpc.ClusterServiceServicer):
    """Answered by any coordinator, from the bucket."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def ListNamespaces(
        self, request: cluster_pb2.ListNamespacesRequest, context: Context
    ) -> cluster_pb2.ListNamespacesResponse:
        """Return every namespace served; one that has not been adopted yet has epoch 0.

        One that cannot be served says why, and does not keep the others from being listed.
        """
        leadership = self._coordinator.leadership
        response = cluster_pb2.ListNamespacesResponse(
            leader_id=leadership.leader_id, leader_address=leadership.leader_address
        )
        for name in self._coordinator.components.stores:
            response.namespaces.append(await self._described(name))
        return response

    async def _described(self, name: str) -> cluster_pb2.NamespaceInfo:
        term = self._coordinator.term_or_none()
        problem = term.problems.get(name) if term is not None else None
        info = cluster_pb2.NamespaceInfo(namespace=name)
        try:
            routing = await self._routing(name)
        except BrainyError as error:
            problem = problem or error
        else:
            if routing is not None:
                info = self._info(name, routing)
        if problem is not None:
            info.problem.CopyFrom(problem_of(problem))
        return info

    async def GetRouting(
        self, request: cluster_pb2.GetRoutingRequest, context: Context
    ) -> cluster_pb2.GetRoutingResponse:
        """Return the routing record as stored.

        Raises:
            NotFoundError: the namespace is not served, or not adopted yet.
        """
        stores = self._coordinator.components.stores
        name = resolve(request.namespace, stores)
        found = await stores[name].get(layout.ROUTING)
        if found is None:
            raise NotFoundError(
                "the namespace has no routing record yet",
                remedy="wait until the coordinator has adopted it",
                namespace=name,
            )
        return cluster_pb2.GetRoutingResponse(routing_json=found.body.decode(), etag=found.etag)

    async def _routing(self, name: str) -> Routing | None:
        term = self._coordinator.term_or_none()
        if term is not None and name in term.routings:
            return term.routings[name]
        components = self._coordinator.components
        found = await open_register(components.stores[name], clock=components.clock, ids=components.ids).load()
        return found[0] if found else None

    def _info(self, name: str, routing: Routing) -> cluster_pb2.NamespaceInfo:
        shards = routing.generations[routing.active].shards
        term = self._coordinator.term_or_none()
        ready = term.namespaces[name].view.ready(routing.active) if term else {}
        return cluster_pb2.NamespaceInfo(
            namespace=name,
            active_generation=routing.active,
            write_generation=routing.write,
            routing_epoch=routing.epoch,
            phase=routing.phase,
            migration_id=routing.migration or "",
            replicas_ready=sum(
                node in ready.get(shard, {}) for shard, s in shards.items() for node in (s.owner, *s.replicas)
            ),
            replicas_wanted=sum(1 + len(s.replicas) for s in shards.values()),
        )
