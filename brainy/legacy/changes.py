"""What the entries of Brainy's change log say when counted, and which vectors only they still have.

The log is lossy (an id outside Latin-1 cannot be logged, buffered writes are not logged) and full of noise (from
0.48.1 on each index entry is logged too), so it decides nothing here but what the inspection says it does. Memory:
sixteen bytes for each entry about a noun or a verb.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import numpy as np
import numpy.typing as npt
import orjson

from brainy.legacy import keys
from brainy.legacy.names import Names
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.presence import Hashes, Presence, among, hashes_of
from brainy.legacy.values import MAX_OBJECT_BYTES, UnreadableError, parse_json
from brainy.store.base import StoredObject

Times = npt.NDArray[np.int64]

# As Brainy writes an entry; whatever looks otherwise goes through the JSON parser.
_HEAD = re.compile(
    rb'\{"timestamp":(\d{1,15}),"operation":"(\w{1,20})","entityType":"(\w{1,20})","entityId":("(?:[^"\\]|\\.)*")'
)
_TAIL = re.compile(rb'"instanceId":"([^"\\]{0,100})"\}\s*\Z')
_TAIL_BYTES = 160
# The same of many entries at once, a line each: operation, entity, id, whether there is a vector, instance.
_LINE = re.compile(
    rb'^\{"timestamp":(\d{1,15}),"operation":"(\w{1,20})","entityType":"(\w{1,20})"'
    rb',"entityId":"([^"\\\x00-\x1f]*)"(,"data":\{"vector":\[[^\]\n])?.*"instanceId":"([^"\\\n]{0,100})"\}$',
    re.MULTILINE,
)
_VECTOR = b',"data":{"vector":['
_OPERATIONS = {b"add": "add", b"delete": "delete", b"update": "update"}
_ENTITIES = {b"noun": "noun", b"verb": "verb", b"metadata": "metadata"}
_ITEMS = frozenset({b"noun", b"verb"})
#: Entries counted in one go: some kilobytes each, copied once more.
_AT_ONCE, _AT_ONCE_BYTES = 100, 1 << 20
_BATCH_KEYS = 1000
_BATCH_BYTES = 16 << 20
_OTHER = "(other)"


class Timeline:
    """The last time of each of many ids, in sixteen bytes an entry. Filled first and asked afterwards."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._times = array("q")
        self._latest: tuple[Hashes, Times] | None = None

    def add(self, ids: Sequence[str], times: Sequence[int]) -> None:
        """Note that something happened to ids at times, in milliseconds since 1970."""
        self._hashes.frombytes(hashes_of(ids).tobytes())
        self._times.extend(times)

    def latest(self) -> tuple[Hashes, Times]:
        """Return the ids, sorted, each with its last time. Nothing can be added afterwards."""
        if self._latest is None:
            hashes = np.frombuffer(self._hashes, dtype=np.uint64)
            times = np.frombuffer(self._times, dtype=np.int64)
            order = np.lexsort((times, hashes))
            hashes = hashes[order]
            last = np.ones(len(hashes), dtype=np.bool_)
            last[:-1] = hashes[1:] != hashes[:-1]
            self._latest = hashes[last], times[order[last]]
            self._hashes, self._times = array("Q"), array("q")
        return self._latest


