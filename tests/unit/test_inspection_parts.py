"""The pieces of an inspection: the change log counted, ids under several keys, the cost of a migration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.legacy.changes import Changes, read_changes
from brainy.legacy.inspection import Assumptions, inspect
from brainy.legacy.inventory import Inventory
from brainy.legacy.keys import Kind
from brainy.legacy.occurrences import Occurrences, Place
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.presence import hashes_of
from brainy.store.base import ObjectMeta, StoredObject
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore


def entry(
    time: int, operation: str, kind: str, item_id: str, data: Any = ..., instance: str = "7", **layout: Any
) -> StoredObject:
    fields = {"timestamp": time, "operation": operation, "entityType": kind, "entityId": item_id}
    if data is not ...:
        fields["data"] = data
    text = json.dumps(fields | {"instanceId": instance}, separators=(",", ":"), ensure_ascii=False, **layout)
    return StoredObject(key=f"change-log/{time:013d}-abc.json", body=text.encode("utf-8", "surrogatepass"), etag="")


def counted(*entries: StoredObject | None) -> Changes:
    changes = Changes()
    changes.take(entries)
    changes.finish()
    return changes


def vector(*values: float) -> dict[str, Any]:
    return {"vector": list(values)}


def test_entries_are_counted() -> None:
    changes = counted(
        entry(1, "add", "noun", "a", vector(1, 2)),
        entry(2, "add", "metadata", "a", {"noun": "person"}),
        entry(3, "add", "metadata", "__metadata_index__active_true_chunk0", {}),
        entry(4, "add", "verb", "v", vector(1), instance="8"),
        entry(5, "delete", "verb", "v"),
        entry(6, "merge", "edge", "x"),
        None,
        StoredObject(key="change-log/0000000000007-x.json", body=b"{", etag=""),
        StoredObject(key="change-log/0000000000008-x.json", body=b'{"operation": 1}', etag=""),
        StoredObject(key="change-log/0000000000009-x.json", body=b"", etag=""),
    )
    assert changes.by_operation == {"add": 4, "delete": 1, "(other)": 1}
    assert changes.by_entity == {"noun": 1, "metadata": 2, "verb": 2, "(other)": 1}
    assert changes.by_instance == {"7": 5, "8": 1}
    assert (changes.index_noise, changes.unreadable) == (1, 3)
    assert changes.without_add(hashes_of(["a", "b"]), hashes_of(["v", "w", "x"])) == (1, 2)


def test_the_last_word_decides() -> None:
    changes = counted(
        entry(1, "add", "noun", "kept", vector(1)),
        entry(2, "add", "noun", "gone", vector(1)),
        entry(3, "delete", "noun", "gone"),
        entry(4, "add", "noun", "back", vector(1)),
        entry(5, "delete", "noun", "back"),
        entry(6, "add", "noun", "back", vector(2)),
        entry(7, "add", "noun", "same-moment", vector(1)),
        entry(7, "delete", "noun", "same-moment"),
        entry(8, "add", "noun", "empty", vector()),
        entry(9, "add", "noun", "nothing", None),
        entry(1, "add", "verb", "v", vector(1)),
        entry(2, "delete", "verb", "v"),
        entry(3, "delete", "verb", "w"),
        entry(4, "add", "verb", "w", vector(1)),
    )
    assert set(changes.nouns_kept().tolist()) == set(hashes_of(["kept", "back"]).tolist())
    assert changes.deleted_verbs().tolist() == hashes_of(["v"]).tolist()
    assert changes.without_add(hashes_of(["empty", "nothing", "unknown"]), hashes_of([])) == (1, 0)


def test_an_empty_log_says_nothing() -> None:
    changes = counted()
    assert changes.without_add(hashes_of(["a"]), hashes_of(["v"])) == (1, 1)
    assert len(changes.nouns_kept()) == 0
    assert len(changes.deleted_verbs()) == 0


_ENTRIES = st.lists(
    st.builds(
        lambda time, operation, kind, item_id, data, instance: entry(time, operation, kind, item_id, data, instance),
        st.integers(0, 9),
        st.sampled_from(["add", "delete", "update", "merge"]),
        st.sampled_from(["noun", "verb", "metadata", "edge"]),
        st.sampled_from(["a", "b", "é", 'quo"te', "", "__metadata_index__x_chunk0"]),
        st.sampled_from([..., None, {}, vector(), vector(1), {"x": "\n"}]),
        st.sampled_from(["7", "8", "é", "\\"]),
    )
    | st.sampled_from([b"", b"{", b"[]", b'{"operation": 1}', b"{\n}", b"\xff"]).map(
        lambda body: StoredObject(key="change-log/0000000000009-x.json", body=body, etag="")
    ),
    max_size=12,
)


@given(_ENTRIES)
def test_entries_counted_together_say_what_each_one_says(entries: list[StoredObject]) -> None:
    together = counted(*entries)
    singly = Changes()
    for one in entries:
        singly.take([one])
    singly.finish()
    assert summary(together) == summary(singly)


def summary(changes: Changes) -> list[object]:
    ids = hashes_of(["a", "b", "é", 'quo"te', "", "__metadata_index__x_chunk0"])
    return [
        dict(changes.by_operation),
        dict(changes.by_entity),
        dict(changes.by_instance),
        changes.index_noise,
        changes.unreadable,
        changes.since_delete,
        changes.without_add(ids, ids),
        changes.nouns_kept().tolist(),
        changes.deleted_verbs().tolist(),
    ]


_KEYS = st.builds(
    lambda folder, name: folder + name,
    st.sampled_from(
        [
            "nouns/",
            "metadata/",
            "verbs/",
            "verb-metadata/",
            "change-log/",
            "nouns/person/",
            "nodes/",
            "nodes/person/",
            "entities/nouns/vectors/",
            "entities/verbs/metadata/",
            "index/",
            "locks/",
            "cluster/",
            "theirs/",
        ]
    ),
    st.sampled_from(
        [
            "a.json",
            "b.json",
            "c.json",
            ".json",
            "x",
            "person/p.json",
            "0000000000001-a.json",
            "0000000000002-a.json",
            "__metadata_index__x.json",
            "_distributed_config.json",
            "statistics.json",
        ]
    ),
)


@given(st.lists(st.sets(_KEYS, min_size=1, max_size=6), max_size=6), st.booleans())
def test_a_page_counted_in_one_go_says_what_its_objects_say(pages: list[set[str]], in_order: bool) -> None:
    together, singly = Inventory(), Inventory()
    for inventory in (together, singly):
        inventory.persons._keys.finish()
    listed = [sorted(page, reverse=not in_order) for page in pages]
    for page in listed:
        metas = [
            ObjectMeta(key=key, size=4 if "a." in key else 300, etag="", last_modified=float(len(key))) for key in page
        ]
        together.take(metas)
        for meta in metas:
            singly._take_each([meta])
    for inventory in (together, singly):
        inventory.finish()
    for name in ("objects", "sizes", "kinds", "tree_kinds", "change_first", "change_last", "change_last_key"):
        assert getattr(together, name) == getattr(singly, name)
    for name in ("small_changes", "newest", "locks", "statistics", "distributed", "old_index_entries"):
        assert getattr(together, name) == getattr(singly, name)
    for name in ("null_metadata", "other_metadata", "verb_metadata"):
        assert getattr(together, name).hashes.tolist() == getattr(singly, name).hashes.tolist()
    for kind in (Kind.NOUN, Kind.VERB):
        ids = hashes_of(["a", "b", "c", "person/p", "person/a", "x"])
        assert together.occurrences.anywhere(kind, ids).tolist() == singly.occurrences.anywhere(kind, ids).tolist()


_data = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(
    item_id=st.text(min_size=1),
    instance=st.text(),
    operation=st.sampled_from(["add", "delete", "update", "noun"]),
    kind=st.sampled_from(["noun", "verb", "metadata", "add"]),
    data=_data | st.builds(lambda *v: {"vector": list(v), "instanceId": "no"}, st.floats(-1, 1)),
    pretty=st.booleans(),
)
def test_an_entry_says_the_same_however_it_is_laid_out(
    item_id: str, instance: str, operation: str, kind: str, data: Any, pretty: bool
) -> None:
    compact = counted(entry(5, operation, kind, item_id, data, instance))
    again = json.dumps(json.loads(entry(5, operation, kind, item_id, data, instance).body), indent=2)
    spaced = counted(StoredObject(key="change-log/0000000000005-x.json", body=again.encode(), etag=""))
    for other in (spaced,):
        assert other.by_operation == compact.by_operation
        assert other.by_entity == compact.by_entity
        assert other.by_instance == compact.by_instance
        assert other.index_noise == compact.index_noise
        assert other.without_add(hashes_of([item_id]), hashes_of([item_id])) == compact.without_add(
            hashes_of([item_id]), hashes_of([item_id])
        )
        assert other.nouns_kept().tolist() == compact.nouns_kept().tolist()


async def test_the_log_is_read_in_batches_and_only_the_log() -> None:
    store = MemoryStore()
    for number in range(2500):
        one = entry(1_795_330_000_000 + number, "add", "noun", f"n{number}", vector(1))
        await store.put(one.key.replace("-abc", f"-{number}"), one.body)
    await store.put("change-log/readme.txt", b"hello")
    told: list[int] = []
    changes = await read_changes(Fetcher(store), told.append)
    assert changes.by_operation == {"add": 2500}
    assert told == [1000, 1000, 500]


PLACES = {
    "entity": Place(Kind.NOUN, "entity", "entities/nouns/vectors/", 0),
    "flat": Place(Kind.NOUN, "flat", "nouns/", 2),
    "thing": Place(Kind.NOUN, "typed", "thing/", 4),
    "default": Place(Kind.NOUN, "typed", "default/", 5),
    "verbs": Place(Kind.VERB, "flat", "verbs/", 2),
}


def test_ids_under_several_keys() -> None:
    seen = Occurrences()
    seen.see(PLACES["default"], ["a", "b", "c"])
    seen.see(PLACES["default"], ["d"])
    seen.see(PLACES["entity"], ["a", "e"])
    seen.see(PLACES["flat"], ["a", "x"])
    seen.see(PLACES["thing"], ["b", "y"])
    seen.see(PLACES["flat"], ["d"])
    seen.see(PLACES["verbs"], ["a"])
    seen.finish()
    assert seen.ids == {Kind.NOUN: 3}
    assert seen.hidden == 4
    assert +seen.won_by == {"entity": 1, "typed": 1, "flat": 1}
    assert {s.id: [key for _, key in s.by_rank] for s in seen.sample.values()} == {
        "a": ["entities/nouns/vectors/a.json", "nouns/a.json", "default/a.json"],
        "b": ["thing/b.json", "default/b.json"],
        "d": ["nouns/d.json", "default/d.json"],
    }
    assert seen.within(Kind.NOUN, "flat", hashes_of(["a", "b", "d", "x"])).tolist() == [True, False, True, True]
    assert seen.anywhere(Kind.VERB, hashes_of(["a", "b"])).tolist() == [True, False]


@given(st.lists(st.tuples(st.sampled_from(["default", "entity", "flat", "thing"]), st.sets(st.integers(0, 20)))))
def test_every_further_copy_is_found(pages: list[tuple[str, set[int]]]) -> None:
    seen = Occurrences()
    where: dict[int, set[str]] = {}
    for place, numbers in pages:
        fresh = [number for number in sorted(numbers) if place not in where.get(number, ())]
        for number in fresh:
            where.setdefault(number, set()).add(place)
        seen.see(PLACES[place], [f"{number}" for number in fresh])
    seen.finish()
    several = {number: places for number, places in where.items() if len(places) > 1}
    assert seen.ids[Kind.NOUN] == len(several)
    assert seen.hidden == sum(len(places) - 1 for places in several.values())
    winners = [min(places, key=lambda place: PLACES[place].rank) for places in several.values()]
    assert sum(seen.won_by.values()) == len(several)
    assert seen.won_by["entity"] == winners.count("entity")
    assert seen.won_by["flat"] == winners.count("flat")


def noun(item_id: str, values: Any = (1, 2)) -> bytes:
    return json.dumps({"id": item_id, "vector": list(values), "connections": {}}, indent=2).encode()


def relation(source: str, target: str) -> bytes:
    return json.dumps({"sourceId": source, "targetId": target, "type": "likes", "verb": "likes"}).encode()


def flat_bucket(nouns: int, verbs: int) -> dict[str, bytes]:
    objects = {f"nouns/n{n}.json": noun(f"n{n}") for n in range(nouns)}
    objects |= {f"metadata/n{n}.json": b'{"noun": "person"}' for n in range(nouns)}
    objects |= {f"verbs/v{n}.json": noun(f"v{n}") for n in range(verbs)}
    return objects | {f"verb-metadata/v{n}.json": relation("n0", "n1") for n in range(verbs)}


async def stored(objects: Mapping[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    for key, body in objects.items():
        await store.put(key, body)
    return store


@pytest.mark.parametrize("nodes", [1, 2])
async def test_the_predicted_calls_are_those_of_a_migration(nodes: int) -> None:
    store = await stored(flat_bucket(2300, 1200))
    found = await inspect(store, assumptions=Assumptions(nodes=nodes, shards=4))

    metered = MeteredStore(store)
    for node in range(nodes):
        source = BrainyTreeSource(metered, found.trees)
        await source.total()
        async for _ in source.stream(shards=range(node, 4, nodes), shard_count=4):
            pass
    cost = found.migration
    # Beside what is read of the source there is what the cluster reads and writes of its own.
    assert metered.calls["list"] == cost.list_calls
    assert metered.calls["get"] <= cost.get_calls <= metered.calls["get"] + 100
    assert metered.calls["get_range"] == cost.partial_get_calls
    assert cost.seconds == pytest.approx((cost.get_calls + cost.partial_get_calls) / 2000 / nodes, abs=0.1)
    assert 0 < cost.bucket_bytes < cost.disk_bytes


async def test_prices_are_those_given() -> None:
    store = await stored(flat_bucket(10, 5))
    free = (await inspect(store, assumptions=Assumptions(price_get=0, price_put=0, price_storage=0))).migration
    dear = (await inspect(store, assumptions=Assumptions(price_get=1, price_put=100, gets_per_second=1))).migration
    assert (free.request_cost, free.storage_cost_per_month) == (0, 0)
    calls = dear.get_calls + 100 * (dear.put_calls + dear.list_calls)
    assert dear.request_cost == pytest.approx(calls / 1000)
    assert dear.seconds == dear.get_calls
