"""Whatever lies in a bucket, an inspection ends, prints, and leaves no object without an account of it."""

from __future__ import annotations

import io
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from brainy.cli.census_view import show
from brainy.legacy.census import Inspection
from brainy.legacy.inspection import inspect
from brainy.store.memory import MemoryStore

_IDS = st.sampled_from(["a", "b", "person/a", "x.json", "ü", "with space", "__metadata_index__x_chunk0", "k" * 300])
_FOLDERS = st.sampled_from(
    [
        "nouns/",
        "metadata/",
        "verbs/",
        "verb-metadata/",
        "noun-metadata/",
        "entities/nouns/vectors/",
        "entities/nouns/metadata/",
        "entities/verbs/vectors/",
        "entities/verbs/metadata/",
        "default/",
        "place/",
        "nouns/person/",
        "nodes/",
        "nodes/person/",
        "edges/",
        "cluster/",
        "stuff/",
        "",
    ]
)
_KEYS = st.one_of(
    st.builds(lambda folder, name: f"{folder}{name}.json", _FOLDERS, _IDS),
    st.builds("change-log/{:013d}-{}.json".format, st.integers(0, 10**15), st.sampled_from(["a", "b", "c"])),
    st.sampled_from(
        [
            "change-log/readme.txt",
            "index/statistics.json",
            "index/statistics_20260101.json",
            "_system/statistics_99999999.json",
            "locks/statistics-flush",
            "locks/other",
            "metadata/_distributed_config.json",
            "entities/nouns/metadata/_distributed_config.json",
            "nouns/",
            "nouns/folder/",
        ]
    ),
)
_TEXT = st.sampled_from(["a", "b", "", "\ud800", "ü", "noun", "add", "delete", "[/red]", "x" * 2000])
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1.5, 10**30, 10**400, 1e308, float("inf"), float("nan")])
    | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=6,
)
_FIELDS = (
    *("id", "vector", "connections", "metadata", "noun", "createdBy", "deleted", "deletedAt", "sourceId", "targetId"),
    *("type", "verb", "weight", "timestamp", "operation", "entityType", "entityId", "data", "instanceId"),
    *("nounCount", "verbCount", "hnswIndexSize", "lastUpdated", "version", "updated", "instances", "augmentation"),
)
_OBJECTS = st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=7)
_GOOD = st.builds(
    lambda name, vector, more: {"id": name, "vector": vector} | more,
    _IDS,
    st.lists(st.sampled_from([0, 1, 0.1, None]), max_size=3),
    st.sampled_from([{}, {"sourceId": "a", "targetId": "b", "type": "likes"}, {"level": 1}]),
)
_BODIES = st.one_of(
    st.one_of(_GOOD, _OBJECTS, _VALUES).map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"", b" ", b"{", b"\xff\xfe", b"\xef\xbb\xbf{}", b"null", b"[" * 5000, b"1_0.5_7", b"9" * 400]),
    st.binary(max_size=30),
)


async def inspected(objects: dict[str, bytes], marks: dict[str, str]) -> Inspection:
    store = MemoryStore()
    for key, body in objects.items():
        await store.put(key, body, user_metadata=marks)
    return await inspect(store)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.dictionaries(_KEYS, _BODIES, max_size=12),
    st.sampled_from([{}, {"expires-at": "x"}, {"expires-at": "9" * 15}, {"expires-at": "1795330493713"}]),
)
async def test_any_bucket_can_be_inspected(objects: dict[str, bytes], marks: dict[str, str]) -> None:
    found = await inspected(objects, marks)

    told = json.loads(found.model_dump_json())
    assert told["objects"] == len(objects) == sum(row["objects"] for row in told["prefixes"].values())
    assert told["bytes"] == sum(map(len, objects.values()))
    assert all(count >= 0 for count in (found.deleted_nouns, found.dangling_verbs, found.orphan_noun_metadata))
    assert sum(found.dimensions.values()) == found.nouns
    assert sum(found.verb_types.values()) == found.verbs
    assert sum(found.quarantined_by_reason.values()) == found.quarantined_count
    assert found.change_log.entries >= (found.change_log.unreadable or 0)
    console = Console(width=100, file=io.StringIO())
    show(console, "memory://x", found)
