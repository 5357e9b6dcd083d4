"""Segments: layout on disk, many row groups, refusals."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from brainy.bucket.items import Noun, Verb
from brainy.bucket.segments import (
    ROW_GROUP_ROWS,
    NounSegmentWriter,
    check_stored,
    read_nouns,
    read_verbs,
    stored_file,
    write_nouns,
    write_verbs,
)
from brainy.errors import CorruptDataError, InvalidRequestError, PreconditionError


def vector(*values: float) -> bytes:
    return np.array(values, dtype="<f4").tobytes()


def test_many_row_groups_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    total = 2 * ROW_GROUP_ROWS + 100
    nouns = [
        Noun(id=f"n{i}", vector=vector(i, 1) if i % 3 else vector(i), metadata=b'{"i":%d}' % i) for i in range(total)
    ]
    assert write_nouns(path, (nouns[i : i + 1000] for i in range(0, total, 1000)), dimensions=2) == total
    assert pq.ParquetFile(path).num_row_groups == 3
    batches = list(read_nouns(path))
    assert [len(batch) for batch in batches] == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 100]
    assert [noun for batch in batches for noun in batch] == nouns


def test_others_can_open_it(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    write_nouns(
        path,
        [
            [
                Noun(id="a", vector=vector(1, 2), metadata=b'{"x":1}'),
                Noun(id="b", vector=vector(3)),
                Noun(id="c"),
            ]
        ],
        dimensions=2,
    )
    table = pq.read_table(path).to_pylist()
    assert [row["vector"] for row in table] == [[1.0, 2.0], None, None]
    assert [row["other_vector"] for row in table] == [None, [3.0], None]
    assert table[0]["metadata"] == '{"x":1}'
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    assert column.compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in column.encodings


def test_absent_is_not_null_and_empty_segments_exist(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    nouns = [Noun(id="a", metadata=b"null"), Noun(id="b", metadata=None), Noun(id="c", raw_vector=b"[1,null]")]
    write_nouns(path, [nouns], dimensions=0)
    assert [noun for batch in read_nouns(path) for noun in batch] == nouns
    assert write_nouns(path, [], dimensions=8) == 0
    assert list(read_nouns(path)) == []


@pytest.mark.parametrize(
    ("noun", "reason"),
    [
        (Noun(id="bad\ud800"), "INVALID_ID"),
        (Noun(id="a", metadata=b"\xff"), "INVALID_METADATA"),
        (Noun(id="a", vector=b"123"), "INVALID_VECTOR"),
    ],
)
def test_what_parquet_cannot_carry_is_refused_by_name(tmp_path: Path, noun: Noun, reason: str) -> None:
    path = tmp_path / "s.parquet"
    with pytest.raises(InvalidRequestError) as caught:
        write_nouns(path, [[Noun(id="fine", vector=vector(1))], [noun]], dimensions=1)
    assert caught.value.reason == reason
    assert not path.exists()


def test_damage_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    write_verbs(path, [[Verb(id="v", source_id="a", target_id="b", type="t")]], dimensions=2)
    with pytest.raises(CorruptDataError):
        list(read_nouns(path))
    assert len(next(read_verbs(path))) == 1
    with pytest.raises(CorruptDataError):
        list(read_verbs(path.read_bytes()[:-10]))
    with pytest.raises(CorruptDataError):
        list(read_verbs(tmp_path / "missing.parquet"))
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata) | {b"brainy.format_version": b"2"}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(PreconditionError) as caught:
        list(read_verbs(path))
    assert caught.value.reason == "UNSUPPORTED_FORMAT"


def test_stored_file_and_its_check(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    with NounSegmentWriter(path, dimensions=1) as writer:
        writer.append([Noun(id="a", vector=vector(1))])
    described = stored_file(path, key="k", rows=writer.rows)
    body = path.read_bytes()
    assert (described.size, described.rows) == (len(body), 1)
    assert described.sha256 == hashlib.sha256(body).hexdigest()
    check_stored(body, described)
    for wrong in (body[:-1], body[:-1] + bytes([body[-1] ^ 1])):
        with pytest.raises(CorruptDataError):
            check_stored(wrong, described)
