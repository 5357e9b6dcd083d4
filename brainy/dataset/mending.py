"""Objects that were mended, read again by the rules of the tree they belong to.

The tree reader itself reads a view of the bucket in which only the mended objects are listed, with whatever else bears
on their ids: the objects that belong to them, the same ids in other trees, the change log. So what an object is worth
is decided by one set of rules, at the cost of a few requests for each object instead of a pass over the bucket.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from brainy.bucket.items import Noun, Verb
from brainy.errors import PreconditionError
from brainy.legacy import keys
from brainy.legacy.keys import Kind, object_key
from brainy.legacy.objects import open_object
from brainy.legacy.reading import TreeReader, Wanted
from brainy.legacy.tree import Tree
from brainy.legacy.trees import open_trees
from brainy.legacy.values import UnreadableError
from brainy.store.base import ObjectMeta, ObjectStore, PutOutcome, StoredObject
from brainy.store.keys import MAX_KEY_BYTES

#: The object is no longer where it was.
GONE: Final = "gone"
#: What it belongs to cannot be read, or does not exist.
ALONE: Final = "belongs-to-nothing"

_WHOLE: Final = Wanted(frozenset((0,)), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """An object as it is now."""

    key: str
    #: None: it is gone.
    body: bytes | None
    #: What belongs to it, for a bucket that has lost that: key -> bytes.
    beside: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What became of one object."""

    key: str
    #: None: it still is no item, for ``reason``.
    item: Noun | Verb | None = None
    reason: str = ""
    #: Digest of what the namespace holds of the item if nobody has touched it; b"" for nothing.
    before: bytes = b""


async def read_again(
    store: ObjectStore, trees: Collection[str], mended: Sequence[Mended], *, believe_deletes: bool = True
) -> list[Reading]:
    """Read objects again; one reading for each, in the order given.

    Args:
        store: of the namespace; only read.
        trees: Brainy's trees in it.
        mended: a few hundred at most: they and what bears on them are in memory.
        believe_deletes: whether an item of which only the change log says that it was deleted stays out.

    Raises:
        BrainyError: the store failed, or a tree that cannot be read.
    """
    opened = open_trees(trees)
    claims = {each.key: _claims(each) for each in mended}
    view = _View(store, {each.key: each.body for each in mended}, believe_deletes=believe_deletes)
    for each in mended:
        view.lend(each.beside)
    await view.fetch([key for _, ids in claims.values() for item_id in ids for key in _keys_of(opened, item_id)])
    nouns: dict[str, Noun] = {}
    verbs: dict[str, Verb] = {}
    reasons: dict[str, str] = {}
    async with aclosing(TreeReader(view, opened).stream(_WHOLE)) as batches:
        async for batch in batches:
            nouns.update((noun.id, noun) for noun in batch.nouns)
            verbs.update((verb.id, verb) for verb in batch.verbs)
            reasons.update((entry.key, entry.reason) for entry in batch.quarantined)
    return [_reading(each, *claims[each.key], reasons, nouns, verbs) for each in mended]


def _claims(each: Mended) -> tuple[Kind, tuple[str, ...]]:
    """Return what an object belongs to: the kind, and the ids in its key and inside it."""
    parsed = keys.parse(each.key)
    ids = [parsed.id] if parsed.tree is not None else []
    if each.body is not None and parsed.kind in (Kind.NOUN, Kind.VERB):
        try:
            inside = open_object(each.body)[0]
        except UnreadableError:
            pass
        else:
            # The id inside is believed, as the reader does.
            ids = list(dict.fromkeys([inside, *ids]))
    return parsed.kind, tuple(ids)


def _keys_of(trees: Sequence[Tree], item_id: str) -> list[str]:
    return [
        key
        for tree in trees
        for kind in (Kind.NOUN, Kind.VERB)
        for prefix in (tree.keys.objects(kind), tree.keys.companions(kind))
        if len((key := object_key(prefix, item_id)).encode()) <= MAX_KEY_BYTES
    ]


