"""Buckets written by the real Brainy, read in place: everything of the truth comes back, and nothing else."""

from __future__ import annotations

import base64
import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainy.backup.document_writing import write_document
from brainy.bucket.items import Noun, Verb
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.errors import PreconditionError
from brainy.legacy.batch import Quarantined, Reason
from brainy.legacy.survey import survey
from brainy.samples import sample_objects, sample_truth
from brainy.store.memory import MemoryStore

BUCKETS = {
    "v0.10.0": "typed",
    "v0.20.0": "flat",
    "v0.30.0": "flat",
    "v0.36.0": "flat",
    "v0.36.0-native512": "flat",
    "v0.46.0": "flat",
    "v0.46.0-distributed": "flat",
    "v0.46.0-writeonly": "flat",
    "v0.48.1": "entity",
    "v0.57.0": "entity",
    "v0.62.3": "entity",
    "v1.1.1": "entity",
}


def recorded(name: str) -> Path:
    named = os.environ.get("BRAINY_FIXTURES")  # noqa: TID251 - a test may
    beside = Path(__file__).resolve().parents[3] / "shared" / "brainy" / "fixtures"
    folder = (Path(named) if named else beside) / name
    if not folder.is_dir():
        pytest.skip("no recorded buckets: set BRAINY_FIXTURES")
    return folder


async def load(name: str) -> MemoryStore:
    store = MemoryStore()
    with gzip.open(recorded(name) / "objects.jsonl.gz") as lines:
        for line in lines:
            entry = json.loads(line)
            body = base64.b64decode(entry["body_b64"])
            await store.put(entry["key"], body, user_metadata=entry["metadata"])
    return store


def truth_of(name: str) -> dict[str, Any]:
    truth: dict[str, Any] = json.loads(gzip.decompress((recorded(name) / "truth.json.gz").read_bytes()))
    return truth


#: Of 46,003 objects; has a test of its own.
LARGE = "v0.46.0-10k"


def names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def by_id(part: Any) -> dict[str, dict[str, Any]]:
    return part if isinstance(part, dict) else {item["id"]: item for item in part}


class Read:
    """Everything a source yields; an item that comes twice is an error."""

    def __init__(self) -> None:
        self.nouns: dict[str, Noun] = {}
        self.verbs: dict[str, Verb] = {}
        self.quarantined: list[Quarantined] = []

    async def take(self, source: BrainyTreeSource, shards: Any = (0,), shard_count: int = 1) -> Read:
        async for batch in source.stream(shards=shards, shard_count=shard_count):
            for noun in batch.nouns:
                assert noun.id not in self.nouns
                self.nouns[noun.id] = noun
            for verb in batch.verbs:
                assert verb.id not in self.verbs
                self.verbs[verb.id] = verb
            self.quarantined += batch.quarantined
            assert len(batch.nouns) + len(batch.verbs) <= 1000
        return self


def float32(vector: list[float | None]) -> bytes:
    values = [float("nan") if value is None else value for value in vector]
    return np.array(values, dtype=np.float64).astype("<f4").tobytes()


def document(body: bytes | None) -> Any:
    return None if body is None else json.loads(body)


def assert_holds(read: Read, truth: dict[str, Any]) -> None:
    nouns, verbs = by_id(truth["nouns"]), by_id(truth["verbs"])
    assert read.nouns.keys() == nouns.keys()
    assert read.verbs.keys() == verbs.keys()
    for noun_id, expected in nouns.items():
        noun = read.nouns[noun_id]
        assert noun.vector == float32(expected["vector"])
        assert (noun.raw_vector is not None) == (None in expected["vector"])
        if noun.raw_vector is not None:
            assert json.loads(noun.raw_vector) == expected["vector"]
        if "metadata" in expected:
            assert document(noun.metadata) == expected["metadata"]
            assert (noun.metadata is not None) == expected["has_metadata_object"]
            level = (document(noun.attributes) or {}).get("level")
            assert level == expected["level"]
        if "name" in expected:
            assert document(noun.metadata)["name"] == expected["name"]
    for verb_id, expected in verbs.items():
        verb = read.verbs[verb_id]
        assert (verb.source_id, verb.target_id) == (expected["sourceId"], expected["targetId"])
        assert verb.type == expected["type"]
        if "weight_stored" in expected:
            assert verb.weight == expected["weight_stored"]
            assert document(verb.metadata) == expected["metadata_stored"]
            attributes = document(verb.attributes) or {}
            assert attributes.get("createdAt") == expected["createdAt"]
            assert attributes.get("createdBy") == expected["createdBy"]
        if expected.get("vector"):
            assert verb.vector == float32(expected["vector"])


