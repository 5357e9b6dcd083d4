"""Backups of every recorded bucket, restored through real nodes: everything comes back, and is proven to."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from node_cluster import Cluster, spec, world_of

from brainy.backup.document import encode_noun
from brainy.backup.opening import check_backup
from brainy.backup.values import BackupFormat
from brainy.backup.writing import BackupOptions, write_backup
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import Noun, Verb
from brainy.clock import SystemClock
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.errors import (
    BrainyError,
    ConflictError,
    CorruptDataError,
    InvalidRequestError,
    PreconditionError,
    UnavailableError,
)
from brainy.ids import Ids
from brainy.legacy.survey import survey
from brainy.sdk.backups import ClientTarget
from brainy.sdk.client import AsyncBrainy
from brainy.store.memory import MemoryStore
from brainy.testing.fixtures import load_fixture, read_truth

BUCKETS = [
    "v0.10.0",
    "v0.20.0",
    "v0.30.0",
    "v0.36.0",
    "v0.36.0-native512",
    "v0.46.0",
    "v0.46.0-distributed",
    "v0.46.0-writeonly",
    "v0.48.1",
    "v0.57.0",
    "v0.62.3",
    "v1.1.1",
]

Items = tuple[dict[str, Noun], dict[str, Verb]]


@asynccontextmanager
async def serving(directory: Path, *, shards: int, dimensions: int = 0) -> AsyncIterator[AsyncBrainy]:
    """Two nodes with an empty namespace, and a client."""
    cluster = Cluster(world_of(directory, spec(dimensions=dimensions, shards=shards)))
    for node_id in "ab":
        await cluster.add(node_id, max_batch=10_000)
    for shard in range(shards):
        cluster.world.place(0, shard, "ab"[shard % 2])
    cluster.settle()
    client = AsyncBrainy([cluster[node_id].server.address for node_id in "ab"])
    try:
        yield client
    finally:
        await client.close()
        await cluster.close()


async def tree_items(store: MemoryStore, **options: Any) -> Items:
    source = BrainyTreeSource(store, (await survey(store)).trees, **options)
    nouns: dict[str, Noun] = {}
    verbs: dict[str, Verb] = {}
    async for batch in source.stream(shards=[0], shard_count=1):
        nouns.update((noun.id, noun) for noun in batch.nouns)
        verbs.update((verb.id, verb) for verb in batch.verbs)
    return nouns, verbs


async def served_items(client: AsyncBrainy) -> Items:
    nouns: dict[str, Noun] = {}
    verbs: dict[str, Verb] = {}
    async for batch in ClientTarget(client).items():
        nouns.update((noun.id, noun) for noun in batch.nouns)
        verbs.update((verb.id, verb) for verb in batch.verbs)
    return nouns, verbs


def digest(items: Items) -> str:
    state = MultisetDigest()
    for noun in items[0].values():
        state.add(noun.id, noun.digest())
    for verb in items[1].values():
        state.add(verb.id, verb.digest())
    return state.fold()


async def back_up(store: MemoryStore, path: Path, kind: BackupFormat = BackupFormat.NATIVE) -> Path:
    await write_backup(store, "memory://x", path, BackupOptions(format=kind), clock=SystemClock(), ids=Ids())
    return path


@pytest.mark.parametrize("name", BUCKETS)
async def test_a_recorded_bucket_comes_back_from_both_formats(
    name: str, recorded_buckets: Path, tmp_path: Path
) -> None:
    store = MemoryStore()
    await load_fixture(store, recorded_buckets / name)
    held = await tree_items(store)
    archive = await back_up(store, tmp_path / "b.backup")
    document = await back_up(store, tmp_path / "b.json", BackupFormat.BRAINY)
    assert check_backup(archive).verification.digest == digest(held)
    assert check_backup(document).verification.digest == digest(held)
    # Stored doubles and nulls are in the text as they were; the real Brainy would read the same numbers.
    parsed = orjson.loads(document.read_bytes())
    truth = read_truth(recorded_buckets / name)["nouns"]
    stored = truth if isinstance(truth, dict) else {entry["id"]: entry for entry in truth}
    assert all(element["vector"] == stored[element["id"]]["vector"] for element in parsed["nouns"])
    assert {noun["id"] for noun in parsed["nouns"]} == held[0].keys()
    for element in parsed["nouns"]:
        values = [math.nan if part is None else part for part in element["vector"]]
        np.testing.assert_array_equal(
            np.array(values, dtype=np.float64).astype("<f4"), np.frombuffer(held[0][element["id"]].vector, "<f4")
        )
    for element in parsed["verbs"]:
        assert element["metadata"]["verb"] == held[1][element["id"]].type

    for source, shards in ((archive, 3), (document, 5)):
        async with serving(tmp_path / f"cluster-{shards}", shards=shards) as client:
            # Into nothing.
            done = await client.restore(source)
            assert (done.nouns_restored, done.verbs_restored) == (len(held[0]), len(held[1]))
            assert (done.skipped, done.unchanged, done.digest) == ((), 0, digest(held))
            assert await served_items(client) == held
            # Over itself: nothing is written.
            again = await client.restore(source)
            assert (again.unchanged, again.nouns_restored) == (len(held[0]) + len(held[1]), len(held[0]))
            # Over something else, which is kept, replaced or removed.
            first = min(held[0])
            width = (await client.get_statistics()).dimensions
            await client.add(np.ones(width), {"mine": 1}, id=first)
            await client.add(np.ones(width), {"mine": 2}, id="surplus")
            await client.add_verb("surplus", first, "likes", id="surplus verb")
            kept = await client.restore(source, keep=True)
            assert [(entry.id, entry.reason) for entry in kept.skipped] == [(first, "exists")]
            assert (await served_items(client))[0][first].metadata == b'{"mine":1}'
            tried = await client.restore(source, clear_existing=True, dry_run=True)
            assert (tried.nouns_deleted, tried.verbs_deleted, tried.dry_run) == (1, 1, True)
            assert (await client.get("surplus")) is not None
            merged = await client.restore(source)
            assert merged.nouns_deleted == 0
            nouns, _ = await served_items(client)
            assert set(nouns) - set(held[0]) == {"surplus"}
            assert nouns[first] == held[0][first]
            cleared = await client.restore(source, clear_existing=True)
            assert (cleared.nouns_deleted, cleared.verbs_deleted) == (1, 1)
            assert await served_items(client) == held


async def test_a_backup_of_what_was_restored_is_the_same_backup(recorded_buckets: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    await load_fixture(store, recorded_buckets / "v0.57.0")
    held = await tree_items(store)
    archive = await back_up(store, tmp_path / "b.backup")
    async with serving(tmp_path / "cluster", shards=2) as client:
        await client.restore(archive)
        document = await client.backup()
        assert check_backup(document).verification.digest == digest(held)
        async with serving(tmp_path / "other", shards=4) as other:
            done = await other.restore(document)
            assert done.digest == digest(held)
            assert await served_items(other) == held
            path = tmp_path / "document.json"
            path.write_bytes(orjson.dumps(document))
            with pytest.raises(CorruptDataError):
                await other.restore(path)
            assert (await other.restore(path, accept_rewritten=True)).unchanged == len(held[0]) + len(held[1])


async def test_a_backup_of_the_real_brainy_is_restored_with_its_types(recorded_buckets: Path, tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "theirs.json"
    path.write_bytes(gzip.decompress((recorded_buckets / "v0.20.0" / "backup.json.gz").read_bytes()))
    theirs = orjson.loads(path.read_bytes())
    async with serving(tmp_path / "cluster", shards=3) as client:
        done = await client.restore(path)
        assert {entry.reason for entry in done.skipped} == {"verb-stored-as-noun"}
        assert len(done.skipped) == 172
        assert done.nouns_restored == len(theirs["nouns"]) - 172
        assert any("no hashes" in warning for warning in done.warnings)
        _, verbs = await served_items(client)
        assert {(verb["id"], verb["type"]) for verb in theirs["verbs"]} == {
            (verb.id, verb.type) for verb in verbs.values()
        }


def odd_items() -> tuple[list[Noun], list[Verb]]:
    """What is kept but cannot be indexed, and documents that JSON libraries would change."""

    def floats(*values: float) -> bytes:
        return np.array(values, dtype="<f4").tobytes()

    nouns = [
        Noun(id="good", vector=floats(1, 2), metadata=b'{ "spaced" : 1.50 }'),
        Noun(id="zero", vector=floats(0, 0), attributes=b'{"level":0}'),
        Noun(id="none", metadata=b"null"),
        Noun(id="nulls", vector=floats(math.nan, 1), raw_vector=b"[null,1]"),
        Noun(id="long", vector=floats(1, 2, 3), metadata=b'{"l":"\\ud800"}'),
    ]
    verbs = [
        Verb(id="untyped", source_id="good", target_id="gone", type=""),
        Verb(id="raw", source_id="good", target_id="zero", type="t", vector=floats(math.nan), raw_vector=b"[null]"),
    ]
    return nouns, verbs


async def odd_backup(path: Path) -> Path:
    from brainy.backup.document_writing import write_document
    from brainy.dataset.base import ItemBatch

    async def batches() -> AsyncIterator[ItemBatch]:
        nouns, verbs = odd_items()
        yield ItemBatch(nouns=nouns, verbs=verbs)

    await write_document(path, batches(), dimensions=2)
    return path


async def test_what_cannot_be_indexed_comes_back_too(tmp_path: Path) -> None:
    path = await odd_backup(tmp_path / "odd.json")
    nouns, verbs = odd_items()
    async with serving(tmp_path / "cluster", shards=2, dimensions=2) as client:
        done = await client.restore(path)
        assert (done.nouns_restored, done.verbs_restored, done.skipped) == (5, 2, ())
        assert await served_items(client) == ({one.id: one for one in nouns}, {one.id: one for one in verbs})
        assert {entry.id: entry.reason async for entry in client.unindexed()} == {
            "zero": "zero",
            "none": "no-vector",
            "nulls": "non-finite",
            "long": "dimension",
        }
        assert (await client.get_statistics()).dimensions == 2
        assert [hit.id for hit in await client.search([1.0, 2.0], 5)] == ["good"]
        # As Python values too: JavaScript's lone surrogates are no obstacle.
        assert check_backup(await client.backup()).verification.digest == done.digest


async def test_other_dimensions_are_refused_before_anything_changes(tmp_path: Path) -> None:
    path = await odd_backup(tmp_path / "odd.json")
    async with serving(tmp_path / "cluster", shards=2, dimensions=3) as client:
        await client.add([1.0, 1.0, 1.0], id="mine")
        with pytest.raises(PreconditionError) as refused:
            await client.restore(path, clear_existing=True)
        assert refused.value.reason == "INVALID_DIMENSION"
        assert (await served_items(client))[0].keys() == {"mine"}
        await client.restore(path, dimensions=3)
        assert len((await served_items(client))[0]) == 6
        assert [hit.id for hit in await client.search([1.0, 2.0, 3.0], 5)][0] == "long"  # noqa: RUF015


@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 1.0])
async def test_damage_is_refused_before_anything_changes(tmp_path: Path, place: float) -> None:
    path = await odd_backup(tmp_path / "odd.json")
    async with serving(tmp_path / "cluster", shards=2) as client:
        await client.add([1.0, 2.0], id="mine")
        body = bytearray(path.read_bytes())
        body[round(place * (len(body) - 1))] ^= 2
        path.write_bytes(body)
        before = await ClientTarget(client).digest()
        with pytest.raises(BrainyError):
            await client.restore(path, clear_existing=True)
        assert await ClientTarget(client).digest() == before


async def test_a_broken_restore_loses_nothing_and_goes_on(
    recorded_buckets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    await load_fixture(store, recorded_buckets / "v0.46.0")
    held = await tree_items(store)
    archive = await back_up(store, tmp_path / "b.backup")
    monkeypatch.setattr("brainy.backup.restoring.BATCH_ITEMS", 50)
    monkeypatch.setattr("brainy.backup.native_reading._BATCH", 50)
    async with serving(tmp_path / "cluster", shards=2) as client:
        await client.add(np.ones(32), {"old": 1}, id="old")
        put, left = ClientTarget.put_nouns, [2]

        async def failing(self: ClientTarget, nouns: Sequence[Noun], dimensions: int, request_id: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise UnavailableError("gone")
            await put(self, nouns, dimensions, request_id)

        monkeypatch.setattr(ClientTarget, "put_nouns", failing)
        with pytest.raises(UnavailableError):
            await client.restore(archive, clear_existing=True)
        nouns, _ = await served_items(client)
        assert "old" in nouns
        assert 50 <= len(nouns) < len(held[0])
        monkeypatch.setattr(ClientTarget, "put_nouns", put)
        done = await client.restore(archive, clear_existing=True)
        assert done.unchanged == len(nouns) - 1
        assert await served_items(client) == held


async def test_somebody_who_writes_meanwhile_is_noticed(
    recorded_buckets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    await load_fixture(store, recorded_buckets / "v0.46.0")
    archive = await back_up(store, tmp_path / "b.backup")
    async with serving(tmp_path / "cluster", shards=2) as client:
        put = ClientTarget.put_verbs
        victim = ["new"]

        async def beside(self: ClientTarget, verbs: Sequence[Verb], request_id: str) -> None:
            await put(self, verbs, request_id)
            await client.add(np.ones(32), id=victim[0])

        monkeypatch.setattr(ClientTarget, "put_verbs", beside)
        # Another item: both are there in the end, and the items of the backup are compared one by one.
        await client.restore(archive)
        assert await client.get("new") is not None
        victim[0] = min((await tree_items(store))[0])
        await client.delete_verbs([verb.id async for verb in client.scan_verbs()])
        with pytest.raises(ConflictError) as noticed:
            await client.restore(archive)
        assert victim[0] in noticed.value.fields["first"]


async def test_stored_items_are_still_checked_at_the_door(tmp_path: Path) -> None:
    bad = [
        Noun(id=""),
        Noun(id="a", vector=b"123"),
        Noun(id="a", raw_vector=b"{}"),
        Noun(id="a", metadata=b"{"),
        Noun(id="a", metadata=b"NaN"),
        Noun(id="a", attributes=b"[]"),
    ]
    async with serving(tmp_path / "cluster", shards=1) as client:
        target = ClientTarget(client)
        for noun in bad:
            with pytest.raises(InvalidRequestError):
                await target.put_nouns([Noun(id="fine"), noun], 2, "r")
        for verb in (
            Verb(id="v", source_id="", target_id="t", type="k"),
            Verb(id="v", source_id="s", target_id="t", type="k", weight=math.inf),
            Verb(id="v", source_id="s", target_id="t", type="k", attributes=b"1"),
        ):
            with pytest.raises(InvalidRequestError):
                await target.put_verbs([verb], "r")
        assert await target.count() == 0
        with pytest.raises(InvalidRequestError):
            await client.add([0.0, 0.0])
        assert encode_noun(bad[0])
    reader = AsyncBrainy(["127.0.0.1:1"], read_only=True)
    with pytest.raises(PreconditionError):
        await reader.restore({})
    await reader.close()
