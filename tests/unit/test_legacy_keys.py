"""The names of Brainy's objects."""

from __future__ import annotations

import pytest

from brainy.legacy import keys
from brainy.legacy.keys import ENTITY, FLAT, TYPED, Kind, ParsedKey


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("nouns/a.json", ParsedKey(FLAT, Kind.NOUN, "a")),
        ("nouns/tenant-1/item-4.json", ParsedKey(FLAT, Kind.NOUN, "tenant-1/item-4")),
        ("nouns/report.json.json", ParsedKey(FLAT, Kind.NOUN, "report.json")),
        ("nouns/with space & plus+5.json", ParsedKey(FLAT, Kind.NOUN, "with space & plus+5")),
        ("nouns/person/x.json", ParsedKey(FLAT, Kind.NOUN, "person/x")),
        ("nouns/.json", ParsedKey(None, Kind.FOREIGN)),
        ("nouns/readme.txt", ParsedKey(None, Kind.FOREIGN)),
        ("metadata/a.json", ParsedKey(FLAT, Kind.NOUN_METADATA, "a")),
        (
            "metadata/_distributed_config.json",
            ParsedKey(FLAT, Kind.DISTRIBUTED_CONFIG, "_distributed_config"),
        ),
        ("verbs/a.json", ParsedKey(FLAT, Kind.VERB, "a")),
        ("verb-metadata/a.json", ParsedKey(FLAT, Kind.VERB_METADATA, "a")),
        ("entities/nouns/vectors/a/b.json", ParsedKey(ENTITY, Kind.NOUN, "a/b")),
        (
            "entities/nouns/metadata/__metadata_index__noun:person.json",
            ParsedKey(ENTITY, Kind.INDEX_ENTRY, "__metadata_index__noun:person"),
        ),
        (
            "entities/nouns/metadata/__metadata_field_index__field_a/b.json",
            ParsedKey(ENTITY, Kind.INDEX_ENTRY, "__metadata_field_index__field_a/b"),
        ),
        ("entities/verbs/vectors/a.json", ParsedKey(ENTITY, Kind.VERB, "a")),
        ("entities/verbs/metadata/a.json", ParsedKey(ENTITY, Kind.VERB_METADATA, "a")),
        ("default/a.json", ParsedKey(TYPED, Kind.NOUN, "a")),
        ("edges/a.json", ParsedKey(TYPED, Kind.VERB, "a")),
        ("change-log/1795330056696-0wkfkdk53.json", ParsedKey(None, Kind.CHANGE)),
        ("locks/statistics-flush", ParsedKey(None, Kind.LOCK, "statistics-flush")),
        ("index/statistics.json", ParsedKey(None, Kind.STATISTICS)),
        ("_system/statistics_20261122.json", ParsedKey(None, Kind.STATISTICS)),
        ("cluster/routing.json", ParsedKey(None, Kind.CLUSTER)),
        ("photos/a.json", ParsedKey(None, Kind.FOREIGN)),
    ],
)
def test_parse(key: str, expected: ParsedKey) -> None:
    assert keys.parse(key) == expected


@pytest.mark.parametrize("item_id", ["a", "a.json", ".json", "x/y", "ü", "a b+c"])
@pytest.mark.parametrize("tree", [keys.FLAT_KEYS, keys.ENTITY_KEYS])
def test_a_key_gives_its_id_back(item_id: str, tree: keys.TreeKeys) -> None:
    for kind in (Kind.NOUN, Kind.VERB):
        for prefix in (tree.objects(kind), tree.companions(kind)):
            key = keys.object_key(prefix, item_id)
            assert keys.id_in(prefix, key) == item_id
            assert keys.parse(key).id == item_id
            assert keys.prefix_of(key) == prefix


def test_prefix_of_other_keys() -> None:
    assert keys.prefix_of("index/statistics.json") == "index/"
    assert keys.prefix_of("readme") == ""


def test_change_log_can_be_listed_from_a_time() -> None:
    after = keys.change_log_from(1795330056695)
    assert after < "change-log/1795330056696-a.json"
    assert keys.change_time("change-log/1795330056696-a.json") == 1795330056696
    assert keys.change_time("change-log/x.json") is None
