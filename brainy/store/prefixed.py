"""A part of a store: all keys below one prefix."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from brainy.store.base import ObjectMeta, ObjectStore, PutOutcome, StoredObject


class PrefixedStore:
    """The objects of ``inner`` whose key starts with ``prefix`` + '/', under keys without it."""

    def __init__(self, inner: ObjectStore, prefix: str) -> None:
        self._inner = inner
        self._prefix = prefix.strip("/") + "/"

    async def get(self, key: str) -> StoredObject | None:
        """Read a whole object, or None."""
        found = await self._inner.get(self._prefix + key)
        return None if found is None else self._shortened(found)

    async def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read a part of an object, or None."""
        return await self._inner.get_range(self._prefix + key, start, length)

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        """Read many objects."""
        prefix = self._prefix
        found = await self._inner.get_many([prefix + key for key in keys], concurrency=concurrency)
        return [
            StoredObject(
                key=key,
                body=item.body,
                etag=item.etag,
                last_modified=item.last_modified,
                user_metadata=item.user_metadata,
            )
            if isinstance(item, StoredObject)
            else item
            for key, item in zip(keys, found, strict=True)
        ]

    async def put(self, key: str, body: bytes, *, user_metadata: Mapping[str, str] | None = None) -> str:
        """Write unconditionally; returns the ETag."""
        return await self._inner.put(self._prefix + key, body, user_metadata=user_metadata)

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        """Create the object unless the key exists."""
        return await self._inner.put_if_absent(self._prefix + key, body)

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        """Replace the object if its ETag is ``etag``."""
        return await self._inner.put_if_match(self._prefix + key, body, etag)

    async def delete(self, key: str) -> None:
        """Remove the object."""
        await self._inner.delete(self._prefix + key)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        """Pages of objects in key order."""
        bound = self._prefix + start_after if start_after else ""
        cut = len(self._prefix)
        async for page in self._inner.list(self._prefix + prefix, start_after=bound):
            yield [ObjectMeta(key=o.key[cut:], size=o.size, etag=o.etag, last_modified=o.last_modified) for o in page]

    async def close(self) -> None:
        """Close the store below."""
        await self._inner.close()

    def _shortened(self, found: StoredObject) -> StoredObject:
        return StoredObject(
            key=found.key[len(self._prefix) :],
            body=found.body,
            etag=found.etag,
            last_modified=found.last_modified,
            user_metadata=found.user_metadata,
        )
