"""Real objects to begin with: a few items of one recorded bucket or of several, with everything beside them."""

from __future__ import annotations

import random  # noqa: TID251 - seeded
from functools import cache
from pathlib import Path

from brainy.legacy import keys
from brainy.legacy.keys import ENTITY_KEYS, FLAT_KEYS, Kind, id_in, object_key
from brainy.samples import sample_objects
from brainy.testing.fixtures import fixtures_root, read_objects
from tests.buckets import noun, relation, verb

_LARGE = 20_000_000
#: Objects that belong to no item: change log, index entries, statistics, locks.
_OTHERS = 12
#: Where a verb's or a noun's object of one tree may be put in another.
_NOUN_PREFIXES = (*keys.TYPED_NOUNS, FLAT_KEYS.nouns, ENTITY_KEYS.nouns)
_VERB_PREFIXES = (keys.TYPED_VERBS, FLAT_KEYS.verbs, ENTITY_KEYS.verbs)

Bucket = dict[str, bytes]


@cache
def recorded() -> tuple[Bucket, ...]:
    """All recorded buckets that are small enough, or the one that is shipped, or else a made-up one."""
    root = fixtures_root()
    folders = sorted(root.iterdir()) if root else []
    found = [
        {each.key: each.body for each in read_objects(folder)}
        for folder in folders
        if folder.is_dir() and _size(folder) < _LARGE and "10k" not in folder.name and "512" not in folder.name
    ]
    return (*found, {key: body for key, body, _ in sample_objects()}, _made_up())


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in folder.iterdir())


def _made_up() -> Bucket:
    objects: Bucket = {}
    for number, prefix in enumerate((*_NOUN_PREFIXES, *_NOUN_PREFIXES)):
        item_id = ("x", "person/x", "a b", "ünï", "r.json.x", "7")[number % 6]
        objects[object_key(prefix, item_id)] = noun(item_id, [number, 0.1])
    for number, prefix in enumerate(_VERB_PREFIXES):
        objects[object_key(prefix, f"v{number % 2}")] = verb(f"v{number % 2}", "x", "7")
        objects[object_key(prefix, "split")] = noun("split")
    for item_id in ("x", "7", "ünï", "person/x"):
        objects[object_key("metadata/", item_id)] = b'{"noun": "person", "n": [1, {"a": null}]}'
    objects["verb-metadata/split.json"] = relation("x", "7")
    objects["entities/verbs/metadata/split.json"] = relation("x", "7", weight=0.5)
    objects["entities/nouns/metadata/x.json"] = b"null"
    return objects


def draw(chance: random.Random) -> Bucket:
    """A bucket of a few dozen objects, some of them moved to where another version keeps its own."""
    drawn: Bucket = {}
    for number in chance.sample(range(len(recorded())), chance.choice((1, 1, 2))):
        drawn |= _some(number, chance)
    for key in chance.sample(sorted(drawn), len(drawn) // 4):
        moved = _moved(key, chance)
        if moved is not None:
            drawn[moved] = drawn[key]
            if chance.random() < 0.5:
                del drawn[key]
    return drawn


def _some(number: int, chance: random.Random) -> Bucket:
    source = recorded()[number]
    items, rest, log = _parts(number)
    chosen = chance.sample(items, min(len(items), chance.randint(1, 14)))
    beside: list[str] = []
    for key in chosen:
        item_id = keys.parse(key).id.removeprefix("person/")
        for prefix in ("metadata/", "verb-metadata/", ENTITY_KEYS.noun_metadata, ENTITY_KEYS.verb_metadata):
            beside += [other for other in (object_key(prefix, item_id),) if other in source]
    others = chance.sample(rest, min(len(rest), chance.randint(0, _OTHERS)))
    return {key: source[key] for key in (*chosen, *beside, *others, *log)}


@cache
def _parts(number: int) -> tuple[list[str], list[str], list[str]]:
    source = recorded()[number]
    items = [key for key in source if keys.parse(key).kind in (Kind.NOUN, Kind.VERB)]
    rest = sorted(source.keys() - set(items))
    # Deletes decide something; only small entries can be deletes.
    return items, rest, [key for key in rest if key.startswith(keys.CHANGE_LOG) and len(source[key]) < 256][:40]


def _moved(key: str, chance: random.Random) -> str | None:
    for prefixes in (
        _NOUN_PREFIXES,
        _VERB_PREFIXES,
        (FLAT_KEYS.noun_metadata, ENTITY_KEYS.noun_metadata),
        (FLAT_KEYS.verb_metadata, ENTITY_KEYS.verb_metadata),
    ):
        for prefix in prefixes:
            if key.startswith(prefix) and (item_id := id_in(prefix, key)):
                return object_key(chance.choice(prefixes), item_id)
    return None
