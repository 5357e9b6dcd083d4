"""The other nodes: stubs to reach them, and which of them failed a moment ago."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainy.api.node.v1.shard_pb2_grpc import ShardServiceStub
from brainy.bucket.records import Routing
from brainy.clock import Clock
from brainy.errors import UnavailableError
from brainy.rpc.channel import ChannelPool

if TYPE_CHECKING:  # exists in the generated stubs only
    from brainy.api.node.v1.shard_pb2_grpc import ShardServiceAsyncStub

#: How long a node that failed is asked last.
SUSPECT_SECONDS = 1.0


class Peers:
    """Stubs by node. Addresses are those of the routing record at each call, so a node that moved is found."""

    def __init__(self, channels: ChannelPool, *, clock: Clock) -> None:
        self._channels = channels
        self._clock = clock
        self._suspects: dict[str, float] = {}

    def stub(self, routing: Routing, node_id: str) -> ShardServiceAsyncStub:
        """Return the stub to a node.

        Raises:
            UnavailableError: STALE_ROUTING, its address is not in the record.
        """
        node = routing.nodes.get(node_id)
        if node is None:
            raise UnavailableError(
                "the address of a node is unknown",
                reason="STALE_ROUTING",
                remedy="retry: the node has left or has not joined yet",
                node=node_id,
                routing_epoch=routing.epoch,
            )
        return self._channels.stub(node.address, _stub)

    def suspect(self, node_id: str) -> None:
        """Ask this node last for a while."""
        self._suspects[node_id] = self._clock.monotonic() + SUSPECT_SECONDS

    def suspects(self) -> set[str]:
        """Nodes that failed a moment ago."""
        if not self._suspects:
            return set()
        now = self._clock.monotonic()
        self._suspects = {node: until for node, until in self._suspects.items() if until > now}
        return set(self._suspects)


#: Generated code types a stub by the channel given to it; at run time there is one class.
_stub: type[ShardServiceAsyncStub] = ShardServiceStub  # type: ignore[assignment]