@pytest.mark.parametrize("name", BUCKETS)
async def test_recorded_bucket(name: str) -> None:
    store, truth = await load(name), truth_of(name)
    source = BrainyTreeSource(store, [BUCKETS[name]])

    read = await Read().take(source)

    assert_holds(read, truth)
    zombies = {*truth.get("zombie_nouns", []), *truth.get("zombie_verbs", [])}
    assert {q.reason for q in read.quarantined} == ({Reason.SUSPECTED_ZOMBIE} if zombies else set())
    assert {q.key.rpartition("/")[2].removesuffix(".json") for q in read.quarantined} == zombies
    gone = {*truth.get("deleted_nouns", []), *truth.get("deleted_verbs", [])}
    assert not gone & (read.nouns.keys() | read.verbs.keys())
    superseded = len(truth.get("ids_in_several_prefixes", []))
    assert await source.total() == len(read.nouns) + len(read.verbs) + len(read.quarantined) + superseded
    assert source.cursor == {}


@pytest.mark.parametrize("name", ["v0.10.0", "v0.46.0", "v0.57.0"])
async def test_shards_partition_the_bucket(name: str) -> None:
    store, truth = await load(name), truth_of(name)
    together = Read()
    whole = BrainyTreeSource(store, [BUCKETS[name]])
    await Read().take(whole)

    parts = []
    for shards in ({0, 3}, {1}, {2}):
        source = BrainyTreeSource(store, [BUCKETS[name]])
        await together.take(source, shards, 4)
        parts.append(source.calls)

    assert_holds(together, truth)
    assert len(together.quarantined) == {"v0.10.0": 6, "v0.46.0": 0, "v0.57.0": 12}[name]
    # Only what a part needs is fetched whole, but for the deletes in the log.
    log = {"v0.10.0": 0, "v0.46.0": 40}.get(name, whole.calls.gets)
    assert all(part.gets < 0.6 * whole.calls.gets + log for part in parts)


async def test_an_upgraded_bucket_holds_both_trees_and_the_newer_one_wins() -> None:
    store, old, new = await load("v0.46.0"), truth_of("v0.46.0"), truth_of("v0.48.1")
    newer = await load("v0.48.1")
    async for page in newer.list("entities/"):
        for meta in page:
            stored = await newer.get(meta.key)
            assert stored is not None
            await store.put(meta.key, stored.body)
    assert (await survey(store)).trees == ("entity", "flat")

    read = await Read().take(BrainyTreeSource(store, ["flat", "entity"]), range(3), 3)

    mine = by_id(new["nouns"]).keys()
    hidden = {*mine, *new["null_metadata_tombstones"]}
    left = {item_id: item for item_id, item in by_id(old["nouns"]).items() if item_id not in hidden}
    assert left
    assert read.nouns.keys() == mine | left.keys()
    for item_id, expected in left.items():
        assert read.nouns[item_id].vector == float32(expected["vector"])
    gone = {*by_id(new["verbs"]), *new["orphan_verb_metadata"]}
    verbs = {item_id: item for item_id, item in by_id(old["verbs"]).items() if item_id not in gone}
    read.nouns = {item_id: item for item_id, item in read.nouns.items() if item_id in mine}
    assert read.verbs.keys() == by_id(new["verbs"]).keys() | verbs.keys()
    read.verbs = {item_id: item for item_id, item in read.verbs.items() if item_id in by_id(new["verbs"])}
    assert_holds(read, new)


@pytest.mark.slow
async def test_ten_thousand_nouns() -> None:
    store, truth = await load(LARGE), truth_of(LARGE)
    source = BrainyTreeSource(store, ["flat"])
    read = await Read().take(source)
    assert_holds(read, truth)
    assert not read.quarantined
    assert source.calls.gets == 24_000


