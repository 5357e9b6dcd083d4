"""What the front door needs of a node: namespaces, their routing and the shard replicas held here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from brainy.api.common.v1.common_pb2 import Position
from brainy.api.node.v1.control_pb2 import ShardReplica
from brainy.api.storage.v1.log_pb2 import LogRecord
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.embedding import EmbeddingIdentity
from brainy.bucket.records import Routing, Spec
from brainy.changelog.batch import Slot
from brainy.clock import Deadline
from brainy_node.runtime.held_vectors import HeldVectors
from brainy_node.shard.shard import Shard


class NamespaceRuntime(Protocol):
    """One namespace as this node serves it."""

    @property
    def name(self) -> str:
        """Canonical URI of the namespace."""

    @property
    def node_id(self) -> str:
        """This node."""

    @property
    def routing(self) -> Routing:
        """The routing record in force here."""

    @property
    def metrics(self) -> Mapping[str, int]:
        """Store calls since the start, by kind."""

    async def spec(self, generation: int) -> Spec:
        """Return what a generation is (cached after the first read)."""

    @property
    def vectors(self) -> HeldVectors:
        """What the replicas here can say of their vectors."""

    def shard(self, generation: int, shard: int) -> Shard | None:
        """Return the local replica if it is ready for reads."""

    async def commit(self, generation: int, shard: int, records: Sequence[LogRecord]) -> int:
        """Make records durable and visible, all together; this node must own the shard.

        Returns the position of the last record. Waits while the namespace drains. A repeat (same request ids)
        answers with the position it got the first time.

        Cancel safety: the caller may be cancelled; a commit under way still ends.

        Raises:
            UnavailableError: NOT_OWNER, STALE_ROUTING, SHARD_NOT_READY, DRAINING or BUFFER_FULL; nothing was
                committed.
            FencedError: a newer owner exists.
        """

    def follow_log(self, generation: int, shard: int, from_position: int) -> AsyncIterator[Slot]:
        """Stream the log's objects from the one that holds ``from_position`` on, for ever; owner only."""

    async def wait_applied(
        self,
        generation: int,
        shard: int,
        session: Sequence[Position],
        deadline: Deadline,
        *,
        besides: bool = False,
    ) -> None:
        """Return once the local replica includes the positions, which are of its own shard's log or, while the
        generation follows another, of that one's.

        ``besides``: the generation is compared with the one in service, and waited for though it is not read.

        Raises:
            UnavailableError: the deadline passed, or the shard is not here (SHARD_NOT_READY); a position is of a newer
                generation, which is read now instead (STALE_ROUTING; not if ``besides``).
        """

    async def refresh(self) -> None:
        """Read the routing record now and put it in force."""

    async def ensure_dimensions(self, dimensions: int) -> Spec:
        """Return the spec of the write generation, after setting its dimensions if they were 0.

        The spec returned may have other dimensions than asked for: another writer was first.
        """

    async def embedding(self, generation: int) -> EmbeddingIdentity | None:
        """Return what a generation's texts were embedded with; None while nobody wrote any."""

    async def ensure_embedding(self, embedding: EmbeddingIdentity) -> EmbeddingIdentity:
        """Return what the write generation's texts are embedded with, after recording ``embedding`` if nothing was.

        What it returns may differ from what was asked for: another writer was first.
        """

    async def apply_routing(self, epoch: int) -> Sequence[Position]:
        """The barrier of ControlService.ApplyRouting."""

    def replicas(self) -> Sequence[ShardReplica]:
        """State of every replica held."""

    async def digest(
        self, generation: int, shards: Sequence[int]
    ) -> tuple[MultisetDigest, int, int, Sequence[Position]]:
        """Sum of item hashes, nouns, verbs and positions of the owned shards named."""


class Runtimes(Protocol):
    """The namespaces of a node."""

    def get(self, name: str) -> NamespaceRuntime:
        """Return a namespace by name; "" means the only one.

        Raises:
            NotFoundError: UNKNOWN_NAMESPACE.
        """
