"""The object store contract.

A store maps keys to immutable byte strings. A key is non-empty UTF-8 text with '/' between parts, no leading
'/', at most 1,024 bytes. ``list`` yields keys in ascending order of their UTF-8 bytes. All operations are
strongly consistent per key.

Conditional writes are the only tool the protocols above rest on:

* ``put_if_absent``: the object is created, or nothing happens.
* ``put_if_match``: the object is replaced if its current ETag is the one given, or nothing happens.

Both answer with a typed outcome instead of raising, and the outcome may be *unknown*: the store did not say
whether the write landed. A caller must then read the key back and compare a nonce in the body; it must never
assume. (A client library that retries by itself turns a landed write into a lost race, so a lost race is also
read back where that matters; see ``brainy.store.cas``.)

Every implementation passes ``tests/contract/test_object_store.py``.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMeta:
    """What a listing says of an object."""

    key: str
    size: int
    etag: str
    #: Seconds since 1970 by the store's clock; for display, never for order.
    last_modified: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """A whole object."""

    key: str
    body: bytes
    etag: str
    last_modified: float = 0.0
    #: S3 user metadata, lower-case names without the x-amz-meta- prefix.
    user_metadata: Mapping[str, str] = field(default_factory=dict)


class PutState(enum.Enum):
    """What became of a conditional write."""

    WON = "won"  # it landed
    LOST = "lost"  # the condition did not hold; nothing was changed by this call
    UNKNOWN = "unknown"  # nobody knows: read back


@dataclass(frozen=True, slots=True, kw_only=True)
class PutOutcome:
    """The result of a conditional write; ``etag`` is set when it was won."""

    state: PutState
    etag: str = ""
    #: The store's own words, for logs.
    detail: str = ""

    @property
    def won(self) -> bool:
        """Whether the write certainly landed."""
        return self.state is PutState.WON


class ObjectStore(Protocol):
    """Bytes with conditional writes.

    Errors: ``UnavailableError`` when the store cannot be reached or throttles, ``PermissionDeniedError`` when
    it refuses, ``InvalidRequestError`` for an illegal key. ``get`` of a missing key returns None.
    """

    async def get(self, key: str) -> StoredObject | None:
        """Read a whole object, or None."""

    async def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read ``length`` bytes from ``start`` (fewer at the end of the object), or None."""

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        """Read many objects at once; one failure does not fail the others. Same order as ``keys``."""

    async def put(self, key: str, body: bytes, *, user_metadata: Mapping[str, str] | None = None) -> str:
        """Write unconditionally; returns the ETag."""

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        """Create the object unless the key exists."""

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        """Replace the object if its ETag is ``etag``. A missing key is LOST."""

    async def delete(self, key: str) -> None:
        """Remove the object; removing a missing key succeeds."""

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        """Pages (of about 1,000) of the objects whose key starts with ``prefix``, after ``start_after``."""

    async def close(self) -> None:
        """Give back connections."""
