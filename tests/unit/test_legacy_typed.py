"""The typed tree, 0.6 to 0.14, alone and among newer ones."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest

from brainy.bucket.items import Noun
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.dataset.snapshot import stream_current
from brainy.legacy import keys
from brainy.legacy.inspection import inspect
from brainy.legacy.keys import FLAT, TYPED, Kind, ParsedKey
from brainy.legacy.presence import hashes_of
from brainy.legacy.rivals import Rivals
from brainy.legacy.survey import survey
from brainy.legacy.trees import open_trees
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from tests.buckets import EM, EVM, E, bucket, noun, read, relation, verb

ALL = ("typed", "flat", "entity")


def first(item: Noun) -> float:
    """First component, by which the tests tell objects apart."""
    return float(np.frombuffer(item.vector, "<f4")[0])


async def dated(objects: Mapping[str, tuple[float, bytes]]) -> MemoryStore:
    """A store whose objects were written at given seconds."""
    clock = ManualClock()
    began = clock.wall()
    store = MemoryStore(clock)
    for key, (second, body) in sorted(objects.items(), key=lambda entry: entry[1][0]):
        await clock.advance(began + second - clock.wall())
        await store.put(key, body)
    return store


async def test_every_folder_is_read() -> None:
    folders = ("default/", "place/", "thing/", "event/", "concept/", "content/", "nouns/person/", "nodes/person/")
    objects = {f"{folder}n{n}.json": noun(f"n{n}", [n]) for n, folder in enumerate(folders)}
    objects |= {f"metadata/n{n}.json": b'{"name": %d}' % n for n in range(0, 8, 2)}
    objects |= {"verbs/v.json": verb("v", "n0", "n1", weight=0.5), "edges/e.json": verb("e", "n1", "n2")}

    content = await read(objects, ["typed"])

    assert {item.id: first(item) for item in content.nouns.values()} == {f"n{n}": float(n) for n in range(8)}
    assert content.nouns["n6"].metadata == b'{"name":6}'
    assert content.nouns["n7"].metadata is None
    assert content.verbs.keys() == {"v", "e"}
    assert (content.verbs["v"].weight, content.verbs["e"].source_id) == (0.5, "n1")
    assert not content.quarantined


async def test_a_folder_by_type_wins_over_default_whatever_the_times() -> None:
    store = await dated({"place/a.json": (1, noun("a", [1])), "default/a.json": (9, noun("a", [2]))})
    content = await read(store, ["typed"])
    assert first(content.nouns["a"]) == 1.0
    assert not content.quarantined


@pytest.mark.parametrize("later", ["place/", "thing/", "nouns/person/", "nodes/person/", "content/"])
async def test_of_two_folders_by_type_the_one_written_later_wins(later: str) -> None:
    others = {"place/", "thing/", "nouns/person/", "nodes/person/", "content/"} - {later}
    store = await dated(
        {f"{folder}a.json": (1, noun("a", [1])) for folder in others} | {f"{later}a.json": (2, noun("a", [2]))}
    )
    content = await read(store, ["typed"])
    assert first(content.nouns["a"]) == 2.0


async def test_newer_trees_win_over_the_typed_one() -> None:
    objects = {
        "default/c.json": noun("c", [1]),
        "place/c.json": noun("c", [2]),
        "nouns/c.json": noun("c", [3]),
        E + "c.json": noun("c", [4]),
        "place/b.json": noun("b", [2]),
        "nouns/b.json": noun("b", [3]),
        "nouns/person/p.json": noun("p", [2]),
        "nouns/p.json": noun("p", [3]),
        "nouns/person/q.json": noun("q", [2]),
        "default/q.json": noun("q", [1]),
        "edges/v.json": verb("v", type="old"),
        "verbs/v.json": verb("v", type="new"),
        "edges/w.json": verb("w", type="old"),
    }
    content = await read(objects, ALL)
    assert {i.id: first(i) for i in content.nouns.values()} == {"c": 4.0, "b": 3.0, "p": 3.0, "q": 2.0}
    assert {i.id: i.type for i in content.verbs.values()} == {"v": "new", "w": "old"}
    assert not content.quarantined


async def test_what_newer_trees_deleted_stays_hidden() -> None:
    objects = {
        "default/a.json": noun("a"),
        EM + "a.json": b"null",
        "edges/v.json": verb("v"),
        "verb-metadata/v.json": relation(),
        "edges/w.json": verb("w"),
        EVM + "w.json": relation(),
        "default/kept.json": noun("kept"),
    }
    content = await read(objects, ALL)
    assert content.nouns.keys() == {"kept"}
    assert not content.verbs
    assert not content.quarantined


async def test_the_id_inside_tells_persons_from_ids_with_a_slash() -> None:
    objects = {
        "nouns/person/x.json": noun("x", [1]),
        "metadata/x.json": b'"of x"',
        "nouns/person/y.json": noun("person/y", [2]),
        "metadata/person/y.json": b'"of person/y"',
        "metadata/y.json": b'"of another"',
        "default/y.json": noun("y", [3]),
        "nouns/person/broken.json": b"{",
        "nouns/person/left.json": noun("right", [4]),
        "nouns/person/readme.txt": b"hello",
        "default/person/z.json": noun("person/z", [5]),
    }
    content = await read(objects, ["flat", "typed"])
    assert {i.id: first(i) for i in content.nouns.values()} == {
        "x": 1.0,
        "person/y": 2.0,
        "y": 3.0,
        "right": 4.0,
        "person/z": 5.0,
    }
    assert content.nouns["x"].metadata == b'"of x"'
    assert content.nouns["person/y"].metadata == b'"of person/y"'
    assert content.nouns["y"].metadata == b'"of another"'
    assert content.reasons == {"nouns/person/broken.json": "not-json", "nouns/person/readme.txt": "foreign-object"}


async def test_a_noun_whose_metadata_is_null_was_deleted() -> None:
    objects = {
        "default/a.json": noun("a"),
        "metadata/a.json": b"null",
        "place/b.json": noun("b"),
        "default/b.json": noun("b"),
        "metadata/b.json": b" null\n",
        "default/empty.json": noun("empty"),
        "metadata/empty.json": b"{}",
        # The flat tree has {} as null.
        "nouns/flat.json": noun("flat"),
        "metadata/flat.json": b"null",
    }
    content = await read(objects, ["typed"])
    assert content.nouns.keys() == {"empty", "flat"}
    assert content.reasons == {"default/a.json": "suspected-zombie", "place/b.json": "suspected-zombie"}


async def test_foreign_objects_in_its_folders_are_named() -> None:
    objects = {
        "default/good.json": noun("good"),
        "default/theme.json": b'{"theme": "dark"}',
        "content/page.html": b"<html>",
        "nodes/other.json": noun("other"),
        "nodes/odd.txt": b"x",
        "event/": b"",
        "edges/half.json": noun("half"),
    }
    content = await read(objects, ["typed"])
    assert content.nouns.keys() == {"good", "other"}
    assert content.reasons == {
        "default/theme.json": "missing-id",
        "content/page.html": "foreign-object",
        "nodes/odd.txt": "foreign-object",
        "edges/half.json": "verb-without-metadata",
    }


async def test_an_item_under_the_key_of_another_hides_nothing() -> None:
    store = await dated(
        {
            E + "a.json": (1, noun("b", [1])),
            "nouns/a.json": (1, noun("a", [2])),
            "metadata/a.json": (1, b'"a"'),
            "place/c.json": (9, noun("d", [3])),
            "thing/c.json": (1, noun("c", [4])),
            "default/c.json": (1, noun("c", [5])),
            "nouns/e.json": (1, noun("f", [6])),
            "default/e.json": (1, noun("e", [7])),
            "verbs/v.json": (1, verb("w")),
            "edges/v.json": (1, verb("v")),
            # What cannot be read stands for its item.
            E + "g.json": (1, b"{"),
            "nouns/g.json": (1, noun("h", [8])),
            "default/g.json": (1, noun("g", [9])),
        }
    )
    content = await read(store, ALL)
    found = {item.id: first(item) for item in content.nouns.values()}
    assert found == {"a": 2.0, "b": 1.0, "c": 4.0, "d": 3.0, "e": 7.0, "f": 6.0, "h": 8.0}
    assert content.nouns["a"].metadata == b'"a"'
    assert content.verbs.keys() == {"v", "w"}
    assert content.reasons == {E + "g.json": "not-json"}


async def test_a_person_hides_nothing_of_the_id_that_its_key_could_mean() -> None:
    content = await read(
        {
            "nouns/person/x.json": noun("x", [1]),
            "content/person/x.json": noun("person/x", [2]),
            "nodes/person/person/x.json": noun("elsewhere", [3]),
            "nodes/person/y.json": noun("other", [4]),
            "nodes/y.json": noun("y", [5]),
        },
        ALL,
    )
    found = {item.id: first(item) for item in content.nouns.values()}
    assert found == {"x": 1.0, "person/x": 2.0, "elsewhere": 3.0, "other": 4.0, "y": 5.0}
    assert not content.quarantined


async def test_metadata_goes_to_one_item_only() -> None:
    content = await read(
        {
            # Each under the other's key: the metadata goes with the id.
            "place/a.json": noun("b", [1]),
            "thing/b.json": noun("a", [2]),
            "metadata/a.json": b"{",
            # Another item has that metadata already.
            "nouns/c.json": noun("d", [3]),
            "default/c.json": noun("c", [4]),
            "metadata/c.json": b'"c"',
            # Damaged, and hidden behind a stray.
            E + "e.json": noun("f", [5]),
            "nouns/e.json": b"{",
        },
        ALL,
    )
    metadata = {item.id: item.metadata for item in content.nouns.values()}
    assert metadata == {"a": None, "b": None, "c": b'"c"', "d": None, "f": None}
    assert content.reasons == {"metadata/a.json": "not-json", "nouns/e.json": "not-json"}


async def test_survey_and_snapshot_and_inspection_of_three_trees() -> None:
    store = await bucket(
        {
            "default/a.json": noun("a", [1, 2]),
            "place/a.json": noun("a", [1, 2]),
            "edges/e.json": verb("e", "a", "b"),
            "nouns/b.json": noun("b", [1, 2]),
            "verbs/v.json": noun("v", [1, 2]),
            "verb-metadata/v.json": relation("b", "c"),
            E + "c.json": noun("c", [1, 2]),
            E + "a2.json": noun("a2", [1, 2, 3]),
        }
    )
    seen = await survey(store)
    assert (seen.trees, seen.dimensions) == (("entity", "flat", "typed"), 2)
    nouns, verbs = set(), set()
    async for batch in stream_current(store):
        nouns |= {item.id for item in batch.nouns}
        verbs |= {item.id for item in batch.verbs}
    assert (nouns, verbs) == ({"a", "b", "c", "a2"}, {"e", "v"})
    found = await inspect(store)
    assert (found.nouns, found.verbs, found.dimensions) == (4, 2, {2: 3, 3: 1})
    assert found.unsupported_trees == ()


@pytest.mark.parametrize(
    "left", ["default/x.json", "place/x.json", "event/x.json", "nodes/person/x.json", "edges/x.json"]
)
async def test_one_folder_is_enough_to_be_noticed(left: str) -> None:
    alone = await survey(await bucket({left: verb("x") if "edges" in left else noun("x")}))
    assert alone.trees == ("typed",)
    beside = await survey(await bucket({left: verb("x") if "edges" in left else noun("x"), E + "y.json": noun("y")}))
    assert beside.trees == ("entity", "typed")


async def test_folders_of_that_name_without_vectors_are_foreign() -> None:
    seen = await survey(await bucket({"content/page.json": b'{"title": "x"}', "default/theme.json": b"{}"}))
    assert (seen.trees, seen.foreign_keys, seen.empty) == ((), True, False)


async def test_superseded_objects_are_counted() -> None:
    source = BrainyTreeSource(
        await bucket({"default/a.json": noun("a"), "place/a.json": noun("a"), E + "a.json": noun("a")}), ALL
    )
    async for _ in source.stream(shards=[0], shard_count=1):
        pass
    assert source.superseded == 2
    assert await source.total() == 3


def test_keys() -> None:
    assert keys.parse("nodes/person/a.json") == ParsedKey(TYPED, Kind.NOUN, "a")
    assert keys.parse("nodes/a.json") == ParsedKey(TYPED, Kind.NOUN, "a")
    assert keys.parse("nouns/person/a.json") == ParsedKey(FLAT, Kind.NOUN, "person/a")
    assert keys.prefix_of("nodes/person/a.json") == "nodes/person/"


def test_the_typed_tree_brings_the_flat_one_along() -> None:
    assert open_trees(["typed"])[0] is open_trees(["flat"])[0]
    assert {tree.name for tree in open_trees(["typed"])} == {"flat", "typed"}
    ranks = [tree.rank for tree in open_trees(ALL)]
    assert ranks == sorted(ranks)
    verbs = [tree.keys.verbs for tree in open_trees(ALL) if Kind.VERB in tree.kinds]
    assert verbs == ["entities/verbs/vectors/", "verbs/", "edges/"]


def test_rivals() -> None:
    rivals = Rivals()
    a, b, c = (hashes_of([name]) for name in "abc")
    for place, hashes, time in ((1, a, 5.0), (2, a, 6.0), (3, a, 6.0), (1, b, 5.0), (2, c, 5.0), (1, c, 4.0)):
        rivals.add(place, hashes, [time])
    rivals.finish()
    every = hashes_of(list("abc"))
    assert rivals.lost(1, every).tolist() == [True, False, True]
    assert rivals.lost(2, every).tolist() == [False, False, False]
    assert rivals.lost(3, every).tolist() == [True, False, False]
    assert rivals.lost(9, every).tolist() == [False, False, False]


async def test_the_oldest_verbs_say_their_ends_and_type_themselves() -> None:
    stored = {"id": "v", "vector": [0.5], "connections": {}, "sourceId": "a", "targetId": "b", "type": "owns"}
    content = await read({"edges/v.json": json.dumps(stored | {"weight": 0, "metadata": None}).encode()}, ["typed"])
    found = content.verbs["v"]
    assert (found.type, found.weight, found.metadata) == ("owns", 0.0, b"null")
