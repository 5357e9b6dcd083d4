"""Where the bytes of what could not be read come from: Brainy's own objects, or the generation before."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final, Protocol

from brainy.bucket.quarantine import MAX_KEPT_BYTES, MAX_SHARD_BYTES, Kept, read_quarantine
from brainy.bucket.records import Manifest
from brainy.dataset.generation import quarantine_shard, read_stored
from brainy.errors import PreconditionError
from brainy.legacy import keys
from brainy.legacy.batch import Quarantined
from brainy.legacy.keys import Kind, id_in, object_key
from brainy.legacy.tree import Tree
from brainy.legacy.trees import open_trees
from brainy.store.base import ObjectStore, StoredObject
from brainy.store.keys import MAX_KEY_BYTES

#: Half of an item -> the kind of the item.
_ITEM_KINDS: Final = {
    Kind.NOUN: Kind.NOUN,
    Kind.NOUN_METADATA: Kind.NOUN,
    Kind.VERB: Kind.VERB,
    Kind.VERB_METADATA: Kind.VERB,
}
_AT_ONCE: Final = 32
_BYTES_AT_ONCE: Final = 32 << 20


class KeptSource(Protocol):
    """Gives the rows that a new generation keeps."""

    def keep(self, entries: Sequence[Quarantined]) -> AsyncIterator[Kept]:
        """Yield one row for each entry, in any order, with as many bytes as the bounds of the format allow.

        Raises:
            BrainyError: the store failed.
        """


class NothingKept:
    """Rows without bytes."""

    async def keep(self, entries: Sequence[Quarantined]) -> AsyncGenerator[Kept]:
        """See ``KeptSource``."""
        for entry in entries:
            yield Kept(key=entry.key, reason=entry.reason, size=entry.size)


class TreeKept:
    """The objects as they lie in the tree, each with the one that belongs to it.

    The bytes are those of the moment they are fetched: an object that was mended since it was listed is kept mended.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def keep(self, entries: Sequence[Quarantined]) -> AsyncGenerator[Kept]:
        """See ``KeptSource``."""
        room = MAX_SHARD_BYTES
        batch: list[Quarantined] = []
        size = 0
        for entry in entries:
            if entry.size > MAX_KEPT_BYTES:
                yield Kept(key=entry.key, reason=entry.reason, size=entry.size)
                continue
            batch.append(entry)
            size += entry.size
            if len(batch) >= _AT_ONCE or size >= _BYTES_AT_ONCE:
                for row in await self._fetch(batch):
                    room, bounded = _bounded(row, room)
                    yield bounded
                batch, size = [], 0
        for row in await self._fetch(batch):
            room, bounded = _bounded(row, room)
            yield bounded

    async def _fetch(self, entries: Sequence[Quarantined]) -> list[Kept]:
        beside = {entry.key: beside_keys(entry.key) for entry in entries}
        wanted = list(dict.fromkeys(key for entry in entries for key in (entry.key, *beside[entry.key])))
        found: dict[str, StoredObject] = {}
        for key, item in zip(wanted, await self._store.get_many(wanted), strict=True):
            if isinstance(item, Exception):
                raise item
            if item is not None:
                found[key] = item
        return [
            self._row(
                entry, found.get(entry.key), next((found[key] for key in beside[entry.key] if key in found), None)
            )
            for entry in entries
        ]

    @staticmethod
    def _row(entry: Quarantined, own: StoredObject | None, beside: StoredObject | None) -> Kept:
        return Kept(
            key=entry.key,
            reason=entry.reason,
            size=entry.size if own is None else len(own.body),
            sha256=None if own is None else hashlib.sha256(own.body).hexdigest(),
            body=None if own is None or len(own.body) > MAX_KEPT_BYTES else own.body,
            beside_key=None if beside is None else beside.key,
            beside=None if beside is None or len(beside.body) > MAX_KEPT_BYTES else beside.body,
        )


class GenerationKept:
    """What an earlier generation kept; one file of it in memory at a time."""

    def __init__(self, store: ObjectStore, manifests: Sequence[Manifest]) -> None:
        self._store = store
        self._manifests = manifests

    async def keep(self, entries: Sequence[Quarantined]) -> AsyncGenerator[Kept]:
        """See ``KeptSource``."""
        missing = {entry.key: entry for entry in entries}
        room = MAX_SHARD_BYTES
        homes = {quarantine_shard(entry.key, len(self._manifests)) for entry in entries}
        for manifest in sorted(self._manifests, key=lambda manifest: manifest.shard not in homes):
            if not missing:
                break
            if manifest.quarantine is None:
                continue
            body = await read_stored(self._store, manifest.quarantine)
            for row in read_quarantine(body, key=manifest.quarantine.key):
                if missing.pop(row.key, None) is not None:
                    room, bounded = _bounded(row, room)
                    yield bounded
        async for row in NothingKept().keep(list(missing.values())):
            yield row


def beside_keys(key: str) -> tuple[str, ...]:
    """Keys under which the other half of an item may lie; one key may belong to items of two trees."""
    kind = _ITEM_KINDS.get(keys.parse(key).kind)
    if kind is None:
        return ()
    found: list[str] = []
    for tree in _every_tree():
        own, other = tree.keys.objects(kind), tree.keys.companions(kind)
        for here, there in ((own, other), (other, own)):
            if key.startswith(here) and (item_id := id_in(here, key)):
                found.append(object_key(there, item_id))
    # An id may fill the key of one half; the other half then cannot exist.
    return tuple(dict.fromkeys(each for each in found if len(each.encode()) <= MAX_KEY_BYTES))


@functools.cache
def _every_tree() -> tuple[Tree, ...]:
    trees: list[Tree] = []
    for name in (keys.ENTITY, keys.FLAT, keys.TYPED):
        # A tree that cannot be read has no items, and so no halves.
        with contextlib.suppress(PreconditionError):
            trees += open_trees((name,))
    return tuple(dict.fromkeys(trees))


def _bounded(row: Kept, room: int) -> tuple[int, Kept]:
    """Return what room is left, and the row with its bytes if there was room for them."""
    if row.kept_bytes <= room:
        return room - row.kept_bytes, row
    return room, Kept(key=row.key, reason=row.reason, size=row.size, sha256=row.sha256, beside_key=row.beside_key)
