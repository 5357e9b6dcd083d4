"""What a reader of Brainy's buckets must put up with, point by point of the list in docs/format.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from served_tree import ALL, NOW, first, found, scanned, served

from brainy.legacy.inspection import inspect
from brainy.legacy.survey import survey
from brainy.store.base import PutOutcome
from brainy.store.memory import MemoryStore
from tests.buckets import EM, EV, EVM, E, bucket, change, noun, read, relation, verb


async def test_point_1_several_trees_in_one_bucket() -> None:
    objects: dict[str, bytes] = {}
    strongest = {}
    for rank, prefix in enumerate(("default/", "place/", "nouns/", E), 1):
        for weaker in range(1, rank + 1):
            strongest[f"from-{weaker}"] = 4.0
            objects[f"{prefix}from-{weaker}.json"] = noun(f"from-{weaker}", [rank])
        strongest[f"only-{rank}"] = float(rank)
        objects[f"{prefix}only-{rank}.json"] = noun(f"only-{rank}", [rank])
    content = await read(objects, (await survey(await bucket(objects))).trees)
    assert {item.id: first(item) for item in content.nouns.values()} == strongest
    assert not content.quarantined


class ReadOnly(MemoryStore):
    """Refuses every write once it is sealed."""

    sealed = False

    def _check(self) -> None:
        assert not self.sealed, "a reader wrote"

    async def put(self, key: str, body: bytes, *, user_metadata: Mapping[str, str] | None = None) -> str:
        self._check()
        return await super().put(key, body, user_metadata=user_metadata)

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        self._check()
        return await super().put_if_absent(key, body)

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        self._check()
        return await super().put_if_match(key, body, etag)

    async def delete(self, key: str) -> None:
        self._check()
        await super().delete(key)


async def test_point_2_reading_writes_nothing() -> None:
    store = ReadOnly()
    for key, body in {"nouns/a.json": noun(), "default/b.json": noun("b", [1]), "locks/statistics-flush": b"1"}.items():
        await store.put(key, body, user_metadata={"expires-at": "1"})
    store.sealed = True
    assert (await survey(store)).trees == ("flat", "typed")
    assert (await inspect(store)).nouns == 2
    assert (await read(store, ALL)).nouns.keys() == {"a", "b"}


@pytest.mark.parametrize("prefix", ["nouns/", E, "default/"])
async def test_point_3_every_page_is_read(prefix: str) -> None:
    objects = {f"{prefix}{n:05}.json": noun(f"{n:05}", [n, 1]) for n in range(2345)}
    content = await read(objects, ALL, shard_counts=(1, 2))
    assert len(content.nouns) == 2345


async def test_point_4_statistics_are_reported_and_never_believed() -> None:
    report = await inspect(
        await bucket(
            {
                "nouns/a.json": noun(),
                "index/statistics.json": b'{"nounCount": {"s": 900}, "verbCount": {"s": 1e999}}',
                "index/statistics_20260102.json": b'{"nounCount": {"s": 40, "t": "x"}, "verbCount": {}}',
                "_system/statistics_20260101.json": b"zero",
            }
        )
    )
    assert (report.nouns, report.statistics.counted_nouns, report.statistics.agrees) == (1, 1, False)
    assert [entry.nouns for entry in report.statistics.found] == [40, None, 900]


async def test_point_5_metadata_of_every_kind_and_none() -> None:
    objects = {
        f"nouns/{name}.json": noun(name) for name in ("none", "null", "text", "number", "list", "object", "false")
    }
    objects |= {
        "metadata/null.json": b"null",
        "metadata/text.json": b' "just text" ',
        "metadata/number.json": b"0",
        "metadata/list.json": b"[1, 2]",
        "metadata/object.json": b'{"id": "the user\'s own", "b": 1, "a": 2}',
        "metadata/false.json": b"false",
        "metadata/orphan.json": b'{"noun": "person"}',
        "metadata/tombstone.json": b"null",
        "metadata/_distributed_config.json": b'{"version": 3}',
        EM + "__metadata_index__noun:person.json": b'{"ids": ["none"]}',
        EM + "__metadata_index__noun_person_chunk0.json": b"null",
        EM + "__metadata_field_index__field_a/b c.json": b'{"values": {}}',
    }
    content = await read(objects, ALL)
    assert {item.id: item.metadata for item in content.nouns.values()} == {
        "none": None,
        "null": b"null",
        "text": b'"just text"',
        "number": b"0",
        "list": b"[1,2]",
        "object": b'{"id":"the user\'s own","b":1,"a":2}',
        "false": b"false",
    }
    assert not content.quarantined
    report = await inspect(await bucket(objects))
    assert (report.index_entries, report.deleted_nouns, report.orphan_noun_metadata) == (3, 1, 1)


async def test_point_5_the_id_that_some_versions_add_to_metadata_stays() -> None:
    # 0.12 to 0.24 wrote it over a key of the user's; nothing tells the two apart.
    content = await read({"nouns/a.json": noun(), "metadata/a.json": b'{"name": "x", "id": "a"}'})
    assert content.nouns["a"].metadata == b'{"name":"x","id":"a"}'


async def test_point_6_dangling_verbs_are_kept_and_orphans_not_revived() -> None:
    soft = b'{"deleted": true, "deletedAt": "2026-01-01T00:00:00.000Z", "deletedBy": "user"}'
    objects = {
        E + "soft.json": noun("soft"),
        EM + "soft.json": soft,
        EV + "dangling.json": noun("dangling"),
        EVM + "dangling.json": relation("soft", "never was"),
        EVM + "orphan.json": relation(),
        "verbs/one-piece.json": verb("one-piece", "gone", "gone too"),
        "verbs/half.json": noun("half"),
        "verb-metadata/orphan.json": relation(),
    }
    content = await read(objects, ALL)
    assert content.verbs.keys() == {"dangling", "one-piece"}
    assert content.reasons == {"verbs/half.json": "verb-without-metadata"}
    report = await inspect(await bucket(objects))
    assert (report.dangling_verbs, report.verbs) == (2, 2)


@pytest.mark.parametrize(
    ("fields", "kind", "weight"),
    [
        ({"sourceId": "a", "targetId": "b", "type": "likes", "weight": 0.5}, "likes", 0.5),
        ({"source": "a", "target": "b", "verb": "likes"}, "likes", None),
        ({"sourceId": "a", "target": "b", "type": "likes", "verb": "other", "weight": 0}, "likes", 0.0),
        ({"source": "a", "targetId": "b", "type": "", "verb": "likes", "weight": "0.5"}, "likes", None),
        ({"sourceId": "a", "targetId": "b", "weight": None}, "", None),
    ],
)
async def test_point_7_types_ends_and_weights_in_either_field(
    fields: dict[str, object], kind: str, weight: float | None
) -> None:
    for objects in (
        {"verbs/v.json": noun("v", **fields)},
        {"edges/v.json": noun("v", **fields)},
        {"verbs/v.json": noun("v"), "verb-metadata/v.json": json.dumps(fields).encode()},
        {EV + "v.json": noun("v"), EVM + "v.json": json.dumps(fields).encode()},
    ):
        stored = (await read(objects, ALL)).verbs["v"]
        assert (stored.source_id, stored.target_id, stored.type, stored.weight) == ("a", "b", kind, weight)


async def test_point_8_placeholders_are_kept_and_marked(tmp_path: Path) -> None:
    inline = {"isPlaceholder": True, "writeOnlyMode": True, "autoCreated": True, "noun": "concept"}
    objects = {
        "nouns/write-only.json": noun("write-only", [0, 0], metadata=inline),
        "nouns/auto.json": noun("auto", [0, 0]),
        "metadata/auto.json": b'{"autoCreated": true, "noun": "concept"}',
        "nouns/real.json": noun("real", [1, 0]),
    }
    content = await read(objects, ALL)
    assert json.loads(content.nouns["write-only"].attributes or b"") == {"metadata": inline}
    assert json.loads(content.nouns["auto"].metadata or b"")["autoCreated"] is True
    assert (await inspect(await bucket(objects))).placeholders == 2
    shard = await served(objects, tmp_path)
    assert scanned(shard, include_soft_deleted=False) == {"write-only", "auto", "real"}
    assert found(shard, [1, 0]) == ["real"]
    assert dict(shard.unindexed()) == {"write-only": "zero", "auto": "zero"}


@pytest.mark.parametrize("prefix", ["nouns/", E, "default/"])
async def test_point_8a_verbs_stored_as_nouns_are_no_nouns(prefix: str) -> None:
    objects = {
        f"{prefix}v.json": noun("v"),
        f"{prefix}deleted.json": noun("deleted"),
        f"{prefix}n.json": noun("n"),
        "verbs/v.json": verb("v"),
        "verb-metadata/deleted.json": relation(),
    }
    content = await read(objects, ALL)
    assert content.nouns.keys() == {"n"}
    assert content.verbs.keys() == {"v"}
    assert set(content.reasons.values()) == {"verb-stored-as-noun"}


@pytest.mark.parametrize(("nouns", "metadata"), [("nouns/", "metadata/"), (E, EM)])
async def test_point_8a_zombies_are_reported(nouns: str, metadata: str) -> None:
    names = ("deleted", "empty metadata", "added again", "unlogged")
    objects = {f"{nouns}{name}.json": noun(name) for name in names}
    objects |= {f"{metadata}{name}.json": b"null" for name in names}
    objects |= dict(
        (
            change(NOW + 1, "add", "noun", "empty metadata", {"vector": [1, 2]}),
            change(NOW + 2, "delete", "noun", "deleted"),
            change(NOW + 3, "add", "metadata", "deleted", None),
            change(NOW + 4, "delete", "noun", "added again"),
            change(NOW + 5, "add", "noun", "added again", {"vector": [1, 2] * 100}),
        )
    )
    content = await read(objects, ALL)
    assert content.nouns.keys() == set(names) - {"deleted"}
    assert content.reasons == {f"{nouns}deleted.json": "suspected-zombie"}
    report = await inspect(await bucket(objects))
    assert report.zombie_nouns + report.zombie_verbs == 1


async def test_point_9_what_cannot_be_indexed_is_kept(tmp_path: Path) -> None:
    vectors: dict[str, list[float | None]] = {
        "null": [1.5, None],
        "nulls": [None, None],
        "zero": [0, 0],
        "empty": [],
        "long": [1, 2, 3],
        "short": [1],
        "huge": [1e300, 1],
        "good": [3, 4],
    }
    objects = {f"nouns/{name}.json": noun(name, vector) for name, vector in vectors.items()}
    shard = await served(objects, tmp_path)
    assert scanned(shard, include_soft_deleted=False) == vectors.keys()
    assert found(shard, [3, 4]) == ["good"]
    assert dict(shard.unindexed()) == {
        "null": "non-finite",
        "nulls": "non-finite",
        "huge": "non-finite",
        "zero": "zero",
        "empty": "no-vector",
        "long": "dimension",
        "short": "dimension",
    }
    raw = {item.id: item.raw_vector for item in shard.get_nouns(list(vectors))}
    assert raw["null"] == b"[1.5,null]"
    assert raw["huge"] == b"[1e+300,1]"
    assert raw["zero"] is None
    assert (await inspect(await bucket(objects))).dimensions == {0: 1, 1: 1, 2: 5, 3: 1}


@pytest.mark.parametrize("connections", [None, [], "x", {"0": None}, {"x": [1]}, {"0": ["gone", "a verb"]}, {"0": {}}])
async def test_point_10_connections_are_ignored(connections: object) -> None:
    stored = {"id": "a", "vector": [1, 2], "connections": connections, "level": 2}
    content = await read({"nouns/a.json": json.dumps(stored).encode()})
    assert content.nouns["a"].attributes == b'{"level":2}'
    del stored["connections"]
    assert (await read({"nouns/a.json": json.dumps(stored).encode()})).nouns == content.nouns