class Changes:
    """The log, counted."""

    def __init__(self) -> None:
        self.by_operation: Counter[str] = Counter()
        self.by_entity: Counter[str] = Counter()
        self.by_instance = Names()
        self.index_noise = 0
        self.unreadable = 0
        #: Entries from the first delete of a noun or a verb on.
        self.since_delete = 0
        #: Adds of nouns that carry none.
        self._nouns_added = Presence()
        #: Adds of nouns that carry the vector.
        self._vectors = Timeline()
        self._noun_deletes = Timeline()
        self._verb_adds = Timeline()
        self._verb_deletes = Timeline()

    def take(self, objects: Sequence[StoredObject | None]) -> None:
        """Count a batch of entries; one that vanished is none."""
        entries = [found for found in objects if found is not None]
        for start in range(0, len(entries), _AT_ONCE):
            part = entries[start : start + _AT_ONCE]
            if not self._take_alike(part):
                self._take_each(part)

    def _take_alike(self, entries: Sequence[StoredObject]) -> bool:
        """Count entries in one go; returns False, having counted nothing, unless all are as Brainy writes them."""
        if sum([len(found.body) for found in entries]) > _AT_ONCE_BYTES:
            return False
        text = b"\n".join([found.body for found in entries])
        if text.count(b"\n") != len(entries) - 1:
            return False
        lines = _LINE.findall(text)
        if len(lines) != len(entries):
            return False
        stamps, operations, entities, names, vectors, instances = zip(*lines, strict=True)
        try:
            ids = b"\n".join(names).decode().split("\n")
            by_instance = [(name.decode(), count) for name, count in Counter(instances).items()]
        except UnicodeDecodeError:
            return False
        self.by_operation.update(Counter([_OPERATIONS.get(name, _OTHER) for name in operations]))
        self.by_entity.update(Counter([_ENTITIES.get(name, _OTHER) for name in entities]))
        for instance, count in by_instance:
            self.by_instance.see(instance, count)
        kinds = list(zip(entities, operations, map(bool, vectors), strict=True))
        self._count_since_delete([entity in _ITEMS and operation == b"delete" for entity, operation, _ in kinds])
        for kind in set(kinds):
            entity, operation, has_vector = kind
            here = [at for at, other in enumerate(kinds) if other == kind]
            if entity == b"metadata":
                self.index_noise += sum(keys.names_no_item(ids[at]) for at in here)
            elif entity in _ITEMS:
                self._note(
                    _ENTITIES[entity],
                    _OPERATIONS.get(operation, _OTHER),
                    [ids[at] for at in here],
                    [int(stamps[at]) for at in here],
                    has_vector=has_vector,
                )
        return True

    def _count_since_delete(self, deletes: Sequence[bool]) -> None:
        if self.since_delete:
            self.since_delete += len(deletes)
        elif True in deletes:
            self.since_delete = len(deletes) - deletes.index(True)

    def _take_each(self, objects: Sequence[StoredObject]) -> None:
        seen: dict[tuple[str, str, bool], tuple[list[str], list[int]]] = {}
        for found in objects:
            entry = _read(found)
            if entry is None:
                self.unreadable += 1
                continue
            operation, entity, item_id, time, instance, has_vector = entry
            self.by_operation[operation] += 1
            self.by_entity[entity] += 1
            self.by_instance.see(instance)
            self.since_delete += self.since_delete > 0 or (operation == "delete" and entity in ("noun", "verb"))
            if entity == "metadata":
                self.index_noise += keys.names_no_item(item_id)
            elif entity != _OTHER:
                ids, times = seen.setdefault((entity, operation, has_vector), ([], []))
                ids.append(item_id)
                times.append(time)
        for (entity, operation, has_vector), (ids, times) in seen.items():
            self._note(entity, operation, ids, times, has_vector=has_vector)

    def _note(self, entity: str, operation: str, ids: list[str], times: list[int], *, has_vector: bool) -> None:
        match entity, operation:
            case "noun", "delete":
                self._noun_deletes.add(ids, times)
            case "noun", "add" | "update":
                if has_vector:
                    self._vectors.add(ids, times)
                else:
                    self._nouns_added.add(hashes_of(ids))
            case "verb", "delete":
                self._verb_deletes.add(ids, times)
            case "verb", "add" | "update":
                self._verb_adds.add(ids, times)

    def finish(self) -> None:
        """Declare the log read to its end."""
        self._nouns_added.finish()
        for timeline in (self._vectors, self._noun_deletes, self._verb_adds, self._verb_deletes):
            timeline.latest()

    def without_add(self, nouns: Hashes, verbs: Hashes) -> tuple[int, int]:
        """Return how many of these nouns and verbs no entry adds."""
        added = self._nouns_added.contains(nouns) | among(self._vectors.latest()[0], nouns)
        return int((~added).sum()), int((~among(self._verb_adds.latest()[0], verbs)).sum())

    def deleted_verbs(self) -> Hashes:
        """Verbs of which the last word is "delete"."""
        return _later(self._verb_deletes.latest(), self._verb_adds.latest(), at_once=True)

    def nouns_kept(self) -> Hashes:
        """Nouns whose vector the log has, and of which it says no delete at or after that moment."""
        return _later(self._vectors.latest(), self._noun_deletes.latest(), at_once=False)


