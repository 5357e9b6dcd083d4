"""The frame of change-log objects."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from brainy.api.common.v1 import common_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.changelog.batch import (
    MAX_SLOT_RECORDS,
    Draft,
    decode_batch,
    decode_slot,
    encode_batch,
    encode_record,
    is_copy,
)
from brainy.errors import CorruptDataError, InvalidRequestError, PreconditionError

KEY = layout.log_slot(2, 3, 7)


def batch(**changes: object) -> log_pb2.LogBatch:
    message = log_pb2.LogBatch(
        format_version=1,
        generation=2,
        shard=3,
        epoch=5,
        first_position=7,
        writer=log_pb2.Writer(node_id="n", incarnation="i", nonce=b"0" * 16),
        records=[
            log_pb2.LogRecord(request_id="r", upsert_noun=common_pb2.Noun(id="a", vector=b"\0" * 8)),
            log_pb2.LogRecord(delete_verb="v"),
        ],
        source_cursor={0: 4, 1: 9},
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_round_trip() -> None:
    body = encode_batch(batch())
    slot = decode_slot(body, key=KEY)
    assert slot.batch == batch()
    assert (slot.first, slot.last, slot.epoch) == (7, 8, 5)
    assert slot.body is body


def test_every_flipped_bit_and_every_truncation_is_found() -> None:
    body = encode_batch(batch())
    for index in range(len(body)):
        damaged = bytearray(body)
        damaged[index] ^= 1 << (index % 8)
        with pytest.raises(CorruptDataError):
            decode_batch(bytes(damaged), key=KEY)
        with pytest.raises(CorruptDataError):
            decode_batch(body[:index], key=KEY)


@pytest.mark.parametrize(
    "key", [layout.log_slot(2, 3, 8), layout.log_slot(1, 3, 7), layout.log_slot(2, 0, 7), "cluster/x"]
)
def test_an_object_under_another_key_is_found(key: str) -> None:
    with pytest.raises(CorruptDataError, match="key"):
        decode_batch(encode_batch(batch()), key=key)


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(PreconditionError) as caught:
        decode_batch(encode_batch(batch(format_version=2)), key=KEY)
    assert caught.value.reason == "UNSUPPORTED_FORMAT"


def test_a_record_without_operation_is_corrupt() -> None:
    message = batch()
    message.records.append(log_pb2.LogRecord(request_id="empty"))
    with pytest.raises(CorruptDataError, match="exactly one operation"):
        decode_batch(encode_batch(message), key=KEY)


def test_size_limits() -> None:
    empty = batch()
    del empty.records[:]
    with pytest.raises(InvalidRequestError):
        encode_batch(empty)
    large = batch()
    large.records.extend([log_pb2.LogRecord(delete_noun="x")] * MAX_SLOT_RECORDS)
    with pytest.raises(InvalidRequestError) as caught:
        encode_batch(large)
    assert caught.value.reason == "BATCH_TOO_LARGE"


def assert_as_protobuf_itself(
    records: list[log_pb2.LogRecord], cursor: dict[int, int], source_generation: int | None = None
) -> None:
    header = batch()
    del header.records[:]
    header.source_cursor.clear()
    draft = Draft(header, [encode_record(record) for record in records], cursor, source_generation)
    whole = batch()
    del whole.records[:]
    whole.source_cursor.clear()
    whole.records.extend(records)
    whole.source_cursor.update(cursor)
    if source_generation is not None:
        whole.source_generation = source_generation
    assert draft.body == encode_batch(whole)
    assert draft.body[40:] == whole.SerializeToString(deterministic=True)
    assert (draft.first, draft.nonce) == (7, b"0" * 16)
    assert draft.slot() == decode_slot(draft.body, key=KEY)
    assert draft.slot().batch == whole


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 129, 16_383, 16_384, 2**21 - 1, 2**21, 2**21 + 1])
def test_a_draft_is_what_protobuf_makes_of_the_batch_at_every_length(size: int) -> None:
    # Sizes around those at which the length of a record takes one byte more.
    for spare in range(12):
        record = log_pb2.LogRecord(delete_noun="x" * max(0, size - spare))
        assert_as_protobuf_itself([record, log_pb2.LogRecord(request_id="r", delete_verb="v")], {})


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_records = st.builds(
    log_pb2.LogRecord,
    request_id=_texts,
    written_at=st.builds(Timestamp, seconds=st.integers(0, 2**33), nanos=st.integers(0, 10**9 - 1)),
    upsert_noun=st.builds(
        common_pb2.Noun, id=_texts.filter(bool), vector=st.binary(max_size=300), metadata=st.binary(max_size=90)
    ),
    foreign_version=_texts,
)


@given(
    records=st.lists(_records, min_size=1, max_size=8),
    cursor=st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), max_size=6),
    source_generation=st.none() | st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_a_draft_is_what_protobuf_makes_of_any_batch(
    records: list[log_pb2.LogRecord], cursor: dict[int, int], source_generation: int | None
) -> None:
    assert_as_protobuf_itself(records, cursor, source_generation)


def test_a_draft_has_between_one_and_the_maximum_of_records() -> None:
    for records in ([], [b"\x3a\x00"] * (MAX_SLOT_RECORDS + 1)):
        with pytest.raises(InvalidRequestError):
            Draft(log_pb2.LogBatch(), records)


@pytest.mark.parametrize(
    ("generation", "cursor", "tag", "copied"),
    [(1, {0: 4}, None, True), (1, {0: 4}, 0, True), (0, {0: 4}, 1, False), (1, {0: 4}, 2, False), (1, {}, None, False)],
)
def test_what_was_followed_back_is_no_copy(
    generation: int, cursor: dict[int, int], tag: int | None, copied: bool
) -> None:
    assert is_copy(log_pb2.LogBatch(generation=generation, source_cursor=cursor, source_generation=tag)) is copied
