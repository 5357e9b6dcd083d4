"""The JSON objects of the cluster, as validated values.

Each carries a ``format_version``. A reader refuses a version it does not know (``UNSUPPORTED_FORMAT``) rather
than guess. Mutable objects (routing, manifests) also carry a fresh ``nonce`` at each write, so that equal
contents never share an ETag.

The first line inside the braces is a checksum over the rest: JSON with a flipped digit is still JSON, and a position
or an owner off by one digit would be believed. An object without that line (one mended by hand) is accepted.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from brainy.bucket.embedding import EmbeddingIdentity, Reembedding
from brainy.bucket.origin import ELSEWHERE, Arrival, Moving, Origin
from brainy.bucket.trial import ReadTrial
from brainy.errors import CorruptDataError, PreconditionError

FORMAT_VERSION = 1

_CHECKSUM = re.compile(rb'\{\n  "checksum": "([0-9a-f]{64})",\n')


class Record(BaseModel):
    """Base of every JSON object under ``cluster/``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION

    def encode(self) -> bytes:
        """Return UTF-8 JSON, indented so that a person can read it at three in the morning."""
        plain = self.model_dump_json(indent=2).encode()
        return b'{\n  "checksum": "%s",\n%s' % (hashlib.sha256(plain).hexdigest().encode(), plain[len(b"{\n") :])

    @classmethod
    def decode(cls, body: bytes, *, key: str) -> Self:
        """Parse and check.

        Raises:
            PreconditionError: written by a newer version of this software (UNSUPPORTED_FORMAT).
            CorruptDataError: not such a record, or altered since it was written.
        """
        try:
            version = _Version.model_validate_json(body).format_version
            if version > FORMAT_VERSION:
                raise PreconditionError(
                    "this object was written by a newer version of the software",
                    reason="UNSUPPORTED_FORMAT",
                    remedy="upgrade this process; nothing was changed",
                    key=key,
                    format_version=version,
                )
            if (sealed := _CHECKSUM.match(body)) is not None:
                body = b"{\n" + body[sealed.end() :]
                if hashlib.sha256(body).hexdigest().encode() != sealed[1]:
                    raise CorruptDataError(
                        "the record does not hash to its own checksum",
                        remedy="restore the object from a copy; nothing was read from it",
                        data_safe=False,
                        key=key,
                    )
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise CorruptDataError(
                "not a valid record: " + "; ".join(str(item["msg"]) for item in error.errors()[:3]),
                remedy="restore the object from a copy; nothing was read from it",
                key=key,
            ) from error


class _Version(BaseModel):
    format_version: int


class Spec(Record):
    """``spec.json``: what a generation is.

    Immutable but for what the first writes decide: ``dimensions`` 0 → n, ``embedding`` None → a model.
    """

    generation: int
    #: 0 while an empty namespace waits for its first vector.
    dimensions: int
    metric: Literal["cos", "l2sq", "ip"] = "cos"
    scalar_kind: Literal["f32", "f16", "bf16", "i8"] = "f32"
    connectivity: int = 16
    expansion_add: int = 128
    expansion_search: int = 64
    partitioning: Literal["hash"] = "hash"
    shard_count: int
    replication: int = 2
    #: What the generation is made of: "brainy" (the tree beside cluster/), "empty", or a generation's number.
    source: str
    #: Trees found when a Brainy bucket was adopted, oldest first, of "typed", "flat" and "entity"; or ().
    source_trees: tuple[str, ...] = ()
    created_at: str = ""
    #: What its texts were embedded with; None while nobody wrote any.
    embedding: EmbeddingIdentity | None = None
    #: Set where ``embedding`` is another model than the source's, so that every vector was made anew.
    reembedding: Reembedding | None = None
    #: Where it is filled from, if that is not ``source``.
    origin: Origin | None = None

    @property
    def made_of(self) -> int | None:
        """The generation this one was filled from; None for the first of a namespace."""
        if self.origin is not None and self.origin.is_followed:
            return ELSEWHERE
        if self.source.isdecimal():
            return int(self.source)
        # A target filled from Brainy's tree itself follows generation 0, which has its log beside the tree.
        return 0 if self.source == "brainy" and self.generation > 0 else None

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(serialize(self), "embedding", "reembedding", "origin")


def _without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    # Left out while there is nothing to say, so that software from before the field reads the record.
    return {name: value for name, value in values.items() if value or name not in names}


