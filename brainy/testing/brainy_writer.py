"""Brainy processes that write a tree as the real ones do, faults included.

    fleet = BrainyFleet(store, clock=SystemClock(), seed=7, manner=ENTITY_057)
    await fleet.write(200)      # two hundred steps: what several instances have begun goes on in turns
    await fleet.finish()        # everything begun is ended, buffers are flushed

Several instances share the bucket and know nothing of one another. An operation is several requests (vector object,
then metadata, each with its entry in the change log), and those of different instances interleave. Objects are
pretty-printed; the change log loses entries, doubles some, and is stamped by clocks that disagree. Buffering instances
(0.54.1 to 0.60) store nouns and verbs later and log nothing of them, so that a delete in between leaves a zombie.

What is done and in which order follows from the seed; only the stamps follow the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from brainy.clock import Clock, iso
from brainy.legacy.keys import CHANGE_LOG, ENTITY_KEYS, FLAT_KEYS, TreeKeys, object_key
from brainy.store.base import ObjectStore

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_WORDS = ("river", "stone", "cloud", "ember", "frost", "meadow")
#: Of what instances begin, in hundredths.
_CHANCES = (("add", 34), ("again", 12), ("metadata", 12), ("delete", 12), ("verb", 18), ("unverb", 8), ("soft", 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a version of Brainy writes."""

    name: str
    keys: TreeKeys
    #: A verb is one object with everything (up to 0.35).
    one_piece_verbs: bool = False
    #: Nouns carry a level (from 0.40).
    levels: bool = True
    #: Entries of the metadata index lie among the metadata, and in the change log.
    indexes: bool = False
    #: Nouns and verbs are buffered, and then not logged.
    buffers: bool = False
    version: str = "0.41.0"


FLAT_030 = Manner(name="flat-one-piece", keys=FLAT_KEYS, one_piece_verbs=True, levels=False, version="1.0")
FLAT_046 = Manner(name="flat-split", keys=FLAT_KEYS)
ENTITY_057 = Manner(name="entity", keys=ENTITY_KEYS, indexes=True, buffers=True)
MANNERS = (FLAT_030, FLAT_046, ENTITY_057)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFaults:
    """What is wrong with the change log."""

    lost: float = 0.3
    doubled: float = 0.1
    #: Clocks are off by up to so much, either way.
    skew_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class _Request:
    """One request to the store; a body of None deletes."""

    key: str
    body: bytes | None


@dataclass(slots=True)
class _Instance:
    number: int
    skew: float
    buffers: bool
    #: Objects not written yet, by key.
    buffer: dict[str, bytes] = field(default_factory=dict)
    running: list[Iterator[_Request]] = field(default_factory=list)


