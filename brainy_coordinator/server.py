"""The coordinator's server: its services, and how it starts and ends."""

from __future__ import annotations

from brainy.api.coordinator.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    copy_rate_pb2,
    copy_rate_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    lease_pb2,
    lease_pb2_grpc,
    membership_pb2,
    membership_pb2_grpc,
    migration_pb2,
    migration_pb2_grpc,
    quality_pb2,
    quality_pb2_grpc,
    traffic_pb2,
    traffic_pb2_grpc,
)
from brainy.rpc.server import RunningServer, Service, build_server
from brainy_coordinator.control import Components
from brainy_coordinator.coordinator import Coordinator
from brainy_coordinator.leadership import Leadership
from brainy_coordinator.services.cluster import ClusterServicer
from brainy_coordinator.services.copy_rate import CopyServicer
from brainy_coordinator.services.generations import GenerationServicer
from brainy_coordinator.services.lease import LeaseServicer
from brainy_coordinator.services.membership import MembershipServicer
from brainy_coordinator.services.migration import MigrationServicer
from brainy_coordinator.services.quality import QualityServicer
from brainy_coordinator.services.traffic import TrafficServicer

#: Streams that last as long as their caller likes.
_ENDLESS = (
    "/brainy.api.coordinator.v1.MigrationService/WatchMigration",
    "/brainy.api.coordinator.v1.LeaseService/KeepAlive",
    "/brainy.api.coordinator.v1.LeaseService/Watch",
)
_GRACE_SECONDS = 5.0


class CoordinatorServer:
    """One coordinator that answers calls.

    Start: 1. the server listens, for the address must be known before it is put into the leadership's lock;
    2. the election begins; until it is decided calls are answered as by a follower.
    Stop: 1. the control loop ends and the leadership is given back, so that another leads at once; 2. new
    calls are refused and those in flight finish.
    """

    def __init__(self, server: RunningServer, coordinator: Coordinator) -> None:
        self._server = server
        self.coordinator = coordinator

    @property
    def address(self) -> str:
        """host:port that is listened on."""
        return self._server.address

    @classmethod
    async def start(cls, components: Components, *, coordinator_id: str) -> CoordinatorServer:
        """Listen, then take part in the election.

        Raises:
            UnavailableError: the address cannot be bound.
        """
        settings = components.settings
        # Whatever order each process was given them in, all agree on the first by name.
        first = min(components.stores)
        leadership = Leadership(
            components.locks[first],
            coordinator_id=coordinator_id,
            address=settings.advertise,
            lease_seconds=settings.leader_lease_seconds,
            clock=components.clock,
            ids=components.ids,
        )
        coordinator = Coordinator(components, leadership)
        server = await build_server(
            services(coordinator),
            settings.listen,
            clock=components.clock,
            ids=components.ids,
            endless=_ENDLESS,
        )
        leadership.address = settings.advertise or server.address
        coordinator.start()
        return cls(server, coordinator)

    async def stop(self, grace_seconds: float = _GRACE_SECONDS) -> None:
        """End gracefully. May be called again."""
        await self.coordinator.stop()
        await self._server.drain(grace_seconds)

    async def kill(self) -> None:
        """End as a crash would, as far as the bucket can tell: nothing is given back. For tests."""
        await self.coordinator.kill()
        await self._server.drain(0.0)


def services(coordinator: Coordinator) -> tuple[Service, ...]:
    """Return what a coordinator answers."""
    return (
        Service(
            membership_pb2.DESCRIPTOR.services_by_name["MembershipService"],
            membership_pb2_grpc.add_MembershipServiceServicer_to_server,
            MembershipServicer(coordinator),
        ),
        Service(
            cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"],
            cluster_pb2_grpc.add_ClusterServiceServicer_to_server,
            ClusterServicer(coordinator),
        ),
        Service(
            copy_rate_pb2.DESCRIPTOR.services_by_name["CopyService"],
            copy_rate_pb2_grpc.add_CopyServiceServicer_to_server,
            CopyServicer(coordinator),
        ),
        Service(
            migration_pb2.DESCRIPTOR.services_by_name["MigrationService"],
            migration_pb2_grpc.add_MigrationServiceServicer_to_server,
            MigrationServicer(coordinator),
        ),
        Service(
            generation_pb2.DESCRIPTOR.services_by_name["GenerationService"],
            generation_pb2_grpc.add_GenerationServiceServicer_to_server,
            GenerationServicer(coordinator),
        ),
        Service(
            traffic_pb2.DESCRIPTOR.services_by_name["TrafficService"],
            traffic_pb2_grpc.add_TrafficServiceServicer_to_server,
            TrafficServicer(coordinator),
        ),
        Service(
            quality_pb2.DESCRIPTOR.services_by_name["QualityService"],
            quality_pb2_grpc.add_QualityServiceServicer_to_server,
            QualityServicer(coordinator),
        ),
        Service(
            lease_pb2.DESCRIPTOR.services_by_name["LeaseService"],
            lease_pb2_grpc.add_LeaseServiceServicer_to_server,
            LeaseServicer(coordinator.components),
        ),
    )
