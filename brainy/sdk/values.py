"""What the client hands out: plain values, no protobuf objects.

Vectors are one-dimensional ``float32`` arrays. ``metadata_json`` is the caller's document byte for byte;
``metadata`` parses it. Absent metadata and a stored JSON ``null`` both parse to ``None`` and are told apart by
``metadata_json`` (``None`` against ``b"null"``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from brainy.bucket.embedding import EmbeddingIdentity
from brainy.legacy.values import parse_json

#: A JSON value: None, bool, int, float, str, list or dict of these.
Json: TypeAlias = Any
#: One-dimensional float32 array.
Vector: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One neighbour of a query."""

    id: str
    #: In the namespace's metric, 0 is nearest; cosine distance by default.
    distance: float
    #: ``1 - distance``: with the default metric the cosine similarity, 1 is nearest.
    score: float
    #: None where the noun has none, or the search was told to leave it out.
    metadata: Json = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noun:
    """A stored item with a vector."""

    id: str
    #: None where it has none or it was left out of the answer; NaN marks components that are not numbers.
    vector: Vector | None = None
    metadata_json: bytes | None = None
    #: Further fields of the object Brainy stored, a JSON object.
    attributes_json: bytes | None = None

    @property
    def metadata(self) -> Json:
        """The caller's document, parsed anew at each access."""
        return parse_json(self.metadata_json) if self.metadata_json else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verb:
    """A stored relation between two nouns."""

    id: str
    source: str
    target: str
    type: str
    weight: float | None = None
    vector: Vector | None = None
    metadata_json: bytes | None = None
    attributes_json: bytes | None = None

    @property
    def metadata(self) -> Json:
        """The caller's document, parsed anew at each access."""
        return parse_json(self.metadata_json) if self.metadata_json else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNoun:
    """A noun to write. Without ``id`` the client makes a UUID."""

    vector: npt.ArrayLike
    metadata: Json = None
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatistics:
    """What one service made, by ``createdBy.augmentation`` of its items."""

    noun_count: int = 0
    verb_count: int = 0
    #: Its nouns that carry metadata.
    metadata_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Figures of a namespace, as of the answering node's replicas.

    Each replica counts every item in when it appears and out when it goes, so that the figures cannot drift; each
    mapping sums to the count of its kind.
    """

    noun_count: int
    verb_count: int
    #: Nouns that carry a metadata document, JSON ``null`` included.
    metadata_count: int
    #: Nouns whose metadata carries Brainy's soft-delete marker; included in ``noun_count``.
    soft_deleted_count: int
    #: Stored and readable, not in the index.
    unindexed_count: int
    #: Objects of the source that could not be read.
    quarantined_count: int
    nouns_by_service: Mapping[str, int]
    #: By ``noun`` of the metadata; "" where there is none.
    nouns_by_type: Mapping[str, int]
    verbs_by_type: Mapping[str, int]
    #: By the service that made the items; "" where none is named.
    by_service: Mapping[str, ServiceStatistics]
    #: 0 while an empty namespace waits for its first vector.
    dimensions: int
    #: Generation the figures were read from.
    generation: int
    #: What the namespace's texts were embedded with; None while no client said.
    embedding: EmbeddingIdentity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedRow:
    """A row that was not imported, and why."""

    #: noun or verb.
    kind: str
    #: Its place among the nouns or the verbs, from 1; in a file of lines the line.
    number: int
    #: "" where it has none.
    id: str
    #: NO_TEXT, INVALID_ID, INVALID_VECTOR, INVALID_DIMENSION, INVALID_METADATA, INVALID_ARGUMENT (its shape), or
    #: NOT_FOUND (a verb one of whose ends does not exist).
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What became of sparse data. Each row is counted once: written, unchanged or skipped."""

    #: Written by this call, durable.
    nouns_imported: int
    verbs_imported: int
    #: Rows of those whose vectors were made of texts.
    embedded: int
    #: Nouns and verbs that an earlier call had embedded with the same model and stored as they are in the data.
    unchanged: int
    skipped: tuple[SkippedRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceMetrics:
    """Figures of the one node that answered, since it started."""

    node_id: str
    generation: int
    #: Nouns in the bases of the node's replicas, and newer log records not yet folded into them.
    index_size: int
    tail_size: int
    #: Queries the node has answered.
    total_searches: int
    #: Mean over calls, each from its arrival to its answer.
    average_search_milliseconds: float
    #: Resident memory, bytes; mapped files count as far as they are in memory.
    memory_usage: int
    #: Share of searches of a replica that did not have to read from disk: bases are mapped files, and the system's
    #: page cache is the only cache there is. None before the first search.
    cache_hit_rate: float | None
    #: Bytes of the indexed vectors as float32, over the bytes of the index files, graph included: below 1 where the
    #: index keeps float32 itself, up to 2 with f16 and up to 4 with i8. None while nothing is indexed.
    compression_ratio: float | None
    #: Calls to the object store since the node started, by kind (get, put, list, ...).
    store_calls: Mapping[str, int]

    @property
    def average_search_time(self) -> float:
        """``average_search_milliseconds`` by Brainy's name."""
        return self.average_search_milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """An object of the source that could not be read."""

    key: str
    reason: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnindexedNoun:
    """A noun that is stored and readable but cannot be found by a search."""

    id: str
    #: no-vector, non-finite, zero or dimension.
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """How far an owner is with taking over what Brainy processes write into the tree."""

    #: transferring or following.
    stage: str
    #: Since the beginning of the last pass that left nothing open; None before the first.
    lag_seconds: float | None
    #: Items found changed and not committed yet.
    open_items: int
    passes: int
    #: Changes committed, and items of which our own clients' later word was kept.
    applied: int
    conflicts: int
    #: Items whose objects cannot be read now.
    unreadable: int
    #: Why the last try failed; empty after one that did not.
    last_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReplica:
    """A node's copy of a shard."""

    namespace: str
    generation: int
    shard: int
    #: owner or replica.
    role: str
    #: loading, copying, replaying, ready, fenced or failed.
    state: str
    #: Highest log position applied.
    applied: int
    #: Items copied and expected while the shard is being filled.
    copied: int
    total: int
    noun_count: int
    verb_count: int
    #: Objects of the source that could not be read into it.
    quarantined: int = 0
    #: Why it does not answer: a reason such as CORRUPT_DATA, and in words.
    reason: str = ""
    message: str = ""
    #: Only of an owner that follows the Brainy processes on the namespace.
    following: Following | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """A node as the coordinator sees it."""

    node_id: str
    address: str
    #: alive, silent, draining or left.
    state: str
    #: Seconds since its last heartbeat.
    silent_seconds: float
    memory_bytes: int
    replicas: tuple[ShardReplica, ...]
    #: Its label: which generations it may hold.
    pool: str = ""
    #: Of its software; "" from one that is too old to say.
    version: str = ""
    #: Free where it keeps its bases; None where it does not say.
    disk_free_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """How far the departure of a node is."""

    #: draining, silent or left.
    state: str
    #: Shards it still owns, and those it still holds in all.
    shards_owned: int
    shards_held: int

    @property
    def gone(self) -> bool:
        """Whether it has said good-bye, or fell silent with nothing to hold."""
        return self.state == "left" or (self.state == "silent" and self.shards_held == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What keeps the coordinator from serving a namespace."""

    #: Such as NOT_A_BRAINY_BUCKET, STORE_UNFIT, CORRUPT_DATA.
    reason: str
    message: str
    #: What to do about it.
    remedy: str
    #: Key, bucket and the like.
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceInfo:
    """A namespace the cluster serves."""

    namespace: str
    active_generation: int
    write_generation: int
    routing_epoch: int
    #: serving or draining.
    phase: str
    #: Empty while no migration runs.
    migration_id: str
    replicas_ready: int
    replicas_wanted: int
    #: None while all is well.
    problem: Problem | None = None
