"""What a listing of the whole bucket says: objects and bytes by prefix, the change log's span, book-keeping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from brainy.legacy import keys
from brainy.legacy.flat import FLAT_TREE
from brainy.legacy.keys import ENTITY, FLAT, TYPED, Kind
from brainy.legacy.occurrences import Occurrences, Place
from brainy.legacy.persons import Persons
from brainy.legacy.presence import Presence, hashes_of
from brainy.store.base import ObjectMeta

#: Size of a metadata object that holds the literal null.
_NULL_BYTES = 4
#: No delete entry of the change log is larger, unless its id is very long (``brainy.legacy.deletions``).
_DELETE_BYTES = 256
_MAX_PREFIXES = 200
_OTHER = "(other)"
#: Locks and statistics looked at; Brainy takes one lock and keeps one object a day.
_MAX_NAMED = 400
#: As ``brainy.legacy.trees``: the newer tree wins.
_RANKS = {ENTITY: 0, FLAT: 1, TYPED: 2}


@dataclass(slots=True)
class Inventory:
    """Tallies of one pass over all keys. Memory: eight bytes for each object that belongs to an item."""

    objects: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    #: (tree, kind) -> objects.
    tree_kinds: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    change_first: int | None = None
    change_last: int | None = None
    change_last_key: str = ""
    #: Entries small enough to be deletes.
    small_changes: int = 0
    #: (seconds since 1970 by the store's clock, key) of the object of Brainy's that was written last.
    newest: tuple[float, str] = (0.0, "")
    locks: list[str] = field(default_factory=list)
    statistics: list[str] = field(default_factory=list)
    distributed: list[str] = field(default_factory=list)
    daily_under_index: int = 0
    under_system: int = 0
    old_index_entries: int = 0
    chunked_index_entries: int = 0
    null_metadata: Presence = field(default_factory=Presence)
    other_metadata: Presence = field(default_factory=Presence)
    verb_metadata: Presence = field(default_factory=Presence)
    occurrences: Occurrences = field(default_factory=Occurrences)
    #: Known where there is a typed tree.
    persons: Persons = field(default_factory=Persons)
    _places: dict[tuple[Kind, str], Place] = field(default_factory=dict)

    def take(self, page: Sequence[ObjectMeta]) -> None:
        """Count a page of the listing."""
        if page and not self._take_alike(page):
            self._take_each(page)

    def _take_alike(self, page: Sequence[ObjectMeta]) -> bool:
        """Count a page in one go, as nearly every page can be: it lies in one folder, of items or of the log.

        Returns False, having counted nothing, for any other.
        """
        first = page[0].key
        if first.startswith(keys.CHANGE_LOG):
            return self._take_changes(page)
        prefix = keys.prefix_of(first)
        known = keys.ITEM_FOLDERS.get(prefix)
        if known is None or (prefix not in self.objects and len(self.objects) >= _MAX_PREFIXES):
            return False
        tree, kind = known
        ids = []
        for meta in page:
            item_id = keys.id_in(prefix, meta.key) if meta.key.startswith(prefix) else None
            if item_id is None or (kind is Kind.NOUN_METADATA and keys.names_no_item(item_id)):
                return False
            ids.append(item_id)
        if prefix == FLAT_TREE.keys.nouns and any(meta.key.startswith(keys.PERSONS) for meta in page):
            return False
        self.objects[prefix] += len(page)
        self.sizes[prefix] += sum([meta.size for meta in page])
        self.kinds[kind] += len(page)
        self.tree_kinds[tree, kind] += len(page)
        newest = max([(meta.last_modified, meta.key) for meta in page])
        self.newest = max(self.newest, newest)
        if kind is Kind.NOUN_METADATA:
            null = np.fromiter([meta.size == _NULL_BYTES for meta in page], dtype=np.bool_, count=len(page))
            hashes = hashes_of(ids)
            self.null_metadata.add(hashes[null])
            self.other_metadata.add(hashes[~null])
        elif kind is Kind.VERB_METADATA:
            self.verb_metadata.add(hashes_of(ids))
        else:
            self.occurrences.see(self._places.get((kind, prefix)) or self._place(kind, tree, prefix), ids)
        return True

    def _take_changes(self, page: Sequence[ObjectMeta]) -> bool:
        times: list[int] = []
        for meta in page:
            time = keys.change_time(meta.key)
            if time is None:
                return False
            times.append(time)
        self.objects[keys.CHANGE_LOG] += len(page)
        self.sizes[keys.CHANGE_LOG] += sum([meta.size for meta in page])
        self.kinds[Kind.CHANGE] += len(page)
        self.small_changes += sum([meta.size <= _DELETE_BYTES for meta in page])
        first, last = min(times), max(times)
        if self.change_first is None or first < self.change_first:
            self.change_first = first
        if self.change_last is None or last > self.change_last:
            self.change_last, self.change_last_key = last, page[times.index(last)].key
        newest = max([(meta.last_modified, meta.key) for meta in page])
        self.newest = max(self.newest, newest)
        return True

    def _take_each(self, page: Sequence[ObjectMeta]) -> None:
        null: list[str] = []
        other: list[str] = []
        relations: list[str] = []
        items: dict[Place, list[str]] = {}
        newest = self.newest
        for meta in page:
            key = meta.key
            if (time := keys.change_time(key)) is not None:
                self._count_change(meta, time)
                newest = max(newest, (meta.last_modified, key))
                continue
            parsed = keys.parse(key)
            kind = parsed.kind
            prefix = keys.prefix_of(key)
            if key.startswith(keys.PERSONS) and kind is Kind.NOUN and self._is_person(key):
                prefix = keys.PERSONS
                parsed = keys.ParsedKey(TYPED, Kind.NOUN, keys.id_in(prefix, key) or "")
            self._count(meta, parsed, prefix)
            if kind is Kind.NOUN or kind is Kind.VERB:
                place = self._places.get((kind, prefix)) or self._place(kind, parsed.tree or "", prefix)
                items.setdefault(place, []).append(parsed.id)
            elif kind is Kind.NOUN_METADATA:
                (null if meta.size == _NULL_BYTES else other).append(parsed.id)
            elif kind is Kind.VERB_METADATA:
                relations.append(parsed.id)
            elif kind is Kind.CLUSTER or kind is Kind.FOREIGN:
                continue
            newest = max(newest, (meta.last_modified, key))
        self.newest = newest
        for presence, ids in (
            (self.null_metadata, null),
            (self.other_metadata, other),
            (self.verb_metadata, relations),
        ):
            if ids:
                presence.add(hashes_of(ids))
        for place, ids in items.items():
            self.occurrences.see(place, ids)

    def finish(self) -> None:
        """Declare the listing complete."""
        for presence in (self.null_metadata, self.other_metadata, self.verb_metadata):
            presence.finish()
        self.occurrences.finish()

    def objects_of_items(self, trees: Collection[str]) -> int:
        """Objects that a reader of these trees asks for, about."""
        count = self.tree_kinds
        return sum(
            2 * count[tree, Kind.NOUN] + count[tree, Kind.VERB] + count[tree, Kind.VERB_METADATA] for tree in trees
        )

    def _is_person(self, key: str) -> bool:
        return not self.persons.in_tree(FLAT_TREE, [key])[0]

    def _place(self, kind: Kind, tree: str, prefix: str) -> Place:
        # Within the typed tree whatever lies outside default/ was written later.
        rank = 2 * _RANKS[tree] + (prefix == keys.TYPED_DEFAULT)
        return self._places.setdefault((kind, prefix), Place(kind, tree, prefix, rank))

    def _count_change(self, meta: ObjectMeta, time: int) -> None:
        self.objects[keys.CHANGE_LOG] += 1
        self.sizes[keys.CHANGE_LOG] += meta.size
        self.kinds[Kind.CHANGE] += 1
        self.small_changes += meta.size <= _DELETE_BYTES
        if self.change_first is None or time < self.change_first:
            self.change_first = time
        if self.change_last is None or time > self.change_last:
            self.change_last, self.change_last_key = time, meta.key

    def _count(self, meta: ObjectMeta, parsed: keys.ParsedKey, prefix: str) -> None:
        if prefix not in self.objects and len(self.objects) >= _MAX_PREFIXES:
            prefix = _OTHER
        self.objects[prefix] += 1
        self.sizes[prefix] += meta.size
        self.kinds[parsed.kind] += 1
        if parsed.tree is not None:
            self.tree_kinds[parsed.tree, parsed.kind] += 1
        match parsed.kind:
            case Kind.LOCK if len(self.locks) < _MAX_NAMED:
                self.locks.append(meta.key)
            case Kind.STATISTICS:
                self.under_system += meta.key.startswith(keys.SYSTEM)
                self.daily_under_index += meta.key.startswith(keys.INDEX + "statistics_")
                if len(self.statistics) < _MAX_NAMED:
                    self.statistics.append(meta.key)
            case Kind.DISTRIBUTED_CONFIG:
                self.distributed.append(meta.key)
            case Kind.INDEX_ENTRY if keys.has_chunked_index(parsed.id):
                self.chunked_index_entries += 1
            case Kind.INDEX_ENTRY:
                self.old_index_entries += 1
            case _:
                pass