def test_every_recorded_bucket_is_read() -> None:
    recorded_here = {name for name in names_in(recorded("v0.46.0").parent) if name.startswith("v")}
    assert recorded_here <= {*BUCKETS, LARGE}


@pytest.mark.parametrize("name", BUCKETS)
async def test_stored_doubles_are_kept_where_asked_for(name: str) -> None:
    store, truth = await load(name), truth_of(name)

    plain = await Read().take(BrainyTreeSource(store, [BUCKETS[name]]))
    exact = await Read().take(BrainyTreeSource(store, [BUCKETS[name]], keep_doubles=True))

    assert exact.quarantined == plain.quarantined
    kept = 0
    for mine, theirs, expected in (
        (exact.nouns, plain.nouns, by_id(truth["nouns"])),
        (exact.verbs, plain.verbs, by_id(truth["verbs"])),
    ):
        assert mine.keys() == theirs.keys()
        for item_id, item in mine.items():
            assert replace(item, raw_vector=None) == replace(theirs[item_id], raw_vector=None)
            assert item.raw_vector is not None or theirs[item_id].raw_vector is None
            stored = expected[item_id].get("vector")
            if stored is None:
                continue
            if item.raw_vector is None:
                assert np.frombuffer(item.vector, "<f4").astype(np.float64).tolist() == stored
            else:
                assert json.loads(item.raw_vector) == stored
                kept += 1
    assert kept > 0


@pytest.mark.parametrize("name", BUCKETS)
async def test_survey(name: str) -> None:
    store, truth = await load(name), truth_of(name)
    seen = await survey(store)
    assert seen.trees == (BUCKETS[name],)
    assert seen.dimensions == truth["dim"]
    assert seen.dimension_counts == {truth["dim"]: seen.sampled}
    assert not seen.empty
    assert not seen.foreign_keys
    assert seen.lists <= 24
    assert 0 < seen.gets <= 64


def test_a_tree_nobody_knows_is_refused() -> None:
    with pytest.raises(PreconditionError) as refused:
        BrainyTreeSource(MemoryStore(), ["flat", "hexagonal"])
    assert refused.value.reason == "UNSUPPORTED_FORMAT"


async def test_backup_file(tmp_path: Path) -> None:
    store, truth = await load("v0.46.0"), truth_of("v0.46.0")
    path = tmp_path / "backup.json"

    source = BrainyTreeSource(store, ["flat"])
    counts = await write_document(path, source.stream(shards=[0], shard_count=1))

    backup = json.loads(path.read_bytes())
    theirs = json.loads(gzip.decompress((recorded("v0.46.0") / "backup.json.gz").read_bytes()))
    assert backup.keys() - {"brainyCluster", "integrity"} == theirs.keys()
    assert backup["version"] == theirs["version"]
    assert (counts.nouns, counts.verbs, counts.bytes) == (189, 287, path.stat().st_size)
    assert names_in(tmp_path) == ["backup.json"]
    nouns = {noun["id"]: noun for noun in backup["nouns"]}
    for noun in theirs["nouns"]:
        mine = nouns.pop(noun["id"])
        assert float32(mine["vector"]) == float32(noun["vector"])
        assert mine["metadata"] == noun["metadata"]
        assert mine.get("brainyCluster", {}).keys() <= {"attributes", "metadata"}
    verbs = {verb["id"]: verb for verb in backup["verbs"]}
    for verb in theirs["verbs"]:
        mine = verbs.pop(verb["id"])
        assert float32(mine.pop("vector")) == float32(verb.pop("vector"))
        verb.pop("embedding", None)
        # The type also lies where Brainy's restore looks for it; ``data`` has the metadata as it was.
        assert mine.pop("metadata") == {**verb.pop("metadata", {}), "verb": verb["type"]}
        assert mine == verb
    assert not nouns
    assert not verbs
    assert len(truth["nouns"]) == counts.nouns


async def test_shipped_sample() -> None:
    store = MemoryStore()
    for key, body, user_metadata in sample_objects():
        await store.put(key, body, user_metadata=user_metadata)
    seen = await survey(store)
    assert seen.trees == ("flat",)
    assert_holds(await Read().take(BrainyTreeSource(store, seen.trees)), sample_truth())
    lock = await store.get("locks/statistics-flush")
    assert lock is not None
    assert lock.user_metadata["expires-at"].isdigit()
