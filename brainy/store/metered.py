"""Counting of calls, so that a test or an operator can see what an operation costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from brainy.store.base import ObjectMeta, ObjectStore, PutOutcome, StoredObject

KINDS = ("get", "get_range", "put", "put_conditional", "delete", "list")


class MeteredStore:
    """Counts calls by kind in ``calls``; ``get_many`` counts every object, ``list`` every page.

    Repeats of a call that failed are counted by ``RetryingStore.retries``, and not in ``calls``; ``repeats`` asks for
    them.
    """

    def __init__(self, inner: ObjectStore, *, repeats: Callable[[], int] = lambda: 0) -> None:
        self._inner = inner
        self._repeats = repeats
        #: Calls so far by kind: get, get_range, put, put_conditional, delete, list.
        self.calls: dict[str, int] = dict.fromkeys(KINDS, 0)

    @property
    def repeats(self) -> int:
        """Calls so far that were repeated because the store was slow or away; 0 where nobody repeats."""
        return self._repeats()

    async def get(self, key: str) -> StoredObject | None:
        """Read a whole object, or None."""
        self.calls["get"] += 1
        return await self._inner.get(key)

    async def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read a part of an object, or None."""
        self.calls["get_range"] += 1
        return await self._inner.get_range(key, start, length)

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        """Read many objects."""
        self.calls["get"] += len(keys)
        return await self._inner.get_many(keys, concurrency=concurrency)

    async def put(self, key: str, body: bytes, *, user_metadata: Mapping[str, str] | None = None) -> str:
        """Write unconditionally; returns the ETag."""
        self.calls["put"] += 1
        return await self._inner.put(key, body, user_metadata=user_metadata)

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        """Create the object unless the key exists."""
        self.calls["put_conditional"] += 1
        return await self._inner.put_if_absent(key, body)

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        """Replace the object if its ETag is ``etag``."""
        self.calls["put_conditional"] += 1
        return await self._inner.put_if_match(key, body, etag)

    async def delete(self, key: str) -> None:
        """Remove the object."""
        self.calls["delete"] += 1
        await self._inner.delete(key)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        """Pages of objects in key order."""
        self.calls["list"] += 1
        pages = 0
        async for page in self._inner.list(prefix, start_after=start_after):
            # The first page came with the call that was counted before it.
            self.calls["list"] += pages > 0
            pages += 1
            yield page

    async def close(self) -> None:
        """Close the store below."""
        await self._inner.close()
