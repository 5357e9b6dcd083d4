"""Bodies as Brainy, its neighbours and accidents leave them."""

from __future__ import annotations

import json
import math

import numpy as np
import orjson
import pytest

from brainy.legacy.batch import Reason
from brainy.legacy.objects import build_noun, build_verb, created_at, open_object
from brainy.legacy.values import UnreadableError, compact, dump_json, parse_json, text_id, vector_bytes


def floats(vector: bytes) -> list[float]:
    return np.frombuffer(vector, dtype="<f4").tolist()  # type: ignore[no-any-return]


def reason(body: bytes) -> Reason:
    with pytest.raises(UnreadableError) as error:
        parse_json(body)
    return error.value.cause


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", Reason.EMPTY),
        (b" \n\t", Reason.EMPTY),
        (b"\xef\xbb\xbf", Reason.EMPTY),
        (b"<html>503</html>", Reason.NOT_JSON),
        (b'{"id": "a", "vector": [1, 2', Reason.NOT_JSON),
        (b'{"a":1}{"b":2}', Reason.NOT_JSON),
        (b"\xff\xfe{\x00}\x00", Reason.NOT_JSON),
        (b'{"a":"\xe9"}', Reason.NOT_JSON),
        (b"[" * 100_000, Reason.TOO_DEEP),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, Reason.TOO_DEEP),
    ],
)
def test_unreadable(body: bytes, expected: Reason) -> None:
    assert reason(body) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{ "b" : 1,\n  "a": [ ] }', b'{"b":1,"a":[]}'),
        (b"null", b"null"),
        (b' "text" ', b'"text"'),
        (b'\xef\xbb\xbf{"a": 1}', b'{"a":1}'),
        (b'{"a": NaN, "b": -Infinity}', b'{"a":null,"b":null}'),
        (b'{"a": 1e999}', b'{"a":null}'),
        (b'["\\ud83d"]', b'["\\ud83d"]'),
        (b'{"\\udc00": "\xc3\x9f\\ud83d\\ude00"}', '{"\\udc00":"ß😀"}'.encode()),
        (b'{"x": 9007199254740993, "y": -0.0, "z": 1e21}', b'{"x":9007199254740993,"y":-0.0,"z":1e+21}'),
        (b'{"a": 1, "a": 2}', b'{"a":2}'),
    ],
)
def test_compact(body: bytes, expected: bytes) -> None:
    assert compact(body) == expected


def test_surrogates_survive_a_round_trip() -> None:
    body = b'{"k\\ud800": ["\\udfff", "\\\\ud800"]}'
    assert json.loads(compact(body)) == json.loads(body)


def test_endless_integers_are_doubles() -> None:
    assert parse_json(b"[1" + b"0" * 5000 + b"]") == [math.inf]
    assert compact(b"[1" + b"0" * 5000 + b"]") == b"[null]"


def test_deep_but_followable() -> None:
    # orjson writes 254 levels; the way round it manages more.
    body = b"[" * 400 + b"]" * 400
    assert compact(body) == body


def test_vector() -> None:
    assert vector_bytes([0.1, -2, 3.5e-9]) == (np.array([0.1, -2, 3.5e-9], "<f4").tobytes(), None)
    assert vector_bytes([]) == (b"", None)
    assert vector_bytes([0, 0.0, 1, 1.0]) == (np.array([0, 0, 1, 1], "<f4").tobytes(), None)


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        ([1.5, None], [1.5, math.nan]),
        (["0.5", 2], [math.nan, 2.0]),
        ([True, 0.5], [math.nan, 0.5]),
        ([0.25, False], [0.25, math.nan]),
        ([[1], {}], [math.nan, math.nan]),
        ([1e300, -1e300], [math.inf, -math.inf]),
        ([10**400, 1], [math.inf, 1.0]),
    ],
)
def test_vector_that_float32_cannot_carry(components: list[object], expected: list[float]) -> None:
    vector, raw = vector_bytes(components)
    np.testing.assert_array_equal(floats(vector), expected)
    assert raw is not None
    if components[0] != 10**400:
        assert json.loads(raw) == components


@pytest.mark.parametrize(
    ("components", "raw"),
    [
        ([0.1, 2], b"[0.1,2]"),
        ([-0.23453456, 1e-7], b"[-0.23453456,1e-7]"),
        ([1e-46], b"[1e-46]"),
        ([16777217], b"[16777217]"),
        ([0.5, -0.0, 3], None),
        ([], None),
        ([0.1, None], b"[0.1,null]"),
    ],
)
def test_doubles_are_kept_where_float32_is_less(components: list[object], raw: bytes | None) -> None:
    vector, kept = vector_bytes(components, keep_doubles=True)
    assert kept == raw
    assert vector == vector_bytes(components)[0]


def test_doubles_of_verbs_are_kept() -> None:
    own = {"id": "v", "vector": [0.1], "sourceId": "a", "targetId": "b"}
    assert build_verb("v", own, None, keep_doubles=True).raw_vector == b"[0.1]"
    assert build_verb("v", own, None).raw_vector is None


