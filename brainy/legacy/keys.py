"""The only module that knows the names of the objects Brainy writes.

Three trees exist, by age: ``typed`` (0.6-0.14, folders by type at the root of the bucket), ``flat``
(0.15-0.48.0, ``nouns/<id>.json``) and ``entity`` (0.48.1-1.1.1, ``entities/nouns/vectors/<id>.json``). An
upgraded bucket holds several. Ids stand unescaped in the key, so they may contain slashes, spaces and ".json";
the id is the key without its prefix and without the *last* ".json".
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from brainy.bucket import layout

TYPED = "typed"
FLAT = "flat"
ENTITY = "entity"

CHANGE_LOG = "change-log/"
LOCKS = "locks/"
INDEX = "index/"
SYSTEM = "_system/"
SUFFIX = ".json"

#: Persons of the typed tree; also where the flat tree keeps ids that begin with "person/".
PERSONS = "nouns/person/"
#: Persons up to 0.8, and whatever else lies beside them.
OLD_PERSONS = "nodes/person/"
OLD_NOUNS = "nodes/"
#: Where the typed tree kept nouns of which it knew no type yet: practically every noun when first added.
TYPED_DEFAULT = "default/"
#: Where the typed tree kept nouns that were added again, by type. All but persons are at the root.
TYPED_FOLDERS = (PERSONS, OLD_PERSONS, OLD_NOUNS, "place/", "thing/", "event/", "concept/", "content/")
#: All of them.
TYPED_NOUNS = (TYPED_DEFAULT, *TYPED_FOLDERS)
#: Its verbs up to 0.8; later ones lie in ``verbs/``.
TYPED_VERBS = "edges/"

_DISTRIBUTED_CONFIG = "_distributed_config"
_INDEX_ENTRY = ("__metadata_index__", "__metadata_field_index__")
_CHANGE = re.compile(r"change-log/(\d{1,16})-[^/]*\.json")
_STATISTICS = re.compile(r"(?:index|_system)/statistics(?:_\d{8})?\.json")


class Kind(enum.StrEnum):
    """What an object is."""

    NOUN = "noun"
    NOUN_METADATA = "noun-metadata"
    VERB = "verb"
    VERB_METADATA = "verb-metadata"
    INDEX_ENTRY = "index-entry"
    DISTRIBUTED_CONFIG = "distributed-config"
    STATISTICS = "statistics"
    LOCK = "lock"
    CHANGE = "change"
    #: One of this product's own objects under cluster/.
    CLUSTER = "cluster"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeKeys:
    """The four prefixes of a tree."""

    tree: str
    nouns: str
    noun_metadata: str
    verbs: str
    verb_metadata: str

    def objects(self, kind: Kind) -> str:
        """Prefix of the objects that hold an item's vector."""
        return self.nouns if kind is Kind.NOUN else self.verbs

    def companions(self, kind: Kind) -> str:
        """Prefix of the objects that hold the rest of an item."""
        return self.noun_metadata if kind is Kind.NOUN else self.verb_metadata


FLAT_KEYS = TreeKeys(
    tree=FLAT, nouns="nouns/", noun_metadata="metadata/", verbs="verbs/", verb_metadata="verb-metadata/"
)
ENTITY_KEYS = TreeKeys(
    tree=ENTITY,
    nouns="entities/nouns/vectors/",
    noun_metadata="entities/nouns/metadata/",
    verbs="entities/verbs/vectors/",
    verb_metadata="entities/verbs/metadata/",
)


def typed_keys(folder: str) -> TreeKeys:
    """Keys of one folder of the typed tree; metadata and newer verbs lie where the flat tree has them."""
    return TreeKeys(
        tree=TYPED,
        nouns=folder,
        noun_metadata=FLAT_KEYS.noun_metadata,
        verbs=TYPED_VERBS,
        verb_metadata=FLAT_KEYS.verb_metadata,
    )


