"""Which ids the cluster's own clients have written lately, and when the bucket took it.

Where a Brainy process and one of our clients change the same item, the later one counts. Both times are the store's:
the LastModified of the object in the tree, and that of the log object that holds our client's record. No clock of a
node, a client or a Brainy process is asked. Equal seconds: ours stays, for it was acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.changelog.batch import Slot, is_copy
from brainy.store.base import ObjectStore

ItemKind = Literal["noun", "verb"]
Name = tuple[ItemKind, str]


def name_of(record: log_pb2.LogRecord) -> Name | None:
    """Return what a record is about; None for a fence or an advance."""
    match record.WhichOneof("operation"):
        case "upsert_noun":
            return "noun", record.upsert_noun.id
        case "delete_noun":
            return "noun", record.delete_noun
        case "upsert_verb":
            return "verb", record.upsert_verb.id
        case "delete_verb":
            return "verb", record.delete_verb
        case _:
            return None


def spoken_names(records: Iterator[log_pb2.LogRecord]) -> Iterator[Name]:
    """Yield what our own clients' records among these are about."""
    for record in records:
        if not (record.foreign_version or record.restated) and (name := name_of(record)) is not None:
            yield name


@dataclass(frozen=True, slots=True)
class Place:
    """The log object that holds a record."""

    generation: int
    shard: int
    first: int


@dataclass(slots=True)
class OwnWords:
    """Our clients' last records after a book's position, by id."""

    #: Seconds since 1970: whatever our clients said that is not known by id was said before this. 0: all is known.
    floor: int = 0
    #: Everything of the shard's own log up to here was taken in.
    position: int = 0
    #: Of which a word of Brainy's is the last record after the book's position: the book may not know what it was.
    foreign: set[Name] = field(default_factory=set)
    _said: dict[Name, Place] = field(default_factory=dict)
    _times: dict[Place, int] = field(default_factory=dict)
    #: Log objects that were collected before they were asked for: their time is a later one's.
    _later: set[Place] = field(default_factory=set)

    def take(self, slot: Slot) -> bool:
        """Take in a log object, in any order among several logs.

        What was copied from a source generation was said when the source's log took it, not when it was copied: such
        an object is passed over, and the answer is whether it held words.
        """
        place = Place(slot.batch.generation, slot.batch.shard, slot.first)
        names = spoken_names(iter(slot.batch.records))
        if is_copy(slot.batch):
            return any(True for _ in names)
        for record in slot.batch.records:
            if (name := name_of(record)) is None:
                continue
            if record.foreign_version:
                self.foreign.add(name)
            else:
                self.foreign.discard(name)
        for name in names:
            known = self._said.get(name)
            # An id lies in one shard of each generation.
            if known is None or (known.generation, known.first) < (place.generation, place.first):
                self._said[name] = place
        return False

    def place(self, name: Name) -> Place | None:
        """Return where our clients' last word on an item is; None if there is none since the book's position."""
        return self._said.get(name)

    def known_time(self, name: Name) -> int | None:
        """Return when our clients last spoke of an item, 0 for never, None if ``look_up`` is needed first."""
        place = self._said.get(name)
        if place is None:
            return self.floor
        time = self._times.get(place)
        return None if time is None else max(self.floor, time)

    def earliest_time(self, name: Name) -> int:
        """Return when our clients' last word on an item was said at the earliest; 0 if that is not known.

        A mirror can have written that word into the tree at this time or later, never before.
        """
        place = self._said.get(name)
        return 0 if place is None or place in self._later else self._times.get(place, 0)

    async def look_up(self, store: ObjectStore, name: Name) -> None:
        """Ask the bucket when it took our clients' last word on an item (one LIST, once for each log object).

        Raises:
            BrainyError: what the store said.
        """
        place = self._said.get(name)
        if place is None or place in self._times:
            return
        key = layout.log_slot(place.generation, place.shard, place.first)
        before = layout.log_slot(place.generation, place.shard, place.first - 1)
        async for page in store.list(layout.log(place.generation, place.shard), start_after=before):
            # Collected meanwhile: whatever took its place is younger.
            if page[0].key == key:
                self._times[place] = int(page[0].last_modified)
            else:
                self._times[place] = int(page[-1].last_modified)
                self._later.add(place)
            return
        self._times[place] = self.floor
        self._later.add(place)

    def forget(self, generation: int, position: int) -> None:
        """Drop what was said at or below a position of the shard's own log, and in earlier generations."""
        self._said = {
            name: place
            for name, place in self._said.items()
            if place.generation == generation and place.first > position
        }
        kept = set(self._said.values())
        self._times = {place: time for place, time in self._times.items() if place in kept}
        self._later &= kept
        self.foreign.clear()
        self.floor = 0
