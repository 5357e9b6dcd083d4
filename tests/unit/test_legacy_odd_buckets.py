"""Buckets put together by hand: what people, accidents and upgrades leave behind."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence

import pytest

from brainy.bucket.partition import shard_of
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.errors import UnavailableError
from brainy.legacy.batch import Reason
from brainy.legacy.inspection import inspect
from brainy.legacy.survey import survey
from brainy.store.base import ObjectMeta, StoredObject
from brainy.store.memory import MemoryStore
from tests.buckets import EM, EV, EVM, E, bucket, change, noun, read, relation


async def test_unreadable_objects_are_named_and_the_rest_is_read() -> None:
    content = await read(
        {
            "nouns/good.json": noun("good"),
            "metadata/good.json": b"not json at all",
            "nouns/empty.json": b"",
            "nouns/blank.json": b"  \n",
            "nouns/cut.json": noun("cut")[:20],
            "nouns/list.json": b"[1,2]",
            "nouns/null.json": b"null",
            "nouns/noid.json": b'{"vector": [1]}',
            "nouns/novec.json": b'{"id": "novec"}',
            "nouns/deep.json": b"[" * 50_000,
            "nouns/readme.txt": b"hello",
            "nouns/": b"",
            "nouns/folder/": b"",
            "verbs/lonely.json": noun("lonely"),
            "verbs/broken.json": noun("broken"),
            "verb-metadata/broken.json": b"{",
            "verbs/good.json": noun("good"),
            "verb-metadata/good.json": relation(),
        }
    )
    assert content.nouns.keys() == {"good"}
    assert content.nouns["good"].metadata is None
    assert content.verbs.keys() == {"good"}
    assert content.reasons == {
        "metadata/good.json": "not-json",
        "nouns/empty.json": "empty",
        "nouns/blank.json": "empty",
        "nouns/cut.json": "not-json",
        "nouns/list.json": "wrong-shape",
        "nouns/null.json": "wrong-shape",
        "nouns/noid.json": "missing-id",
        "nouns/novec.json": "missing-vector",
        "nouns/deep.json": "too-deep",
        "nouns/readme.txt": "foreign-object",
        "verbs/lonely.json": "verb-without-metadata",
        "verb-metadata/broken.json": "not-json",
    }


async def test_odd_but_readable() -> None:
    content = await read(
        {
            "nouns/bom.json": b"\xef\xbb\xbf" + noun("bom"),
            "nouns/report.json.json": noun("report.json"),
            "nouns/a/b.json": noun("a/b"),
            "nouns/a-b.json": noun("a-b"),
            "nouns/42.json": noun(42),
            "nouns/nan.json": noun("nan", [1, None]),
            "nouns/none.json": noun("none", []),
            "metadata/bom.json": b'"just text"',
            "metadata/report.json.json": b'{"lone": "\\ud800"}',
            "metadata/a/b.json": b"null",
            "metadata/_distributed_config.json": b"{}",
            "metadata/tombstone.json": b"null",
            "metadata/orphan.json": b'{"noun":"person"}',
            "verb-metadata/orphan.json": relation(),
        }
    )
    assert content.nouns.keys() == {"bom", "report.json", "a/b", "a-b", "42", "nan", "none"}
    assert content.nouns["bom"].metadata == b'"just text"'
    assert content.nouns["report.json"].metadata == b'{"lone":"\\ud800"}'
    assert content.nouns["a/b"].metadata == b"null"
    assert content.nouns["a-b"].metadata is None
    assert content.nouns["nan"].raw_vector == b"[1,null]"
    assert content.nouns["none"].vector == b""
    assert not content.verbs
    assert not content.quarantined


async def test_normal_forms_are_different_ids() -> None:
    content = await read({"nouns/é.json": noun("é"), "nouns/e\u0301.json": noun("e\u0301")})
    assert content.nouns.keys() == {"é", "e\u0301"}


async def test_the_id_inside_is_believed() -> None:
    content = await read(
        {f"nouns/key-{n}.json": noun(f"inside-{n}") for n in range(12)}
        | {f"metadata/key-{n}.json": b"1" for n in range(6)}
        | {f"metadata/inside-{n}.json": b"2" for n in range(3)}
        | {"verbs/wrong.json": noun("right"), "verb-metadata/wrong.json": relation()}
    )
    assert content.nouns.keys() == {f"inside-{n}" for n in range(12)}
    assert [content.nouns[f"inside-{n}"].metadata for n in (0, 3, 9)] == [b"2", b"1", None]
    assert content.verbs.keys() == {"right"}
    assert not content.quarantined


async def test_the_proper_key_wins_over_strays() -> None:
    content = await read(
        {
            "nouns/a.json": noun("a", [1]),
            "nouns/copy of a.json": noun("a", [2]),
            "nouns/first.json": noun("b", [3]),
            "nouns/second.json": noun("b", [4]),
            "nouns/c.json": b"",
            "nouns/saved c.json": noun("c", [5]),
            "nouns/left.json": noun("right", [6]),
            "nouns/right.json": noun("left", [7]),
        }
    )
    vectors = {item.id: item.vector for item in content.nouns.values()}
    expected = await read(
        {f"nouns/{i}.json": noun(i, [v]) for i, v in (("a", 1), ("b", 3), ("c", 5), ("right", 6), ("left", 7))}
    )
    assert vectors == {item.id: item.vector for item in expected.nouns.values()}
    assert content.reasons == {
        "nouns/copy of a.json": Reason.DUPLICATE_ID,
        "nouns/second.json": Reason.DUPLICATE_ID,
        "nouns/c.json": Reason.EMPTY,
    }


async def test_strays_are_looked_for_once_and_only_where_needed() -> None:
    store = await bucket({f"nouns/{n}.json": noun(str(n)) for n in range(40)})
    whole = BrainyTreeSource(store, ["flat"])
    await drain(whole, range(4), 4)
    assert whole.calls.ranged_gets == 0
    part = BrainyTreeSource(store, ["flat"])
    await drain(part, [0], 4)
    looked = part.calls.ranged_gets
    assert looked == 40 - sum(shard_of(str(n), 4) == 0 for n in range(40))
    await drain(part, [1], 4)
    assert part.calls.ranged_gets == looked
    trusting = BrainyTreeSource(store, ["flat"], look_for_strays=False)
    await drain(trusting, [0], 4)
    assert trusting.calls.ranged_gets == 0


async def drain(source: BrainyTreeSource, shards: Sequence[int] | range, shard_count: int) -> None:
    async for _ in source.stream(shards=shards, shard_count=shard_count):
        pass


async def test_verbs_stored_as_nouns_are_dropped() -> None:
    content = await read(
        {
            "nouns/v.json": noun("v"),
            "nouns/deleted verb.json": noun("deleted verb"),
            "nouns/real.json": noun("real"),
            "nouns/bare.json": noun("bare"),
            "metadata/real.json": b"{}",
            "verbs/v.json": noun("v"),
            "verb-metadata/v.json": relation(),
            "verbs/real.json": noun("real"),
            "verb-metadata/real.json": relation(),
            "verb-metadata/deleted verb.json": relation(),
        }
    )
    assert content.nouns.keys() == {"real", "bare"}
    assert content.verbs.keys() == {"v", "real"}
    assert content.reasons == {
        "nouns/v.json": "verb-stored-as-noun",
        "nouns/deleted verb.json": "verb-stored-as-noun",
    }


async def test_the_newer_tree_wins() -> None:
    content = await read(
        {
            "nouns/both.json": noun("both", [1]),
            "metadata/both.json": b'"old"',
            "nouns/old.json": noun("old", [1]),
            "metadata/old.json": b'"old"',
            "nouns/deleted.json": noun("deleted"),
            "nouns/lost.json": noun("lost", [1]),
            "metadata/lost.json": b'"old"',
            "verbs/both.json": noun("both"),
            "verb-metadata/both.json": relation(type="old"),
            "verbs/one-piece.json": json.dumps(
                {"id": "one-piece", "vector": [1], "sourceId": "a", "targetId": "b", "verb": "knows"}
            ).encode(),
            "verbs/deleted.json": noun("deleted"),
            "verb-metadata/deleted.json": relation(),
            E + "both.json": noun("both", [2]),
            E + "new.json": noun("new", [2]),
            EM + "both.json": b'"new"',
            # Deleted in the newer tree: what the older one still holds stays hidden.
            EM + "deleted.json": b"null",
            # Metadata alone says nothing about the older noun.
            EM + "lost.json": b'"new"',
            EM + "__metadata_index__noun_person_chunk0.json": b"null",
            EV + "both.json": noun("both"),
            EVM + "both.json": relation(type="new"),
            EVM + "deleted.json": relation(),
        },
        ["flat", "entity"],
    )
    assert content.nouns.keys() == {"both", "old", "new", "lost"}
    metadata = {item.id: item.metadata for item in content.nouns.values()}
    assert metadata == {"both": b'"new"', "old": b'"old"', "lost": b'"old"', "new": None}
    assert {verb.id: verb.type for verb in content.verbs.values()} == {"both": "new", "one-piece": "knows"}
    assert not content.quarantined


def alive_and_dead() -> dict[str, bytes]:
    objects: dict[str, bytes] = {}
    for name in ("zombie", "kept", "added again", "metadata again"):
        objects[f"{E}{name}.json"] = noun(name)
        objects[f"{EM}{name}.json"] = b"null"
    objects[f"{E}data.json"] = noun("data")
    objects[f"{EM}data.json"] = b'{"deleted": true, "deletedAt": "2026-01-01T00:00:00.000Z"}'
    for name, seconds in (("zombie", 1), ("again", 9), ("unlogged again", 9), ("logged again", 1)):
        objects[f"{EV}{name}.json"] = noun(name)
        objects[f"{EVM}{name}.json"] = relation(createdAt={"seconds": seconds, "nanoseconds": 0})
    for time, operation, kind, item_id, *data in (
        (5000, "delete", "noun", "zombie"),
        (5001, "add", "metadata", "zombie", None),
        (5002, "delete", "noun", "added again"),
        (5003, "add", "noun", "added again", {"vector": [1, 2] * 200}),
        (5004, "delete", "noun", "metadata again"),
        (5005, "add", "metadata", "metadata again", {"long": "x" * 500}),
        (5006, "delete", "noun", "data"),
        (5007, "delete", "verb", "zombie"),
        (5008, "delete", "verb", "unlogged again"),
        (5009, "delete", "verb", "logged again"),
        (5010, "add", "verb", "logged again", {"vector": [1] * 300}),
        (4000, "add", "noun", "zombie", {"vector": [1]}),
        (4001, "add", "metadata", "__metadata_index__x", {"ids": ["zombie"]}),
    ):
        key, body = change(1795330000000 + time, str(operation), str(kind), str(item_id), *data)
        # createdAt above is in the same era as the log.
        objects[key] = body
    objects["change-log/1795330005999-bad.json"] = b"{"
    objects["change-log/garbage"] = b"[]"
    return {
        key: body.replace(b'"seconds": 1,', b'"seconds": 1795330001,').replace(
            b'"seconds": 9,', b'"seconds": 1795330009,'
        )
        for key, body in objects.items()
    }


async def test_zombies() -> None:
    content = await read(alive_and_dead(), ["entity"])
    assert content.nouns.keys() == {"kept", "added again", "metadata again", "data"}
    assert content.verbs.keys() == {"again", "unlogged again", "logged again"}
    assert content.reasons == {E + "zombie.json": "suspected-zombie", EV + "zombie.json": "suspected-zombie"}


async def test_the_log_is_read_only_where_it_can_matter() -> None:
    quiet = {f"{E}{n}.json": noun(str(n)) for n in range(5)} | {f"{EM}{n}.json": b"{}" for n in range(5)}
    log = dict(change(1795330000000 + n, "add", "metadata", str(n), {"x": "y" * 400}) for n in range(50))
    store = await bucket(quiet | log)
    source = BrainyTreeSource(store, ["entity"])
    await drain(source, [0], 1)
    assert source.calls.gets == 10
    # A candidate makes the small entries count, and there is none.
    await store.put(f"{EM}0.json", b"null")
    source = BrainyTreeSource(store, ["entity"])
    await drain(source, [0], 1)
    assert source.calls.gets == 10


async def test_long_ids_have_long_delete_entries() -> None:
    long = "x" * 900
    key, body = change(1795330000001, "delete", "noun", long)
    content = await read({f"{E}{long}.json": noun(long), f"{EM}{long}.json": b"null", key: body}, ["entity"])
    assert not content.nouns
    assert len(content.quarantined) == 1


class Sizes(MemoryStore):
    """Lists one object as if it were huge."""

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        async for page in super().list(prefix, start_after=start_after):
            yield [
                ObjectMeta(key=m.key, size=1 << 40, etag=m.etag, last_modified=0) if "huge" in m.key else m
                for m in page
            ]


async def test_huge_objects_are_not_fetched() -> None:
    store = Sizes()
    await store.put("nouns/huge.json", noun("huge"))
    content = await read(store)
    assert content.reasons == {"nouns/huge.json": "too-large"}
    assert content.quarantined[0].size == 1 << 40


class Failing(MemoryStore):
    """Cannot give one object."""

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        found = await super().get_many(keys, concurrency=concurrency)
        return [UnavailableError("no") if key == "nouns/5.json" else f for key, f in zip(keys, found, strict=True)]


async def test_a_failing_store_is_no_unreadable_object() -> None:
    store = Failing()
    for n in range(10):
        await store.put(f"nouns/{n}.json", noun(str(n)))
    with pytest.raises(UnavailableError):
        await read(store)


async def test_objects_that_vanish_are_gone() -> None:
    class Vanishing(MemoryStore):
        async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
            async for page in super().list(prefix, start_after=start_after):
                yield page
                await self.delete("nouns/1.json")

    store = Vanishing()
    for n in range(3):
        await store.put(f"nouns/{n}.json", noun(str(n)))
    content = await read(store, shard_counts=(1,))
    assert content.nouns.keys() == {"0", "2"}
    assert not content.quarantined


async def test_no_shards_no_calls() -> None:
    source = BrainyTreeSource(await bucket({"nouns/a.json": noun()}), ["flat"])
    await drain(source, [], 4)
    await drain(source, [7], 4)
    assert (source.calls.lists, source.calls.gets) == (0, 0)


async def test_survey_of_odd_buckets() -> None:
    assert (await survey(await bucket({}))).empty
    assert (await survey(await bucket({"cluster/routing.json": b"{}"}))).empty
    foreign = await survey(await bucket({"photos/a.jpg": b"x", "cluster/routing.json": b"{}"}))
    assert foreign.foreign_keys
    assert not foreign.empty
    log_only = await survey(await bucket(dict([change(1795330000000, "add", "noun", "a")])))
    assert (log_only.trees, log_only.foreign_keys, log_only.empty) == ((), False, False)
    both = await survey(await bucket({"nouns/a.json": noun("a", [1]), E + "b.json": noun("b", [1, 2])}))
    assert (both.trees, both.dimensions) == (("entity", "flat"), 2)
    verbs_left = await survey(await bucket({"verbs/a.json": noun("a"), E + "b.json": noun("b")}))
    assert verbs_left.trees == ("entity", "flat")
    person = await survey(await bucket({"nouns/person/x.json": noun("x")}))
    assert person.trees == ("typed",)
    slash = await survey(await bucket({"nouns/person/x.json": noun("person/x")}))
    assert slash.trees == ("flat",)
    other = await survey(await bucket({"default/x.json": b'{"theme": "dark"}'}))
    assert other.trees == ()
    metadata_only = await survey(await bucket({"metadata/x.json": b"null"}))
    assert metadata_only.trees == ("flat",)


async def test_survey_is_cheap_on_large_buckets() -> None:
    objects = {f"change-log/{1795330000000 + n}-a.json": b"{}" for n in range(2500)}
    objects |= {f"{EM}__metadata_index__{n}.json": b"{}" for n in range(2500)}
    objects |= {f"{E}{n:032x}.json": noun(f"{n:032x}", [1] * (3 if n % 3 else 4)) for n in range(2500)}
    objects |= {f"nouns/{n:032x}.json": noun(f"{n:032x}", [1] * 3) for n in range(1500)}
    seen = await survey(await bucket(objects))
    assert seen.trees == ("entity", "flat")
    assert seen.dimensions == 3
    assert seen.lists <= 24
    assert seen.gets <= 64
    assert seen.sampled > 30


async def test_inspection_of_an_odd_bucket() -> None:
    store = await bucket(
        {
            "nouns/a.json": noun("a", [0, 0]),
            "nouns/wrong.json": noun("b", [1, None]),
            "nouns/empty.json": b"",
            "metadata/a.json": b'{"noun": "person", "autoCreated": true, "createdBy": {"augmentation": "s"}}',
            "metadata/gone.json": b"null",
            "metadata/orphan.json": b'{"noun": "person"}',
            "verbs/v.json": noun("v"),
            "verb-metadata/v.json": relation("a", "missing"),
            "verb-metadata/w.json": relation("a", "b"),
            "index/statistics_20260101.json": b'{"nounCount": {"s": 2}, "verbCount": {"s": 1}}',
            "index/statistics_20250101.json": b"{",
            "locks/statistics-flush": b"1_0.5_77",
            "stuff/readme.txt": b"hello",
        }
    )
    found = await inspect(store)
    assert (found.nouns, found.verbs, found.dangling_verbs, found.orphan_verb_metadata) == (2, 1, 1, 1)
    assert (found.deleted_nouns, found.orphan_noun_metadata, found.placeholders, found.id_mismatches) == (1, 1, 1, 1)
    assert (found.zero_vectors, found.non_finite_vectors, found.nouns_without_metadata) == (1, 1, 1)
    assert found.quarantined_by_reason == {"empty": 1}
    assert found.services["s"].nouns == 1
    assert found.statistics.agrees
    assert [entry.nouns for entry in found.statistics.found] == [2, None]
    assert (found.locks[0].stale, found.locks[0].expires_at) == (True, None)
    assert found.prefixes["stuff/"].objects == 1
    assert json.loads(found.model_dump_json())["trees"] == ["flat"]
