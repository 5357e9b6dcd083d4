"""What a shard replica needs of its node: the store, its peers, clock, ids and settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass, field

from brainy.api.node.v1 import shard_pb2, shard_pb2_grpc
from brainy.bucket import layout
from brainy.bucket.records import Routing, Spec
from brainy.changelog.batch import Slot, decode_slot
from brainy.clock import Clock
from brainy.config.settings import EmbeddingSettings, NodeSettings
from brainy.dataset.elsewhere import Elsewhere
from brainy.errors import UnavailableError
from brainy.ids import Ids
from brainy.rpc.channel import ChannelPool, stream
from brainy.store.base import ObjectStore
from brainy_node.runtime.bases import BaseSupply
from brainy_node.runtime.copy_throttle import CopyThrottle
from brainy_node.runtime.routing_view import RoutingView


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The surroundings of every replica of one namespace on this node."""

    namespace: str
    node_id: str
    incarnation: str
    store: ObjectStore
    supply: BaseSupply
    throttle: CopyThrottle
    view: RoutingView
    peers: ChannelPool
    clock: Clock
    ids: Ids
    settings: NodeSettings
    #: Current spec of a generation; re-read while its dimensions are undecided.
    spec: Callable[[int], Awaitable[Spec]]

    #: Where models are asked and with what key, for generations that another model embeds anew.
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)

    #: Stores of other namespaces, for what comes from there.
    elsewhere: Elsewhere

    #: Log context of the process. Duties run in copies of it, not in that of the call that set them off.
    context: Context

    @property
    def routing(self) -> Routing:
        """The routing record in force."""
        return self.view.current

    def shards_of(self, node_id: str) -> shard_pb2_grpc.ShardServiceAsyncStub:
        """Return a stub for another node's shards.

        Raises:
            UnavailableError: the routing record knows no address of that node.
        """
        address = self.routing.nodes.get(node_id)
        if address is None:
            raise UnavailableError("the node has no known address", reason="STALE_ROUTING", node=node_id)
        return self.peers.stub(address.address, shard_pb2_grpc.ShardServiceStub)

    async def follow_owner(self, generation: int, shard: int, from_position: int) -> AsyncIterator[Slot]:
        """Yield a shard's slots from its current owner, for ever; any failure ends it with a BrainyError."""
        placement = self.routing.generations.get(generation)
        if placement is None or shard not in placement.shards:
            raise UnavailableError("the generation is not placed", reason="STALE_ROUTING", generation=generation)
        stub = self.shards_of(placement.shards[shard].owner)
        request = shard_pb2.FollowLogRequest(
            namespace=self.namespace, generation=generation, shard=shard, from_position=from_position
        )
        async for answer in stream(stub.FollowLog, request):
            # Held to the name it has in the bucket, so a mixed-up stream is told from the right one.
            yield decode_slot(answer.object, key=layout.log_slot(generation, shard, answer.first_position))
