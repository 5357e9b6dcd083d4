"""Reading immutable objects onto local disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

from brainy.bucket.records import StoredFile
from brainy.errors import CorruptDataError
from brainy_node.builder.context import Context

#: Objects up to this size are read by one GET, larger ones in parts of it.
_PART_BYTES = 32 << 20


async def fetch(context: Context, file: StoredFile, path: Path) -> Path:
    """Stream an object to disk while hashing it; returns ``path``.

    Raises:
        CorruptDataError: it is missing, or not what the file says.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as out:
        for start in range(0, max(file.size, 1), _PART_BYTES):
            if file.size <= _PART_BYTES:
                found = await context.store.get(file.key)
                part = None if found is None else found.body
            else:
                part = await context.store.get_range(file.key, start, _PART_BYTES)
            if part is None:
                break
            digest.update(part)
            size += len(part)
            out.write(part)
    if size != file.size or digest.hexdigest() != file.sha256:
        raise CorruptDataError(
            "an object does not hash to what its manifest says",
            remedy="restore the object from a copy; nothing was read from it",
            data_safe=False,
            key=file.key,
            size=size,
            expected_size=file.size,
        )
    return path
