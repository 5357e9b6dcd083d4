"""What of a source could not be read into a generation: the key, why, and the bytes as they were.

``quarantine/<shard>/<name>.parquet`` is one immutable file for each shard, named and hashed by the shard's manifest.
Up to ``MAX_KEPT_BYTES`` of an object are kept, and up to ``MAX_SHARD_BYTES`` for a shard; beyond that the row says
only what it was, and the object of the source remains the one copy. ``quarantine/<shard>/<name>.json`` is the older
form, which listed keys without bytes.

``cluster/quarantine/replayed.json`` says which of them were mended and written again, in whatever generation: a row
never vanishes from the list because it was dealt with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from brainy.bucket.records import Record
from brainy.errors import CorruptDataError, PreconditionError

FORMAT_VERSION: Final = 1
#: Bytes of one source object that are kept.
MAX_KEPT_BYTES: Final = 8 << 20
#: Bytes kept for one shard.
MAX_SHARD_BYTES: Final = 256 << 20
SUFFIX: Final = ".parquet"

_VERSION_KEY: Final = b"brainy.format_version"
_KIND_KEY: Final = b"brainy.kind"
_KIND: Final = b"quarantine"
_GROUP_ROWS: Final = 1024
_GROUP_BYTES: Final = 16 << 20
_LISTED: Final = ("key", "reason", "size", "sha256")
_SCHEMA: Final = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("body", pa.binary()),
        pa.field("beside_key", pa.string()),
        pa.field("beside", pa.binary()),
    ],
    metadata={_VERSION_KEY: str(FORMAT_VERSION).encode(), _KIND_KEY: _KIND},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An object of the source that is not an item, and what is kept of it."""

    #: Its key in the source, without the namespace's prefix.
    key: str
    #: A value of ``brainy.legacy.batch.Reason``.
    reason: str
    #: Bytes it had.
    size: int
    #: SHA-256 of those bytes in hex; None where they were not read.
    sha256: str | None = None
    #: The bytes; None where they are not kept.
    body: bytes | None = None
    #: The object that belongs to it (a noun's metadata, a verb's relation), if there was one.
    beside_key: str | None = None
    beside: bytes | None = None

    @property
    def kept_bytes(self) -> int:
        """Bytes this row holds."""
        return len(self.body or b"") + len(self.beside or b"")


class QuarantinedObject(BaseModel):
    """A row of the older form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    reason: str
    size: int


class QuarantineList(Record):
    """The older form: all rows of one shard, without bytes."""

    generation: int
    shard: int
    objects: tuple[QuarantinedObject, ...] = ()


class ReplayedObject(BaseModel):
    """One that was written again after it had been mended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    #: As they were when it was listed.
    reason: str
    size: int
    #: noun or verb, and its id.
    kind: str
    id: str
    #: SHA-256 in hex of the mended bytes.
    sha256: str
    #: Generation that took the write.
    generation: int
    #: ISO 8601, by the clock of whoever replayed it.
    at: str


class ReplayedList(Record):
    """``cluster/quarantine/replayed.json``; only ever grows."""

    nonce: str
    objects: dict[str, ReplayedObject] = Field(default_factory=dict)


class QuarantineWriter:
    """Streams rows into one file; memory is bounded by a row group. A ``with`` left by an exception removes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._pending: list[Kept] = []
        self._bytes = 0
        self._writer = pq.ParquetWriter(path, _SCHEMA, compression="zstd", use_dictionary=["reason"])

    def add(self, row: Kept) -> None:
        """Add a row after those already there."""
        self._pending.append(row)
        self._bytes += row.kept_bytes
        if len(self._pending) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            columns = [
                pa.array([getattr(row, field.name) for row in self._pending], type=field.type) for field in _SCHEMA
            ]
            self._writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))
            self.rows += len(self._pending)
            self._pending, self._bytes = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._writer.close()
            if kind is not None:
                self.path.unlink(missing_ok=True)


def write_quarantine(path: Path, rows: Iterable[Kept]) -> int:
    """Write one file; returns its rows."""
    with QuarantineWriter(path) as writer:
        for row in rows:
            writer.add(row)
    return writer.rows


def read_quarantine(body: bytes | Path, *, key: str, with_bytes: bool = True) -> Iterator[Kept]:
    """Yield the rows of a file of either form; check its SHA-256 first.

    Args:
        body: the object, or a local copy of it.
        key: its key, which tells the form.
        with_bytes: whether ``body`` and ``beside`` are read.

    Raises:
        CorruptDataError: not such a file.
        PreconditionError: written in a newer format (UNSUPPORTED_FORMAT).
    """
    if not key.endswith(SUFFIX):
        listed = QuarantineList.decode(body.read_bytes() if isinstance(body, Path) else body, key=key)
        yield from (Kept(key=entry.key, reason=entry.reason, size=entry.size) for entry in listed.objects)
        return
    try:
        with pq.ParquetFile(pa.BufferReader(body) if isinstance(body, bytes) else body) as file:
            _check_schema(file.schema_arrow.metadata or {}, key)
            names: Sequence[str] = _SCHEMA.names if with_bytes else _LISTED
            for batch in file.iter_batches(batch_size=_GROUP_ROWS, columns=list(names)):
                for row in batch.to_pylist():
                    yield Kept(**row)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(
            "not a readable quarantine",
            remedy="restore the object from a copy; the objects of the source are not touched",
            key=key,
            cause=error,
        ) from error


def _check_schema(metadata: dict[bytes, bytes], key: str) -> None:
    version = int(metadata.get(_VERSION_KEY, b"0"))
    if version > FORMAT_VERSION:
        raise PreconditionError(
            "this quarantine was written by a newer version of the software",
            reason="UNSUPPORTED_FORMAT",
            remedy="upgrade this process; nothing was changed",
            key=key,
            format_version=version,
        )
    if version < 1 or metadata.get(_KIND_KEY) != _KIND:
        raise CorruptDataError("not a quarantine", remedy="restore the object from a copy", key=key)
