"""Generations and whole namespaces as streams of items."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.digest import digest_of
from brainy.bucket.items import Noun, Verb, noun_to_proto, verb_to_proto
from brainy.bucket.partition import shard_of
from brainy.bucket.quarantine import Kept, QuarantinedObject, QuarantineList, write_quarantine
from brainy.bucket.records import GenerationPlacement, Manifest, NodeAddress, Routing, ShardPlacement, Spec, StoredFile
from brainy.bucket.segments import stored_file, write_nouns, write_verbs
from brainy.changelog.writing import LogWriter
from brainy.clock import SystemClock
from brainy.dataset.base import ItemBatch, Quarantined, Source
from brainy.dataset.generation import GenerationSource
from brainy.dataset.snapshot import stream_current
from brainy.errors import CorruptDataError, NotFoundError, PreconditionError
from brainy.ids import Ids
from brainy.store.memory import MemoryStore

SHARDS = 3


def noun(name: str, value: float = 1.0) -> Noun:
    return Noun(id=name, vector=np.array([value, 2.0], dtype="<f4").tobytes(), metadata=b'{"x":1}')


def verb(name: str) -> Verb:
    return Verb(id=name, source_id="n0", target_id="n1", type="relatedTo", weight=0.5)


NOUNS = [noun(f"n{i}", i) for i in range(2500)]
VERBS = [verb(f"v{i}") for i in range(40)]


async def put_spec(store: MemoryStore, generation: int, *, source: str, shard_count: int = SHARDS) -> None:
    spec = Spec(
        generation=generation,
        dimensions=2,
        shard_count=shard_count,
        source=source,
        source_trees=("flat",) if source == "brainy" else (),
    )
    await store.put(layout.spec(generation), spec.encode())


async def put_routing(store: MemoryStore, active: int, shard_count: int = SHARDS) -> None:
    shards = {number: ShardPlacement(owner="n", epoch=1) for number in range(shard_count)}
    placement = GenerationPlacement(state="serving", shard_count=shard_count, shards=shards)
    routing = Routing(
        namespace="memory://test",
        epoch=1,
        nonce="n",
        leader_epoch=1,
        active=active,
        write=active,
        nodes={"n": NodeAddress(address="n:1", incarnation="1")},
        generations={active: placement},
    )
    await store.put(layout.ROUTING, routing.encode())


async def publish(store: MemoryStore, directory: Path, *, positions: Sequence[int] = (4, 5, 6)) -> dict[int, Manifest]:
    """Put generation 1 with all items, in segments, into the store."""
    await put_spec(store, 1, source="0")
    manifests = {}
    for shard in range(SHARDS):
        nouns = [item for item in NOUNS if shard_of(item.id, SHARDS) == shard]
        verbs = [item for item in VERBS if shard_of(item.id, SHARDS) == shard]
        half = len(nouns) // 2
        files: dict[str, list[StoredFile]] = {"nouns": [], "verbs": []}
        for number, part in enumerate((nouns[:half], nouns[half:])):
            path = directory / f"{shard}-{number}.parquet"
            rows = write_nouns(path, [part], dimensions=2)
            key = layout.segment(1, "nouns", shard, f"s{number}")
            files["nouns"].append(stored_file(path, key=key, rows=rows))
            await store.put(key, path.read_bytes())
        path = directory / f"{shard}-v.parquet"
        rows = write_verbs(path, [verbs], dimensions=2)
        key = layout.segment(1, "verbs", shard, "s0")
        files["verbs"].append(stored_file(path, key=key, rows=rows))
        await store.put(key, path.read_bytes())
        key = layout.quarantine(1, shard, "q")
        if shard == 0:
            # The older form, without bytes.
            key = key.replace(".parquet", ".json")
            bad = QuarantinedObject(key="bad0", reason="empty", size=0)
            listed = QuarantineList(generation=1, shard=0, objects=(bad,)).encode()
        else:
            path = directory / f"{shard}-q.parquet"
            write_quarantine(path, [Kept(key=f"bad{shard}", reason="empty", size=0, sha256="e3", body=b"")])
            listed = path.read_bytes()
        await store.put(key, listed)
        quarantine = StoredFile(key=key, size=len(listed), sha256=hashlib.sha256(listed).hexdigest())
        manifests[shard] = Manifest(
            generation=1,
            shard=shard,
            epoch=1,
            nonce="n",
            position=positions[shard],
            nouns=tuple(files["nouns"]),
            verbs=tuple(files["verbs"]),
            quarantine=quarantine,
            noun_count=len(nouns),
            verb_count=len(verbs),
            indexed_count=0,
            digest=digest_of((item.id, item.digest()) for item in [*nouns, *verbs]).fold(),
        )
        await store.put(layout.manifest(1, shard), manifests[shard].encode())
    return manifests


async def collect(source: Source, shards: Sequence[int], shard_count: int) -> list[ItemBatch]:
    return [batch async for batch in source.stream(shards=shards, shard_count=shard_count)]


def items_of(batches: Sequence[ItemBatch]) -> tuple[list[Noun], list[Verb], list[Quarantined]]:
    nouns = [item for batch in batches for item in batch.nouns]
    verbs = [item for batch in batches for item in batch.verbs]
    return nouns, verbs, [item for batch in batches for item in batch.quarantined]


def by_id(items: Sequence[Noun] | Sequence[Verb]) -> dict[str, Noun | Verb]:
    found = {item.id: item for item in items}
    assert len(found) == len(items), "an item came twice"
    return found


async def write_log(store: MemoryStore, generation: int, records: Sequence[log_pb2.LogRecord], base: int) -> None:
    """Commit records to the shards their ids belong to, in two batches behind a fence."""
    for shard in range(SHARDS):
        mine = [
            record
            for record in records
            if shard_of(
                record.upsert_noun.id or record.delete_noun or record.upsert_verb.id or record.delete_verb, SHARDS
            )
            == shard
        ]
        writer = LogWriter(
            store,
            generation=generation,
            shard=shard,
            epoch=1,
            writer_node="n",
            incarnation="i",
            ids=Ids(),
            clock=SystemClock(),
            next_position=1,
        )
        await writer.fence()
        if base > 1:
            # What the manifests already include: must not be applied again.
            await writer.commit([log_pb2.LogRecord(delete_noun="n0")] * (base - 1))
        for part in (mine[: len(mine) // 2], mine[len(mine) // 2 :]):
            if part:
                await writer.commit(part)


CHANGES = [
    log_pb2.LogRecord(upsert_noun=noun_to_proto(noun("n7", 70))),
    log_pb2.LogRecord(delete_noun="n8"),
    log_pb2.LogRecord(upsert_noun=noun_to_proto(noun("new", 5))),
    log_pb2.LogRecord(upsert_noun=noun_to_proto(noun("gone", 6))),
    log_pb2.LogRecord(delete_noun="gone"),
    log_pb2.LogRecord(delete_verb="v3"),
    log_pb2.LogRecord(upsert_verb=verb_to_proto(verb("w"))),
]


async def test_a_generation_streams_every_item_once(tmp_path: Path) -> None:
    store = MemoryStore()
    await publish(store, tmp_path)
    source = GenerationSource(store, 1)
    with pytest.raises(RuntimeError):
        _ = source.cursor
    assert await source.total() == len(NOUNS) + len(VERBS)
    assert dict(source.cursor) == {0: 4, 1: 5, 2: 6}
    batches = await collect(source, range(SHARDS), SHARDS)
    assert max(len(batch.nouns) + len(batch.verbs) for batch in batches) <= 1000
    nouns, verbs, quarantined = items_of(batches)
    assert by_id(nouns) == by_id(NOUNS)
    assert by_id(verbs) == by_id(VERBS)
    assert {item.key for item in quarantined} == {"bad0", "bad1", "bad2"}


@pytest.mark.parametrize("shard_count", [1, 2, SHARDS, 5])
async def test_repartitioning_gives_each_item_to_exactly_one_shard(tmp_path: Path, shard_count: int) -> None:
    store = MemoryStore()
    await publish(store, tmp_path)
    source = await GenerationSource.open(store, 1)
    nouns: list[Noun] = []
    verbs: list[Verb] = []
    quarantined: list[Quarantined] = []
    for shard in range(shard_count):
        part = items_of(await collect(source, [shard], shard_count))
        assert all(shard_of(item.id, shard_count) == shard for item in part[0])
        assert all(shard_of(item.id, shard_count) == shard for item in part[1])
        nouns += part[0]
        verbs += part[1]
        quarantined += part[2]
    assert by_id(nouns) == by_id(NOUNS)
    assert by_id(verbs) == by_id(VERBS)
    assert len(quarantined) == SHARDS


async def test_missing_or_altered_objects_are_found(tmp_path: Path) -> None:
    store = MemoryStore()
    manifests = await publish(store, tmp_path)
    file = manifests[1].nouns[0]
    found = await store.get(file.key)
    assert found is not None
    body = bytearray(found.body)
    body[len(body) // 2] ^= 1
    await store.put(file.key, bytes(body))
    with pytest.raises(CorruptDataError):
        await collect(GenerationSource(store, 1), range(SHARDS), SHARDS)
    await store.delete(file.key)
    with pytest.raises(CorruptDataError):
        await collect(GenerationSource(store, 1), range(SHARDS), SHARDS)
    await store.delete(layout.manifest(1, 2))
    with pytest.raises(CorruptDataError):
        await GenerationSource(store, 1).total()
    with pytest.raises(NotFoundError):
        await GenerationSource(store, 9).total()


async def test_a_snapshot_is_the_base_with_its_log_replayed(tmp_path: Path) -> None:
    store = MemoryStore()
    await publish(store, tmp_path, positions=(4, 4, 4))
    await put_routing(store, 1)
    await write_log(store, 1, CHANGES, base=4)
    nouns, verbs, quarantined = items_of([batch async for batch in stream_current(store)])
    expected = by_id(NOUNS) | {"n7": noun("n7", 70), "new": noun("new", 5)}
    del expected["n8"]
    assert by_id(nouns) == expected
    expected = by_id(VERBS) | {"w": verb("w")}
    del expected["v3"]
    assert by_id(verbs) == expected
    assert len(quarantined) == SHARDS


async def put_tree(store: MemoryStore) -> None:
    for name in ("a", "b", "n8"):
        await store.put(f"nouns/{name}.json", b'{"id":"%s","vector":[1,2],"connections":{}}' % name.encode())
        await store.put(f"metadata/{name}.json", b'{"noun":"thing"}')


async def test_a_bucket_of_brainy_before_and_after_adoption() -> None:
    store = MemoryStore()
    await put_tree(store)
    nouns, _, _ = items_of([batch async for batch in stream_current(store)])
    assert set(by_id(nouns)) == {"a", "b", "n8"}
    await put_spec(store, 0, source="brainy")
    await put_routing(store, 0)
    await write_log(store, 0, CHANGES, base=0)
    nouns, verbs, _ = items_of([batch async for batch in stream_current(store)])
    assert set(by_id(nouns)) == {"a", "b", "n7", "new"}
    assert [item.id for item in verbs] == ["w"]


async def test_empty_namespaces() -> None:
    store = MemoryStore()
    assert items_of([batch async for batch in stream_current(store)]) == ([], [], [])
    await put_spec(store, 0, source="empty")
    await put_routing(store, 0)
    await write_log(store, 0, CHANGES, base=0)
    nouns, verbs, _ = items_of([batch async for batch in stream_current(store)])
    assert set(by_id(nouns)) == {"n7", "new"}
    assert set(by_id(verbs)) == {"w"}


async def test_a_foreign_bucket_is_refused() -> None:
    store = MemoryStore()
    await store.put("holiday.jpg", b"\xff\xd8")
    with pytest.raises(PreconditionError) as caught:
        [batch async for batch in stream_current(store)]
    assert caught.value.reason == "NOT_A_BRAINY_BUCKET"
