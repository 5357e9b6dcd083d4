"""What a listing of the whole bucket says: objects and bytes by prefix, the change log's span, book-keeping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from brainy.legacy import keys
from brainy.legacy.keys import Kind
from brainy.legacy.presence import Presence, hashes_of
from brainy.store.base import ObjectMeta

#: Size of a metadata object that holds the literal null.
_NULL_BYTES = 4
_MAX_PREFIXES = 200
_OTHER = "(other)"
#: Locks and statistics looked at; Brainy takes one lock and keeps one object a day.
_MAX_NAMED = 400


@dataclass(slots=True)
class Inventory:
    """Tallies of one pass over all keys. Memory: eight bytes for each metadata object and verb."""

    objects: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    #: (tree, kind) -> objects.
    tree_kinds: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    change_first: int | None = None
    change_last: int | None = None
    locks: list[str] = field(default_factory=list)
    statistics: list[str] = field(default_factory=list)
    daily_under_index: int = 0
    under_system: int = 0
    old_index_entries: int = 0
    chunked_index_entries: int = 0
    null_metadata: Presence = field(default_factory=Presence)
    other_metadata: Presence = field(default_factory=Presence)
    verbs: Presence = field(default_factory=Presence)
    verb_metadata: Presence = field(default_factory=Presence)

    def take(self, page: Sequence[ObjectMeta]) -> None:
        """Count a page of the listing."""
        ids: dict[int, list[str]] = {}
        sets = (self.null_metadata, self.other_metadata, self.verbs, self.verb_metadata)
        for meta in page:
            parsed = keys.parse(meta.key)
            self._count(meta, parsed)
            place = None
            if parsed.kind is Kind.NOUN_METADATA:
                place = 0 if meta.size == _NULL_BYTES else 1
            elif parsed.kind is Kind.VERB:
                place = 2
            elif parsed.kind is Kind.VERB_METADATA:
                place = 3
            if place is not None:
                ids.setdefault(place, []).append(parsed.id)
        for place, named in ids.items():
            sets[place].add(hashes_of(named))

    def finish(self) -> None:
        """Declare the listing complete."""
        for presence in (self.null_metadata, self.other_metadata, self.verbs, self.verb_metadata):
            presence.finish()

    def _count(self, meta: ObjectMeta, parsed: keys.ParsedKey) -> None:
        prefix = keys.prefix_of(meta.key)
        if prefix not in self.objects and len(self.objects) >= _MAX_PREFIXES:
            prefix = _OTHER
        self.objects[prefix] += 1
        self.sizes[prefix] += meta.size
        self.kinds[parsed.kind] += 1
        if parsed.tree is not None:
            self.tree_kinds[parsed.tree, parsed.kind] += 1
        match parsed.kind:
            case Kind.CHANGE if (time := keys.change_time(meta.key)) is not None:
                self.change_first = time if self.change_first is None else min(self.change_first, time)
                self.change_last = time if self.change_last is None else max(self.change_last, time)
            case Kind.LOCK if len(self.locks) < _MAX_NAMED:
                self.locks.append(meta.key)
            case Kind.STATISTICS:
                self.under_system += meta.key.startswith(keys.SYSTEM)
                self.daily_under_index += meta.key.startswith(keys.INDEX + "statistics_")
                if len(self.statistics) < _MAX_NAMED:
                    self.statistics.append(meta.key)
            case Kind.INDEX_ENTRY if keys.has_chunked_index(parsed.id):
                self.chunked_index_entries += 1
            case Kind.INDEX_ENTRY:
                self.old_index_entries += 1
            case _:
                pass
