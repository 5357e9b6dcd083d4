"""What a reader of Brainy's buckets must put up with, points 11 to 19: logs, locks, damage, odd ids, motion."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from served_tree import ALL, NOW, first, found, scanned, served

from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.legacy.inspection import inspect
from brainy.store.base import ObjectMeta, StoredObject
from brainy.store.memory import MemoryStore
from tests.buckets import EM, EV, EVM, E, bucket, change, noun, read, verb


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