class ShardPlacement(BaseModel):
    """Who serves a shard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: str
    #: Fencing token of this ownership; rises with every change of owner.
    epoch: int
    replicas: tuple[str, ...] = ()


class GenerationPlacement(BaseModel):
    """Where a generation's shards are, by shard number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: building: the target of a migration; its shards are filled from ``follows`` and follow it.
    #: following: the source of one that has switched; kept as a way back, it follows the target.
    state: Literal["serving", "building", "following"]
    shard_count: int
    #: Label of the nodes that may hold its shards; "" for nodes without a label (brainy_coordinator.pools).
    pool: str = ""
    #: The generation whose log this one follows while it is not serving.
    follows: int | None = None
    #: Shard of the followed generation -> position of its log up to which everything is in here: set by the swap that
    #: made the other one active. Empty for a target that was never active: its base says where it begins.
    follow_from: dict[int, int] = {}
    shards: dict[int, ShardPlacement] = {}
    #: While it is built from elsewhere: from where. The namespace takes no writes meanwhile.
    origin: Origin | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(serialize(self), "pool", "follow_from", "origin")


class NodeAddress(BaseModel):
    """Where a node answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    incarnation: str
    #: Label of the node, so that a new leader knows it before the node speaks.
    pool: str = ""

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(serialize(self), "pool")


class Routing(Record):
    """``routing.json``: the one record of who serves what. Swapped with If-Match, never edited."""

    namespace: str
    #: +1 at each swap.
    epoch: int
    nonce: str
    #: Epoch of the leader that wrote it.
    leader_epoch: int
    #: Generation that answers reads, unless ``adopted`` says otherwise for a node.
    active: int
    #: Generation that accepts writes.
    write: int
    #: draining: new writes wait; nothing may be committed to the write generation.
    phase: Literal["serving", "draining"] = "serving"
    #: Nodes whose front door already reads from another generation (a rolling migration).
    adopted: dict[str, int] = {}
    #: The migration in charge, if one runs.
    migration: str | None = None
    nodes: dict[str, NodeAddress] = {}
    generations: dict[int, GenerationPlacement] = {}
    #: Reads that are tried on the target of the migration; None while none are.
    reads: ReadTrial | None = None
    #: The newest generation that was ever rolled back from: clients may hold positions of it. 0 for none.
    rolled_back_from: int = 0
    #: Into which namespace this one is being moved, or was.
    moving: Moving | None = None
    #: Where its first data came from, if it was moved or restored here.
    arrived: Arrival | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(serialize(self), "reads", "rolled_back_from", "moving", "arrived")

    @property
    def arriving(self) -> Origin | None:
        """Where its first data come from while they do; None otherwise."""
        return next((placed.origin for placed in self.generations.values() if placed.state == "building"), None)

    def read_generation(self, node_id: str) -> int:
        """Generation that ``node_id`` answers reads from."""
        return self.adopted.get(node_id, self.active)


class StoredFile(BaseModel):
    """An immutable object and what it must hash to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    size: int
    sha256: str
    rows: int = 0


class Manifest(Record):
    """``manifests/<shard>.json``: the segments and the checkpoint that make up a shard at a position."""

    generation: int
    shard: int
    #: Epoch of the owner that published it; a lower one is refused.
    epoch: int
    nonce: str
    #: Every record of the shard's log at or below this is included.
    position: int
    #: Source shard -> position included, when the generation was filled from another.
    source_cursor: dict[int, int] = {}
    #: The generation whose positions ``source_cursor`` names; None, of older software: the one it was made of.
    source_generation: int | None = None
    nouns: tuple[StoredFile, ...] = ()
    verbs: tuple[StoredFile, ...] = ()
    #: The USearch file over the rows of ``nouns`` in order; None when nothing is indexed.
    index: StoredFile | None = None
    quarantine: StoredFile | None = None
    noun_count: int
    verb_count: int
    indexed_count: int
    #: The newest request ids at or below ``position`` -> position of their record, oldest first, so that a retry is
    #: recognised although the record has been folded.
    recent_requests: dict[str, int] = {}
    #: Hex of the shard's multiset digest folded to 32 bytes (brainy.bucket.digest.fold).
    digest: str

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        if self.source_generation is None:
            values.pop("source_generation", None)
        return values


class Collected(Record):
    """``collected/<shard>.json``: how far a shard's change log has been given up. Never falls, never deleted."""

    generation: int
    shard: int
    #: Epoch of the owner that gave it up.
    epoch: int
    nonce: str
    #: Slots that begin at or below this may be gone; nobody trusts what lies there.
    position: int
