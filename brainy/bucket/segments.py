"""Parquet segments: packed nouns and verbs that DuckDB, pandas and pyarrow open as they are.

One row is one item. A vector of the generation's length lies in ``vector`` (a fixed-size list, byte-stream
split and zstd: about an eighth of Brainy's JSON), any other length in ``other_vector``; a null in both is an
item without a vector. Rows keep the order they were appended in, so a row number names an item.

What is written comes back bit for bit, NaN payloads included. Text columns are UTF-8: ids with lone surrogates
and documents that are not UTF-8 are refused (``InvalidRequestError``), never escaped; whoever reads a foreign
source quarantines such objects first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Generic, Self, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brainy.bucket.items import Noun, Verb
from brainy.bucket.records import StoredFile
from brainy.errors import CorruptDataError, InvalidRequestError, PreconditionError

FORMAT_VERSION: Final = 1
ROW_GROUP_ROWS: Final = 8192

_VERSION_KEY: Final = b"brainy.format_version"
_KIND_KEY: Final = b"brainy.kind"
_DIMENSIONS_KEY: Final = b"brainy.dimensions"
_VECTOR_LEAVES: Final = ("vector.list.element", "other_vector.list.element")
_DOCUMENTS: Final = ("raw_vector", "metadata", "attributes")

I = TypeVar("I", Noun, Verb)  # noqa: E741 - an item
#: A local file, or the bytes of one (``pa.Buffer`` too, such as a part of a mapped file).
Source: TypeAlias = Path | bytes | pa.Buffer
Item: TypeAlias = Noun | Verb


def noun_schema(dimensions: int) -> pa.Schema:
    """Return the columns of a noun segment. A generation of 0 dimensions has no ``vector`` column."""
    return pa.schema(
        [pa.field("id", pa.string(), nullable=False), *_shared_fields(dimensions)],
        metadata=_schema_metadata("nouns", dimensions),
    )


def verb_schema(dimensions: int) -> pa.Schema:
    """Return the columns of a verb segment."""
    ends = [pa.field(name, pa.string(), nullable=False) for name in ("id", "source_id", "target_id", "type")]
    return pa.schema(
        [*ends, pa.field("weight", pa.float64()), *_shared_fields(dimensions)],
        metadata=_schema_metadata("verbs", dimensions),
    )


def _shared_fields(dimensions: int) -> list[pa.Field]:
    fixed = [pa.field("vector", pa.list_(pa.float32(), dimensions))] if dimensions else []
    other = pa.field("other_vector", pa.list_(pa.float32()))
    return [*fixed, other, *(pa.field(name, pa.string()) for name in _DOCUMENTS)]


def _schema_metadata(kind: str, dimensions: int) -> dict[bytes, bytes]:
    return {
        _VERSION_KEY: str(FORMAT_VERSION).encode(),
        _KIND_KEY: kind.encode(),
        _DIMENSIONS_KEY: str(dimensions).encode(),
    }


class _SegmentWriter(Generic[I]):
    """Streams items into one Parquet file, a row group at a time.

    Memory is bounded by one row group. The file is complete only after ``close`` (or a clean ``with``); a
    ``with`` left by an exception removes it.
    """

    def __init__(self, path: Path, schema: pa.Schema, dimensions: int) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        self._dimensions = dimensions
        self._pending: list[I] = []
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=["type"] if "type" in schema.names else False,
            use_byte_stream_split=[leaf for leaf in _VECTOR_LEAVES if leaf.split(".")[0] in schema.names],
            # Statistics of random vectors and of documents say nothing and cost space.
            write_statistics=[name for name in ("id", "source_id", "target_id", "type") if name in schema.names],
        )

    def append(self, items: Sequence[I]) -> None:
        """Add items after those already there.

        Raises:
            InvalidRequestError: text that is not UTF-8, or a vector that is not whole float32 values; names the
                item. Nothing more may be written to this segment.
        """
        self._pending.extend(items)
        while len(self._pending) >= ROW_GROUP_ROWS:
            self._write(self._pending[:ROW_GROUP_ROWS])
            del self._pending[:ROW_GROUP_ROWS]

    def close(self) -> int:
        """Finish the file; returns its number of rows. Errors as ``append``; then there is no file."""
        try:
            if self._pending:
                self._write(self._pending)
                self._pending = []
        except BaseException:
            self.abandon()
            raise
        self._writer.close()
        return self.rows

    def abandon(self) -> None:
        """Remove the unfinished file."""
        self._writer.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _columns(self, items: Sequence[I]) -> list[pa.Array]:
        raise NotImplementedError

    def _write(self, items: Sequence[I]) -> None:
        columns = [
            *self._columns(items),
            *_vector_columns(items, self._dimensions),
            *(_text(items, [getattr(item, name) for item in items], name) for name in _DOCUMENTS),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=len(items))
        self.rows += len(items)


class NounSegmentWriter(_SegmentWriter[Noun]):
    """Writes one noun segment."""

    def __init__(self, path: Path, *, dimensions: int) -> None:
        """Create the file at ``path``; ``dimensions`` 0 puts every vector into ``other_vector``."""
        super().__init__(path, noun_schema(dimensions), dimensions)

    def _columns(self, items: Sequence[Noun]) -> list[pa.Array]:
        return [_text(items, [item.id for item in items], "id")]


class VerbSegmentWriter(_SegmentWriter[Verb]):
    """Writes one verb segment."""

    def __init__(self, path: Path, *, dimensions: int) -> None:
        """Create the file at ``path``."""
        super().__init__(path, verb_schema(dimensions), dimensions)

    def _columns(self, items: Sequence[Verb]) -> list[pa.Array]:
        names = ("id", "source_id", "target_id", "type")
        texts = [_text(items, [getattr(item, name) for item in items], name) for name in names]
        return [*texts, pa.array([item.weight for item in items], type=pa.float64(), from_pandas=False)]


def write_nouns(path: Path, batches: Iterable[Sequence[Noun]], *, dimensions: int) -> int:
    """Write a noun segment; returns its rows. Errors as ``append``."""
    with NounSegmentWriter(path, dimensions=dimensions) as writer:
        for batch in batches:
            writer.append(batch)
    return writer.rows


def write_verbs(path: Path, batches: Iterable[Sequence[Verb]], *, dimensions: int) -> int:
    """Write a verb segment; returns its rows. Errors as ``append``."""
    with VerbSegmentWriter(path, dimensions=dimensions) as writer:
        for batch in batches:
            writer.append(batch)
    return writer.rows


def read_nouns(source: Source, *, batch_rows: int = ROW_GROUP_ROWS) -> Iterator[list[Noun]]:
    """Yield the nouns of a segment in row order, ``batch_rows`` at a time.

    Args:
        source: a local file or the bytes of one; check its SHA-256 first.
        batch_rows: bound of each list.

    Raises:
        CorruptDataError: not a noun segment.
        PreconditionError: written in a newer format (UNSUPPORTED_FORMAT).
    """
    return _read(source, "nouns", batch_rows, _nouns)


def read_verbs(source: Source, *, batch_rows: int = ROW_GROUP_ROWS) -> Iterator[list[Verb]]:
    """Yield the verbs of a segment in row order. Arguments and errors as ``read_nouns``."""
    return _read(source, "verbs", batch_rows, _verbs)


def stored_file(path: Path, *, key: str, rows: int = 0) -> StoredFile:
    """Describe a finished local file as the object it will become: size and SHA-256 of its bytes."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        size = file.tell()
    return StoredFile(key=key, size=size, sha256=digest.hexdigest(), rows=rows)


