"""What must have become of every object, said a second time and as plainly as possible.

It reads bodies with the product's own ``objects`` (their rules have tests of their own) and says nothing about how
a reader gets there: the whole bucket is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brainy.legacy import keys
from brainy.legacy.keys import ENTITY_KEYS, FLAT_KEYS, Kind, TreeKeys, id_in, object_key
from brainy.legacy.objects import HEAD_BYTES, id_at_first, open_object, says_id
from brainy.legacy.values import UnreadableError, compact
from brainy.store.base import StoredObject
from tests.buckets import Content

_TYPED = [(folder, 2) for folder in keys.TYPED_FOLDERS] + [(keys.TYPED_DEFAULT, 3)]


@dataclass(frozen=True)
class Place:
    """A prefix of items; the lower the rank the stronger."""

    prefix: str
    rank: int
    companions: str


def _place(tree: TreeKeys, kind: Kind, rank: int) -> Place:
    return Place(tree.objects(kind), rank, tree.companions(kind))


PLACES = {
    Kind.NOUN: [
        _place(ENTITY_KEYS, Kind.NOUN, 0),
        _place(FLAT_KEYS, Kind.NOUN, 1),
        *(Place(folder, rank, FLAT_KEYS.noun_metadata) for folder, rank in _TYPED),
    ],
    Kind.VERB: [
        _place(ENTITY_KEYS, Kind.VERB, 0),
        _place(FLAT_KEYS, Kind.VERB, 1),
        Place(keys.TYPED_VERBS, 2, FLAT_KEYS.verb_metadata),
    ],
}


class Oracle:
    """Judges what was read from a bucket."""

    def __init__(self, objects: Mapping[str, StoredObject], content: Content) -> None:
        self._objects = objects
        self._content = content
        self._items: dict[Kind, Mapping[str, object]] = {Kind.NOUN: content.nouns, Kind.VERB: content.verbs}
        self._inside = {key: _inside(key, found.body) for key, found in objects.items()}

    def check(self) -> None:
        """Assert that nothing is lost and nothing is made up."""
        accounted: dict[Kind, set[str]] = {Kind.NOUN: set(), Kind.VERB: set()}
        for key, found in self._objects.items():
            home = self._home(key)
            if home is None:
                continue
            kind, place, item_id = home
            if key in self._content.reasons or (key.endswith("/") and not found.body):
                continue
            assert item_id is not None, f"{key}: not Brainy's and not reported"
            inside = self._inside[key]
            if inside is not None and inside in self._items[kind]:
                accounted[kind].add(inside)
                continue
            said = self._deleted(kind, place, inside if inside is not None else item_id)
            said = said or self._stands_back(kind, place, key, item_id, inside)
            assert said, f"{key}: lost without a word"
        for kind, items in self._items.items():
            made_up = items.keys() - accounted[kind] - {i for i in items if self._quarantined_claim(kind, i)}
            assert not made_up, f"{kind}: made up {made_up}"
        self._check_winners()
        self._check_metadata()

    def _home(self, key: str) -> tuple[Kind, Place, str | None] | None:
        """Where an object belongs: for ``nouns/person/`` the id inside decides."""
        for kind, places in PLACES.items():
            for place in sorted(places, key=lambda place: -len(place.prefix)):
                if not key.startswith(place.prefix):
                    continue
                item_id = id_in(place.prefix, key)
                if place.prefix == keys.PERSONS and (item_id is None or self._first_said(key) != item_id):
                    continue
                return kind, place, item_id
        return None

    def _first_said(self, key: str) -> str | None:
        try:
            return id_at_first(self._objects[key].body[:HEAD_BYTES]) or self._inside[key]
        except UnreadableError:
            return None

    def _quarantined_claim(self, kind: Kind, item_id: str) -> bool:
        # An item whose object is fine but is also named for something beside it.
        return any(
            self._inside[key] == item_id and (home := self._home(key)) is not None and home[0] is kind
            for key in self._content.reasons
            if key in self._objects
        )

    def _deleted(self, kind: Kind, place: Place, item_id: str) -> bool:
        """Whether a newer tree says so: metadata null, or verb-metadata without its verb."""
        for other in PLACES[kind]:
            if other.rank >= place.rank and not (kind is Kind.VERB and other.companions == place.companions):
                continue
            beside = self._objects.get(object_key(other.companions, item_id))
            if beside is not None and (kind is Kind.VERB or beside.body.strip() == b"null"):
                return True
        return False

    def _stands_back(self, kind: Kind, place: Place, key: str, item_id: str, inside: str | None) -> bool:
        """Whether another object takes its place: one that is the item, or one that is damaged and reported."""
        for name in {item_id, inside} - {None}:
            if kind is Kind.VERB and object_key(place.companions, str(name)) in self._content.reasons:
                return True  # the half that says what it connects cannot be read
            for other in PLACES[kind]:
                rival = object_key(other.prefix, str(name))
                if rival == key or other.rank > place.rank or rival not in self._objects:
                    continue
                if rival in self._content.reasons:
                    return True
                if inside is None and self._inside[rival] == item_id and item_id in self._items[kind]:
                    return True
        return False

    def _check_winners(self) -> None:
        """Of the objects under the key of their own id the strongest is the item."""
        for kind, items in self._items.items():
            for item_id, item in items.items():
                candidates = [
                    (place.rank, -self._objects[key].last_modified, key)
                    for place in PLACES[kind]
                    if (key := object_key(place.prefix, item_id)) in self._objects
                    and self._inside[key] == item_id
                    and (home := self._home(key)) is not None
                    and home[1] is place
                ]
                if candidates:
                    best = min(candidates)[2]
                    vector = open_object(self._objects[best].body)[1].get("vector")
                    assert isinstance(vector, list)
                    found = getattr(item, "vector")  # noqa: B009 - of a noun or a verb
                    assert len(found) == 4 * len(vector), f"{best}: another object was taken"

    def _check_metadata(self) -> None:
        """A noun has what is stored beside it, or that is reported."""
        for item_id, item in self._content.nouns.items():
            stored = {
                place.companions: key
                for place in PLACES[Kind.NOUN]
                if (key := object_key(place.companions, item_id)) in self._objects
            }
            if item.metadata is None:
                for place in PLACES[Kind.NOUN]:
                    own = self._objects.get(object_key(place.prefix, item_id))
                    if own is None or self._inside[own.key] != item_id:
                        continue
                    beside = stored.get(place.companions)
                    assert beside is None or beside in self._content.reasons, f"{beside}: lost"
                    break
            else:
                texts = {_compact(found.body) for found in self._objects.values()}
                assert item.metadata in texts, f"{item_id}: metadata made up"


def _inside(key: str, body: bytes) -> str | None:
    try:
        inside = open_object(body)[0]
    except UnreadableError:
        return None
    # Two ids inside are none, unless the key agrees with the one that counts.
    return inside if key.endswith(f"{inside}.json") or says_id(body, inside) else None


def _compact(body: bytes) -> bytes | None:
    try:
        return compact(body)
    except UnreadableError:
        return None