def _reading(
    each: Mended,
    kind: Kind,
    ids: Sequence[str],
    reasons: Mapping[str, str],
    nouns: Mapping[str, Noun],
    verbs: Mapping[str, Verb],
) -> Reading:
    if each.body is None:
        return Reading(key=each.key, reason=GONE)
    if each.key in reasons:
        return Reading(key=each.key, reason=reasons[each.key])
    found: Mapping[str, Noun | Verb] = verbs if kind in (Kind.VERB, Kind.VERB_METADATA) else nouns
    item = next((found[item_id] for item_id in ids if item_id in found), None)
    if item is None:
        return Reading(key=each.key, reason=ALONE)
    # A noun whose metadata could not be read has been an item all along, without it.
    bare = replace(item, metadata=None) if kind is Kind.NOUN_METADATA and isinstance(item, Noun) else None
    return Reading(key=each.key, item=item, before=b"" if bare is None else bare.digest())


class _View:
    """An ``ObjectStore`` that cannot be written and lists only what it was told of, and the change log."""

    def __init__(self, store: ObjectStore, mended: Mapping[str, bytes | None], *, believe_deletes: bool) -> None:
        self._store = store
        self._believe_deletes = believe_deletes
        self._gone = {key for key, body in mended.items() if body is None}
        self._objects = {key: _stored(key, body) for key, body in mended.items() if body is not None}
        self._lent: dict[str, bytes] = {}

    def lend(self, objects: Mapping[str, bytes]) -> None:
        """Have copies at hand of what the bucket may have lost."""
        self._lent.update(objects)

    async def fetch(self, wanted: Sequence[str]) -> None:
        """List those of the keys that exist."""
        missing = [key for key in dict.fromkeys(wanted) if key not in self._objects and key not in self._gone]
        for found in await self._store.get_many(missing):
            if isinstance(found, Exception):
                raise found
            if found is not None:
                self._objects[found.key] = found
        for key in missing:
            if key not in self._objects and key in self._lent:
                self._objects[key] = _stored(key, self._lent[key])

    async def get(self, key: str) -> StoredObject | None:
        """Read an object, mended where it was."""
        if key in self._gone:
            return None
        return self._objects.get(key) or await self._store.get(key)

    async def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read a part."""
        found = await self.get(key)
        return None if found is None else found.body[start : start + length]

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        """Read many."""
        elsewhere = [key for key in keys if key not in self._objects and key not in self._gone]
        fetched = dict(
            zip(elsewhere, await self._store.get_many(elsewhere, concurrency=concurrency), strict=True)
            if elsewhere
            else ()
        )
        return [self._objects.get(key) or fetched.get(key) for key in keys]

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        """List what is known here; the change log as it is, if it is to be believed."""
        if prefix.startswith(keys.CHANGE_LOG):
            if self._believe_deletes:
                async for page in self._store.list(prefix, start_after=start_after):
                    yield page
            return
        bound = start_after.encode()
        listed = sorted(key.encode() for key in self._objects if key.startswith(prefix) and key.encode() > bound)
        if listed:
            objects = [self._objects[key.decode()] for key in listed]
            yield [ObjectMeta(key=each.key, size=len(each.body), etag=each.etag, last_modified=0.0) for each in objects]

    async def put(self, key: str, body: bytes, *, user_metadata: Mapping[str, str] | None = None) -> str:
        """Refuse."""
        raise _read_only(key)

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        """Refuse."""
        raise _read_only(key)

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        """Refuse."""
        raise _read_only(key)

    async def delete(self, key: str) -> None:
        """Refuse."""
        raise _read_only(key)

    async def close(self) -> None:
        """Leave the store behind it open."""


def _stored(key: str, body: bytes) -> StoredObject:
    return StoredObject(key=key, body=body, etag="")


def _read_only(key: str) -> PreconditionError:
    return PreconditionError("a view of the bucket is not written to", key=key)
