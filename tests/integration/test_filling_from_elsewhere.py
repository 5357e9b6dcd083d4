"""Fills whose data are elsewhere: a backup of either format, a tree, and a namespace whose logs are then followed."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_builder import (
    BROKEN,
    NOUNS,
    VERBS,
    do,
    job_of,
    shards_of,
    spec_of,
    total_digest,
    tree_objects,
    vector_of,
)
from test_reembedding import projected

from brainy.api.common.v1 import common_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.backup.opening import check_backup
from brainy.backup.source import BackupSource
from brainy.backup.values import BackupFormat
from brainy.backup.writing import BackupOptions, write_backup
from brainy.bucket import layout
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.embedding import Reembedding
from brainy.bucket.namespace import Namespace
from brainy.bucket.origin import ELSEWHERE, Origin
from brainy.bucket.projection import Projection
from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement, Spec
from brainy.changelog.writing import LogWriter
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.dataset.base import Source
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.errors import CorruptDataError, PreconditionError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.memory import MemoryStore
from brainy.store.opening import open_store
from brainy_coordinator.migration.arrival.items import count_without_text, digest_of_items
from tests.embedding_endpoint import embedding_endpoint


async def tree_at(directory: Path) -> tuple[str, ObjectStore]:
    namespace = f"file://{directory}"
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    for key, body in tree_objects().items():
        await store.put(key, body)
    return namespace, store


async def filled(origin: Origin, output: Path, shards: int = 3) -> tuple[MultisetDigest, list, list]:  # type: ignore[type-arg]
    spec = spec_of(1, source="0", shard_count=shards).model_copy(update={"origin": origin})
    built = await do(job_of("fill", spec, output), MemoryStore())
    bases = shards_of(built, spec)
    total = MultisetDigest()
    for shard in bases:
        total.merge(shard.digest())
    return total, bases, [each for shard in bases for each in shard.quarantined()]


@pytest.mark.parametrize("kind", [BackupFormat.NATIVE, BackupFormat.BRAINY])
async def test_a_backup_fills_a_generation_and_a_damaged_one_does_not(kind: BackupFormat, tmp_path: Path) -> None:
    namespace, store = await tree_at(tmp_path / "old")
    file = tmp_path / "before.backup"
    await write_backup(store, namespace, file, BackupOptions(format=kind), clock=SystemClock(), ids=Ids())
    await store.close()
    total, bases, quarantined = await filled(Origin(backup=str(file)), tmp_path / "out")
    assert total == check_backup(file).state
    assert [dict(shard.source_cursor) for shard in bases] == [{}, {}, {}]
    statistics = [shard.statistics() for shard in bases]
    assert (sum(s.nouns for s in statistics), sum(s.verbs for s in statistics)) == (NOUNS, VERBS)
    assert quarantined == []
    # As an object of a store, the same.
    fetched, _, _ = await filled(Origin(backup=f"file://{file}"), tmp_path / "again", shards=1)
    assert fetched == total
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.write_bytes(body)
    with pytest.raises(CorruptDataError):
        await filled(Origin(backup=str(file)), tmp_path / "never")


async def test_a_tree_elsewhere_fills_a_generation_with_what_it_could_not_read(tmp_path: Path) -> None:
    namespace, store = await tree_at(tmp_path / "old")
    await store.close()
    _, bases, quarantined = await filled(Origin(namespace=namespace), tmp_path / "out", shards=2)
    assert sum(shard.statistics().nouns for shard in bases) == NOUNS
    assert len(quarantined) == BROKEN


async def test_what_a_cluster_serves_is_filled_up_to_positions_that_are_then_followed(tmp_path: Path) -> None:
    namespace, store = await tree_at(tmp_path / "old")
    theirs = Spec(generation=0, dimensions=len(vector_of(0)), shard_count=2, source="brainy", source_trees=("flat",))
    await store.put(layout.spec(0), theirs.encode())
    shards = {number: ShardPlacement(owner="a", epoch=1) for number in range(2)}
    routing = Routing(
        namespace=namespace,
        epoch=1,
        nonce="n",
        leader_epoch=1,
        active=0,
        write=0,
        nodes={"a": NodeAddress(address="a", incarnation="i")},
        generations={0: GenerationPlacement(state="serving", shard_count=2, shards=shards)},
    )
    await store.put(layout.ROUTING, routing.encode())
    writer = LogWriter(
        store,
        generation=0,
        shard=0,
        epoch=1,
        writer_node="a",
        incarnation="i",
        ids=Ids(),
        clock=SystemClock(),
        next_position=1,
    )
    await writer.fence()
    await writer.commit([log_pb2.LogRecord(upsert_noun=common_pb2.Noun(id="later", vector=b"\0" * 32))])
    origin = Origin(namespace=namespace, generation=0, shard_count=2)
    _, bases, _ = await filled(origin, tmp_path / "out", shards=2)
    # Nothing of generation 0 is published, so its tree is read, and its log is followed from the beginning.
    assert [(dict(shard.source_cursor), shard.source_generation) for shard in bases] == [
        ({0: 0}, ELSEWHERE),
        ({1: 0}, ELSEWHERE),
    ]
    _, others, _ = await filled(origin, tmp_path / "three", shards=3)
    assert all(dict(shard.source_cursor) == {0: 0, 1: 0} for shard in others)
    with pytest.raises(PreconditionError, match="gone on to another generation"):
        await filled(origin.model_copy(update={"generation": 4}), tmp_path / "never")
    await store.close()


@pytest.mark.parametrize("kind", ["native", "brainy", "tree"])
async def test_texts_from_elsewhere_are_embedded_and_compared_without_their_vectors(kind: str, tmp_path: Path) -> None:
    namespace, store = await tree_at(tmp_path / "old")
    await store.put("metadata/n0.json", b'{"text": " "}')
    file = tmp_path / "texts.backup"
    if kind == "tree":
        origin = Origin(namespace=namespace, without_vectors=True)
        source: Source = BrainyTreeSource(store, ("flat",))
    else:
        options = BackupOptions(format=BackupFormat(kind))
        await write_backup(store, namespace, file, options, clock=SystemClock(), ids=Ids())
        origin = Origin(backup=str(file), without_vectors=True)
        source = BackupSource(check_backup(file))
        assert count_without_text(check_backup(file)) == 1
    with embedding_endpoint() as endpoint:
        identity = endpoint.identity("words-6")
        spec = spec_of(1, source="0", shard_count=2).model_copy(
            update={
                "dimensions": identity.dimensions,
                "origin": origin,
                "embedding": identity,
                "reembedding": Reembedding(endpoint=endpoint.url),
            }
        )
        shards = shards_of(await do(job_of("fill", spec, tmp_path / "out"), MemoryStore()), spec)
        assert len(endpoint.texts["words-6"]) == NOUNS - 1
    statistics = [shard.statistics() for shard in shards]
    assert (sum(s.nouns for s in statistics), sum(s.verbs for s in statistics)) == (NOUNS, VERBS)
    assert sum(s.unindexed for s in statistics) == 1
    will = await digest_of_items(source, Projection(embedding=identity, expected=True))
    assert (will.nouns, will.verbs) == (NOUNS, VERBS)
    assert will.digest == projected(shards, Projection(embedding=identity))
    # Not by accident: their vectors differ, and an item that one side misses is seen.
    assert (await digest_of_items(source, None)).digest != total_digest(shards)
    await store.delete("nouns/n3.json")
    if kind == "tree":
        fewer: Source = BrainyTreeSource(store, ("flat",))
    else:
        lesser = tmp_path / "lesser.backup"
        await write_backup(store, namespace, lesser, options, clock=SystemClock(), ids=Ids())
        fewer = BackupSource(check_backup(lesser))
    missed = await digest_of_items(fewer, Projection(embedding=identity, expected=True))
    assert (missed.nouns, missed.digest == will.digest) == (NOUNS - 1, False)
    await store.close()
