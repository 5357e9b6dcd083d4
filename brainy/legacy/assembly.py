"""A batch being put together: fetched objects in, items and quarantine entries out. No I/O."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from brainy.bucket.items import Noun, Verb
from brainy.legacy.batch import ItemBatch, Quarantined, Reason
from brainy.legacy.deletions import Name, Suspect
from brainy.legacy.keys import Kind
from brainy.legacy.objects import HEAD_BYTES, build_noun, build_verb, created_at, id_at_first, open_object
from brainy.legacy.tree import Tree
from brainy.legacy.values import MAX_OBJECT_BYTES, UnreadableError, compact
from brainy.store.base import StoredObject

_NULL = b"null"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A vector object to fetch, and what to fetch with it."""

    key: str
    #: The id in the key, or the id inside for a stray.
    id: str
    #: Metadata or verb-metadata; None when a listing said that there is none.
    companion: str | None
    #: Metadata of the same id in a newer tree without the noun: null there means deleted.
    tombstone: str | None = None
    #: The id is also a verb's.
    also_verb: bool = False

    @property
    def keys(self) -> list[str]:
        """Keys to fetch, in the order in which ``Assembly.take`` expects the objects."""
        return [key for key in (self.key, self.companion, self.tombstone) if key is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """An object whose id inside differs from the one in its key."""

    tree: Tree
    kind: Kind
    key: str
    id_in_key: str
    id: str


def is_null(found: StoredObject | None) -> bool:
    """Whether an object is there and holds the literal null: what deleting a noun leaves of its metadata."""
    return found is not None and found.body.strip() == _NULL


class Assembly:
    """One batch of one kind of one tree; ``keep_doubles`` as in ``brainy.legacy.values.vector_bytes``."""

    def __init__(self, tree: Tree, kind: Kind, *, keep_doubles: bool = False) -> None:
        self._tree = tree
        self._kind = kind
        self._keep_doubles = keep_doubles
        self._items: list[tuple[Noun | Verb, str, int]] = []
        self.quarantined: list[Quarantined] = []
        self.strays: list[Stray] = []
        #: Entries whose companion was asked for and is not there.
        self.without_companion = 0
        #: Objects whose noun was deleted in a newer tree.
        self.buried = 0
        #: Items to be looked up in the change log before ``finish``.
        self.suspects: list[Suspect] = []

    def take(self, entry: Entry, objects: list[StoredObject | None]) -> None:
        """Add what was fetched for an entry. An object that has vanished meanwhile is no item any more."""
        found = objects[0]
        if found is None:
            return
        beside = None
        if entry.companion is not None:
            beside = objects[1]
            self.without_companion += beside is None
        buried = entry.tombstone is not None and is_null(objects[-1])
        try:
            item_id, fields = open_object(found.body)
            if item_id != entry.id:
                if id_at_first(found.body[:HEAD_BYTES]) not in (None, item_id):
                    # Two ids inside: who looks at the beginning only would take it for another's.
                    raise UnreadableError(Reason.WRONG_SHAPE)
                self.strays.append(
                    Stray(tree=self._tree, kind=self._kind, key=entry.key, id_in_key=entry.id, id=item_id)
                )
            elif buried:
                self.buried += 1
            elif self._kind is Kind.NOUN:
                self._take_noun(entry, fields, beside, len(found.body))
            else:
                self._take_verb(entry, fields, beside, len(found.body))
        except UnreadableError as error:
            if buried:
                self.buried += 1
                return
            wrong = beside if error.in_companion and beside is not None else found
            self.quarantined.append(Quarantined(wrong.key, error.cause, len(wrong.body)))

    def _take_noun(self, entry: Entry, fields: dict[str, object], beside: StoredObject | None, size: int) -> None:
        if beside is None and entry.also_verb:
            raise UnreadableError(Reason.VERB_STORED_AS_NOUN)
        noun = build_noun(entry.id, fields, self._metadata(beside), keep_doubles=self._keep_doubles)
        if noun.metadata == _NULL and self._tree.null_is_deleted:
            raise UnreadableError(Reason.SUSPECTED_ZOMBIE)
        if noun.metadata == _NULL and Kind.NOUN in self._tree.zombies:
            self.suspects.append(Suspect(Kind.NOUN, noun.id))
        self._items.append((noun, entry.key, size))

    def _metadata(self, beside: StoredObject | None) -> bytes | None:
        # A noun without readable metadata is still found by its vector, so only the metadata is set aside.
        if beside is None:
            return None
        try:
            if len(beside.body) > MAX_OBJECT_BYTES:
                raise UnreadableError(Reason.TOO_LARGE)
            return compact(beside.body)
        except UnreadableError as error:
            self.quarantined.append(Quarantined(beside.key, error.cause, len(beside.body)))
            return None

    def _take_verb(self, entry: Entry, fields: dict[str, object], beside: StoredObject | None, size: int) -> None:
        relation = None if beside is None else beside.body
        verb = build_verb(entry.id, fields, relation, keep_doubles=self._keep_doubles)
        if Kind.VERB in self._tree.zombies:
            self.suspects.append(Suspect(Kind.VERB, verb.id, created_at(verb)))
        self._items.append((verb, entry.key, size))

    def finish(self, zombies: Collection[Name], *, objects_read: int) -> ItemBatch:
        """Return the batch; ``zombies`` are those of the suspects that are not items."""
        batch = ItemBatch(quarantined=list(self.quarantined), objects_read=objects_read)
        for item, key, size in self._items:
            if zombies and (self._kind, item.id) in zombies:
                batch.quarantined.append(Quarantined(key, Reason.SUSPECTED_ZOMBIE, size))
            elif isinstance(item, Noun):
                batch.nouns.append(item)
            else:
                batch.verbs.append(item)
        return batch