_ITEM_PREFIXES = (
    *(
        (prefix, keys.tree, kind)
        for keys in (ENTITY_KEYS, FLAT_KEYS)
        for prefix, kind in (
            (keys.nouns, Kind.NOUN),
            (keys.noun_metadata, Kind.NOUN_METADATA),
            (keys.verbs, Kind.VERB),
            (keys.verb_metadata, Kind.VERB_METADATA),
        )
    ),
    # Never used by Brainy although its API had it.
    ("noun-metadata/", FLAT, Kind.NOUN_METADATA),
    *((prefix, TYPED, Kind.NOUN) for prefix in TYPED_NOUNS if prefix != PERSONS),
    (TYPED_VERBS, TYPED, Kind.VERB),
)

#: Folders of items in which no other such folder lies (but persons, in the flat tree's): prefix -> tree and kind.
ITEM_FOLDERS = {prefix: (tree, kind) for prefix, tree, kind in _ITEM_PREFIXES if prefix not in (OLD_NOUNS, PERSONS)}


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """What a key says. ``tree`` is None for objects that belong to no tree in particular."""

    tree: str | None
    kind: Kind
    id: str = ""


def object_key(prefix: str, item_id: str) -> str:
    """Key of an item's object under a prefix."""
    return f"{prefix}{item_id}{SUFFIX}"


def id_in(prefix: str, key: str) -> str | None:
    """Id in a key under ``prefix``, or None when Brainy would not have built such a key."""
    if not key.endswith(SUFFIX) or len(key) <= len(prefix) + len(SUFFIX):
        return None
    return key[len(prefix) : -len(SUFFIX)]


def is_folder_marker(key: str, size: int) -> bool:
    """Whether the object only stands for a folder in a file browser."""
    return key.endswith("/") and size == 0


def names_no_item(item_id: str) -> bool:
    """Whether an object beside the metadata is Brainy's own book-keeping (index entries, shared config)."""
    return item_id == _DISTRIBUTED_CONFIG or item_id.startswith(_INDEX_ENTRY)


def has_chunked_index(item_id: str) -> bool:
    """Whether an index entry has the form written from 0.49 on."""
    return item_id.startswith(_INDEX_ENTRY[1]) or "_chunk" in item_id


def parse(key: str) -> ParsedKey:
    """Say what an object is, from its key alone.

    ``nouns/person/x.json`` is answered as the flat id ``person/x``; only the id inside tells it from the typed
    tree's person ``x``.
    """
    if key.startswith(layout.ROOT):
        return ParsedKey(None, Kind.CLUSTER)
    if change_time(key) is not None:
        return ParsedKey(None, Kind.CHANGE)
    if key.startswith(LOCKS):
        return ParsedKey(None, Kind.LOCK, key[len(LOCKS) :])
    if _STATISTICS.fullmatch(key):
        return ParsedKey(None, Kind.STATISTICS)
    for prefix, tree, kind in _ITEM_PREFIXES:
        if key.startswith(prefix):
            item_id = id_in(prefix, key)
            if item_id is None:
                break
            if kind is Kind.NOUN_METADATA and names_no_item(item_id):
                config = item_id == _DISTRIBUTED_CONFIG
                return ParsedKey(tree, Kind.DISTRIBUTED_CONFIG if config else Kind.INDEX_ENTRY, item_id)
            return ParsedKey(tree, kind, item_id)
    return ParsedKey(None, Kind.FOREIGN)


def prefix_of(key: str) -> str:
    """Prefix under which an object is counted in reports: the tree's own, else the first folder."""
    for prefix, _, _ in _ITEM_PREFIXES:
        if key.startswith(prefix):
            return prefix
    head, slash, _ = key.partition("/")
    return head + slash if slash else ""


def change_time(key: str) -> int | None:
    """Milliseconds in the key of a change-log object, or None for another key."""
    match = _CHANGE.fullmatch(key)
    return int(match[1]) if match else None


def change_log_from(milliseconds: int) -> str:
    """``start_after`` for listing the change log from a time on."""
    return f"{CHANGE_LOG}{milliseconds:013d}"
