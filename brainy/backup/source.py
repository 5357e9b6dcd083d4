"""A backup as a ``Source``, so that a generation can be filled from it; and how to get at one that is an object."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from pathlib import Path

from brainy.backup.opening import check_backup
from brainy.backup.values import CheckedBackup, Skipped
from brainy.bucket.partition import shard_of
from brainy.dataset.base import ItemBatch, Quarantined
from brainy.dataset.elsewhere import Elsewhere
from brainy.errors import InvalidRequestError, NotFoundError


class BackupSource:
    """The items of a checked backup. Elements that cannot be restored are quarantined, by kind and id."""

    def __init__(self, backup: CheckedBackup) -> None:
        self._backup = backup

    @property
    def cursor(self) -> Mapping[int, int]:
        """Empty: there is no log behind a backup."""
        return {}

    async def total(self) -> int:
        """Items of the backup."""
        found = self._backup.verification
        return found.nouns + found.verbs

    async def stream(self, *, shards: Collection[int], shard_count: int) -> AsyncGenerator[ItemBatch]:
        """Yield the items of the shards; see ``Source.stream``."""
        wanted = frozenset(shards)
        skipped = [
            Quarantined(key=key, reason=each.reason, size=0)
            for each in self._backup.verification.skipped
            if shard_of(key := key_of(each), shard_count) in wanted
        ]
        if skipped:
            yield ItemBatch(quarantined=skipped)
        items = self._backup.items()
        whole = len(wanted) == shard_count
        while (batch := await asyncio.to_thread(_next, items)) is not None:
            if not whole:
                batch = ItemBatch(
                    nouns=[noun for noun in batch.nouns if shard_of(noun.id, shard_count) in wanted],
                    verbs=[verb for verb in batch.verbs if shard_of(verb.id, shard_count) in wanted],
                )
            if batch.nouns or batch.verbs:
                yield batch


def key_of(skipped: Skipped) -> str:
    """Return the name under which an element that is not restored is listed."""
    return f"backup/{skipped.kind}/{skipped.id}"


def is_object(backup: str) -> bool:
    """Whether a backup is named as an object of a store and not as a path."""
    return "://" in backup


async def fetch_backup(backup: str, directory: Path, elsewhere: Elsewhere) -> Path:
    """Return the file of a backup, having copied it into ``directory`` if it is an object.

    Raises:
        NotFoundError: there is no such object.
        InvalidRequestError: not the name of one.
        UnavailableError: the store cannot be read now.
    """
    if not is_object(backup):
        return Path(backup)
    place, _, name = backup.rpartition("/")
    if not name or place.endswith("/"):
        raise InvalidRequestError("not the name of a backup", remedy="write s3://bucket/key, or a path", backup=backup)
    found = await elsewhere.store(place).get(name)
    if found is None:
        raise NotFoundError("there is no such backup object", remedy="check its name", backup=backup)
    return await asyncio.to_thread(_write, directory / name, found.body)


async def open_backup(backup: str, directory: Path, elsewhere: Elsewhere) -> CheckedBackup:
    """Fetch a backup and read it from its first to its last byte.

    Raises:
        NotFoundError, InvalidRequestError, UnavailableError: as ``fetch_backup``.
        CorruptDataError: it is not whole.
    """
    return await asyncio.to_thread(check_backup, await fetch_backup(backup, directory, elsewhere))


def _write(file: Path, body: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(body)
    return file


def _next(items: Iterator[ItemBatch]) -> ItemBatch | None:
    return next(items, None)