def check_stored(body: bytes, expected: StoredFile) -> None:
    """Compare an object with what its manifest says of it.

    Raises:
        CorruptDataError: other size or SHA-256.
    """
    if len(body) != expected.size or hashlib.sha256(body).hexdigest() != expected.sha256:
        raise CorruptDataError(
            "an object does not hash to what its manifest says",
            remedy="restore the object from a copy; nothing was read from it",
            data_safe=False,
            key=expected.key,
            size=len(body),
            expected_size=expected.size,
        )


# --- columns from items --------------------------------------------------------------------------------------


def _text(items: Sequence[Item], values: Sequence[str | bytes | None], column: str) -> pa.Array:
    try:
        return pa.array(values, type=pa.string())
    except (pa.ArrowInvalid, UnicodeEncodeError) as error:
        wrong = next(item for item, value in zip(items, values, strict=True) if not _is_utf8(value))
        raise InvalidRequestError(
            "text that is not UTF-8 cannot be stored",
            reason="INVALID_METADATA" if column in _DOCUMENTS else "INVALID_ID",
            remedy="quarantine the object; nothing was written of it",
            id=repr(wrong.id[:64]),
            column=column,
        ) from error


def _is_utf8(value: str | bytes | None) -> bool:
    try:
        if isinstance(value, bytes):
            value.decode()
        elif value is not None:
            value.encode()
    except UnicodeError:
        return False
    return True