@pytest.mark.parametrize(
    ("components", "expected"),
    [(None, Reason.MISSING_VECTOR), ({"0": 1}, Reason.WRONG_SHAPE), ("1,2", Reason.WRONG_SHAPE)],
)
def test_no_vector(components: object, expected: Reason) -> None:
    with pytest.raises(UnreadableError) as error:
        vector_bytes(components)
    assert error.value.cause is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Reason.MISSING_ID),
        ("", Reason.INVALID_ID),
        ("a\x00", Reason.INVALID_ID),
        ("\ud800", Reason.INVALID_ID),
        ("x" * 1025, Reason.INVALID_ID),
        ("é" * 513, Reason.INVALID_ID),
        (True, Reason.WRONG_SHAPE),
        (["a"], Reason.WRONG_SHAPE),
    ],
)
def test_no_id(value: object, expected: Reason) -> None:
    with pytest.raises(UnreadableError) as error:
        text_id(value)
    assert error.value.cause is expected


def test_id() -> None:
    assert text_id("ünï-çødé-６") == "ünï-çødé-６"
    assert text_id(42) == "42"


def noun(body: object, metadata: bytes | None = None) -> object:
    return build_noun(*open_object(orjson.dumps(body)), metadata)


def test_noun_keeps_what_it_does_not_know() -> None:
    stored = {
        "id": "a",
        "vector": [1],
        "connections": {"0": ["b"]},
        "level": 0,
        "metadata": {"isPlaceholder": True},
        "x": None,
    }
    built = build_noun(*open_object(orjson.dumps(stored)), b"null")
    assert built.attributes == b'{"level":0,"metadata":{"isPlaceholder":true},"x":null}'
    assert built.metadata == b"null"
    assert build_noun("a", {"id": "a", "vector": [1], "connections": {}}, None).attributes is None


@pytest.mark.parametrize("body", [b"[]", b'"a"', b"null", b"3"])
def test_vector_object_of_another_shape(body: bytes) -> None:
    with pytest.raises(UnreadableError) as error:
        open_object(body)
    assert error.value.cause is Reason.WRONG_SHAPE


OWN = {"id": "v", "vector": [0.5], "connections": {}}
RELATION = {
    "sourceId": "s",
    "targetId": "t",
    "source": "s",
    "target": "t",
    "type": "likes",
    "verb": "likes",
    "weight": 2,
    "metadata": {"a": 1},
    "data": {"a": 1},
    "createdAt": {"seconds": 12, "nanoseconds": 345000000},
    "embedding": [0.5],
}


def test_split_verb() -> None:
    verb = build_verb("v", OWN, orjson.dumps(RELATION))
    assert (verb.source_id, verb.target_id, verb.type, verb.weight) == ("s", "t", "likes", 2.0)
    assert verb.metadata == b'{"a":1}'
    assert verb.attributes == b'{"createdAt":{"seconds":12,"nanoseconds":345000000}}'
    assert created_at(verb) == 12345


def test_verb_keeps_what_disagrees() -> None:
    odd = RELATION | {
        "data": 1,
        "embedding": [9],
        "weight": "0.5",
        "source": "z",
        "verb": "x",
        "confidence": 0.7,
    }
    verb = build_verb("v", OWN, orjson.dumps(odd))
    assert verb.weight is None
    assert json.loads(verb.attributes or b"") == {
        "createdAt": RELATION["createdAt"],
        "confidence": 0.7,
        "source": "z",
        "verb": "x",
        "data": 1,
        "embedding": [9],
        "weight": "0.5",
    }


def test_absent_and_null_metadata_of_a_verb_differ() -> None:
    ends = {"source": "s", "target": "t", "verb": "likes"}
    absent = build_verb("v", OWN | ends, None)
    assert (absent.source_id, absent.type, absent.metadata, absent.attributes) == ("s", "likes", None, None)
    assert build_verb("v", OWN | ends | {"metadata": None}, None).metadata == b"null"


def test_one_piece_verb_wins_over_verb_metadata_beside_it() -> None:
    verb = build_verb("v", OWN | {"sourceId": "new", "targetId": "t", "type": "owns"}, orjson.dumps(RELATION))
    assert (verb.source_id, verb.type, verb.weight) == ("new", "owns", None)


@pytest.mark.parametrize(
    ("relation", "expected", "beside"),
    [
        (None, Reason.VERB_WITHOUT_METADATA, False),
        (b"", Reason.EMPTY, True),
        (b"null", Reason.WRONG_SHAPE, True),
        (b"{", Reason.NOT_JSON, True),
        (b'{"sourceId":"s"}', Reason.MISSING_ENDS, False),
        (b'{"sourceId":"s","targetId":["t"]}', Reason.WRONG_SHAPE, False),
    ],
)
def test_no_verb(relation: bytes | None, expected: Reason, beside: bool) -> None:
    with pytest.raises(UnreadableError) as error:
        build_verb("v", OWN, relation)
    assert (error.value.cause, error.value.in_companion) == (expected, beside)


@pytest.mark.parametrize("stamp", [None, 5, {"seconds": "x"}, {"seconds": 1e400}, {}])
def test_no_creation_time(stamp: object) -> None:
    ends = {"source": "s", "target": "t", "createdAt": stamp}
    assert created_at(build_verb("v", OWN | ends, None)) is None


def test_dump_refuses_what_it_cannot_follow() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UnreadableError) as error:
        dump_json(value)
    assert error.value.cause is Reason.TOO_DEEP
    while value:
        value = value[0]  # type: ignore[assignment]
