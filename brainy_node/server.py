"""The node's gRPC server: the one place that knows which transport serves the routers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from brainy.api.node.v1 import (
    control_pb2,
    control_pb2_grpc,
    data_pb2,
    data_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
    shard_pb2,
    shard_pb2_grpc,
    traffic_pb2,
    traffic_pb2_grpc,
    vectors_pb2,
    vectors_pb2_grpc,
)
from brainy.clock import Clock
from brainy.config.settings import EmbeddingSettings, NodeSettings
from brainy.ids import Ids
from brainy.rpc.channel import ChannelPool
from brainy.rpc.metrics import RpcMetrics
from brainy.rpc.server import RunningServer, Service, build_server
from brainy_node.router.front_door import FrontDoor
from brainy_node.router.served import ServedBook
from brainy_node.runtime.ports import Runtimes
from brainy_node.services.control import ControlServicer
from brainy_node.services.nouns import NounServicer
from brainy_node.services.search import SearchServicer
from brainy_node.services.shards import ShardServicer
from brainy_node.services.statistics import StatisticsServicer
from brainy_node.services.traffic import TrafficServicer
from brainy_node.services.vectors import VectorServicer
from brainy_node.services.verbs import VerbServicer

#: Streams that end only when their caller goes away: a drain ends them at once.
ENDLESS = ("/brainy.api.node.v1.ShardService/FollowLog",)


async def build_node_server(
    runtimes: Runtimes,
    channels: ChannelPool,
    *,
    settings: NodeSettings,
    clock: Clock,
    ids: Ids,
    on_drain: Callable[[], None],
    metrics: RpcMetrics | None = None,
    served: ServedBook | None = None,
    serving: bool = True,
    embedding: EmbeddingSettings | None = None,
) -> RunningServer:
    """Start the server of a node on ``settings.listen``.

    Args:
        runtimes: the namespaces served.
        channels: to other nodes; not closed by the server.
        settings: address and limits.
        clock: for deadlines and figures.
        ids: for request ids.
        on_drain: called when the coordinator asks the node to drain; begins the shutdown and returns at once.
        metrics: where calls are counted.
        served: where is counted how clients are served, by generation.
        serving: what health says until ``RunningServer.set_serving``.
        embedding: how models are asked where a migration changes them.

    Raises:
        BrainyError: as ``build_server``.
    """
    return await build_server(
        services(
            runtimes,
            channels,
            settings=settings,
            clock=clock,
            ids=ids,
            on_drain=on_drain,
            served=served,
            embedding=embedding,
        ),
        settings.listen,
        clock=clock,
        ids=ids,
        metrics=metrics,
        endless=ENDLESS,
        serving=serving,
    )


def services(
    runtimes: Runtimes,
    channels: ChannelPool,
    *,
    settings: NodeSettings,
    clock: Clock,
    ids: Ids,
    on_drain: Callable[[], None],
    served: ServedBook | None = None,
    embedding: EmbeddingSettings | None = None,
) -> Sequence[Service]:
    """Return what a node answers; arguments as in ``build_node_server``."""
    door = FrontDoor(runtimes, channels, settings=settings, clock=clock, ids=ids, served=served)
    data = data_pb2.DESCRIPTOR.services_by_name
    return [
        Service(
            search_pb2.DESCRIPTOR.services_by_name["SearchService"],
            search_pb2_grpc.add_SearchServiceServicer_to_server,
            SearchServicer(door),
        ),
        Service(data["NounService"], data_pb2_grpc.add_NounServiceServicer_to_server, NounServicer(door)),
        Service(data["VerbService"], data_pb2_grpc.add_VerbServiceServicer_to_server, VerbServicer(door)),
        Service(
            data["StatisticsService"],
            data_pb2_grpc.add_StatisticsServiceServicer_to_server,
            StatisticsServicer(door),
        ),
        Service(
            shard_pb2.DESCRIPTOR.services_by_name["ShardService"],
            shard_pb2_grpc.add_ShardServiceServicer_to_server,
            ShardServicer(runtimes, door.refresher, clock=clock),
        ),
        Service(
            control_pb2.DESCRIPTOR.services_by_name["ControlService"],
            control_pb2_grpc.add_ControlServiceServicer_to_server,
            ControlServicer(runtimes, on_drain),
        ),
        Service(
            traffic_pb2.DESCRIPTOR.services_by_name["TrafficService"],
            traffic_pb2_grpc.add_TrafficServiceServicer_to_server,
            TrafficServicer(door),
        ),
        Service(
            vectors_pb2.DESCRIPTOR.services_by_name["VectorService"],
            vectors_pb2_grpc.add_VectorServiceServicer_to_server,
            VectorServicer(runtimes, embedding=embedding or EmbeddingSettings(), clock=clock),
        ),
    ]
