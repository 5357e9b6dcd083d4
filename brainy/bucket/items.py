"""Nouns and verbs as values, and the canonical hash that says two of them are equal.

``vector`` is little-endian float32, whatever the source stored; ``metadata`` and ``attributes`` are compact
JSON in UTF-8 exactly as they were normalised when first read, so equality of items is equality of bytes. Absent
metadata (None) is not the JSON ``null``.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brainy.api.common.v1 import common_pb2
from brainy.errors import InvalidRequestError

MAX_ID_BYTES = 1024
MAX_METADATA_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """An item with a vector."""

    id: str
    #: float32 LE; b"" where there is none. NaN components and other lengths are kept, not indexed.
    vector: bytes = b""
    #: The stored JSON array, only where float32 cannot carry it (null or non-numeric components).
    raw_vector: bytes | None = None
    metadata: bytes | None = None
    #: Other fields of the stored object as a JSON object.
    attributes: bytes | None = None

    def digest(self) -> bytes:
        """SHA-256 over every field, 32 bytes."""
        return content_hash(b"n", self.id.encode(), self.vector, self.raw_vector, self.metadata, self.attributes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A typed relation."""

    id: str
    source_id: str
    target_id: str
    type: str
    weight: float | None = None
    vector: bytes = b""
    raw_vector: bytes | None = None
    metadata: bytes | None = None
    attributes: bytes | None = None

    def digest(self) -> bytes:
        """SHA-256 over every field, 32 bytes."""
        weight = None if self.weight is None else np.float64(self.weight).tobytes()
        ends = (self.source_id.encode(), self.target_id.encode(), self.type.encode())
        return content_hash(
            b"v",
            self.id.encode(),
            *ends,
            weight,
            self.vector,
            self.raw_vector,
            self.metadata,
            self.attributes,
        )


#: Of the usual lengths: up to vectors of 1,024 components.
_SIZES = [size.to_bytes(8, "little") for size in range(4 * 1024 + 1)]
_ABSENT = (-1).to_bytes(8, "little", signed=True)


def content_hash(*parts: bytes | None) -> bytes:
    """Return the SHA-256 over parts, each with its length, so that no two different lists have the same bytes."""
    # Length prefixes keep ("ab","c") and ("a","bc") apart; -1 marks an absent part. One call for all of it: an
    # item is small beside what a call costs.
    whole: list[bytes] = []
    for part in parts:
        if part is None:
            whole.append(_ABSENT)
        else:
            size = len(part)
            whole += (_SIZES[size] if size < len(_SIZES) else size.to_bytes(8, "little"), part)
    return hashlib.sha256(b"".join(whole)).digest()


class Unindexed(enum.Enum):
    """Why a stored noun is not in the index."""

    NO_VECTOR = "no-vector"
    NON_FINITE = "non-finite"
    ZERO = "zero"
    DIMENSION = "dimension"


@np.errstate(all="ignore")
def unindexed_reason(vector: bytes, dimensions: int, metric: str) -> Unindexed | None:
    """Say why a vector cannot be indexed, or None if it can."""
    if not vector:
        return Unindexed.NO_VECTOR
    if len(vector) != 4 * dimensions:
        return Unindexed.DIMENSION
    values = np.frombuffer(vector, dtype="<f4")
    # Nearly always enough: a component that is not finite spoils the product, and a zero vector's is zero.
    if 0.0 < float(np.dot(values, values)) < math.inf:
        return None
    if not np.isfinite(values).all():
        return Unindexed.NON_FINITE
    if metric == "cos" and not values.any():
        return Unindexed.ZERO
    return None


def check_id(item_id: str) -> None:
    """Refuse an id that cannot be stored.

    Raises:
        InvalidRequestError: empty, over 1,024 bytes, with a NUL, or with a lone surrogate, which UTF-8 has not.
    """
    size = len(item_id.encode("utf-8", "replace"))
    if not 1 <= size <= MAX_ID_BYTES or "\x00" in item_id or not _is_text(item_id):
        raise InvalidRequestError(
            "an id needs 1 to 1,024 bytes of UTF-8 without NUL",
            reason="INVALID_ID",
            remedy="shorten or change the id; nothing was written",
            size=size,
            id=item_id[:64].encode("utf-8", "backslashreplace").decode(),
        )


def check_ids(ids: Sequence[str]) -> None:
    """Refuse the first of many ids that cannot be stored; as ``check_id``, sooner done where all are of ASCII."""
    if not are_plain(ids):
        for item_id in ids:
            check_id(item_id)


def are_plain(ids: Sequence[str]) -> bool:
    """Say whether all are storable ids of ASCII, as nearly all are; otherwise each has to be looked at."""
    if not ids:
        return True
    joined = "".join(ids)
    lengths = [len(item_id) for item_id in ids]
    return joined.isascii() and "\x00" not in joined and min(lengths) >= 1 and max(lengths) <= MAX_ID_BYTES


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def noun_to_proto(noun: Noun) -> common_pb2.Noun:
    """Convert for the wire and the log."""
    return common_pb2.Noun(
        id=noun.id,
        vector=noun.vector,
        raw_vector=noun.raw_vector,
        metadata=noun.metadata,
        attributes=noun.attributes,
    )


def noun_from_proto(message: common_pb2.Noun) -> Noun:
    """Convert from the wire or the log."""
    metadata, attributes = message.metadata, message.attributes
    return Noun(
        id=message.id,
        vector=message.vector,
        raw_vector=message.raw_vector if message.HasField("raw_vector") else None,
        metadata=metadata if metadata or message.HasField("metadata") else None,
        attributes=attributes if attributes or message.HasField("attributes") else None,
    )


def verb_to_proto(verb: Verb) -> common_pb2.Verb:
    """Convert for the wire and the log."""
    return common_pb2.Verb(
        id=verb.id,
        source_id=verb.source_id,
        target_id=verb.target_id,
        type=verb.type,
        weight=verb.weight,
        vector=verb.vector,
        raw_vector=verb.raw_vector,
        metadata=verb.metadata,
        attributes=verb.attributes,
    )


def verb_from_proto(message: common_pb2.Verb) -> Verb:
    """Convert from the wire or the log."""
    return Verb(
        id=message.id,
        source_id=message.source_id,
        target_id=message.target_id,
        type=message.type,
        weight=message.weight if message.HasField("weight") else None,
        vector=message.vector,
        raw_vector=message.raw_vector if message.HasField("raw_vector") else None,
        metadata=message.metadata if message.HasField("metadata") else None,
        attributes=message.attributes if message.HasField("attributes") else None,
    )
