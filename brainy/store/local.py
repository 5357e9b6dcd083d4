"""An object store in a directory, for one machine or a shared file system with atomic links and renames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

from brainy.ids import Ids
from brainy.store.base import ObjectMeta, PutOutcome, StoredObject
from brainy.store.directory_files import DirectoryFiles, translate
from brainy.store.directory_walk import walk_pages

#: Files read per hop to a thread: enough to hide the hop, few enough to share the threads.
_BATCH = 200


class LocalStore:
    """One file a key below ``directory``; several processes may use it at once.

    The directory and everything in it are created on the first write. ``durable=False`` leaves out fsync: for
    tests and for data that can be written again. See ``directory_files`` for the write protocol and
    ``filenames`` for the names.
    """

    def __init__(self, directory: str | Path, *, ids: Ids | None = None, durable: bool = True) -> None:
        self._files = DirectoryFiles(str(directory), ids=ids or Ids(), durable=durable)

    async def get(self, key: str) -> StoredObject | None:
        """Read a whole object, or None."""
        return await asyncio.to_thread(self._files.read, key)

    async def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read a part of an object, or None."""
        return await asyncio.to_thread(self._files.read_range, key, start, length)

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        """Read many objects, ``_BATCH`` of them per thread hop."""
        found: list[StoredObject | Exception | None] = []
        for start in range(0, len(keys), _BATCH):
            found += await asyncio.to_thread(self._files.read_many, keys[start : start + _BATCH])
        return found

    async def put(self, key: str, body: bytes, *, user_metadata: Mapping[str, str] | None = None) -> str:
        """Write unconditionally; returns the ETag."""
        return await asyncio.to_thread(self._files.write, key, body, user_metadata)

    async def put_many(self, items: Sequence[tuple[str, bytes, Mapping[str, str] | None]]) -> None:
        """Write (key, body, user metadata) unconditionally, in one thread hop, in the order given."""

        def write_all() -> None:
            for key, body, user_metadata in items:
                self._files.write(key, body, user_metadata)

        await asyncio.to_thread(write_all)

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        """Create the object unless the key exists."""
        return await asyncio.to_thread(self._files.create, key, body)

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        """Replace the object if its ETag is ``etag``."""
        return await asyncio.to_thread(self._files.replace, key, body, etag)

    async def delete(self, key: str) -> None:
        """Remove the object."""
        await asyncio.to_thread(self._files.remove, key)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        """Pages of 1,000 objects in key order."""
        pages = walk_pages(self._files.root, prefix, start_after)
        while (page := await asyncio.to_thread(_next_page, pages, prefix)) is not None:
            yield page

    async def close(self) -> None:
        """Nothing to give back."""


def _next_page(pages: Iterator[Sequence[ObjectMeta]], prefix: str) -> Sequence[ObjectMeta] | None:
    try:
        return next(pages, None)
    except OSError as error:
        raise translate(error, prefix) from error
