"""Whatever a row holds, it becomes an item that can be written, or it is refused with a reason."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brainy.api.common.v1 import common_pb2
from brainy.errors import BrainyError, InvalidRequestError
from brainy.sdk.sparse import ParsedData, Row, open_sparse
from brainy.sdk.sparse_rows import Prepared, RowReader

NAMES = st.sampled_from(
    ["id", "metadata", "vector", "text", "sourceId", "targetId", "source", "target", "type", "verb", "weight", "name"]
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=5)
)
REASONS = ("INVALID_ARGUMENT", "INVALID_ID", "INVALID_VECTOR", "INVALID_METADATA", "NO_TEXT")
ROWS = VALUES | st.dictionaries(NAMES, VALUES, max_size=8)


def read(
    reader: Callable[[Row], Prepared[common_pb2.Noun] | Prepared[common_pb2.Verb]], value: object
) -> Prepared[common_pb2.Noun] | Prepared[common_pb2.Verb] | InvalidRequestError:
    try:
        return reader(Row(1, value))
    except InvalidRequestError as error:
        return error


@settings(max_examples=150, deadline=None)
@given(ROWS)
@example({"sourceId": "a", "targetId": "b", "weight": 10**400})
@example({"id": "a", "vector": [10**400]})
@example({"id": "a", "metadata": {"text": "x", "n": 10**400}})
def test_a_row_is_an_item_or_refused(value: object) -> None:
    rows = RowReader()
    for prepared in (read(rows.noun, value), read(rows.verb, value)):
        if isinstance(prepared, InvalidRequestError):
            assert prepared.reason in REASONS
            assert prepared.message
            continue
        assert prepared.item.id
        assert prepared.item.SerializeToString()
        if isinstance(prepared.item, common_pb2.Noun):
            assert bool(prepared.text.strip()) is not bool(prepared.item.vector)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.just("metadata"), st.text(min_size=1, max_size=3)), max_size=8))
def test_made_ids_are_those_of_the_rows_in_any_order(values: list[dict[str, str]]) -> None:
    def ids(rows: list[dict[str, str]]) -> list[str]:
        reader = RowReader()
        found = [read(reader.noun, value) for value in rows]
        return [one.item.id for one in found if not isinstance(one, InvalidRequestError)]

    first = ids(values)
    assert len(set(first)) == len(first)
    assert sorted(first) == sorted(ids(values[::-1]))


def _lines(rows: Sequence[object]) -> bytes:
    return b"\n".join(orjson.dumps(row) for row in rows if _json(row))


@settings(max_examples=80, deadline=None)
@given(
    st.binary(max_size=60)
    | st.lists(ROWS, max_size=4).map(_lines)
    | VALUES.filter(lambda value: _json(value)).map(orjson.dumps),
    st.sampled_from([".json", ".jsonl"]),
)
def test_a_file_is_read_to_its_end_or_refused(body: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"data{suffix}"
        path.write_bytes(body)
        try:
            data = open_sparse(path)
        except BrainyError:
            return
        rows = [*data.nouns(), *data.verbs()]
        assert len(rows) == data.count() or not isinstance(data, ParsedData)
        reader = RowReader()
        assert all(read(reader.noun, row.value) for row in rows)


def _json(value: object) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True
