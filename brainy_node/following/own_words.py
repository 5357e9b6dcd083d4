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
from brainy.changelog.batch import Slot
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
        if not record.foreign_version and (name := name_of(record)) is not None:
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
    _said: dict[Name, Place] = field(default_factory=dict)
    _times: dict[Place, int] = field(default_factory=dict)

    def take(self, slot: Slot) -> None:
        """Take in a log object."""
        place = Place(slot.batch.generation, slot.batch.shard, slot.first)
        for name in spoken_names(iter(slot.batch.records)):
            self._said[name] = place

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
            self._times[place] = int(page[0].last_modified) if page[0].key == key else int(page[-1].last_modified)
            return
        self._times[place] = self.floor

    def forget(self, generation: int, position: int) -> None:
        """Drop what was said at or below a position of the shard's own log, and in earlier generations."""
        self._said = {
            name: place
            for name, place in self._said.items()
            if place.generation == generation and place.first > position
        }
        kept = set(self._said.values())
        self._times = {place: time for place, time in self._times.items() if place in kept}
        self.floor = 0
