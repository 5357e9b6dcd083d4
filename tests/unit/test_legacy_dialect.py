"""What is written for each dialect, byte for byte, and what is said about the rest."""

from __future__ import annotations

import json
import struct

import pytest

from brainy.bucket.items import Noun, Verb
from brainy.legacy.dialect.dialects import DIALECTS, ENTITIES, ONE_PIECE, SPLIT, Dialect, dialect_of
from brainy.legacy.dialect.entries import Place, entry_key
from brainy.legacy.dialect.javascript import Vector, number, stringify
from brainy.legacy.dialect.limits import LimitKind
from brainy.legacy.dialect.rendering import (
    Bounds,
    render_noun,
    render_noun_deletion,
    render_verb,
    render_verb_deletion,
    service_of,
)
from brainy.legacy.living import living_dialect, splits_verbs
from brainy.legacy.survey import Survey
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock

PLACE = Place(shard=3, position=41, milliseconds=1_795_330_440_309)
VECTOR = struct.pack("<3f", 0.5, -1.0, 3.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1.0, "1"),
        (-0.0, "0"),
        (-1.5, "-1.5"),
        (1e20, "100000000000000000000"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (0.0001, "0.0001"),
        (0.00001, "0.00001"),
        (1.25e-6, "0.00000125"),
        (0.000001, "0.000001"),
        (1e-7, "1e-7"),
        (-1.234e-6, "-0.000001234"),
        (2.5e-10, "2.5e-10"),
        (5e-324, "5e-324"),
        (float("nan"), "null"),
        (float("inf"), "null"),
        (float("-inf"), "null"),
        (2**60, "1152921504606846976"),
        (0.10000000149011612, "0.10000000149011612"),
    ],
)
def test_numbers_look_as_javascript_prints_them(value: float, text: str) -> None:
    assert number(value) == text


def test_documents_look_as_javascript_prints_them() -> None:
    value = {"b": [1, [2, {"ß": None}], []], "a": {}, "t": 'x"\n\x01\u2028', "yes": True, "v": [0.5, 2.0]}
    assert (
        stringify(value)
        == '{"b":[1,[2,{"ß":null}],[]],"a":{},"t":"x\\"\\n\\u0001\u2028","yes":true,"v":[0.5,2]}'.encode()
    )
    assert stringify([1.0, -0.0, 1e16, 1e21, 2, {"a": [3.0]}], exact=True) == (
        b'[1.0,-0.0,10000000000000000.0,1e+21,2,{"a":[3.0]}]'
    )
    assert stringify([Vector([1.0, -0.0, None, 1]), Vector([[1.0]])], exact=True) == b"[[1,-0.0,null,1],[[1.0]]]"
    assert stringify({"a": [1, {"b": []}], "v": Vector([0.5, 2.0])}, indent=2) == (
        b'{\n  "a": [\n    1,\n    {\n      "b": []\n    }\n  ],\n  "v": [\n    0.5,\n    2\n  ]\n}'
    )
    assert stringify(Vector([0.25, 100.0, -3.0, 20.0, 1e-7, 12.05]), indent=2) == (
        b"[\n  0.25,\n  100,\n  -3,\n  20,\n  1e-7,\n  12.05\n]"
    )
    assert stringify(Vector([10.0, 0.5, 7.0])) == b"[10,0.5,7]"
    assert stringify(Vector([0.5, 10**25])) == b"[0.5,10000000000000000000000000]"
    assert stringify(Vector([-0.0])) == b"[-0.0]"
    assert stringify(Vector([0.5, "x", True, float("nan")])) == b'[0.5,"x",true,null]'
    assert stringify("\ud800") == b'"\\ud800"'
    deep: object = 1
    for _ in range(5000):
        deep = [deep]
    assert stringify(deep) == b"[" * 5000 + b"1" + b"]" * 5000


def written(rendered: object) -> dict[str, object]:
    return {
        write.key: None if write.body is None else json.loads(write.body)
        for write in rendered.writes  # type: ignore[attr-defined]
    }


