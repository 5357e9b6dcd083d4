"""What a reader of Brainy's buckets must put up with, point by point of the list in docs/format.md."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from brainy.bucket.items import Noun
from brainy.bucket.records import Spec
from brainy.clock import SystemClock
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.ids import Ids
from brainy.legacy.inspection import inspect
from brainy.legacy.survey import survey
from brainy.store.base import ObjectMeta, PutOutcome, StoredObject
from brainy.store.memory import MemoryStore
from brainy_node.builder.job import Job
from brainy_node.builder.run import run_job
from brainy_node.shard.base import Base
from brainy_node.shard.shard import Shard
from tests.buckets import EM, EV, EVM, E, bucket, change, noun, read, relation, verb

ALL = ("typed", "flat", "entity")
NOW = 1795330000000


def first(item: Noun) -> float:
    return float(np.frombuffer(item.vector, "<f4")[0])


async def served(objects: Mapping[str, bytes], folder: Path, *, dimensions: int = 2) -> Shard:
    """The bucket as one shard of a node."""
    spec = Spec(generation=0, dimensions=dimensions, shard_count=1, source="brainy", source_trees=ALL)
    job = Job.model_validate(
        {"kind": "adopt", "namespace": "memory://", "spec": spec, "shards": (0,), "output": str(folder), "threads": 1}
    )
    store = await bucket(objects)
    (built,) = await run_job(job, store, clock=SystemClock(), ids=Ids(), report=lambda _: None)
    return Shard.open(Base.open(Path(built.directory)), spec, threads=1)


def scanned(shard: Shard, *, include_soft_deleted: bool) -> set[str]:
    return {item.id for part in shard.scan_nouns(include_soft_deleted=include_soft_deleted) for item in part}


def found(shard: Shard, query: Sequence[float], *, include_soft_deleted: bool = False) -> list[str]:
    matrix = np.array([query], np.float32)
    return list(shard.search(matrix, 50, exact=True, include_soft_deleted=include_soft_deleted).ids)


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


async def test_point_11_the_change_log_may_say_anything() -> None:
    objects = {E + "a.json": noun("a"), EM + "a.json": b"null", E + "b.json": noun("b"), EM + "b.json": b"null"}
    log = dict(
        (
            # The last word in time counts, whatever the order of the keys.
            change(NOW + 9, "add", "noun", "a", {"vector": [1, 2] * 100}),
            change(NOW + 2, "delete", "noun", "a"),
            change(NOW + 3, "delete", "verb", "b"),
            change(NOW + 4, "update", "noun", "b"),
            change(NOW + 5, "add", "metadata", "__metadata_index__noun_person_chunk0", {"ids": ["b"]}),
        )
    )
    log |= {
        f"change-log/{NOW + 6}-zzzzzzzzz.json": b'{"operation": "delete", "entityType": "noun"}',
        f"change-log/{NOW + 7}-zzzzzzzzz.json": b'{"timestamp": "late", "operation": ["delete"], "entityId": 5}',
        f"change-log/{NOW + 8}-zzzzzzzzz.json": b"[" * 5000,
        "change-log/99-x.txt": b"{}",
    }
    content = await read(objects | log, ALL)
    assert content.nouns.keys() == {"a", "b"}
    assert not content.quarantined


async def test_point_12_a_stale_lock_keeps_nobody_out() -> None:
    store = await bucket({"nouns/a.json": noun()})
    await store.put("locks/statistics-flush", b"1_0.5_7", user_metadata={"expires-at": "1000", "lock-value": "1_0.5_7"})
    await store.put("locks/other", b"\xff\xfe")
    assert (await read(store, ALL)).nouns.keys() == {"a"}
    locks = (await inspect(store)).locks
    assert {lock.key: lock.stale for lock in locks} == {"locks/statistics-flush": True, "locks/other": True}


async def test_point_13_soft_deletes_are_kept_marked_and_excludable(tmp_path: Path) -> None:
    marker = b'{"deleted": true, "deletedAt": "2026-01-01T00:00:00.000Z", "deletedBy": "user"}'
    odd = b'{"deleted": true, "deletedAt": "2026-01-01T00:00:00.000Z", "deletedBy": "\\ud800"}'
    objects = {
        E + "kept.json": noun("kept", [1, 0]),
        E + "soft.json": noun("soft", [1, 0]),
        EM + "soft.json": marker,
        E + "odd.json": noun("odd", [1, 0]),
        EM + "odd.json": odd,
    }
    content = await read(objects, ALL)
    assert json.loads(content.nouns["soft"].metadata or b"") == json.loads(marker)
    assert (await inspect(await bucket(objects))).soft_deleted_nouns == 2
    shard = await served(objects, tmp_path)
    assert scanned(shard, include_soft_deleted=False) == {"kept"}
    assert scanned(shard, include_soft_deleted=True) == {"kept", "soft", "odd"}
    assert found(shard, [1, 0]) == ["kept"]
    assert sorted(found(shard, [1, 0], include_soft_deleted=True)) == ["kept", "odd", "soft"]
    assert shard.statistics().soft_deleted == 2


async def test_point_14_every_unreadable_object_is_quarantined_with_its_reason() -> None:
    bodies = {
        "empty": (b"", "empty"),
        "blank": (b"\n", "empty"),
        "bom-only": (b"\xef\xbb\xbf", "empty"),
        "cut": (noun("cut")[:30], "not-json"),
        "html": (b"<html>503 Slow Down</html>", "not-json"),
        "utf-16": (noun("utf-16").decode().encode("utf-16"), "not-json"),
        "latin": ('{"id": "é"}'.encode("latin-1"), "not-json"),
        "two": (noun("two") * 2, "not-json"),
        "list": (b"[]", "wrong-shape"),
        "text": (b'"text"', "wrong-shape"),
        "vector": (noun("vector", {"0": 1}), "wrong-shape"),
        "no-id": (b'{"vector": [1]}', "missing-id"),
        "no-vector": (b'{"id": "no-vector"}', "missing-vector"),
        "deep": (b'{"id": "deep", "vector": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "too-deep"),
        "surrogate": (noun("\ud800"), "invalid-id"),
        "nul": (noun("a\x00b"), "invalid-id"),
        "long": (noun("x" * 1025), "invalid-id"),
        "number": (noun(1.5), "wrong-shape"),
    }
    for prefix in ("nouns/", "default/", "place/", E):
        objects = {f"{prefix}{name}.json": body for name, (body, _) in bodies.items()}
        objects |= {f"{prefix}readme.txt": b"hello", f"{prefix}folder/": b"", f"{prefix}good.json": noun("good")}
        content = await read(objects, ALL)
        assert content.nouns.keys() == {"good"}
        expected = {f"{prefix}{name}.json": reason for name, (_, reason) in bodies.items()}
        assert content.reasons == expected | {f"{prefix}readme.txt": "foreign-object"}
        sizes = {entry.key: entry.size for entry in content.quarantined}
        assert sizes == {key: len(objects[key]) for key in sizes}


async def test_point_14_compact_pretty_and_marked_json_read_alike() -> None:
    pretty = noun("a", [0.1, 2], level=1)
    compact = json.dumps(json.loads(pretty), separators=(",", ":")).encode()
    texts = [pretty, compact, b"\xef\xbb\xbf" + pretty, b"\n\t " + compact + b"\n"]
    contents = [(await read({"nouns/a.json": text, "metadata/a.json": b"\xef\xbb\xbf{ }"})).nouns for text in texts]
    assert contents[0].keys() == {"a"}
    assert all(content == contents[0] for content in contents)


async def test_point_14_surrogates_and_deep_documents_are_carried(tmp_path: Path) -> None:
    deep = b'{"a":' * 700 + b"1" + b"}" * 700
    objects = {
        "nouns/lone.json": noun("lone"),
        "metadata/lone.json": b'{"noun": "\\ud800", "text": "\\udfff", "createdBy": {"augmentation": "\\ud800"}}',
        "nouns/deep.json": noun("deep"),
        "metadata/deep.json": deep,
        "verbs/deep.json": noun("deep", sourceId="a", targetId="b", metadata=json.loads(deep), data=json.loads(deep)),
        "verbs/name.json": verb("name")[:-1] + b',"\\ud800": 1}',
    }
    content = await read(objects, ALL)
    assert content.nouns["deep"].metadata == deep
    assert b"\\ud800" in (content.nouns["lone"].metadata or b"")
    assert content.verbs["name"].attributes == b'{"\\ud800":1}'
    assert content.verbs["deep"].metadata == deep
    shard = await served(objects, tmp_path)
    assert shard.get_nouns(["deep"])[0].metadata == deep
    assert json.loads((await inspect(await bucket(objects))).model_dump_json())["nouns"] == 2


@pytest.mark.parametrize(
    "item_id",
    [
        "tenant-1/item-4",
        "with space & plus+5",
        "ünï-çødé-６",
        "report.json",
        "a.json.b",
        "A",
        "a",
        "é",
        "e\u0301",
        "x/",
        "../up",
        "person/x",
        "-",
        "😀",
    ],
)
async def test_point_15_ids_are_taken_as_they_are(item_id: str) -> None:
    others = {
        "nouns/a.json": noun("a"),
        "nouns/A.json": noun("A"),
        "nouns/é.json": noun("é"),
        "nouns/e\u0301.json": noun("e\u0301"),
    }
    for prefix, beside in (("nouns/", "metadata/"), (E, EM), ("default/", "metadata/"), ("nouns/person/", "metadata/")):
        objects = others | {f"{prefix}{item_id}.json": noun(item_id, [7]), f"{beside}{item_id}.json": b'"mine"'}
        content = await read(objects, ALL)
        assert item_id in content.nouns
        assert len(content.nouns) == 4 + (item_id not in ("a", "A", "é", "e\u0301"))
        assert content.nouns[item_id].metadata == b'"mine"'
        assert not content.quarantined


async def test_point_15_an_id_that_fills_its_key_has_no_metadata() -> None:
    item_id = "x" * (1024 - len("nouns/.json"))

    class Strict(MemoryStore):
        async def get_many(
            self, keys: Sequence[str], *, concurrency: int = 64
        ) -> Sequence[StoredObject | Exception | None]:
            return [await self.get(key) for key in keys]

    store = Strict()
    await store.put(f"nouns/{item_id}.json", noun(item_id))
    await store.put("nouns/stray.json", noun("y" * 1024))
    assert (await read(store, ALL)).nouns.keys() == {item_id, "y" * 1024}


class Moving(MemoryStore):
    """Changes some objects right after they were listed."""

    def __init__(self, after: Mapping[str, bytes | None]) -> None:
        super().__init__()
        self._after = after

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        async for page in super().list(prefix, start_after=start_after):
            yield page
            for key in self._keys(prefix):
                body = self._after[key]
                await (self.delete(key) if body is None else self.put(key, body))

    def _keys(self, prefix: str) -> Collection[str]:
        return [key for key in self._after if key.startswith(prefix)]


@pytest.mark.parametrize(
    "tree",
    [
        ("nouns/", "metadata/", "verbs/", "verb-metadata/"),
        (E, EM, EV, EVM),
        ("default/", "metadata/", "edges/", "verb-metadata/"),
    ],
)
async def test_point_16_objects_that_change_while_they_are_read(tree: tuple[str, str, str, str]) -> None:
    nouns, metadata, verbs, _ = tree
    store = Moving(
        {
            f"{nouns}gone.json": None,
            f"{nouns}other.json": noun("other", [2]),
            f"{nouns}broken.json": b"{",
            f"{verbs}gone.json": None,
            f"{metadata}late.json": b'"late"',
        }
    )
    for name in ("gone", "other", "broken", "late", "same"):
        await store.put(f"{nouns}{name}.json", noun(name, [1]))
    await store.put(f"{verbs}gone.json", verb("gone"))
    await store.put(f"{verbs}kept.json", verb("kept"))
    content = await read(store, ALL, shard_counts=(1,))
    assert {item.id: first(item) for item in content.nouns.values()} == {"other": 2.0, "late": 1.0, "same": 1.0}
    assert content.verbs.keys() == {"kept"}
    assert content.reasons == {f"{nouns}broken.json": "not-json"}


async def test_point_17_and_19_calls_grow_with_the_objects_only() -> None:
    objects = {f"nouns/{n}.json": noun(str(n)) for n in range(300)}
    objects |= {f"metadata/{n}.json": b"{}" for n in range(300)}
    objects |= {f"verbs/{n}v.json": verb(f"{n}v") for n in range(200)}
    source = BrainyTreeSource(await bucket(objects), ("flat",))
    async for _ in source.stream(shards=[0], shard_count=1):
        pass
    assert source.calls.gets <= 300 + 300 + 200 + 200
    assert source.calls.lists <= 4
    assert source.calls.ranged_gets == 0


async def test_point_18_a_search_finds_what_comparing_everything_finds(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    vectors = random.normal(size=(400, 16)).astype(np.float32)
    objects = {f"default/{n}.json": noun(str(n), vectors[n].tolist()) for n in range(400)}
    shard = await served(objects, tmp_path, dimensions=16)
    queries = random.normal(size=(20, 16)).astype(np.float32)
    cosine = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) @ queries.T
    hits = shard.search(queries, 10)
    for column in range(20):
        expected = {str(n) for n in np.argsort(-cosine[:, column])[:10]}
        assert len(expected & set(hits.ids[column * 10 : column * 10 + 10])) >= 9
