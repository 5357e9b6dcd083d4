"""ClusterService: what the cluster is and serves."""

from __future__ import annotations

from brainy.api.coordinator.v1 import cluster_pb2, cluster_pb2_grpc
from brainy.bucket import layout
from brainy.bucket.records import Routing
from brainy.errors import NotFoundError
from brainy.rpc.interceptors import Context
from brainy_coordinator.coordinator import Coordinator
from brainy_coordinator.routing import open_register
from brainy_coordinator.services.namespaces import resolve


class ClusterServicer(cluster_pb2_grpc.ClusterServiceServicer):
    """Answered by any coordinator, from the bucket."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def ListNamespaces(
        self, request: cluster_pb2.ListNamespacesRequest, context: Context
    ) -> cluster_pb2.ListNamespacesResponse:
        """Return every namespace served; one that has not been adopted yet has epoch 0."""
        leadership = self._coordinator.leadership
        response = cluster_pb2.ListNamespacesResponse(
            leader_id=leadership.leader_id, leader_address=leadership.leader_address
        )
        for name in self._coordinator.components.stores:
            routing = await self._routing(name)
            response.namespaces.append(
                self._info(name, routing) if routing else cluster_pb2.NamespaceInfo(namespace=name)
            )
        return response

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
            raise NotFoundError("the namespace has no routing record yet", namespace=name)
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
