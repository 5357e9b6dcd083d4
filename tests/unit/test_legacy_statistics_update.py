"""Brainy's statistics object, brought up to date under Brainy's lock."""

from __future__ import annotations

import json
from typing import Any

import pytest

from brainy.bucket import layout
from brainy.bucket.mirroring import MirrorCounts, MirrorStatistics
from brainy.errors import LeaseHeldError, UnavailableError
from brainy.ids import Ids
from brainy.legacy.dialect.dialects import ENTITIES, SPLIT, Dialect
from brainy.legacy.dialect.statistics import StatisticsKeys, counted_in, statistics_keys
from brainy.legacy.statistics_lock import KEY as LOCK
from brainy.legacy.statistics_update import StatisticsUpdate
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore

#: What ManualClock begins with: 2023-11-14T22:13:20Z.
TODAY, YESTERDAY = "20231114", "20231113"
NOW_MS = 1_700_000_000_000


def counts(nouns: int = 0, verbs: int = 0, metadata: int = 0, service: str = "default") -> MirrorCounts:
    def one(number: int) -> dict[str, int]:
        return {service: number} if number else {}

    return MirrorCounts(nouns=one(nouns), verbs=one(verbs), metadata=one(metadata))


class Bucket:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.memory = MemoryStore(self.clock)
        self.store = FaultyStore(self.memory)

    def update(self, dialect: Dialect = SPLIT) -> StatisticsUpdate:
        return StatisticsUpdate(self.store, dialect, clock=self.clock, ids=Ids())

    async def put(self, key: str, **body: Any) -> None:
        await self.memory.put(key, json.dumps(body).encode())

    async def read(self, key: str) -> Any:
        found = await self.memory.get(key)
        return None if found is None else json.loads(found.body)

    async def keys(self) -> list[str]:
        return [meta.key async for page in self.memory.list("") for meta in page]


async def test_a_version_without_statistics_gets_none() -> None:
    bucket = Bucket()
    assert not await bucket.update().count_in(counts(nouns=3))
    assert await bucket.keys() == []


async def test_counts_are_added_by_service_to_the_larger_of_two_days() -> None:
    bucket = Bucket()
    await bucket.put(f"index/statistics_{TODAY}.json", nounCount={"a": 5}, verbCount={}, hnswIndexSize=7)
    await bucket.put(
        f"index/statistics_{YESTERDAY}.json",
        nounCount={"a": 3, "default": 10},
        verbCount={"a": 2},
        metadataCount={"default": 1},
        hnswIndexSize=12,
        fieldNames={"a": ["x"]},
    )
    await bucket.put("index/statistics.json", nounCount={"a": 1})
    assert await bucket.update().count_in(counts(nouns=4, verbs=-1, metadata=-9))
    assert await bucket.read(f"index/statistics_{TODAY}.json") == {
        "nounCount": {"a": 5, "default": 14},
        "verbCount": {"a": 2, "default": 0},
        "metadataCount": {"default": 0},
        "hnswIndexSize": 15,
        "lastUpdated": "2023-11-14T22:13:20.000Z",
        "fieldNames": {"a": ["x"]},
    }
    assert await bucket.read("index/statistics.json") == {"nounCount": {"a": 1}}
    written = await bucket.memory.get(f"index/statistics_{TODAY}.json")
    assert written is not None
    assert written.user_metadata == {"last-updated": str(NOW_MS), "updated-by": "brainy-cluster"}
    assert written.body.startswith(b'{\n  "nounCount": {\n    "a": 5,\n')
    assert await bucket.memory.get(LOCK) is None

    # The same total again changes nothing; a larger one adds the difference.
    assert not await bucket.update().count_in(counts(nouns=4, verbs=-1, metadata=-9))
    assert await bucket.update().count_in(counts(nouns=5, verbs=-1, metadata=-9))
    assert (await bucket.read(f"index/statistics_{TODAY}.json"))["nounCount"] == {"a": 5, "default": 15}