def _later(these: tuple[Hashes, Times], those: tuple[Hashes, Times], *, at_once: bool) -> Hashes:
    """Ids of ``these`` whose time is later than among ``those``, or the same if ``at_once`` says so."""
    hashes, times = these
    if not len(those[0]):
        return hashes
    places = np.minimum(np.searchsorted(those[0], hashes), len(those[0]) - 1)
    other = np.where(those[0][places] == hashes, those[1][places], -1)
    return hashes[times >= other] if at_once else hashes[times > other]


def _read(found: StoredObject) -> tuple[str, str, str, int, object, bool] | None:
    body = found.body
    head = _HEAD.match(body)
    tail = _TAIL.search(body, max(0, len(body) - _TAIL_BYTES)) if head else None
    if head is None or tail is None:
        return _parse(found)
    time, operation, entity, name = head.groups()
    try:
        item_id = orjson.loads(name)
        instance = tail[1].decode()
    except ValueError:
        return _parse(found)
    end = head.end()
    has_vector = body.startswith(_VECTOR, end) and body[end + len(_VECTOR)] != 0x5D
    return (
        _OPERATIONS.get(operation, _OTHER),
        _ENTITIES.get(entity, _OTHER),
        item_id,
        int(time),
        instance,
        has_vector,
    )


def _parse(found: StoredObject) -> tuple[str, str, str, int, object, bool] | None:
    try:
        entry = parse_json(found.body)
    except UnreadableError:
        return None
    if not isinstance(entry, dict):
        return None
    operation, entity, item_id = entry.get("operation"), entry.get("entityType"), entry.get("entityId")
    if not (isinstance(operation, str) and isinstance(entity, str) and isinstance(item_id, str)):
        return None
    time = entry.get("timestamp")
    if not isinstance(time, int) or isinstance(time, bool) or not 0 <= time < 10**15:
        time = keys.change_time(found.key) or 0
    data = entry.get("data")
    vector = data.get("vector") if isinstance(data, dict) else None
    return (
        operation if operation in _OPERATIONS.values() else _OTHER,
        entity if entity in _ENTITIES.values() else _OTHER,
        item_id,
        time,
        entry.get("instanceId"),
        isinstance(vector, list) and bool(vector),
    )


async def read_changes(fetcher: Fetcher, tell: Callable[[int], None]) -> Changes:
    """Read the whole log; ``tell`` is called with the number of entries after each batch.

    Raises:
        BrainyError: the store failed.
    """
    changes = Changes()
    batches = _batches(fetcher)
    async with aclosing(batches), aclosing(fetcher.fetched(batches)) as fetched:
        async for too_large, objects in fetched:
            changes.unreadable += too_large
            changes.take(objects)
            tell(len(objects) + too_large)
    changes.finish()
    return changes


async def _batches(fetcher: Fetcher) -> AsyncGenerator[tuple[int, list[str]]]:
    batch: list[str] = []
    size = too_large = 0
    async with aclosing(fetcher.pages(keys.CHANGE_LOG)) as pages:
        async for page in pages:
            for meta in page:
                if keys.change_time(meta.key) is None:
                    continue
                if meta.size > MAX_OBJECT_BYTES:
                    too_large += 1
                    continue
                batch.append(meta.key)
                size += meta.size
                if len(batch) >= _BATCH_KEYS or size >= _BATCH_BYTES:
                    yield too_large, batch
                    batch, size, too_large = [], 0, 0
    if batch or too_large:
        yield too_large, batch