class BrainyFleet:
    """Some instances of one version of Brainy on one bucket."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        clock: Clock,
        seed: int,
        manner: Manner,
        instances: int = 3,
        dimensions: int = 8,
        faults: LogFaults | None = None,
        known: Iterable[str] = (),
    ) -> None:
        """Prepare; ``known`` are ids of nouns that were there before, perhaps in an older version's tree."""
        self._store = store
        self._clock = clock
        self._random = np.random.default_rng(seed)
        self._manner = manner
        self._dimensions = dimensions
        self._faults = faults or LogFaults()
        skews = self._random.uniform(-self._faults.skew_seconds, self._faults.skew_seconds, instances)
        self._instances = [
            _Instance(number, float(skew), manner.buffers and number % 2 == 0) for number, skew in enumerate(skews)
        ]
        self._nouns: list[str] = list(known)
        self._deleted: list[str] = []
        self._verbs: list[str] = []
        self._made = 0
        #: Requests sent so far.
        self.requests = 0

    @property
    def nouns(self) -> Sequence[str]:
        """Ids of the nouns that are there, as far as the fleet knows."""
        return tuple(self._nouns)

    async def write(self, steps: int) -> None:
        """Send so many requests, each the next of an operation under way or the first of a new one."""
        for _ in range(steps):
            await self._step()

    async def finish(self) -> None:
        """End every operation under way and flush every buffer. The last write of the fleet is over then."""
        for instance in self._instances:
            while instance.running:
                await self._advance(instance, 0)
            await self._flush(instance)

    async def _step(self) -> None:
        instance = self._instances[int(self._random.integers(len(self._instances)))]
        if len(instance.running) < 2 and self._random.random() < 0.6:
            instance.running.append(self._begin(instance))
        if instance.buffer and self._random.random() < 0.1:
            await self._flush(instance)
        if instance.running:
            await self._advance(instance, int(self._random.integers(len(instance.running))))

    async def _advance(self, instance: _Instance, number: int) -> None:
        request = next(instance.running[number], None)
        if request is None:
            del instance.running[number]
        else:
            await self._send(request)

    async def _flush(self, instance: _Instance) -> None:
        waiting, instance.buffer = instance.buffer, {}
        for key, body in waiting.items():
            await self._send(_Request(key, body))

    async def _send(self, request: _Request) -> None:
        self.requests += 1
        if request.body is None:
            await self._store.delete(request.key)
        else:
            await self._store.put(request.key, request.body)

    # --- operations -----------------------------------------------------------------------------

    def _begin(self, instance: _Instance) -> Iterator[_Request]:
        kinds, weights = zip(*_CHANCES, strict=True)
        chosen = str(self._random.choice(kinds, p=np.array(weights) / sum(weights)))
        match chosen:
            case "again" if self._nouns or self._deleted:
                return self._add(instance, self._pick(self._nouns + self._deleted))
            case "metadata" if self._nouns:
                return self._metadata(instance, self._pick(self._nouns), self._some_metadata())
            case "delete" if self._nouns:
                return self._delete(instance, self._pick(self._nouns))
            case "verb" if len(self._nouns) > 1:
                return self._add_verb(instance)
            case "unverb" if self._verbs:
                return self._delete_verb(instance, self._pick(self._verbs))
            case "soft" if self._nouns and self._manner.keys is ENTITY_KEYS:
                marker = {"deleted": True, "deletedAt": iso(self._clock.wall()), "deletedBy": "user"}
                return self._metadata(instance, self._pick(self._nouns), marker)
            case _:
                return self._add(instance, self._new_id())

    def _add(self, instance: _Instance, item_id: str) -> Iterator[_Request]:
        metadata = self._some_metadata()
        vector = self._vector()
        stored: dict[str, Any] = {"id": item_id, "vector": vector, "connections": {"0": self._neighbours()}}
        if self._manner.levels:
            stored["level"] = int(self._random.integers(3))
        if item_id in self._deleted:
            self._deleted.remove(item_id)
        if item_id not in self._nouns:
            self._nouns.append(item_id)
        logged = {"vector": vector} | ({"metadata": metadata} if metadata else {})
        yield from self._object(instance, object_key(self._manner.keys.nouns, item_id), stored, "noun", item_id, logged)
        if metadata is not None:
            yield from self._metadata(instance, item_id, metadata)

    def _metadata(self, instance: _Instance, item_id: str, metadata: dict[str, Any]) -> Iterator[_Request]:
        body: Any = metadata or None  # {} is stored as null
        yield _Request(object_key(self._manner.keys.noun_metadata, item_id), _pretty(body))
        yield from self._log(instance, "add", "metadata", item_id, data=body)
        if self._manner.indexes and metadata:
            entry = f"__metadata_index__noun_{self._random.integers(4)}_chunk0"
            value = {"field": "noun", "value": "concept", "ids": self._nouns[-3:], "lastUpdated": self._now(instance)}
            yield _Request(object_key(self._manner.keys.noun_metadata, entry), _pretty(value))
            yield from self._log(instance, "add", "metadata", entry, data=value)

    def _delete(self, instance: _Instance, item_id: str) -> Iterator[_Request]:
        if item_id in self._nouns:
            self._nouns.remove(item_id)
            self._deleted.append(item_id)
        yield _Request(object_key(self._manner.keys.nouns, item_id), None)
        yield from self._log(instance, "delete", "noun", item_id)
        yield _Request(object_key(self._manner.keys.noun_metadata, item_id), _pretty(None))
        yield from self._log(instance, "add", "metadata", item_id, data=None)

    def _add_verb(self, instance: _Instance) -> Iterator[_Request]:
        verb_id = self._new_id()
        source, target = self._pick(self._nouns), self._pick(self._nouns)
        self._verbs.append(verb_id)
        vector = self._vector()
        stamp = self._stamp(instance)
        relation: dict[str, Any] = {
            "sourceId": source,
            "targetId": target,
            "source": source,
            "target": target,
            "type": "relatedTo",
            "verb": "relatedTo",
            "weight": round(float(self._random.random()), 3),
            "metadata": {"note": self._pick(list(_WORDS))},
            "createdAt": stamp,
            "updatedAt": stamp,
            "createdBy": {"augmentation": "default", "version": self._manner.version},
        }
        key = object_key(self._manner.keys.verbs, verb_id)
        own: dict[str, Any] = {"id": verb_id, "vector": vector, "connections": {}}
        if self._manner.one_piece_verbs:
            logged = {"sourceId": source, "targetId": target, "type": "relatedTo", "vector": vector}
            yield from self._object(instance, key, own | relation, "verb", verb_id, logged)
            return
        yield from self._object(instance, key, own, "verb", verb_id, {"vector": vector})
        relation |= {"data": relation["metadata"], "embedding": vector}
        yield _Request(object_key(self._manner.keys.verb_metadata, verb_id), _pretty(relation))

    def _delete_verb(self, instance: _Instance, verb_id: str) -> Iterator[_Request]:
        if verb_id in self._verbs:
            self._verbs.remove(verb_id)
        yield _Request(object_key(self._manner.keys.verbs, verb_id), None)
        yield from self._log(instance, "delete", "verb", verb_id)

    def _object(
        self, instance: _Instance, key: str, stored: dict[str, Any], kind: str, item_id: str, logged: dict[str, Any]
    ) -> Iterator[_Request]:
        if instance.buffers:
            instance.buffer[key] = _pretty(stored)
            return
        yield _Request(key, _pretty(stored))
        yield from self._log(instance, "add", kind, item_id, data=logged)

    def _log(self, instance: _Instance, operation: str, kind: str, item_id: str, **data: Any) -> Iterator[_Request]:
        if self._random.random() < self._faults.lost or max(item_id, default="") > "\u00ff":
            return  # the id goes into an HTTP header, which carries no more than Latin-1
        time = self._now(instance)
        entry = {
            "timestamp": time,
            "operation": operation,
            "entityType": kind,
            "entityId": item_id,
            **data,
            "instanceId": str(instance.number % 2),
        }
        for _ in range(2 if self._random.random() < self._faults.doubled else 1):
            name = "".join(_BASE36[int(digit)] for digit in self._random.integers(36, size=9))
            yield _Request(f"{CHANGE_LOG}{time:013d}-{name}.json", orjson.dumps(entry))

    # --- values ---------------------------------------------------------------------------------

    def _now(self, instance: _Instance) -> int:
        return int(1000 * (self._clock.wall() + instance.skew))

    def _stamp(self, instance: _Instance) -> dict[str, int]:
        now = self._now(instance)
        return {"seconds": now // 1000, "nanoseconds": now % 1000 * 1_000_000}

    def _pick(self, choices: list[str]) -> str:
        return choices[int(self._random.integers(len(choices)))]

    def _new_id(self) -> str:
        self._made += 1
        plain = f"{self._random.integers(2**32):08x}-{self._made}"
        odd = {7: f"tenant-1/{plain}", 17: f"with space & plus+{plain}", 27: f"ünï-６-{plain}", 37: f"{plain}.json"}
        return odd.get(self._made % 40, plain)

    def _vector(self) -> list[float]:
        return [float(value) for value in self._random.normal(size=self._dimensions)]

    def _neighbours(self) -> list[str]:
        return [self._pick(self._nouns) for _ in range(2)] if self._nouns else []

    def _some_metadata(self) -> Any:
        chance = self._random.random()
        if chance < 0.08:
            return None
        if chance < 0.16:
            return {}
        document: dict[str, Any] = {"text": self._pick(list(_WORDS)), "n": int(self._random.integers(1000))}
        if chance < 0.7:
            stamp = {"seconds": int(self._clock.wall()), "nanoseconds": 0}
            document |= {
                "noun": "concept",
                "createdBy": {"augmentation": "default", "version": self._manner.version},
                "createdAt": stamp,
                "updatedAt": stamp,
            }
        return document


def _pretty(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)