def _vector_columns(items: Sequence[Item], dimensions: int) -> list[pa.Array]:
    width = 4 * dimensions
    odd = next((item for item in items if len(item.vector) % 4), None)
    if odd is not None:
        raise InvalidRequestError(
            "a vector is not a whole number of float32 values",
            reason="INVALID_VECTOR",
            remedy="correct the item; nothing was written of it",
            id=odd.id[:64],
            bytes=len(odd.vector),
        )
    others = [item.vector if item.vector and len(item.vector) != width else None for item in items]
    columns = [_list_column(others)]
    if dimensions:
        absent = b"\0" * width
        present = [len(item.vector) == width for item in items]
        body = b"".join(item.vector if there else absent for item, there in zip(items, present, strict=True))
        values = pa.array(np.frombuffer(body, dtype="<f4"))
        mask = pa.array(np.logical_not(np.array(present, dtype=bool)))
        columns.insert(0, pa.FixedSizeListArray.from_arrays(values, dimensions, mask=mask))
    return columns


def _list_column(vectors: Sequence[bytes | None]) -> pa.Array:
    lengths = np.array([0 if vector is None else len(vector) // 4 for vector in vectors], dtype=np.int32)
    offsets = np.zeros(len(vectors) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    values = pa.array(np.frombuffer(b"".join(vector or b"" for vector in vectors), dtype="<f4"))
    mask = pa.array([vector is None for vector in vectors], type=pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=mask)


# --- items from columns --------------------------------------------------------------------------------------


def _read(
    source: Source, kind: str, batch_rows: int, convert: Callable[[pa.RecordBatch], list[I]]
) -> Iterator[list[I]]:
    try:
        opened = source if isinstance(source, Path) else pa.BufferReader(source)
        with pq.ParquetFile(opened) as file:
            metadata = file.schema_arrow.metadata or {}
            version = int(metadata.get(_VERSION_KEY, b"0"))
            if version > FORMAT_VERSION:
                raise PreconditionError(
                    "this segment was written by a newer version of the software",
                    reason="UNSUPPORTED_FORMAT",
                    remedy="upgrade this process; nothing was changed",
                    format_version=version,
                )
            if version < 1 or metadata.get(_KIND_KEY) != kind.encode():
                raise CorruptDataError(
                    "not a segment of this kind",
                    remedy="restore the object from a copy; nothing was read from it",
                    expected=kind,
                )
            for batch in file.iter_batches(batch_size=batch_rows):
                yield convert(batch)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise CorruptDataError(
            "not a readable segment",
            remedy="restore the object from a copy; nothing was read from it",
            cause=error,
        ) from error


def _nouns(batch: pa.RecordBatch) -> list[Noun]:
    rows = zip(batch.column("id").to_pylist(), _vectors(batch), *_documents(batch), strict=True)
    return [
        Noun(id=item_id, vector=vector, raw_vector=raw, metadata=metadata, attributes=attributes)
        for item_id, vector, raw, metadata, attributes in rows
    ]


def _verbs(batch: pa.RecordBatch) -> list[Verb]:
    names = ("id", "source_id", "target_id", "type", "weight")
    ends = [batch.column(name).to_pylist() for name in names]
    return [
        Verb(
            id=item_id,
            source_id=source_id,
            target_id=target_id,
            type=kind,
            weight=weight,
            vector=vector,
            raw_vector=raw,
            metadata=metadata,
            attributes=attributes,
        )
        for item_id, source_id, target_id, kind, weight, vector, raw, metadata, attributes in zip(
            *ends, _vectors(batch), *_documents(batch), strict=True
        )
    ]


def _documents(batch: pa.RecordBatch) -> list[list[bytes | None]]:
    return [batch.column(name).cast(pa.binary()).to_pylist() for name in _DOCUMENTS]


def _vectors(batch: pa.RecordBatch) -> list[bytes]:
    result = [b""] * batch.num_rows
    if "vector" in batch.schema.names:
        column = batch.column("vector")
        width = 4 * column.type.list_size
        # flatten() leaves null lists out, so the values of the rows that have a vector lie side by side.
        body = column.flatten().to_numpy(zero_copy_only=False).tobytes()
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        for place, row in enumerate(rows.tolist()):
            result[row] = body[place * width : (place + 1) * width]
    column = batch.column("other_vector")
    if column.null_count < len(column):
        for row in np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).tolist():
            result[row] = column[row].values.to_numpy(zero_copy_only=False).tobytes()
    return result
