"""Brainy's JSON: what is written comes back exactly, and the real Brainy finds what it looks for."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainy.backup.document import OURS, encode_noun, encode_verb, with_type
from brainy.backup.document_reading import check_document
from brainy.backup.document_writing import Written, write_document
from brainy.backup.elements import our_noun, our_verb, parse_element
from brainy.backup.held import as_held
from brainy.backup.opening import check_backup
from brainy.backup.scanning import Scanner
from brainy.bucket.digest import digest_of
from brainy.bucket.items import Noun, Verb
from brainy.dataset.base import ItemBatch
from brainy.errors import BrainyError, CorruptDataError, InvalidRequestError, NotFoundError
from brainy.legacy.batch import Reason
from brainy.legacy.values import dump_json


def floats(*values: float) -> bytes:
    return np.array(values, dtype="<f4").tobytes()


async def batches(nouns: Iterable[Noun], verbs: Iterable[Verb] = ()) -> AsyncIterator[ItemBatch]:
    yield ItemBatch(nouns=list(nouns))
    yield ItemBatch(verbs=list(verbs))


def names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def items_of(backup: Any) -> tuple[dict[str, Noun], dict[str, Verb]]:
    nouns: dict[str, Noun] = {}
    verbs: dict[str, Verb] = {}
    for batch in backup.items():
        nouns.update((noun.id, noun) for noun in batch.nouns)
        verbs.update((verb.id, verb) for verb in batch.verbs)
    return nouns, verbs


#: One of everything that is awkward.
NOUNS = [
    Noun(id="plain", vector=floats(0.1, -2.5), metadata=b'{"noun":"person","n":1.0}', attributes=b'{"level":2}'),
    Noun(id="absent"),
    Noun(id="null", vector=floats(0, 0), metadata=b"null"),
    Noun(id="raw", vector=floats(float("nan"), 1), raw_vector=b"[null,1.5]", metadata=b"[1,2]"),
    Noun(id="raw text", vector=floats(float("nan"), 1), raw_vector=b'[ "x", 1.50 ]', metadata=b'"text"'),
    Noun(id="bare nan", vector=floats(float("nan"), float("inf"))),
    Noun(id="spaced", vector=floats(1, 2), metadata=b'{ "a" : 1.50 }', attributes=b'{ "b" : 1e2 }'),
    Noun(id="surrogate", vector=floats(1, 2), metadata=b'{"l":"\\ud800"}'),
    Noun(id="ünï/çødé ６.json", vector=floats(1e-38, 3e38), metadata=b'{"big":123456789012345678901234567890}'),
    Noun(id="long", vector=floats(*range(7))),
    Noun(id="clash", vector=floats(1, 2), attributes=b'{"brainyCluster":1,"id":"other","metadata":{"a":1}}'),
]
VERBS = [
    Verb(id="plain", source_id="a", target_id="b", type="likes", weight=0.5, metadata=b'{"since":2001}'),
    Verb(id="bare", source_id="a", target_id="b", type="likes"),
    Verb(id="null", source_id="a", target_id="b", type="likes", metadata=b"null"),
    Verb(id="own verb", source_id="a", target_id="b", type="likes", metadata=b'{"verb":"hates","x":1}'),
    Verb(id="same verb", source_id="a", target_id="b", type="likes", metadata=b'{"x":1,"verb":"likes"}'),
    Verb(id="text", source_id="a", target_id="b", type="likes", metadata=b'"words"', vector=floats(1, 2)),
    Verb(id="no type", source_id="a", target_id="b", type="", metadata=b"{}"),
    Verb(id="spaced", source_id="a", target_id="b", type="t", metadata=b'{ "a":1 }', attributes=b'{ "c": 1 }'),
    Verb(id="empty attributes", source_id="a", target_id="b", type="t", attributes=b"{}"),
    Verb(
        id="attributes",
        source_id="a",
        target_id="b",
        type="t",
        weight=-1.0,
        attributes=b'{"createdAt":{"seconds":1,"nanoseconds":2},"createdBy":{"augmentation":"x"}}',
    ),
    Verb(id="clash", source_id="a", target_id="b", type="t", metadata=b"2", attributes=b'{"data":1,"verb":"other"}'),
    Verb(id="data only", source_id="a", target_id="b", type="t", attributes=b'{"data":{"k":1},"weight":"heavy"}'),
    Verb(id="surrogates", source_id="a", target_id="b", type="t", attributes=b'{"\\ud800":1,"x":"\\udfff"}'),
    Verb(id="raw", source_id="a", target_id="b", type="t", vector=floats(float("nan")), raw_vector=b"[null]"),
]


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.id)
def test_a_noun_comes_back_exactly(noun: Noun) -> None:
    element = orjson.loads(encode_noun(noun)) if noun.id != "surrogate" else parse_element(encode_noun(noun))
    assert {"id", "vector", "metadata"} <= element.keys() <= {"id", "vector", "metadata", OURS}
    assert our_noun(element) == noun


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.id)
def test_a_verb_comes_back_exactly_and_brainy_finds_its_type(verb: Verb) -> None:
    element = parse_element(encode_verb(verb))
    assert our_verb(element) == verb
    # What Brainy's restore reads: the ends, and the type from the metadata alone.
    assert (element["sourceId"], element["targetId"]) == (verb.source_id, verb.target_id)
    assert element["metadata"]["verb"] == verb.type
    if verb.metadata is not None and verb.id != "spaced":
        assert dump_json(element["data"]) == verb.metadata


def test_the_type_goes_into_the_metadata_without_disturbing_the_rest() -> None:
    assert with_type(None, "t") == b'{"verb":"t"}'
    assert with_type(b"null", "t") == b'{"verb":"t"}'
    assert with_type(b'{"b":1,"a":2}', "t") == b'{"b":1,"a":2,"verb":"t"}'
    assert with_type(b'{"verb":"t","a":2}', "t") == b'{"verb":"t","a":2}'
    assert with_type(b'{"verb":"u","a":2}', "t") == b'{"verb":"t","a":2}'
    assert with_type(b"[1]", "t") == b'{"verb":"t","metadata":[1]}'


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["verb", "data", "metadata", "id", "type", OURS, "createdAt", "x"])
DOCUMENTS = st.none() | JSON.map(dump_json) | st.dictionaries(NAMES, JSON, max_size=4).map(dump_json)
VECTORS = st.lists(st.floats(width=32), max_size=4).map(lambda values: floats(*values))


@given(metadata=DOCUMENTS, attributes=st.dictionaries(NAMES, JSON, max_size=3), vector=VECTORS)
@settings(max_examples=150, deadline=None)
def test_any_item_comes_back_exactly(metadata: bytes | None, attributes: dict[str, Any], vector: bytes) -> None:
    held = dump_json(attributes) if attributes else None
    noun = Noun(id="n", vector=vector, metadata=metadata, attributes=held)
    assert our_noun(parse_element(encode_noun(noun))) == noun
    verb = Verb(id="v", source_id="s", target_id="t", type="k", vector=vector, metadata=metadata, attributes=held)
    assert our_verb(parse_element(encode_verb(verb))) == verb


async def written(path: Path, nouns: Iterable[Noun] = NOUNS, verbs: Iterable[Verb] = VERBS) -> Written:
    return await write_document(path, batches(nouns, verbs))


async def test_a_file_of_ours_holds_everything_and_proves_it(tmp_path: Path) -> None:
    path = tmp_path / "backup.json"
    done = await written(path)
    assert names_in(tmp_path) == ["backup.json"]
    backup = check_backup(path)
    nouns, verbs = items_of(backup)
    assert nouns == {noun.id: noun for noun in NOUNS}
    assert verbs == {verb.id: verb for verb in VERBS}
    found = backup.verification
    assert (found.nouns, found.verbs, found.sealed, found.dimensions) == (len(NOUNS), len(VERBS), True, 2)
    state = digest_of([(item.id, item.digest()) for item in NOUNS] + [(item.id, item.digest()) for item in VERBS])
    assert done.digest == found.digest == state.fold()
    assert found.dangling_verbs == len(VERBS)
    assert any("several lengths" in warning for warning in found.warnings)


async def test_doubles_stay_in_the_text_and_not_in_the_digest(tmp_path: Path) -> None:
    noun = Noun(id="n", vector=floats(0.12345678901234567), raw_vector=b"[0.12345678901234567]")
    plain = Noun(id="n", vector=floats(0.12345678901234567))
    assert as_held(noun) == plain
    await written(tmp_path / "doubles.json", [noun], [])
    assert b'"vector":[0.12345678901234567]' in (tmp_path / "doubles.json").read_bytes()
    backup = check_document(tmp_path / "doubles.json")
    nouns, _ = items_of(backup)
    assert nouns["n"] == plain


async def test_python_values_are_checked_like_a_file(tmp_path: Path) -> None:
    await written(tmp_path / "b.json")
    values = json.loads((tmp_path / "b.json").read_bytes())
    assert check_backup(values).verification.nouns == len(NOUNS)
    values["nouns"][3]["metadata"] = {"altered": True}
    with pytest.raises(CorruptDataError):
        check_backup(values)
    del values["nouns"][3]
    with pytest.raises(CorruptDataError):
        check_backup(values)


async def test_a_rewritten_file_is_taken_only_when_told_so(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    await written(path)
    values = json.loads(path.read_bytes())
    path.write_text(json.dumps(values, indent=2))
    with pytest.raises(CorruptDataError, match="accept-rewritten"):
        check_backup(path)
    assert check_backup(path, accept_rewritten=True).verification.sealed
    values["verbs"][0]["weight"] = 0.25
    path.write_text(json.dumps(values, indent=2))
    with pytest.raises(CorruptDataError):
        check_backup(path, accept_rewritten=True)


REAL = ["v0.10.0", "v0.20.0", "v0.30.0", "v0.36.0", "v0.36.0-native512", "v0.46.0", "v0.48.1", "v0.57.0", "v1.1.1"]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("kind", ["backup", "backup_unclamped"])
def test_backups_of_the_real_brainy(recorded_buckets: Path, tmp_path: Path, name: str, kind: str) -> None:
    body = gzip.decompress((recorded_buckets / name / f"{kind}.json.gz").read_bytes())
    path = tmp_path / "real.json"
    path.write_bytes(body)
    theirs = json.loads(body)
    backup = check_backup(path)
    nouns, verbs = items_of(backup)
    found = backup.verification
    verb_ids = {verb["id"] for verb in theirs["verbs"]}
    pseudo = {noun["id"] for noun in theirs["nouns"] if noun["id"] in verb_ids and noun["metadata"] is None}
    assert {entry.id for entry in found.skipped if entry.reason == Reason.VERB_STORED_AS_NOUN} == pseudo
    assert nouns.keys() == {noun["id"] for noun in theirs["nouns"]} - pseudo
    assert verbs.keys() == verb_ids
    assert len(found.skipped) == len(pseudo)
    assert not found.sealed
    assert any("no hashes" in warning for warning in found.warnings)
    for noun in theirs["nouns"]:
        if noun["id"] not in pseudo:
            mine = nouns[noun["id"]]
            np.testing.assert_array_equal(
                np.frombuffer(mine.vector, "<f4"), np.array(noun["vector"], dtype=np.float64).astype("<f4")
            )
            assert (None if mine.metadata is None else json.loads(mine.metadata)) == noun["metadata"]
    for verb in theirs["verbs"]:
        one = verbs[verb["id"]]
        assert (one.source_id, one.target_id) == (verb["sourceId"], verb["targetId"])
        assert one.type == (verb.get("type") or verb.get("verb"))
        assert one.weight == verb.get("weight")
    if not nouns and verbs:
        assert any("loses all nouns" in warning for warning in found.warnings)


def brainys(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "nouns": [{"id": "a", "vector": [1, 2], "metadata": None}, {"id": "b", "vector": [1, None], "metadata": {}}],
        "verbs": [{"id": "v", "vector": [1, 2], "sourceId": "a", "targetId": "b", "verb": "likes", "weight": 1}],
        "nounTypes": [],
        "verbTypes": [],
        "hnswIndex": {"connections": {"a": {"0": []}}},
        "version": "1.0.0",
    }
    return {**whole, **changes}


def test_what_is_no_item_is_named_and_left_out() -> None:
    good = {"id": "z", "vector": [3, 4]}
    nouns = [{"id": "a", "vector": [1, 2]}, {"vector": [1]}, {"id": "x"}, {"id": "y", "vector": "no"}, 7, good]
    nouns += [{"id": "a", "vector": [5, 6]}, {"id": "\ud800", "vector": [1, 2]}, {"id": "e", "vector": []}]
    backup = check_backup(brainys(nouns=nouns, verbs=[{"id": "v", "vector": None, "type": "t"}, []]))
    found, verbs = items_of(backup)
    assert found.keys() == {"a", "z"}
    assert found["a"].vector == floats(5, 6)
    assert not verbs
    assert [(entry.kind, entry.id, entry.reason) for entry in backup.verification.skipped] == [
        ("noun", "#1", "missing-id"),
        ("noun", "x", "missing-vector"),
        ("noun", "y", "wrong-shape"),
        ("noun", "#4", "wrong-shape"),
        ("noun", "a", "duplicate-id"),
        ("noun", "\\ud800", "invalid-id"),
        ("noun", "e", "missing-vector"),
        ("verb", "v", "missing-ends"),
        ("verb", "#1", "wrong-shape"),
    ]
    assert backup.verification.nouns == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b"{}",
        b"null",
        b'{"nouns":[],"verbs":[]}',
        b'{"nouns":[],"verbs":[],"version":""}',
        b'{"nouns":{},"verbs":[],"version":"1"}',
        b'{"nouns":[],"nouns":[],"verbs":[],"version":"1"}',
        b'{"nouns":[{}{}],"verbs":[],"version":"1"}',
        b'{"nouns":[{},],"verbs":[],"version":"1"}',
        b'{"nouns":[],"verbs":[],"version":"1"} x',
        b'{"nouns":[],"verbs":[],"version":"1"',
        b'{"nouns":["',
        b"<html></html>",
        b"\x1f\x8b\x08\x00",
        b"PK\x03\x04 and so on",
        b"\xff\xfe\x00",
        b'{"nouns":[' + b"[" * 100_000,
    ],
)
def test_what_is_no_backup_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(body)
    with pytest.raises(BrainyError):
        check_backup(path)


def test_a_missing_file_and_other_shapes_of_values() -> None:
    with pytest.raises(NotFoundError):
        check_backup(Path("/no/such/file"))
    for values in ({}, brainys(nouns=None), brainys(version=""), brainys(verbs={})):
        with pytest.raises(InvalidRequestError):
            check_backup(values)


def test_the_scanner_finds_values_wherever_json_allows_them() -> None:
    body = b' { "a" : [ 1 , "]}\\"" , {"x":[{}]} , null,-1.5e3 ] , "b":"\\\\" }  '
    scanner = Scanner(body)
    found: dict[bytes, Any] = {}
    for key in scanner.members():
        found[key] = list(scanner.elements()) if key == b'"a"' else scanner.value()
    scanner.end()
    assert found == {b'"a"': [b"1", b'"]}\\""', b'{"x":[{}]}', b"null", b"-1.5e3"], b'"b"': b'"\\\\"'}


async def test_a_failed_backup_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "backup.json"
    path.write_bytes(b"former")

    async def failing() -> AsyncIterator[ItemBatch]:
        yield ItemBatch(nouns=[Noun(id="a")])
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        await write_document(path, failing())
    assert names_in(tmp_path) == ["backup.json"]
    assert path.read_bytes() == b"former"
