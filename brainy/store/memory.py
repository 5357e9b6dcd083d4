"""An object store in memory: the reference implementation, for tests and simulations."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence

from brainy.clock import Clock, SystemClock
from brainy.store.base import ObjectMeta, PutOutcome, PutState, StoredObject
from brainy.store.keys import check_key

_PAGE = 1000


class MemoryStore:
    """A dictionary with the contract of ``ObjectStore``."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._objects: dict[str, StoredObject] = {}

    async def get(self, key: str) -> StoredObject | None:
        """Read a whole object, or None."""
        return self._objects.get(check_key(key))

    async def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read a part of an object, or None."""
        found = self._objects.get(check_key(key))
        return None if found is None else found.body[start : start + length]

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        """Read many objects."""
        return [self._objects.get(key) for key in keys]

    async def put(self, key: str, body: bytes, *, user_metadata: Mapping[str, str] | None = None) -> str:
        """Write unconditionally; returns the ETag."""
        stored = StoredObject(
            key=key,
            body=bytes(body),
            etag=hashlib.md5(body, usedforsecurity=False).hexdigest(),
            last_modified=self._clock.wall(),
            user_metadata={name.lower(): value for name, value in (user_metadata or {}).items()},
        )
        self._objects[check_key(key)] = stored
        return stored.etag

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        """Create the object unless the key exists."""
        if check_key(key) in self._objects:
            return PutOutcome(state=PutState.LOST)
        return PutOutcome(state=PutState.WON, etag=await self.put(key, body))

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        """Replace the object if its ETag is ``etag``."""
        found = self._objects.get(key)
        if found is None or found.etag != etag:
            return PutOutcome(state=PutState.LOST)
        return PutOutcome(state=PutState.WON, etag=await self.put(key, body))

    async def delete(self, key: str) -> None:
        """Remove the object."""
        self._objects.pop(key, None)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        """Pages of objects in key order."""
        bound = start_after.encode()
        keys = sorted(
            (key for key in self._objects if key.startswith(prefix) and key.encode() > bound),
            key=lambda key: key.encode(),
        )
        for start in range(0, len(keys), _PAGE):
            yield [
                ObjectMeta(key=o.key, size=len(o.body), etag=o.etag, last_modified=o.last_modified)
                for key in keys[start : start + _PAGE]
                if (o := self._objects.get(key)) is not None
            ]

    async def close(self) -> None:
        """Nothing to give back."""
