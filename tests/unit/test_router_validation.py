"""What the door refuses, and that it names what is wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainy.api.common.v1.common_pb2 import Noun, Verb
from brainy.bucket.records import Spec
from brainy.errors import InvalidRequestError
from brainy_node.router import validation
from brainy_node.router.validation import (
    check_ids,
    check_k,
    check_nouns,
    check_verbs,
    compact_json,
    query_matrix,
)

COS = Spec(generation=0, dimensions=3, metric="cos", shard_count=2, source="empty")
L2 = Spec(generation=0, dimensions=3, metric="l2sq", shard_count=2, source="empty")
NEW = Spec(generation=0, dimensions=0, metric="cos", shard_count=2, source="empty")


def f4(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


GOOD = f4(1, 2, 3)


def noun(**fields: object) -> Noun:
    return Noun(**{"id": "n", "vector": GOOD} | fields)  # type: ignore[arg-type]


def verb(**fields: object) -> Verb:
    return Verb(**{"id": "v", "source_id": "a", "target_id": "b", "type": "knows"} | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [0, 10_001, 4_000_000_000])
def test_k_out_of_range(k: int) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_k(k, 1)
    assert caught.value.reason == "INVALID_K"
    assert caught.value.fields["k"] == str(k)


def test_k_in_range_and_the_size_of_the_answer() -> None:
    check_k(1, 1)
    check_k(10_000, 100)
    with pytest.raises(InvalidRequestError) as caught:
        check_k(10_000, 101)
    assert caught.value.reason == "BATCH_TOO_LARGE"


def test_ids_name_the_index() -> None:
    check_ids(["a", "ü" * 512], 2)
    for bad in ("", "x" * 1025, "a\x00b"):
        with pytest.raises(InvalidRequestError) as caught:
            check_ids(["fine", bad], 10)
        assert caught.value.reason == "INVALID_ID"
        assert caught.value.fields["index"] == "1"
    with pytest.raises(InvalidRequestError) as caught:
        check_ids(["a", "b", "c"], 2)
    assert caught.value.reason == "BATCH_TOO_LARGE"


def test_a_query_matrix_is_a_view_of_the_request() -> None:
    body = f4(1, 0, 0, 0, 1, 0)
    matrix = query_matrix(body, 3, COS)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert matrix.base is not None
    assert not matrix.flags.writeable


@pytest.mark.parametrize(
    ("body", "dimensions", "spec", "reason"),
    [
        (f4(1, 2), 2, COS, "INVALID_DIMENSION"),
        (f4(1, 2, 3), 0, COS, "INVALID_DIMENSION"),
        (f4(1, 2, 3, 4), 3, COS, "INVALID_DIMENSION"),
        (GOOD + b"x", 3, COS, "INVALID_DIMENSION"),
        (b"", 3, COS, "INVALID_DIMENSION"),
        (f4(1, 2, 3, 0, 0, 0), 3, COS, "INVALID_VECTOR"),
        (f4(1, 2, 3, 1, float("nan"), 0), 3, L2, "INVALID_VECTOR"),
        (f4(1, 2, 3, 1, float("-inf"), 0), 3, L2, "INVALID_VECTOR"),
    ],
)
def test_wrong_queries(body: bytes, dimensions: int, spec: Spec, reason: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        query_matrix(body, dimensions, spec)
    assert caught.value.reason == reason
    if reason == "INVALID_VECTOR":
        assert caught.value.fields["index"] == "1"


def test_a_wrong_dimension_names_both() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        query_matrix(f4(1, 2), 2, COS)
    assert (caught.value.fields["dimensions"], caught.value.fields["namespace_dimensions"]) == ("2", "3")
    assert "2" in caught.value.message
    assert "3" in caught.value.message


def test_zero_is_a_fine_query_where_the_metric_has_no_direction() -> None:
    assert len(query_matrix(f4(0, 0, 0), 3, L2)) == 1


def test_any_dimension_may_query_a_namespace_that_has_none_yet() -> None:
    assert query_matrix(f4(1, 2), 2, NEW).shape == (1, 2)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (noun(id=""), "INVALID_ID"),
        (noun(id="x" * 2000), "INVALID_ID"),
        (noun(vector=b""), "INVALID_VECTOR"),
        (noun(vector=f4(1, 2)), "INVALID_DIMENSION"),
        (noun(vector=GOOD[:-1]), "INVALID_DIMENSION"),
        (noun(vector=f4(1, float("nan"), 1)), "INVALID_VECTOR"),
        (noun(vector=f4(1, float("inf"), 1)), "INVALID_VECTOR"),
        (noun(vector=f4(0, 0, 0)), "INVALID_VECTOR"),
        (noun(raw_vector=b"[null]"), "INVALID_VECTOR"),
        (noun(metadata=b"{"), "INVALID_METADATA"),
        (noun(metadata=b""), "INVALID_METADATA"),
        (noun(metadata=b"NaN"), "INVALID_METADATA"),
        (noun(metadata=b'"\xff"'), "INVALID_METADATA"),
        (noun(metadata=b'"' + b"x" * (1 << 20) + b'"'), "INVALID_METADATA"),
        (noun(attributes=b"[1]"), "INVALID_METADATA"),
    ],
)
def test_one_bad_noun_refuses_all_and_is_named_by_index(bad: Noun, reason: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_nouns([noun(), noun(id="m"), bad, noun()], COS, 10)
    assert caught.value.reason == reason
    assert caught.value.fields["index"] == "2"
    assert "nothing was written" in caught.value.remedy


def test_nouns_are_stored_with_compact_metadata_in_the_order_of_keys() -> None:
    stored, dimensions = check_nouns([noun(metadata=b'{ "b": 1,\n "a": [1.50, null] }'), noun()], COS, 10)
    assert dimensions == 3
    assert stored[0].metadata == b'{"b":1,"a":[1.5,null]}'
    assert not stored[1].HasField("metadata")
    assert stored[0].vector == GOOD


def test_null_metadata_is_not_absent_metadata() -> None:
    stored, _ = check_nouns([noun(metadata=b" null ")], COS, 10)
    assert stored[0].HasField("metadata")
    assert stored[0].metadata == b"null"


def test_the_first_noun_decides_the_dimensions_of_a_new_namespace() -> None:
    _, dimensions = check_nouns([noun(vector=f4(1, 2)), noun(vector=f4(3, 4))], NEW, 10)
    assert dimensions == 2
    with pytest.raises(InvalidRequestError) as caught:
        check_nouns([noun(vector=f4(1, 2)), noun(vector=GOOD)], NEW, 10)
    assert caught.value.reason == "INVALID_DIMENSION"
    assert caught.value.fields["index"] == "1"
    assert check_nouns([], NEW, 10) == ([], 0)


def test_too_many_or_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_nouns([noun(), noun()], COS, 1)
    assert caught.value.reason == "BATCH_TOO_LARGE"
    monkeypatch.setattr(validation, "MAX_WRITE_BYTES", 20)
    with pytest.raises(InvalidRequestError) as caught:
        check_nouns([noun(), noun()], COS, 10)
    assert caught.value.reason == "BATCH_TOO_LARGE"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (verb(id=""), "INVALID_ID"),
        (verb(source_id=""), "INVALID_ID"),
        (verb(target_id="a\x00"), "INVALID_ID"),
        (verb(type=""), "INVALID_ARGUMENT"),
        (verb(weight=float("nan")), "INVALID_ARGUMENT"),
        (verb(vector=f4(1, 2)), "INVALID_DIMENSION"),
        (verb(vector=f4(1, 2, float("nan"))), "INVALID_VECTOR"),
        (verb(raw_vector=b"[]"), "INVALID_VECTOR"),
        (verb(metadata=b"nope"), "INVALID_METADATA"),
    ],
)
def test_one_bad_verb_refuses_all(bad: Verb, reason: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_verbs([verb(), bad], COS, 10)
    assert caught.value.reason == reason
    assert caught.value.fields["index"] == "1"


def test_verbs_keep_what_they_have() -> None:
    plain, full = check_verbs(
        [verb(), verb(weight=0.5, vector=GOOD, metadata=b"{ }", attributes=b'{"createdAt": 1}')], COS, 10
    )
    assert not plain.HasField("weight")
    assert (full.weight, full.vector, full.metadata, full.attributes) == (0.5, GOOD, b"{}", b'{"createdAt":1}')


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None, max_examples=50)
@given(value=json_values, indent=st.sampled_from([None, 2]))
def test_compacting_keeps_value_and_order_and_is_idempotent(value: object, indent: int | None) -> None:
    import json

    text = json.dumps(value, indent=indent)
    compact = compact_json(text.encode())
    assert json.dumps(json.loads(compact)) == json.dumps(value)
    assert compact_json(compact) == compact
