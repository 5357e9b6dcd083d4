"""The frame of a change-log object, and the object as a value.

    8 bytes   magic "BRNYLOG1"
    32 bytes  SHA-256 of the payload
    n bytes   payload: brainy.api.storage.v1.LogBatch

A flipped or missing byte anywhere is found before a record is used: in the magic, in the hash, or by the hash.
The batch repeats what its key says (generation, shard, first position), so an object copied to a wrong key is
found too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import invariants, layout
from brainy.errors import CorruptDataError, InvalidRequestError, PreconditionError

MAGIC: Final = b"BRNYLOG1"
FORMAT_VERSION: Final = 1
#: Records in one object at most. Bounds how far back the object that holds a position can begin.
MAX_SLOT_RECORDS: Final = 65_536

_HASH_BYTES: Final = 32
_HEADER_BYTES: Final = len(MAGIC) + _HASH_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One object of a shard's change log: the batch, and the bytes exactly as they are stored."""

    batch: log_pb2.LogBatch
    body: bytes

    @property
    def first(self) -> int:
        """Position of the first record."""
        return self.batch.first_position

    @property
    def last(self) -> int:
        """Position of the last record."""
        return self.batch.first_position + len(self.batch.records) - 1

    @property
    def epoch(self) -> int:
        """Epoch of the ownership it was written under."""
        return self.batch.epoch


def encode_batch(batch: log_pb2.LogBatch) -> bytes:
    """Return the bytes of a change-log object.

    Raises:
        InvalidRequestError: no records, or more than ``MAX_SLOT_RECORDS``.
    """
    if not 1 <= len(batch.records) <= MAX_SLOT_RECORDS:
        raise InvalidRequestError(
            "a change-log object holds between one and the maximum of records",
            reason="BATCH_TOO_LARGE" if batch.records else "INVALID_ARGUMENT",
            remedy="split the request; nothing was written",
            records=len(batch.records),
            maximum=MAX_SLOT_RECORDS,
        )
    payload = batch.SerializeToString()
    return b"".join((MAGIC, hashlib.sha256(payload).digest(), payload))


def decode_batch(body: bytes, *, key: str) -> log_pb2.LogBatch:
    """Check and parse a change-log object.

    Args:
        body: the object as stored.
        key: where it was read from; must agree with what the batch says of itself.

    Raises:
        CorruptDataError: magic, hash, protobuf, key or an invariant of log batches does not hold.
        PreconditionError: written in a newer format (UNSUPPORTED_FORMAT).
    """
    view = memoryview(body)
    if not body.startswith(MAGIC):
        raise _corrupt("a change-log object does not begin with its magic", key)
    payload = view[_HEADER_BYTES:]
    if hashlib.sha256(payload).digest() != view[len(MAGIC) : _HEADER_BYTES]:
        raise _corrupt("the hash of a change-log object does not match its payload", key)
    batch = log_pb2.LogBatch()
    try:
        batch.ParseFromString(bytes(payload))
    except DecodeError as error:
        raise _corrupt("a change-log object is not a batch", key) from error
    if batch.format_version > FORMAT_VERSION:
        raise PreconditionError(
            "this change-log object was written by a newer version of the software",
            reason="UNSUPPORTED_FORMAT",
            remedy="upgrade this process; nothing was changed",
            key=key,
            format_version=batch.format_version,
        )
    invariants.check_batch(batch, key=key)
    if layout.parse_log_slot(key) != (batch.generation, batch.shard, batch.first_position):
        raise _corrupt("a change-log object lies under a key that is not its own", key)
    return batch


def decode_slot(body: bytes, *, key: str) -> Slot:
    """Check and parse a change-log object, keeping its bytes. Errors as ``decode_batch``."""
    return Slot(batch=decode_batch(body, key=key), body=body)


def _corrupt(message: str, key: str) -> CorruptDataError:
    return CorruptDataError(
        message, remedy="restore the object from a copy; nothing was read from it", data_safe=False, key=key
    )
