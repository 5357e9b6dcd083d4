"""What the front door needs of a node: namespaces, their routing and the shard replicas held here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from brainy.api.common.v1.common_pb2 import Position
from brainy.api.node.v1.control_pb2 import ShardReplica
from brainy.api.storage.v1.log_pb2 import LogRecord
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import Noun, Verb
from brainy.bucket.records import Routing, Spec
from brainy.clock import Deadline
from brainy_node.shard.hits import Hits


class QuarantinedLike(Protocol):
    """A source object that could not be read."""

    @property
    def key(self) -> str:
        """Its key."""

    @property
    def reason(self) -> str:
        """Why."""

    @property
    def size(self) -> int:
        """Its size in bytes."""


class StatisticsLike(Protocol):
    """Counted figures of one shard."""

    @property
    def noun_count(self) -> int:
        """Nouns stored, soft-deleted ones included."""

    @property
    def verb_count(self) -> int:
        """Verbs stored."""

    @property
    def soft_deleted_count(self) -> int:
        """Nouns that carry the soft-delete marker."""

    @property
    def unindexed_count(self) -> int:
        """Nouns stored but not in the index."""

    @property
    def quarantined_count(self) -> int:
        """Source objects that could not be read."""

    @property
    def nouns_by_service(self) -> Mapping[str, int]:
        """Nouns by metadata.createdBy.augmentation."""

    @property
    def nouns_by_type(self) -> Mapping[str, int]:
        """Nouns by metadata.noun."""

    @property
    def verbs_by_type(self) -> Mapping[str, int]:
        """Verbs by type."""


class ReadableShard(Protocol):
    """A replica that is ready for reads.

    Searches may run in a worker thread while the event loop applies records: an implementation answers each
    call from one consistent state. Iterators stay valid while records are applied and the base is replaced
    between two steps.
    """

    @property
    def base_rows(self) -> int:
        """Rows of the base's index."""

    @property
    def tail_records(self) -> int:
        """Records after the base."""

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        exact: bool = False,
        include_soft_deleted: bool = False,
    ) -> Hits:
        """Return up to ``k`` nearest nouns of each row of ``queries`` (n x dimensions)."""

    def metadata_of(self, hits: Hits) -> list[bytes]:
        """Return metadata parallel to ``hits.ids``; b"" where there is none."""

    def get_nouns(self, ids: Sequence[str], *, include_vectors: bool = True) -> list[Noun]:
        """Return the nouns that exist."""

    def get_verbs(self, ids: Sequence[str], *, include_vectors: bool = True) -> list[Verb]:
        """Return the verbs that exist."""

    def find_verbs(self, source_id: str | None, target_id: str | None, type: str | None) -> Iterator[list[Verb]]:
        """Batches of the verbs that match; None matches all."""

    def scan_nouns(self, *, include_vectors: bool, include_soft_deleted: bool) -> Iterator[list[Noun]]:
        """Batches of all nouns."""

    def statistics(self) -> StatisticsLike:
        """Counted figures."""

    def unindexed(self) -> list[tuple[str, str]]:
        """(id, reason) of nouns that are stored but not indexed."""

    def quarantined(self) -> Sequence[QuarantinedLike]:
        """Source objects that could not be read."""


class SlotLike(Protocol):
    """An object of a change log."""

    @property
    def body(self) -> bytes:
        """The object's bytes as stored."""

    @property
    def first(self) -> int:
        """Position of its first record."""

    @property
    def last(self) -> int:
        """Position of its last record."""


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

    def shard(self, generation: int, shard: int) -> ReadableShard | None:
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

    def follow_log(self, generation: int, shard: int, from_position: int) -> AsyncIterator[SlotLike]:
        """Stream the log's objects from the one that holds ``from_position`` on, for ever; owner only."""

    async def wait_applied(self, generation: int, shard: int, session: Sequence[Position], deadline: Deadline) -> None:
        """Return once the local replica includes the positions, which are of its own shard's log or, while the
        generation follows another, of that one's.

        Raises:
            UnavailableError: the deadline passed, or the shard is not here (SHARD_NOT_READY).
        """

    async def refresh(self) -> None:
        """Read the routing record now and put it in force."""

    async def ensure_dimensions(self, dimensions: int) -> Spec:
        """Return the spec of the write generation, after setting its dimensions if they were 0.

        The spec returned may have other dimensions than asked for: another writer was first.
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