def test_a_noun_is_two_objects_and_two_entries() -> None:
    noun = Noun(id="tenant-1/a", vector=VECTOR, metadata=b'{"noun":"person","n":1.0}')
    rendered = render_noun(ENTITIES, noun, PLACE, Bounds(dimensions=3))
    assert [write.key for write in rendered.writes] == [
        "entities/nouns/vectors/tenant-1/a.json",
        "entities/nouns/metadata/tenant-1/a.json",
    ]
    assert rendered.writes[0].body == (
        b'{\n  "id": "tenant-1/a",\n  "vector": [\n    0.5,\n    -1,\n    3\n  ],\n  "connections": {}\n}'
    )
    assert rendered.writes[1].body == b'{\n  "noun": "person",\n  "n": 1.0\n}'
    assert [json.loads(entry.body) for entry in rendered.entries] == [
        {
            "timestamp": 1_795_330_440_309,
            "operation": "add",
            "entityType": entity,
            "entityId": "tenant-1/a",
            "data": data,
            "instanceId": "brainy-cluster",
        }
        for entity, data in (("noun", {"vector": [0.5, -1, 3]}), ("metadata", {"noun": "person", "n": 1.0}))
    ]
    assert rendered.entries[0].user_metadata == {
        "timestamp": "1795330440309",
        "operation": "add",
        "entity-type": "noun",
        "entity-id": "tenant-1/a",
    }
    assert rendered.limits == ()
    assert render_noun(ENTITIES, noun, PLACE, Bounds(dimensions=3)) == rendered


def test_a_noun_without_metadata_leaves_none_of_an_earlier_state() -> None:
    rendered = render_noun(SPLIT, Noun(id="a", vector=VECTOR), PLACE, Bounds())
    assert written(rendered)["metadata/a.json"] is None
    assert rendered.writes[1].body is None
    assert len(rendered.entries) == 1


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_deleted_noun_leaves_a_tombstone(dialect: Dialect) -> None:
    rendered = render_noun_deletion(dialect, "a", PLACE, Bounds())
    assert [(write.key, write.body) for write in rendered.writes] == [
        (f"{dialect.keys.nouns}a.json", None),
        (f"{dialect.keys.noun_metadata}a.json", b"null"),
    ]
    first, second = (json.loads(entry.body) for entry in rendered.entries)
    assert (first["operation"], first["entityType"], "data" in first) == ("delete", "noun", False)
    assert (second["operation"], second["entityType"], second["data"]) == ("add", "metadata", None)


def test_a_split_verb_shows_its_relation_before_its_vector() -> None:
    verb = Verb(id="v", source_id="a", target_id="b", type="relatedTo", weight=0.5, vector=VECTOR, metadata=b'{"x":1}')
    rendered = render_verb(SPLIT, verb, PLACE, Bounds())
    assert [write.key for write in rendered.writes] == ["verb-metadata/v.json", "verbs/v.json"]
    relation = json.loads(rendered.writes[0].body or b"")
    assert relation == {
        "sourceId": "a",
        "targetId": "b",
        "source": "a",
        "target": "b",
        "type": "relatedTo",
        "verb": "relatedTo",
        "weight": 0.5,
        "metadata": {"x": 1},
        "data": {"x": 1},
        "embedding": [0.5, -1, 3],
    }
    assert list(relation)[:6] == ["sourceId", "targetId", "source", "target", "type", "verb"]
    assert json.loads(rendered.writes[1].body or b"") == {"id": "v", "vector": [0.5, -1, 3], "connections": {}}
    assert json.loads(rendered.entries[0].body)["data"] == {"vector": [0.5, -1, 3]}


def test_an_old_verb_is_one_object() -> None:
    verb = Verb(id="v", source_id="a", target_id="b", type="likes", vector=VECTOR)
    (write,) = render_verb(ONE_PIECE, verb, PLACE, Bounds()).writes
    assert write.key == "verbs/v.json"
    assert list(json.loads(write.body or b"")) == [
        *("id", "vector", "connections", "sourceId", "targetId", "source", "target", "verb", "type"),
    ]
    (deleted,) = render_verb_deletion(ONE_PIECE, "v", PLACE, Bounds()).writes
    assert (deleted.key, deleted.body) == ("verbs/v.json", None)


def test_what_brainy_stored_beside_a_verb_comes_back() -> None:
    attributes = (
        b'{"createdAt":{"seconds":1,"nanoseconds":2},"createdBy":{"augmentation":"svc","version":"1.0"},'
        b'"verb":"x","odd":1}'
    )
    verb = Verb(id="v", source_id="a", target_id="b", type="likes", vector=VECTOR, attributes=attributes)
    relation = json.loads(render_verb(ENTITIES, verb, PLACE, Bounds()).writes[0].body or b"")
    assert relation["createdAt"] == {"seconds": 1, "nanoseconds": 2}
    assert (relation["type"], relation["verb"], relation["odd"]) == ("likes", "x", 1)
    assert service_of(attributes) == "svc"
    assert service_of(b'"text"') == service_of(None) == "default"


