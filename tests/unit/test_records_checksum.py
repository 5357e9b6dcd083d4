"""Every flipped bit of a record is noticed."""

from __future__ import annotations

import pytest

from brainy.bucket.items import check_id
from brainy.bucket.records import Manifest
from brainy.errors import CorruptDataError, InvalidRequestError, PreconditionError

MANIFEST = Manifest(
    generation=1, shard=0, epoch=1, nonce="n", position=16, noun_count=1, verb_count=0, indexed_count=1, digest="d"
)


def test_no_flipped_bit_of_a_record_is_believed():
    body = MANIFEST.encode()
    assert Manifest.decode(body, key="k") == MANIFEST
    for at in range(len(body)):
        for bit in range(8):
            bad = body[:at] + bytes([body[at] ^ (1 << bit)]) + body[at + 1 :]
            with pytest.raises((CorruptDataError, PreconditionError)):
                Manifest.decode(bad, key="k")


def test_a_record_mended_by_hand_needs_no_checksum():
    first, checksum, rest = MANIFEST.encode().split(b"\n", 2)
    assert b"checksum" in checksum
    mended = first + b"\n" + rest.replace(b'"position": 16', b'"position": 15')
    assert Manifest.decode(mended, key="k").position == 15


def test_an_id_with_a_lone_surrogate_is_refused():
    with pytest.raises(InvalidRequestError):
        check_id("a\ud800")
    check_id("a\U0001f680")
