"""Under which prefixes the objects of items lie, and which items a key is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from brainy.legacy.keys import ENTITY, FLAT, Kind, id_in, names_no_item, object_key
from brainy.legacy.tree import Tree
from brainy.legacy.trees import open_trees


class Places:
    """The prefixes of some trees. Pure."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self.trees = tuple(trees)
        verbs = [prefix for tree in trees for prefix in (tree.keys.verb_metadata, tree.keys.verbs)]
        nouns = [prefix for tree in trees for prefix in (tree.keys.noun_metadata, tree.keys.nouns)]
        #: Every prefix an item's object may have, verbs before nouns, stronger trees before weaker ones: what an
        #: object decides about others (an id that is a verb's, a deletion in a newer tree) is listed before those.
        self.prefixes = tuple(dict.fromkeys([*verbs, *nouns]))
        #: Those that lie below no other one: listing them lists everything once.
        self.listed = tuple(
            prefix
            for prefix in self.prefixes
            if not any(prefix != other and prefix.startswith(other) for other in self.prefixes)
        )
        self._metadata = frozenset(tree.keys.noun_metadata for tree in trees)

    def id_at(self, prefix: str, key: str) -> str | None:
        """Return the id in a key under a prefix; None for Brainy's book-keeping and what is not Brainy's."""
        item_id = id_in(prefix, key)
        if item_id is None or (prefix in self._metadata and names_no_item(item_id)):
            return None
        return item_id

    def ids_named(self, key: str) -> list[str]:
        """Return the ids of the items a key may be about; several where one prefix lies below another."""
        found = (self.id_at(prefix, key) for prefix in self.prefixes if key.startswith(prefix))
        return [item_id for item_id in found if item_id is not None]

    def vectors_of(self, kind: Kind, item_id: str) -> set[str]:
        """Return the keys an item's vector object may have."""
        return {object_key(tree.keys.objects(kind), item_id) for tree in self.trees}

    def companions_of(self, kind: Kind, item_id: str) -> set[str]:
        """Return the keys of the object that may lie beside it: metadata or verb-metadata."""
        return {object_key(tree.keys.companions(kind), item_id) for tree in self.trees}

    def keys_of(self, item_id: str) -> list[str]:
        """Return every key an object of an item may have, noun or verb, in any of the trees."""
        return [object_key(prefix, item_id) for prefix in self.prefixes]


def followed_trees(names: Iterable[str]) -> tuple[Tree, ...]:
    """Return the trees to follow where a namespace was adopted with the trees of these names.

    The flat and the entity tree are looked at even where they were not there yet: a newer Brainy began its own tree
    in many a bucket.
    """
    return open_trees({FLAT, ENTITY, *names})
