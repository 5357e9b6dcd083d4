"""The frame of a change-log object, and the object as a value.

    8 bytes   magic "BRNYLOG1"
    32 bytes  SHA-256 of the payload
    n bytes   payload: brainy.api.storage.v1.LogBatch

A flipped or missing byte anywhere is found before a record is used: in the magic, in the hash, or by the hash.
The batch repeats what its key says (generation, shard, first position), so an object copied to a wrong key is
found too.

An owner encodes a record once, when it is queued (``encode_record``), and joins what it has encoded (``Draft``): every
writer that waits pays for what lies between two PUTs. Protobuf writes the fields of a message in the order of their
numbers, and an embedded message behind its tag and its length. So the payload is, byte for byte, what protobuf makes of
the whole batch: fields 1 to 6, field 7 (``records``) once a record, field 8 (``source_cursor``) in the order of keys,
field 9 (``source_generation``).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
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
#: Field ``records`` of a LogBatch, length-delimited.
_RECORD_TAG: Final = bytes([log_pb2.LogBatch.RECORDS_FIELD_NUMBER << 3 | 2])


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
    _check_count(len(batch.records))
    return _framed(batch.SerializeToString(deterministic=True))


def encode_record(record: log_pb2.LogRecord) -> bytes:
    """Return a record as it stands in the payload of a batch, behind its tag and its length."""
    return record.SerializeToString()


class Draft:
    """A batch on its way to the store: the object's bytes, and the batch once somebody asks for it.

    The bytes are what the PUT waits for; the batch is read from them while it is under way.
    """

    __slots__ = ("_batch", "_count", "body", "first", "nonce")

    def __init__(
        self,
        header: log_pb2.LogBatch,
        encoded: Sequence[bytes],
        source_cursor: Mapping[int, int] | None = None,
        source_generation: int | None = None,
    ) -> None:
        """Join a batch.

        Args:
            header: the batch without records and without a cursor; not kept.
            encoded: its records, each as ``encode_record`` made it.
            source_cursor: source shard -> position.
            source_generation: the generation of these positions.

        Raises:
            InvalidRequestError: no records, or more than ``MAX_SLOT_RECORDS``.
        """
        _check_count(len(encoded))
        # The hash goes over the pieces, so that they are copied only once.
        pieces = [header.SerializeToString()]
        digest = hashlib.sha256(pieces[0])
        hash_over = digest.update
        for record in encoded:
            head = _record_head(len(record))
            hash_over(head)
            hash_over(record)
            pieces += (head, record)
        if source_cursor or source_generation is not None:
            cursor = log_pb2.LogBatch(source_cursor=source_cursor, source_generation=source_generation)
            pieces.append(cursor.SerializeToString(deterministic=True))
            hash_over(pieces[-1])
        self.body: bytes = b"".join((MAGIC, digest.digest(), *pieces))
        #: Position of the first record.
        self.first: int = header.first_position
        #: The nonce of this batch.
        self.nonce: bytes = header.writer.nonce
        self._count = len(encoded)
        self._batch: log_pb2.LogBatch | None = None

    def slot(self) -> Slot:
        """Return the object as a value; reads the batch unless it was read before."""
        if self._batch is None:
            self._batch = log_pb2.LogBatch.FromString(self.body[_HEADER_BYTES:])
            # Whoever encoded the records answers for what they are, not for how many.
            assert len(self._batch.records) == self._count
        return Slot(batch=self._batch, body=self.body)


def is_copy(batch: log_pb2.LogBatch) -> bool:
    """Whether a batch holds what was copied from the generation this one was made of: it is in that one's log too.

    What was followed back from a newer generation is not: nobody reads that one's log for this one.
    """
    return bool(batch.source_cursor) and batch.source_generation <= batch.generation


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


@functools.lru_cache(maxsize=4_096)
def _record_head(size: int) -> bytes:
    head = bytearray(_RECORD_TAG)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


def _framed(payload: bytes) -> bytes:
    return b"".join((MAGIC, hashlib.sha256(payload).digest(), payload))


def _check_count(records: int) -> None:
    if not 1 <= records <= MAX_SLOT_RECORDS:
        raise InvalidRequestError(
            "a change-log object holds between one and the maximum of records",
            reason="BATCH_TOO_LARGE" if records else "INVALID_ARGUMENT",
            remedy="split the request; nothing was written",
            records=records,
            maximum=MAX_SLOT_RECORDS,
        )


def _corrupt(message: str, key: str) -> CorruptDataError:
    return CorruptDataError(
        message, remedy="restore the object from a copy; nothing was read from it", data_safe=False, key=key
    )
