"""Nouns that Brainy lost and its change log still has.

Brainy from 0.25 on deletes a noun whose vector has another length than it expects, when it starts; it leaves the
metadata and writes no log entry about it. From 0.26 to 0.54.0 every noun that was added left its vector in the change
log. So a noun is believed to be alive if

* the last that the change log says of it is that it was added, and nothing at or after that moment that it was deleted;
  and
* its object is gone from every tree while its metadata object is there and holds data (a delete that somebody asked
  for stores null there), or its object is there and cannot be read.

Entries may be missing and clocks may differ, so both witnesses are asked. Where the second is silent (no metadata,
which a delete would have stored; or null, which stands for ``{}`` too) the noun is found all the same, but as doubtful:
that is for a person to decide. What the log has no vector for is counted as lost. A verb that an index on disk stored
among the nouns as well is no noun.

Memory: eight bytes for each noun and each metadata object, a little for each noun of the log that has no object, and
what is found of one batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import numpy as np

from brainy.bucket.items import Noun
from brainy.legacy import keys
from brainy.legacy.keys import Kind, id_in, names_no_item, object_key
from brainy.legacy.objects import build_noun
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.presence import Presence, hashes_of
from brainy.legacy.trees import open_trees
from brainy.legacy.values import UnreadableError, compact, dump_json, parse_json, text_id
from brainy.store.base import ObjectStore, StoredObject
from brainy.store.keys import MAX_KEY_BYTES

_BATCH_KEYS: Final = 1000
_BATCH_BYTES: Final = 16 << 20
_FOUND_AT_ONCE: Final = 256
_NULL: Final = b"null"

#: The object is gone and its vector has another length than most: what Brainy does when it starts.
DELETED_FOR_DIMENSION: Final = "deleted-for-dimension"
#: The object is gone, for whatever cause.
OBJECT_GONE: Final = "object-gone"
#: The object is there and cannot be read.
OBJECT_UNREADABLE: Final = "object-unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A noun believed to be alive."""

    noun: Noun
    #: A cause, as above.
    cause: str
    dimensions: int
    #: Milliseconds since 1970 at which it was last added, by the clock of the process that did.
    added_at: int
    #: The change-log entry that holds the vector.
    entry_key: str
    #: The metadata object; "" where it has none.
    metadata_key: str
    #: Why it is believed to be alive, in words.
    evidence: str
    #: Only the log speaks for it.
    doubtful: bool = False