def test_stored_numbers_and_nulls_are_written_as_they_were() -> None:
    noun = Noun(id="a", vector=struct.pack("<3f", 0.1, float("nan"), 2.0), raw_vector=b"[0.12345678901234567,null,2]")
    rendered = render_noun(SPLIT, noun, PLACE, Bounds(dimensions=3))
    body = json.loads(rendered.writes[0].body or b"")
    assert body["vector"] == [0.12345678901234567, None, 2]
    assert [limit.kind for limit in rendered.limits] == [LimitKind.NULL_COMPONENTS]
    assert rendered.limits[0].detail == "1 of 3"


@pytest.mark.parametrize(
    ("noun", "kind", "withheld"),
    [
        (Noun(id="x" * 1000, vector=VECTOR), LimitKind.KEY_TOO_LONG, True),
        (Noun(id="__metadata_index__a", vector=VECTOR), LimitKind.RESERVED_ID, True),
        (Noun(id="_distributed_config", vector=VECTOR), LimitKind.RESERVED_ID, True),
        (Noun(id="a", vector=VECTOR[:8]), LimitKind.DIMENSION, True),
        (Noun(id="a"), LimitKind.DIMENSION, True),
        (Noun(id="a.json.b", vector=VECTOR), LimitKind.JSON_IN_ID, False),
        (Noun(id="ünï", vector=VECTOR), LimitKind.LOG_HEADER, False),
        (Noun(id="a", vector=bytes(12)), LimitKind.ZERO_VECTOR, False),
        (Noun(id="a", vector=VECTOR, metadata=b'{"noun":"galaxy"}'), LimitKind.NOUN_TYPE, False),
        (Noun(id="a", vector=VECTOR, metadata=b'{"n":[9007199254740993]}'), LimitKind.LARGE_INTEGER, False),
        (Noun(id="a", vector=VECTOR, metadata=b'{"deleted":true}'), LimitKind.SOFT_DELETED, False),
    ],
)
def test_what_a_dialect_cannot_carry_is_said(noun: Noun, kind: LimitKind, withheld: bool) -> None:
    rendered = render_noun(SPLIT, noun, PLACE, Bounds(dimensions=3, key_bytes=1000))
    assert [(limit.kind, limit.withheld) for limit in rendered.limits] == [(kind, withheld)]
    assert bool(rendered.writes) is bool(rendered.entries) is not withheld


def test_an_id_that_ends_in_json_is_no_limit() -> None:
    assert render_noun(SPLIT, Noun(id="report.json", vector=VECTOR), PLACE, Bounds()).limits == ()


def test_verb_types_and_weights_that_brainy_has_not_are_said() -> None:
    verb = Verb(id="v", source_id="a", target_id="b", type="adores", weight=float("inf"))
    rendered = render_verb(ENTITIES, verb, PLACE, Bounds())
    assert {limit.kind for limit in rendered.limits} == {LimitKind.VERB_TYPE, LimitKind.WEIGHT}
    assert json.loads(rendered.writes[0].body or b"")["weight"] is None


def test_entries_are_named_by_their_place_in_the_log_and_sort_like_it() -> None:
    keys = [
        entry_key(Place(shard=1, position=position, milliseconds=7), part)
        for position in (1, 35, 36, 10**9)
        for part in (0, 1)
    ]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert keys[0] == "change-log/0000000000007-010000004.json"


def looks_like(*trees: str) -> Survey:
    return Survey(trees=trees, dimensions=3, dimension_counts={}, sampled=0, foreign_keys=False, empty=not trees)


def test_the_newest_tree_decides_the_dialect() -> None:
    assert dialect_of(looks_like("entity", "flat"), split_verbs=False) is ENTITIES
    assert dialect_of(looks_like("flat"), split_verbs=True) is SPLIT
    assert dialect_of(looks_like("flat"), split_verbs=False) is ONE_PIECE
    assert dialect_of(looks_like("flat"), split_verbs=None) is None
    assert dialect_of(looks_like("typed"), split_verbs=None) is None
    assert dialect_of(looks_like(), split_verbs=None) is None


async def test_verbs_or_levels_tell_the_halves_of_the_flat_tree_apart() -> None:
    noun = b'{"id":"a","vector":[1],"connections":{}}'
    store = MemoryStore(ManualClock())
    await store.put("nouns/a.json", noun)
    assert await splits_verbs(store) is None
    assert await living_dialect(store) is None
    await store.put("metadata/a.json", b'{"createdBy":{"augmentation":"x","version":"0.41.0"}}')
    assert await splits_verbs(store) is True
    await store.put(
        "verbs/v.json", b'{"id":"v","vector":[1],"connections":{},"sourceId":"a","targetId":"a","type":"t"}'
    )
    assert await living_dialect(store) is ONE_PIECE
    await store.put("verb-metadata/w.json", b"{}")
    assert await living_dialect(store) is SPLIT
