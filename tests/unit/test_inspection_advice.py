"""What an inspection says of buckets put together by hand, and the advice it gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from brainy.legacy.census import Inspection
from brainy.legacy.inspection import inspect
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock

E = "entities/nouns/vectors/"
EM = "entities/nouns/metadata/"
EV = "entities/verbs/vectors/"
NOW = 1_795_400_000.0


def noun(item_id: str = "a", vector: Any = (1, 2), **more: Any) -> bytes:
    return json.dumps({"id": item_id, "vector": list(vector), "connections": {}} | more).encode()


def relation(source: str = "a", target: str = "b") -> bytes:
    return json.dumps({"sourceId": source, "targetId": target, "type": "likes", "verb": "likes"}).encode()


def change(time: int, operation: str, kind: str, item_id: str, data: Any = ...) -> tuple[str, bytes]:
    fields: dict[str, Any] = {"timestamp": time, "operation": operation, "entityType": kind, "entityId": item_id}
    if data is not ...:
        fields["data"] = data
    body = json.dumps(fields | {"instanceId": "1"}, separators=(",", ":")).encode()
    return f"change-log/{time:013d}-{kind}{item_id}.json", body


async def inspected(
    objects: Mapping[str, bytes], *, age: float = 86_400.0, marks: Mapping[str, str] | None = None, **options: Any
) -> Inspection:
    """Inspect objects that were written ``age`` seconds ago; ``marks`` are the user metadata of locks."""
    clock = ManualClock(wall=NOW - age)
    store = MemoryStore(clock)
    for key, body in objects.items():
        await store.put(key, body, user_metadata=marks if key.startswith("locks/") else None)
    await clock.advance(age)
    return await inspect(store, clock=clock, **options)


def codes(found: Inspection) -> dict[str, str]:
    assert len({advice.code for advice in found.advice}) == len(found.advice)
    assert all(advice.message and advice.remedy for advice in found.advice)
    return {advice.code: advice.severity for advice in found.advice}


def count(found: Inspection, code: str) -> int:
    return next(advice.count for advice in found.advice if advice.code == code)


async def test_a_bucket_without_fault() -> None:
    found = await inspected(
        {
            "nouns/a.json": noun("a", [1] * 512, level=0),
            "metadata/a.json": b'{"noun": "person"}',
            "index/statistics_20260101.json": b'{"nounCount": {"s": 1}, "verbCount": {}}',
        },
        age=600,
    )
    assert (found.version_range.oldest, found.version_range.newest) == ("0.25.0", "0.40.0")  # type: ignore[union-attr]
    # Only what came later keeps another length.
    assert codes(found) == {"WRONG_DIMENSIONS_AT_RISK": "warning"}
    assert {(risk.oldest, risk.nouns) for risk in found.dimension_risks} == {("0.47.0", 1), ("0.25.0", 0)}
    assert found.statistics.agrees


async def test_nothing_at_all() -> None:
    found = await inspected({})
    assert (found.trees, found.objects, found.last_write, found.version_range) == ((), 0, None, None)
    assert found.advice == ()
    assert found.migration.get_calls < 200


async def test_vector_lengths_and_who_would_delete_them() -> None:
    found = await inspected(
        {
            f"{E}a.json": noun("a", [1] * 384),
            f"{E}b.json": noun("b", [1] * 512),
            f"{E}c.json": noun("c", []),
            "nouns/a.json": noun("a", [1] * 512),
            "nouns/d.json": noun("d", [1] * 512),
        }
    )
    assert {(r.tree, r.oldest, r.expects): r.nouns for r in found.dimension_risks} == {
        ("entity", "0.48.1", 384): 2,
        ("flat", "0.47.0", 384): 1,
        ("flat", "0.25.0", 512): 0,
    }
    told = codes(found)
    assert told["WRONG_DIMENSIONS_AT_RISK"] == "critical"
    assert told["MIXED_DIMENSIONS"] == "warning"
    assert told["OLDER_TREES_INVISIBLE"] == "warning"
    assert count(found, "MIXED_DIMENSIONS") == 2
    assert found.duplicates.model_dump() == {
        "nouns": 1,
        "verbs": 0,
        "hidden_objects": 1,
        "won_by": {"entity": 1},
        "sample": ({"id": "a", "kind": "noun", "keys": (f"{E}a.json", "nouns/a.json"), "tree": "entity"},),
    }
    assert told["DUPLICATE_IDS"] == "info"
    assert [advice.severity for advice in found.advice] == sorted(
        (advice.severity for advice in found.advice), key=["critical", "warning", "info"].index
    )


async def test_vectors_only_the_change_log_has() -> None:
    data = {"vector": [1.0] * 512}
    objects = {
        "nouns/kept.json": noun("kept"),
        "nouns/broken.json": b"{",
        "metadata/kept.json": b"{}",
        # What Brainy deleted for its length: the metadata is as it was.
        "metadata/robbed.json": b'{"noun": "person"}',
        # What a user deleted: the metadata is null.
        "metadata/deleted.json": b"null",
        "metadata/unlogged.json": b"null",
        "verbs/v.json": noun("v"),
        "verb-metadata/v.json": relation("kept", "robbed"),
    }
    log = [
        change(1, "add", "noun", "kept", data),
        change(2, "add", "noun", "broken", data),
        change(3, "add", "noun", "robbed", data),
        change(4, "add", "noun", "unlogged", data),
        change(5, "add", "noun", "deleted", data),
        change(6, "delete", "noun", "deleted"),
        change(7, "add", "noun", "vanished", data),
        # The disk-based index logs verbs as nouns.
        change(8, "add", "noun", "v", data),
        change(9, "add", "verb", "gone", data),
        change(10, "delete", "verb", "gone"),
    ]
    found = await inspected(objects | dict(log))
    assert (found.rescuable_nouns, found.rescuable_doubtful) == (2, 2)  # broken, robbed; unlogged, vanished
    assert count(found, "RESCUABLE") == 4
    assert (found.orphan_noun_metadata, found.deleted_nouns, found.deleted_verbs) == (1, 2, 1)
    assert codes(found)["QUARANTINED"] == "warning"
    assert codes(found)["LOSSY_CHANGE_LOG"] == "info"
    assert (found.change_log.nouns_without_add, found.change_log.verbs_without_add) == (0, 1)
    assert (found.change_log.by_operation, found.change_log.by_entity) == (
        {"add": 8, "delete": 2},
        {"noun": 8, "verb": 2},
    )
    assert found.change_log.by_instance == {"1": 10}

    unread = await inspected(objects | dict(log), read_change_log=False)
    assert unread.rescuable_nouns is None
    assert unread.change_log.by_operation is None
    assert unread.change_log.entries == 10
    assert unread.nouns == found.nouns
    assert unread.store_calls["get"] == found.store_calls["get"] - 10


@pytest.mark.parametrize(("left", "code"), [(10, "LIVE_LOCK"), (-7200, "STALE_LOCK")])
async def test_locks(left: int, code: str) -> None:
    taken = round((NOW + left - 15) * 1000)
    found = await inspected(
        {"nouns/a.json": noun(), "locks/statistics-flush": f"{taken}_0.5_1234".encode()},
        marks={"expires-at": str(taken + 15_000)},
    )
    (lock,) = found.locks
    assert (lock.process, lock.stale) == ("1234", left < 0)
    assert lock.age_seconds == pytest.approx(15 - left)
    assert lock.expired_seconds == pytest.approx(-left)
    assert codes(found).keys() & {"LIVE_LOCK", "STALE_LOCK"} == {code}


async def test_writers_at_work() -> None:
    found = await inspected({"nouns/a.json": noun()}, age=30)
    assert codes(found)["LIVE_WRITERS"] == "warning"
    assert found.last_write is not None
    assert (found.last_write.seconds_ago, found.last_write.key) == (30, "nouns/a.json")
    # The log tells as well, whatever the store says.
    moment = round((NOW - 5) * 1000)
    logged = await inspected({"nouns/a.json": noun()} | dict([change(moment, "delete", "noun", "b")]))
    assert logged.last_write is not None
    assert logged.last_write.seconds_ago == pytest.approx(5)
    # What is ours or nobody's is no sign of Brainy.
    ours = await inspected({"cluster/routing.json": b"{}", "notes.txt": b"x"}, age=1)
    assert ours.last_write is None


async def test_drift_by_service() -> None:
    author = b'{"noun": "person", "createdBy": {"augmentation": "crm", "version": "1.0"}}'
    found = await inspected(
        {
            "nouns/a.json": noun("a"),
            "nouns/b.json": noun("b"),
            "metadata/a.json": author,
            "index/statistics_20260102.json": b'{"nounCount": {"crm": 5, "old": 2}, "verbCount": {"crm": 1},'
            b' "metadataCount": {"crm": 4}, "hnswIndexSize": 9}',
            "index/statistics_20260101.json": b"{",
            "index/statistics.json": b'{"nounCount": {"crm": 2}, "verbCount": {}}',
        }
    )
    rows = {(row.service, row.kind): (row.claimed, row.counted, row.difference) for row in found.statistics.drift}
    assert rows == {
        (None, "nouns"): (7, 2, 5),
        (None, "verbs"): (1, 0, 1),
        (None, "metadata"): (4, 1, 3),
        (None, "index"): (9, 2, 7),
        ("crm", "nouns"): (5, 1, 4),
        ("old", "nouns"): (2, 0, 2),
        ("crm", "verbs"): (1, 0, 1),
    }
    assert [each.key for each in found.statistics.found] == [
        "index/statistics_20260102.json",
        "index/statistics_20260101.json",
        "index/statistics.json",
    ]
    assert count(found, "STATISTICS_DRIFT") == 6


async def test_big_buckets_brainy_does_not_see() -> None:
    flat = {f"nouns/{n}.json": noun(str(n)) for n in range(1001)}
    assert codes(await inspected(flat))["BIG_BUCKET_NOT_VISIBLE"] == "warning"
    del flat["nouns/0.json"]
    assert "BIG_BUCKET_NOT_VISIBLE" not in codes(await inspected(flat))
    entity = {f"{E}{n}.json": noun(str(n)) for n in range(101)}
    assert codes(await inspected(entity))["BIG_BUCKET_NOT_VISIBLE"] == "warning"


async def test_oddities() -> None:
    config = {"version": 3, "updated": "x", "instances": {"i1": {"role": "writer", "status": "active"}, "i2": 5}}
    found = await inspected(
        {
            "nouns/zero.json": noun("zero", [0, 0]),
            "nouns/null.json": noun("null", [None, 1]),
            "nouns/wrong-key.json": noun("right-id"),
            "nouns/soft.json": noun("soft"),
            "metadata/soft.json": b'{"deleted": true, "deletedAt": "2026"}',
            "nouns/made-up.json": noun("made-up", metadata={"isPlaceholder": True}),
            "verbs/old.json": json.dumps({"id": "old", "vector": [1], "sourceId": "x", "targetId": "y"}).encode(),
            "verb-metadata/left.json": relation(),
            "metadata/_distributed_config.json": json.dumps(config).encode(),
            "cluster/routing.json": b"{}",
            "notes.txt": b"x",
        }
    )
    assert codes(found).keys() >= {
        "NOT_INDEXABLE",
        "ID_MISMATCHES",
        "SOFT_DELETED",
        "PLACEHOLDERS",
        "OLD_VERBS_INVISIBLE",
        "DANGLING_VERBS",
        "ORPHAN_VERB_METADATA",
        "DISTRIBUTED_MODE",
        "CLUSTER_PRESENT",
        "FOREIGN_OBJECTS",
        "STATISTICS_MISSING",
    }
    assert (found.foreign_objects, found.cluster_objects, found.one_piece_verbs) == (1, 1, 1)
    assert found.distributed is not None
    assert found.distributed.version == 3
    assert [(each.id, each.status) for each in found.distributed.instances] == [("i1", "active"), ("i2", None)]
    assert json.loads(found.model_dump_json())["dimensions"] == {"2": 5}


async def test_zombies_are_told_from_other_things_set_aside() -> None:
    stamp = {"seconds": 1, "nanoseconds": 0}
    relation_then = json.dumps({**json.loads(relation()), "createdAt": stamp}).encode()
    found = await inspected(
        {
            f"{E}z.json": noun("z"),
            f"{EM}z.json": b"null",
            f"{EV}z.json": noun("z"),
            "entities/verbs/metadata/z.json": relation_then,
        }
        | dict([change(5000, "delete", "noun", "z"), change(5000, "delete", "verb", "z")])
    )
    assert (found.zombie_nouns, found.zombie_verbs, found.quarantined_count) == (1, 1, 2)
    assert (found.deleted_nouns, found.deleted_verbs) == (1, 1)
    assert "QUARANTINED" not in codes(found)
    assert count(found, "ZOMBIES") == 2