async def test_the_newest_versions_keep_a_second_copy() -> None:
    bucket = Bucket()
    await bucket.put(f"_system/statistics_{YESTERDAY}.json", nounCount={"default": 1})
    assert await bucket.update(ENTITIES).count_in(counts(nouns=1))
    daily = await bucket.memory.get(f"_system/statistics_{TODAY}.json")
    copy = await bucket.memory.get("index/statistics.json")
    assert daily is not None
    assert copy is not None
    assert copy.body == daily.body
    assert copy.user_metadata == {"migration-note": "dual-write-for-compatibility", "schema-version": "2"}


async def test_a_lock_that_a_brainy_process_holds_is_waited_for() -> None:
    bucket = Bucket()
    await bucket.put("index/statistics.json", nounCount={"default": 1})
    await bucket.memory.put(LOCK, b"x", user_metadata={"expires-at": str(NOW_MS + 15_000)})
    with pytest.raises(LeaseHeldError):
        await bucket.update().count_in(counts(nouns=1))
    assert await bucket.read("index/statistics.json") == {"nounCount": {"default": 1}}
    assert await bucket.read(layout.MIRROR_STATISTICS) is None


async def test_a_crash_on_the_way_counts_nothing_twice() -> None:
    bucket = Bucket()
    await bucket.put("index/statistics.json", nounCount={"default": 1})
    bucket.store.plan(kind="put", key_prefix="index/", fault=Fault.UNAVAILABLE)
    with pytest.raises(UnavailableError):
        await bucket.update().count_in(counts(nouns=1))
    bucket.store.heal()
    assert not await bucket.update().count_in(counts(nouns=1))
    assert await bucket.update().count_in(counts(nouns=3))
    assert (await bucket.read("index/statistics.json"))["nounCount"] == {"default": 3}
    stored = await bucket.memory.get(layout.MIRROR_STATISTICS)
    assert stored is not None
    assert MirrorStatistics.decode(stored.body, key=stored.key).included == counts(nouns=3)


async def test_an_object_that_cannot_be_read_is_left_alone() -> None:
    bucket = Bucket()
    await bucket.memory.put("index/statistics.json", b"{")
    assert not await bucket.update().count_in(counts(nouns=1))
    found = await bucket.memory.get("index/statistics.json")
    assert found is not None
    assert found.body == b"{"


@pytest.mark.parametrize(
    ("names", "tree", "expected"),
    [
        ([], "flat", None),
        (["index/statistics.json"], "flat", ("index/statistics.json", "", "")),
        (["index/statistics_20231112.json", "index/statistics.json"], "flat", ("index", "20231112", "")),
        (["index/statistics_20231112.json"], "entity", ("index", "20231112", "index/statistics.json")),
        (
            ["index/statistics_20231115.json", "_system/statistics_20231110.json"],
            "entity",
            ("_system", "20231110", "index/statistics.json"),
        ),
    ],
)
def test_where_statistics_lie(names: list[str], tree: str, expected: tuple[str, str, str] | None) -> None:
    found = statistics_keys(names, tree, NOW_MS)
    if expected is None:
        assert found is None
        return
    folder, earlier, copy = expected
    if folder.endswith(".json"):
        assert found == StatisticsKeys(today=folder, earlier="", copy="")
    else:
        assert found == StatisticsKeys(
            today=f"{folder}/statistics_{TODAY}.json",
            earlier=f"{folder}/statistics_{earlier}.json",
            copy=copy,
        )


def test_odd_numbers_count_nothing() -> None:
    body = counted_in(
        {"nounCount": {"a": "x", "b": float("nan")}, "verbCount": 3, "hnswIndexSize": None},
        {},
        counts(nouns=1),
        now_ms=NOW_MS,
    )
    assert body["nounCount"] == {"a": 0, "b": 0, "default": 1}
    assert body["verbCount"] == {}
    assert body["hnswIndexSize"] == 1