@dataclass(slots=True, kw_only=True)
class RescueCounts:
    """What was looked at."""

    entries: int = 0
    entries_unreadable: int = 0
    #: Nouns of which the log speaks and that have no object, or none that can be read.
    candidates: int = 0
    #: Of these: deleted, says the log.
    deleted: int = 0
    #: Of these: believed to be alive, but what the log has of them is no vector.
    lost: int = 0
    #: Metadata objects without a noun that the log does not name: of nouns deleted before it began, or whose entries
    #: are missing.
    unnamed: int = 0
    #: Of these: verbs that were stored among the nouns as well.
    verbs: int = 0
    doubtful: int = 0
    found: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One entry of the log about a noun."""

    key: str
    id: str
    #: Milliseconds since 1970.
    time: int
    #: Added; else deleted.
    added: bool


@dataclass(slots=True)
class _Words:
    """What the log says of one noun."""

    added: int = -1
    added_key: str = ""
    deleted: int = -1
    adds: int = 0

    def hear(self, entry: _Entry) -> None:
        """Take in an entry, in any order."""
        if not entry.added:
            self.deleted = max(entry.time, self.deleted)
            return
        self.adds += 1
        if (entry.time, entry.key) > (self.added, self.added_key):
            self.added, self.added_key = entry.time, entry.key


class Rescue:
    """One search of one bucket; only reads.

    Args:
        store: of the namespace.
        trees: Brainy's trees in it.
        unreadable: keys of objects that are known to be unreadable.
        dimensions: the length most vectors have; 0 if none was seen.
    """

    def __init__(
        self,
        store: ObjectStore,
        trees: Collection[str],
        *,
        unreadable: Collection[str] = (),
        dimensions: int = 0,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self._fetcher = Fetcher(store)
        self._trees = open_trees(trees)
        self._dimensions = dimensions
        self._on_progress = on_progress
        parsed = [(keys.parse(key), key) for key in unreadable]
        #: Id -> key of an object that cannot be read.
        self._unreadable = {one.id: key for one, key in parsed if one.tree is not None and one.kind is Kind.NOUN}
        self._nouns = Presence()
        self._verbs: set[str] = set()
        self.counts = RescueCounts()

    async def find(self) -> AsyncGenerator[list[Found]]:
        """Yield what is believed to be alive, in batches.

        One LIST of nouns, metadata and log each, one GET for each log entry, and two for each noun found.

        Raises:
            BrainyError: the store failed.
        """
        self._nouns = await self._listed(tree.keys.objects(Kind.NOUN) for tree in self._trees)
        verbs = await self._listed(
            prefix for tree in self._trees for prefix in (tree.keys.verbs, tree.keys.verb_metadata)
        )
        words = await self._listen()
        self.counts.candidates = len(words)
        beside = await self._listed(tree.keys.companions(Kind.NOUN) for tree in self._trees)
        orphans = np.setdiff1d(beside.hashes, self._nouns.hashes, assume_unique=True)
        self.counts.unnamed = len(np.setdiff1d(orphans, hashes_of(list(words)), assume_unique=True))
        alive = [(item_id, said) for item_id, said in words.items() if said.added > said.deleted]
        self.counts.deleted = len(words) - len(alive)
        self._verbs = {
            item_id
            for (item_id, _), is_verb in zip(alive, verbs.contains(hashes_of([i for i, _ in alive])), strict=True)
            if is_verb
        }
        for start in range(0, len(alive), _FOUND_AT_ONCE):
            batch = await self._read(alive[start : start + _FOUND_AT_ONCE])
            self.counts.found += len(batch)
            self.counts.doubtful += sum(each.doubtful for each in batch)
            if batch:
                yield batch

    async def _listed(self, prefixes: Iterable[str]) -> Presence:
        presence = Presence()
        # Trees may share a prefix.
        for prefix in dict.fromkeys(prefixes):
            await self._list(prefix, presence)
        presence.finish()
        return presence

    async def _list(self, prefix: str, into: Presence) -> None:
        async with aclosing(self._fetcher.pages(prefix)) as pages:
            async for page in pages:
                ids = [i for meta in page if (i := id_in(prefix, meta.key)) and not names_no_item(i)]
                into.add(hashes_of(ids))

    async def _listen(self) -> dict[str, _Words]:
        """Return what the log says of the nouns without a readable object."""
        words: dict[str, _Words] = {}
        batches = self._log()
        async with aclosing(batches), aclosing(self._fetcher.fetched(batches)) as fetched:
            async for _, objects in fetched:
                entries = [found for each in objects if each is not None and (found := self._entry(each)) is not None]
                stored = self._nouns.contains(hashes_of([entry.id for entry in entries])).tolist()
                for entry, there in zip(entries, stored, strict=True):
                    if not there or entry.id in self._unreadable:
                        words.setdefault(entry.id, _Words()).hear(entry)
                if self._on_progress is not None:
                    self._on_progress(self.counts.entries)
                await asyncio.sleep(0)
        return words

    async def _log(self) -> AsyncGenerator[tuple[None, list[str]]]:
        batch: list[str] = []
        size = 0
        async with aclosing(self._fetcher.pages(keys.CHANGE_LOG)) as pages:
            async for page in pages:
                for meta in page:
                    batch.append(meta.key)
                    size += meta.size
                    if len(batch) >= _BATCH_KEYS or size >= _BATCH_BYTES:
                        yield None, batch
                        batch, size = [], 0
        if batch:
            yield None, batch

    def _entry(self, found: StoredObject) -> _Entry | None:
        """Return what an entry says of a noun, or None."""
        self.counts.entries += 1
        try:
            value = parse_json(found.body)
        except UnreadableError:
            self.counts.entries_unreadable += 1
            return None
        if not isinstance(value, dict) or value.get("entityType") != "noun":
            return None
        if value.get("operation") not in ("add", "update", "delete"):
            return None
        try:
            item_id = text_id(value.get("entityId"))
        except UnreadableError:
            self.counts.entries_unreadable += 1
            return None
        if value["operation"] != "delete" and not _vector(value):
            # It cannot bring the noun back, and an older entry would bring back an older one.
            return None
        stamp = value.get("timestamp")
        time = stamp if isinstance(stamp, int) and not isinstance(stamp, bool) else keys.change_time(found.key) or 0
        return _Entry(key=found.key, id=item_id, time=time, added=value["operation"] != "delete")

    async def _read(self, alive: Sequence[tuple[str, _Words]]) -> list[Found]:
        places = [self._metadata_keys(item_id) for item_id, _ in alive]
        wanted = [key for (_, words), beside in zip(alive, places, strict=True) for key in (words.added_key, *beside)]
        objects = iter(await self._fetcher.get_all(wanted))
        found: list[Found] = []
        for (item_id, words), beside in zip(alive, places, strict=True):
            entry = next(objects)
            metadata = next((each for each in [next(objects) for _ in beside] if each is not None), None)
            one = self._found(item_id, words, entry, metadata)
            if one is not None:
                found.append(one)
        return found

    def _metadata_keys(self, item_id: str) -> list[str]:
        prefixes = dict.fromkeys(tree.keys.companions(Kind.NOUN) for tree in self._trees)
        # An id may fill the key of its vector object; then it has no metadata.
        return [key for prefix in prefixes if len((key := object_key(prefix, item_id)).encode()) <= MAX_KEY_BYTES]

    def _found(
        self, item_id: str, words: _Words, entry: StoredObject | None, metadata: StoredObject | None
    ) -> Found | None:
        unreadable = self._unreadable.get(item_id)
        document, readable = _document(metadata)
        doubtful = unreadable is None and readable and document in (None, _NULL)
        if document is None and item_id in self._verbs:
            self.counts.verbs += 1
            return None
        try:
            fields = {} if entry is None else parse_json(entry.body)["data"]
            if not readable:
                # The log has what was given with the noun when it was added.
                given = fields.get("metadata")
                document = None if given is None else dump_json(given)
            noun = build_noun(item_id, {"vector": fields.get("vector")}, document)
        except (UnreadableError, KeyError, TypeError, AttributeError):
            self.counts.lost += 1
            return None
        dimensions = len(noun.vector) // 4
        other = self._dimensions and dimensions != self._dimensions
        cause = OBJECT_UNREADABLE if unreadable else DELETED_FOR_DIMENSION if other else OBJECT_GONE
        return Found(
            noun=noun,
            cause=cause,
            dimensions=dimensions,
            added_at=words.added,
            entry_key=words.added_key,
            metadata_key="" if metadata is None else metadata.key,
            evidence=_evidence(words, unreadable, document, readable=readable),
            doubtful=doubtful,
        )


def _evidence(words: _Words, unreadable: str | None, document: bytes | None, *, readable: bool) -> str:
    parts = [f"{unreadable} cannot be read" if unreadable else "its object is gone"]
    if not readable:
        parts.append("its metadata cannot be read, the log's is taken")
    elif document is None:
        parts.append("it has no metadata, which a delete would have stored")
    elif document == _NULL:
        parts.append("its metadata is null, as after a delete and where {} was given")
    else:
        parts.append("its metadata is there")
    again = f"added {words.adds:,} times" if words.adds > 1 else "added"
    parts.append(f"the change log says {again}, {'not deleted since' if words.deleted >= 0 else 'never deleted'}")
    return "; ".join(parts)


def _vector(entry: dict[str, object]) -> bool:
    data = entry.get("data")
    return isinstance(data, dict) and isinstance(data.get("vector"), list) and bool(data["vector"])


def _document(metadata: StoredObject | None) -> tuple[bytes | None, bool]:
    """Return the compact document, and whether it could be read."""
    if metadata is None:
        return None, True
    try:
        return compact(metadata.body), True
    except UnreadableError:
        return None, False
