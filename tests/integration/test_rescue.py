"""Recorded buckets of Brainy's, after a later Brainy was started on them: what it deleted is found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from brainy.dataset.quarantine import find_place, read_rows
from brainy.legacy.rescue import DELETED_FOR_DIMENSION, OBJECT_GONE, OBJECT_UNREADABLE, Found, Rescue
from brainy.store.memory import MemoryStore
from brainy.testing.fixtures import fixtures_root, load_fixture, read_truth

ROOT = fixtures_root()
with_recorded = pytest.mark.skipif(ROOT is None, reason="the recorded buckets are not here (set BRAINY_FIXTURES)")

#: Its log entry was never written: the id does not fit into an HTTP header.
UNLOGGED = "ünï-çødé-６"


async def recorded(name: str) -> tuple[MemoryStore, dict[str, Any]]:
    assert ROOT is not None
    store = MemoryStore()
    await load_fixture(store, ROOT / name)
    truth = read_truth(ROOT / name)
    nouns = truth["nouns"]
    return store, nouns if isinstance(nouns, dict) else {noun["id"]: noun for noun in nouns}


async def start_later_brainy(store: MemoryStore, nouns: Mapping[str, Any], *, dimensions: int = 384) -> None:
    """What 0.47 does on start: nouns of another length are deleted, without a word; then it adds its own."""
    for noun_id, noun in nouns.items():
        if len(noun["vector"]) != dimensions:
            await store.delete(f"nouns/{noun_id}.json")
    for number in range(60):
        stored = {"id": f"new-{number}", "vector": [float(number + 1)] * dimensions, "connections": {}, "level": 0}
        await store.put(f"nouns/new-{number}.json", json.dumps(stored).encode())
        await store.put(f"metadata/new-{number}.json", b'{"noun": "thing"}')
        await log(store, "add", f"new-{number}", 1_900_000_000_000 + number, {"vector": stored["vector"]})


async def log(store: MemoryStore, operation: str, noun_id: str, time: int, data: object = None) -> None:
    entry = {"timestamp": time, "operation": operation, "entityType": "noun", "entityId": noun_id, "instanceId": "1"}
    if data is not None:
        entry["data"] = data
    name = hashlib.md5(f"{operation}{noun_id!r}{time}".encode(), usedforsecurity=False).hexdigest()[:9]
    await store.put(f"change-log/{time:013d}-{name}.json", json.dumps(entry).encode())


async def rescued(store: MemoryStore, *, dimensions: int = 0) -> tuple[dict[str, Found], Rescue]:
    place = await find_place(store)
    unreadable = [row.key async for row in read_rows(store, place)]
    search = Rescue(store, place.trees, unreadable=unreadable, dimensions=dimensions)
    found = [each async for batch in search.find() for each in batch]
    assert len({each.noun.id for each in found}) == len(found) == search.counts.found
    return {each.noun.id: each for each in found}, search


def float32(vector: list[float | None]) -> bytes:
    return np.array([np.nan if part is None else part for part in vector], dtype=np.float64).astype("<f4").tobytes()


@with_recorded
async def test_nouns_deleted_for_their_dimension_are_found_exactly() -> None:
    store, nouns = await recorded("v0.36.0-native512")
    metadata = {noun_id: await store.get(f"metadata/{noun_id}.json") for noun_id in nouns}
    await start_later_brainy(store, nouns)

    found, search = await rescued(store, dimensions=384)

    assert found.keys() == nouns.keys() - {UNLOGGED}
    for noun_id, each in found.items():
        assert each.noun.vector == float32(nouns[noun_id]["vector"])
        assert (each.cause, each.dimensions) == (DELETED_FOR_DIMENSION, 512)
        stored = metadata[noun_id]
        assert each.metadata_key == ("" if stored is None else f"metadata/{noun_id}.json")
        document = None if each.noun.metadata is None else json.loads(each.noun.metadata)
        assert document == (None if stored is None else json.loads(stored.body))
        # Where the metadata says nothing, only the log speaks: that is for a person to decide.
        assert each.doubtful == (document is None)
        entry = await store.get(each.entry_key)
        assert entry is not None
        assert json.loads(entry.body)["entityId"] == noun_id
        assert json.loads(entry.body)["timestamp"] == each.added_at
    assert sum(not each.doubtful for each in found.values()) > 25
    assert search.counts.deleted == 6
    assert search.counts.lost == 0
    # The one whose entry is missing.
    assert search.counts.unnamed == 1


@with_recorded
async def test_an_untouched_bucket_has_nothing_to_rescue() -> None:
    store, _ = await recorded("v0.46.0")
    found, search = await rescued(store)
    assert found == {}
    assert search.counts.deleted == 16


@with_recorded
async def test_an_unreadable_noun_is_found_in_its_last_entry() -> None:
    store, nouns = await recorded("v0.46.0")
    damaged = [noun_id for noun_id in sorted(nouns) if noun_id != UNLOGGED][:12]
    for number, noun_id in enumerate(damaged):
        await store.put(f"nouns/{noun_id}.json", (b"", b"<html>", b'{"id": "x", "vector": [1')[number % 3])
    # One was deleted while its object was already unreadable; one was added again.
    await log(store, "delete", damaged[0], 1_999_999_999_999)
    await log(store, "add", damaged[1], 1_999_999_999_999, {"vector": [2.5] * 32})

    found, _ = await rescued(store, dimensions=32)

    assert found.keys() == set(damaged[1:])
    assert found[damaged[1]].noun.vector == float32([2.5] * 32)
    for noun_id in damaged[2:]:
        assert found[noun_id].noun.vector == float32(nouns[noun_id]["vector"])
        assert found[noun_id].cause == OBJECT_UNREADABLE
        assert not found[noun_id].doubtful


@pytest.mark.parametrize("delete_at", [1_000, 1_001])
async def test_a_delete_at_the_same_moment_or_later_is_believed(delete_at: int) -> None:
    store = MemoryStore()
    await store.put("nouns/other.json", b'{"id": "other", "vector": [1, 2], "connections": {}}')
    await store.put("metadata/a.json", b'{"k": 1}')
    await log(store, "add", "a", 1_000, {"vector": [1.0, 2.0]})
    await log(store, "delete", "a", delete_at)
    found, search = await rescued(store)
    assert found == {}
    assert search.counts.deleted == 1
    await log(store, "add", "a", 2_000, {"vector": [3.0, 4.0]})
    found, _ = await rescued(store)
    assert found["a"].noun.vector == float32([3.0, 4.0])
    assert found["a"].cause == OBJECT_GONE
    assert "not deleted since" in found["a"].evidence


async def test_a_log_full_of_nonsense_costs_nothing_but_a_count() -> None:
    store = MemoryStore()
    await store.put("nouns/other.json", b'{"id": "other", "vector": [1, 2], "connections": {}}')
    for item in ("a", "b", "c", "d"):
        await store.put(f"metadata/{item}.json", b'{"k": 1}' if item != "d" else b'{"k": ')
    bodies = [b"", b"null", b"[1]", b'{"operation": "add"}', b"\xff\xfe", b"[" * 5000, b'{"entityType": "noun"}']
    for number, body in enumerate(bodies):
        await store.put(f"change-log/{number:013d}-x.json", body)
    await log(store, "add", "a", 10, "no object")
    await log(store, "add", "b", 10**30, {"vector": [1.0, None]})
    await log(store, "add", "c", 10, {"vector": "text"})
    await log(store, "add", "d", 10, {"vector": [1.0, 2.0], "metadata": {"k": "of the log"}})
    await log(store, "add", "other", 10, {"vector": [9.0, 9.0]})
    long = "x" * 1010
    for odd in ("", "\x00", "\ud800", "y" * 5000, long):
        await log(store, "add", odd, 10, {"vector": [1.0, 2.0]})

    found, search = await rescued(store)

    assert found.keys() == {"b", "d", long}
    assert found[long].doubtful
    assert found["b"].noun.raw_vector == b"[1.0,null]"
    assert json.loads(found["d"].noun.metadata or b"") == {"k": "of the log"}
    assert "cannot be read" in found["d"].evidence
    assert search.counts.entries == len(bodies) + 10
    assert search.counts.entries_unreadable == 3 + 4


async def test_a_verb_stored_among_the_nouns_is_no_noun() -> None:
    store = MemoryStore()
    await store.put("nouns/other.json", b'{"id": "other", "vector": [1, 2], "connections": {}}')
    await store.put("verbs/v.json", b'{"id": "v", "vector": [1, 2, 3], "connections": {}}')
    await store.put("verb-metadata/v.json", b'{"sourceId": "other", "targetId": "other", "type": "likes"}')
    await log(store, "add", "v", 10, {"vector": [1.0, 2.0, 3.0]})
    found, search = await rescued(store)
    assert (found, search.counts.verbs) == ({}, 1)
