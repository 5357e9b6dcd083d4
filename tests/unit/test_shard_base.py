"""Local bases: what is written is what is read, and nothing altered is opened."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from brainy.bucket.items import Noun, Verb
from brainy.bucket.records import Spec
from brainy.errors import CorruptDataError, PreconditionError
from brainy_node.shard import base_record
from brainy_node.shard.base import Base
from brainy_node.shard.columns import BATCH_ROWS, HashLookup
from brainy_node.shard.writer import BaseWriter

SPEC = Spec(generation=1, dimensions=3, shard_count=1, source="empty")
FILES = (
    base_record.NOUNS,
    base_record.VERBS,
    base_record.VECTORS,
    base_record.LENGTHS,
    base_record.NOUN_IDS,
    base_record.NOUN_HASHES,
    base_record.VERB_IDS,
    base_record.VERB_SOURCES,
    base_record.VERB_TARGETS,
    base_record.VERB_HASHES,
    base_record.INDEX,
    base_record.DIGEST,
    base_record.QUARANTINED,
)


def vector(*values: float) -> bytes:
    return np.asarray(values, "<f4").tobytes()


NOUNS = [
    Noun(id="plain", vector=vector(1, 2, 3), metadata=b'{"noun":"person"}', attributes=b'{"x":1}'),
    Noun(id="none", metadata=b"null"),
    Noun(id="zero", vector=vector(0, 0, 0)),
    Noun(id="long", vector=vector(1, 2, 3, 4)),
    Noun(id="nan", vector=vector(1, float("nan"), 3), raw_vector=b"[1,null,3]", metadata=b""),
    Noun(id="späße/\u0001", vector=vector(3, 2, 1), metadata=b'{"deleted":true}'),
]
VERBS = [
    Verb(id="v1", source_id="plain", target_id="none", type="likes", weight=0.1, vector=vector(1), metadata=b"{}"),
    Verb(id="v2", source_id="plain", target_id="zero", type="owns", weight=None, raw_vector=b"[null]"),
    Verb(id="v3", source_id="x", target_id="none", type="", weight=float("nan"), attributes=b"{}"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("bases") / "base"
    with BaseWriter(path, spec=SPEC, shard=0) as writer:
        writer.add_nouns(NOUNS)
        writer.add_verbs(VERBS)
        writer.add_quarantined("nouns/bad.json", "not-json", 7)
        writer.finish(position=12, source_cursor={3: 4}, threads=1)
    return path


def test_a_base_returns_what_was_written(directory):
    base = Base.open(directory)
    assert (base.position, base.source_cursor, base.rows, base.verb_rows) == (12, {3: 4}, 6, 3)
    assert [base.noun(row) for row in range(6)] == NOUNS
    assert base.noun(4, include_vectors=False) == Noun(id="nan", metadata=b"")
    assert [base.noun_hash(row) for row in range(6)] == [noun.digest() for noun in NOUNS]
    assert [base.verb(row) for row in range(2)] == VERBS[:2]
    assert base.verb(2).digest() == VERBS[2].digest()
    assert [base.row_of(noun.id) for noun in NOUNS] == list(range(6))
    assert base.rows_of(["zero", "absent", "plain", "zero"]) == [2, -1, 0, 2]
    assert (base.row_of("absent"), base.verb_row_of("v3"), base.verb_row_of("plain")) == (None, 2, None)
    assert dict(base.unindexed(np.zeros(6, bool))) == {
        "none": "no-vector",
        "zero": "zero",
        "long": "dimension",
        "nan": "non-finite",
    }
    assert base.index is not None
    assert (base.index.size, base.soft_deleted.tolist()) == (2, [False] * 5 + [True])
    assert [(entry.key, entry.reason, entry.size) for entry in base.quarantined()] == [
        ("nouns/bad.json", "not-json", 7)
    ]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_an_altered_base_is_refused_and_the_file_named(directory, tmp_path, name, damage):
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    path = copy / name
    body = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        body[len(body) // 2] ^= 4
        path.write_bytes(body if damage == "flipped" else body[:-1])
    with pytest.raises(CorruptDataError) as raised:
        Base.open(copy)
    assert raised.value.fields["file"] == name
    assert raised.value.remedy


def test_every_file_of_a_base_is_hashed(directory):
    record = base_record.BaseRecord.read(directory)
    assert set(record.files) == set(FILES)
    assert {path.name for path in directory.iterdir()} == {*FILES, base_record.NAME}


@pytest.mark.parametrize(("old", "new"), [(b'"position": 12', b'"position": 13'), (b'"shard": 0', b'"shard": 1')])
def test_an_altered_description_is_refused(directory, tmp_path, old, new):
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    path = copy / base_record.NAME
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(CorruptDataError) as raised:
        Base.open(copy, verify=False)
    assert raised.value.fields["key"] == str(path)


def test_an_unfinished_base_and_a_newer_one_are_refused(directory, tmp_path):
    with pytest.raises(CorruptDataError):
        Base.open(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    path = copy / base_record.NAME
    path.write_bytes(path.read_bytes().replace(b'"format_version": 1', b'"format_version": 2', 1))
    with pytest.raises(PreconditionError) as raised:
        Base.open(copy)
    assert raised.value.reason == "UNSUPPORTED_FORMAT"


def test_a_base_of_several_batches_finds_every_row(tmp_path):
    count = BATCH_ROWS + 1000
    nouns = [Noun(id=f"n{i}", vector=vector(i, 1, 0), metadata=b"%d" % i) for i in range(count)]
    verbs = [Verb(id=f"v{i}", source_id=f"n{i % 7}", target_id="t", type="ab"[i % 2]) for i in range(count)]
    with BaseWriter(tmp_path / "base", spec=SPEC, shard=0) as writer:
        for start in range(0, count, 999):
            writer.add_nouns(nouns[start : start + 999])
            writer.add_verbs(verbs[start : start + 999])
        assert (writer.noun_count, writer.verb_count) == (count, count)
        writer.finish(position=0, threads=2)
    base = Base.open(tmp_path / "base")
    for row in (0, 1, BATCH_ROWS - 1, BATCH_ROWS, count - 1):
        assert base.noun(row) == nouns[row]
        assert base.verb(row) == verbs[row]
    assert base.rows_of([noun.id for noun in nouns]) == list(range(count))
    fives = [row for part in base.verb_rows_matching("n5", None, "a") for row in part]
    assert fives == [i for i in range(count) if i % 7 == 5 and i % 2 == 0]
    assert sum(len(part) for part in base.verb_rows_matching(None, "t", None)) == count
    assert [row for part in base.verb_rows_matching(None, None, "b") for row in part] == list(range(1, count, 2))


def test_an_id_twice_is_an_error_of_the_source(tmp_path):
    with BaseWriter(tmp_path / "base", spec=SPEC, shard=0) as writer:
        writer.add_nouns([Noun(id="a"), Noun(id="b"), Noun(id="a")])
        with pytest.raises(CorruptDataError) as raised:
            writer.finish(position=0)
    assert raised.value.fields["id"] == "a"
    assert not (tmp_path / "base" / base_record.NAME).exists()


def test_equal_hashes_keep_all_their_rows():
    hashes = np.array([5, 9, 5, 2, 5], np.uint64)
    lookup = HashLookup(HashLookup.table(hashes))
    assert (lookup.rows(5), lookup.rows(2), lookup.rows(7), lookup.rows(2**64 - 1)) == ([0, 2, 4], [3], [], [])
    first, last = lookup.spans(np.array([9, 5, 1], np.uint64))
    assert [[lookup.row_at(place) for place in range(a, b)] for a, b in zip(first, last, strict=True)] == [
        [1],
        [0, 2, 4],
        [],
    ]
