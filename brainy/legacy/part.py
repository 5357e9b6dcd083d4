"""Some items of the trees as they are now: their objects fetched once, read by the rules of the whole.

``TreeReader`` is handed a store that holds nothing but the fetched objects, so that whatever it knows (which tree
wins, what a deletion in a newer tree hides, zombies, verbs stored as nouns) holds here without being said twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from brainy.bucket.items import Noun, Verb
from brainy.errors import InvalidRequestError
from brainy.legacy.batch import Quarantined, Reason
from brainy.legacy.keys import CHANGE_LOG
from brainy.legacy.last_words import LastWords
from brainy.legacy.places import Places
from brainy.legacy.reading import TreeReader, Wanted
from brainy.legacy.seen import Version, version_of
from brainy.store.base import ObjectMeta, ObjectStore, PutOutcome, StoredObject
from brainy.store.keys import check_key

_CONCURRENCY = 64
#: Nobody can say what these objects hold; what is known of the item stays. Everything else that is quarantined is
#: no item by Brainy's own rules.
UNREADABLE = frozenset(
    {
        Reason.EMPTY,
        Reason.NOT_JSON,
        Reason.TOO_DEEP,
        Reason.TOO_LARGE,
        Reason.WRONG_SHAPE,
        Reason.MISSING_ID,
        Reason.MISSING_VECTOR,
        Reason.MISSING_ENDS,
        Reason.INVALID_ID,
        Reason.DUPLICATE_ID,
    }
)


@dataclass(slots=True)
class Part:
    """What was found about some ids."""

    nouns: dict[str, Noun] = field(default_factory=dict)
    verbs: dict[str, Verb] = field(default_factory=dict)
    #: Ids of which an object is there and cannot be read.
    unreadable: set[str] = field(default_factory=set)
    #: Key asked for -> the version read (in a transfer: listed before it), None if nothing is there; by id.
    versions: dict[str, dict[str, Version | None]] = field(default_factory=dict)
    objects_read: int = 0

    def latest(self, item_id: str) -> int:
        """Return the second in which the newest of an item's objects was written, 0 if none is there."""
        return max((version.seconds for version in self.versions.get(item_id, {}).values() if version), default=0)


async def read_part(
    store: ObjectStore,
    places: Places,
    ids: Collection[str],
    *,
    words: LastWords,
    asked: Callable[[str, str], bool] = lambda item_id, key: True,
) -> Part:
    """Read everything there is about some ids (some hundreds at a time: all of it is in memory).

    ``asked(id, key)`` says whether a key is worth a request; one that is not is taken for absent.

    Raises:
        BrainyError: what the store said.
    """
    part = Part()
    wanted: dict[str, str] = {}
    for item_id in ids:
        part.versions[item_id] = {}
        for key in places.keys_of(item_id):
            if _legal(key) and asked(item_id, key):
                wanted[key] = item_id
    found: dict[str, StoredObject] = {}
    keys = list(wanted)
    for key, item in zip(keys, await store.get_many(keys, concurrency=_CONCURRENCY), strict=True):
        if isinstance(item, Exception):
            raise item
        part.versions[wanted[key]][key] = None if item is None else _version(item)
        if item is not None:
            found[key] = item
    part.objects_read = len(keys)
    view = _FetchedObjects(store, found, frozenset(keys), words, ids)
    reader = TreeReader(view, places.trees, look_for_strays=False)
    async with aclosing(reader.stream(Wanted(frozenset({0}), 1))) as batches:
        async for batch in batches:
            part.nouns.update((noun.id, noun) for noun in batch.nouns)
            part.verbs.update((verb.id, verb) for verb in batch.verbs)
            part.unreadable.update(unreadable_ids(places, batch.quarantined))
    return part


def unreadable_ids(places: Places, quarantined: Sequence[Quarantined]) -> set[str]:
    """Return the ids that quarantined objects are about and whose state is therefore not known."""
    return {item_id for entry in quarantined if entry.reason in UNREADABLE for item_id in places.ids_named(entry.key)}


def _version(found: StoredObject) -> Version:
    return version_of(found.etag, found.last_modified, len(found.body))


def _legal(key: str) -> bool:
    try:
        return bool(check_key(key))
    except InvalidRequestError:
        return False  # an id that fits under one prefix is too long for another


class _FetchedObjects:
    """An ``ObjectStore`` to read from: the fetched objects, the change log's last words, and, for single objects
    that were not asked for (an id inside that differs from the key's), the bucket itself."""

    def __init__(
        self,
        store: ObjectStore,
        found: Mapping[str, StoredObject],
        asked: Collection[str],
        words: LastWords,
        ids: Collection[str],
    ) -> None:
        self._store = store
        self._found = found
        self._asked = asked
        self._words = words
        self._ids = ids
        self._entries: dict[str, StoredObject] = {}
        self._sorted: dict[str, list[ObjectMeta]] = defaultdict(list)
        for key in sorted(found, key=str.encode):
            self._sorted[key.partition("/")[0] + "/"].append(_meta(found[key]))

    async def get(self, key: str) -> StoredObject | None:
        if key in self._asked:
            return self._found.get(key)
        return self._entries.get(key) or await self._store.get(key)

    async def get_range(self, key: str, start: int, length: int) -> bytes | None:
        found = await self.get(key)
        return None if found is None else found.body[start : start + length]

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        return [await self.get(key) for key in keys]

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        if prefix == CHANGE_LOG:
            entries = await self._words.about(self._ids)
            self._entries = {entry.key: entry for entry in entries}
            listed = [_meta(entry) for entry in sorted(entries, key=lambda entry: entry.key)]
        else:
            listed = self._sorted.get(prefix.partition("/")[0] + "/", [])
        bound = start_after.encode()
        page = [meta for meta in listed if meta.key.startswith(prefix) and meta.key.encode() > bound]
        if page:
            yield page

    async def put(self, key: str, body: bytes, *, user_metadata: Mapping[str, str] | None = None) -> str:
        raise NotImplementedError("only for reading")

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        raise NotImplementedError("only for reading")

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        raise NotImplementedError("only for reading")

    async def delete(self, key: str) -> None:
        raise NotImplementedError("only for reading")

    async def close(self) -> None:
        """The store below is not this one's to close."""


def _meta(found: StoredObject) -> ObjectMeta:
    return ObjectMeta(key=found.key, size=len(found.body), etag=found.etag, last_modified=found.last_modified)
