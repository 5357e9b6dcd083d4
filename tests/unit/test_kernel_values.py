import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainy.bucket import layout
from brainy.bucket.digest import MultisetDigest, digest_of
from brainy.bucket.items import (
    Noun,
    Unindexed,
    Verb,
    check_id,
    noun_from_proto,
    noun_to_proto,
    unindexed_reason,
    verb_from_proto,
    verb_to_proto,
)
from brainy.bucket.namespace import Namespace
from brainy.bucket.partition import shard_of
from brainy.config.settings import Settings, load_settings
from brainy.errors import BrainyError, InvalidRequestError

numbers = st.integers(min_value=0, max_value=10**12)
ids = st.text(min_size=1, max_size=40).filter(lambda t: "\x00" not in t and t.encode("utf-8", "ignore").decode() == t)
maybe = st.none() | st.binary(max_size=20)
nouns = st.builds(Noun, id=ids, vector=st.binary(max_size=16), raw_vector=maybe, metadata=maybe, attributes=maybe)
verbs = st.builds(
    Verb,
    id=ids,
    source_id=ids,
    target_id=ids,
    type=ids,
    weight=st.none() | st.floats(allow_nan=False),
    vector=st.binary(max_size=16),
    metadata=maybe,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("shared-bucket/app-name/v2", "s3://shared-bucket/app-name/v2"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a//b/", "s3://bucket/a/b"),
        ("file:///data/x/", "file:///data/x"),
        ("memory://test", "memory://test"),
    ],
)
def test_namespaces_have_one_canonical_spelling(text, canonical):
    parsed = Namespace.parse(text)
    assert str(parsed) == canonical
    assert Namespace.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text", ["", "ab", "file://relative", "file:///a/../b", "ftp://x/y", "s3://Bad_Bucket", "bkt/../x"]
)
def test_a_bad_namespace_says_what_to_write(text):
    with pytest.raises(InvalidRequestError) as refused:
        Namespace.parse(text)
    assert refused.value.reason == "UNKNOWN_NAMESPACE"
    assert refused.value.remedy


@given(numbers, st.integers(0, 9999), numbers)
def test_keys_of_the_log_parse_back(generation, shard, position):
    assert layout.parse_log_slot(layout.log_slot(generation, shard, position)) == (generation, shard, position)
    assert layout.parse_generation(layout.spec(generation)) == generation


@given(st.lists(numbers, min_size=2, max_size=20))
def test_keys_sort_like_their_numbers(positions):
    keys = [layout.log_slot(1, 0, position) for position in positions]
    assert sorted(keys) == [layout.log_slot(1, 0, position) for position in sorted(positions)]


@given(nouns, verbs)
def test_items_survive_the_wire(noun, verb):
    assert noun_from_proto(noun_to_proto(noun)) == noun
    assert verb_from_proto(verb_to_proto(verb)) == verb


def test_every_field_counts_in_an_items_hash():
    base = Noun(id="a", vector=b"1234", metadata=b"{}")
    others = [
        Noun(id="b", vector=b"1234", metadata=b"{}"),
        Noun(id="a", vector=b"1235", metadata=b"{}"),
        Noun(id="a", vector=b"1234", metadata=b"null"),
        Noun(id="a", vector=b"1234"),
        Noun(id="a", vector=b"1234", metadata=b"{}", raw_vector=b""),
        Noun(id="a", vector=b"1234", attributes=b"{}"),
    ]
    assert len({base.digest(), *(other.digest() for other in others)}) == 1 + len(others)
    link = Verb(id="a", source_id="b", target_id="c", type="t")
    assert link.digest() != Verb(id="a", source_id="bc", target_id="", type="t").digest()
    assert link.digest() != Verb(id="a", source_id="b", target_id="c", type="t", weight=0.0).digest()


@given(st.lists(nouns, unique_by=lambda noun: noun.id, max_size=12), st.randoms())
def test_a_digest_forgets_order_and_partition_but_no_item(items, rng):
    pairs = [(noun.id, noun.digest()) for noun in items]
    whole = digest_of(pairs)
    rng.shuffle(pairs)
    parts = [digest_of(p for p in pairs if shard_of(p[0], 3) == shard) for shard in range(3)]
    merged = MultisetDigest()
    for part in parts:
        merged.merge(part)
    assert merged == whole
    assert MultisetDigest.decode(whole.encode()) == whole
    assert merged.fold() == whole.fold()
    if pairs:
        merged.remove(*pairs[0])
        assert len(merged.differing(whole)) == 1
        # The same item twice does not cancel itself, as it would with XOR.
        merged.add(*pairs[0])
        merged.add(*pairs[0])
        assert merged != whole


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, 2.0], None),
        ([], Unindexed.NO_VECTOR),
        ([1.0], Unindexed.DIMENSION),
        ([1.0, math.nan], Unindexed.NON_FINITE),
        ([math.inf, 0.0], Unindexed.NON_FINITE),
        ([0.0, 0.0], Unindexed.ZERO),
    ],
)
def test_why_a_vector_is_not_indexed(values, reason):
    vector = np.array(values, dtype="<f4").tobytes()
    assert unindexed_reason(vector, 2, "cos") is reason
    if reason is Unindexed.ZERO:
        assert unindexed_reason(vector, 2, "l2sq") is None


@pytest.mark.parametrize("bad", ["", "x" * 1025, "a\x00b"])
def test_bad_ids_are_refused(bad):
    with pytest.raises(InvalidRequestError) as refused:
        check_id(bad)
    assert refused.value.reason == "INVALID_ID"


def test_settings_come_from_file_environment_and_arguments_in_that_order(tmp_path):
    file = tmp_path / "brainy.toml"
    file.write_text('namespaces = ["s3://one"]\n[node]\nnode_id = "from-file"\nfold_records = 5\n')
    settings = load_settings(
        str(file),
        environment={"BRAINY_NODE__NODE_ID": "from-env", "BRAINY_NODE__COORDINATORS": "a:1,b:2", "PATH": "/"},
        overrides={"node.fold_records": 9, "node.listen": None},
    )
    assert settings.namespaces == ("s3://one",)
    assert settings.node.node_id == "from-env"
    assert settings.node.coordinators == ("a:1", "b:2")
    assert settings.node.fold_records == 9


@pytest.mark.parametrize("text", ["not toml", "[node]\nfold_records = 'many'\n", "[node]\nunknown = 1\n"])
def test_a_bad_configuration_file_is_named(tmp_path, text):
    file = tmp_path / "brainy.toml"
    file.write_text(text)
    with pytest.raises(InvalidRequestError) as refused:
        load_settings(str(file), environment={})
    assert str(file) in str(refused.value)


def test_the_example_configuration_shows_every_setting_with_its_default():
    example = Path(__file__).parents[2] / "deploy" / "brainy.example.toml"
    assert load_settings(str(example), environment={}) == Settings()
    shown = tomllib.loads(example.read_text(encoding="utf-8"))
    assert shown.keys() == Settings.model_fields.keys()
    for section in ("store", "embedding", "coordinator", "node"):
        assert shown[section].keys() == type(getattr(Settings(), section)).model_fields.keys()


def test_foreign_brainy_variables_are_left_alone():
    assert load_settings(environment={"BRAINY_ROLE": "writer", "BRAINY_DEBUG": "true"}).log_level == "debug"


def test_errors_say_what_where_and_what_to_do():
    error = BrainyError("it broke", remedy="mend it", shard=3)
    assert str(error) == "it broke shard=3 (mend it)"
    assert error.reason == "INTERNAL"
    assert error.data_safe
