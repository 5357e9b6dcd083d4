"""The native archive: complete, at one cut, resumable, incremental, open to ordinary tools."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from backed_up_namespace import NAMESPACE, SHARDS, Namespace, assert_holds, filled, names_in, noun

from brainy.backup.archive import Archive, ArchiveWriter
from brainy.backup.native import RESUME_SECONDS
from brainy.backup.opening import check_backup
from brainy.backup.parts import PartSize
from brainy.backup.values import BackupFormat
from brainy.backup.writing import BackupOptions, write_backup
from brainy.bucket.items import Noun
from brainy.bucket.partition import shard_of
from brainy.clock import SystemClock
from brainy.dataset.cut import CutReader, take_cut
from brainy.errors import (
    CorruptDataError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from brainy.ids import Ids
from brainy.samples import sample_objects
from brainy.store.base import StoredObject
from brainy.store.memory import MemoryStore


async def test_a_backup_holds_the_state_and_opens_with_ordinary_tools(tmp_path: Path) -> None:
    space = await filled()
    await space.drop(nouns=["n3", "absent"], verbs=["v1"])
    await space.put(noun("n4", 9.0, None))
    summary = await space.backup(tmp_path / "b.backup", part_size=PartSize(rows=100))
    assert names_in(tmp_path) == ["b.backup"]
    backup = assert_holds(tmp_path / "b.backup", space)
    assert (summary.nouns, summary.verbs, summary.digest) == (249, 19, space.digest)
    assert summary.settled
    assert summary.positions == {shard: writer.next_position - 1 for shard, writer in space.writers.items()}
    assert summary.bytes == (tmp_path / "b.backup").stat().st_size
    with zipfile.ZipFile(tmp_path / "b.backup") as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        manifest = orjson.loads(archive.read("manifest.json"))
        tables = [pq.read_table(io.BytesIO(archive.read(name))) for name in names if name.startswith("nouns/")]
    assert names[-1] == "manifest.json"
    assert manifest["nouns"] == sum(table.num_rows for table in tables) == 249
    assert backup.manifest.settled


async def test_an_unserved_tree_and_what_is_under_it(tmp_path: Path) -> None:
    space = Namespace()
    for key, body, user_metadata in sample_objects():
        await space.store.put(key, body, user_metadata=user_metadata)
    summary = await space.backup(tmp_path / "tree.backup", part_size=PartSize(rows=50, unit_items=100))
    assert (summary.nouns, summary.verbs, summary.positions) == (189, 287, {})
    alone = check_backup(tmp_path / "tree.backup").verification.digest
    # The same tree with a log over it.
    await space.adopt(source="brainy", trees=("flat",))
    cut = await take_cut(space.store, SystemClock())
    reader = CutReader(space.store, cut)
    assert cut.in_place
    first = [one async for batch in reader.base(range(SHARDS), SHARDS) for one in batch.nouns][0]  # noqa: RUF015
    await space.backup(tmp_path / "same.backup")
    assert check_backup(tmp_path / "same.backup").verification.digest == alone
    await space.drop(nouns=[first.id])
    await space.put(noun("new"))
    await space.backup(tmp_path / "over.backup")
    found = {one.id for batch in check_backup(tmp_path / "over.backup").items() for one in batch.nouns}
    assert "new" in found
    assert first.id not in found
    assert len(found) == 189


async def test_nothing_there_is_no_backup(tmp_path: Path) -> None:
    space = Namespace()
    with pytest.raises(NotFoundError):
        await space.backup(tmp_path / "b.backup")
    await space.store.put("foreign.txt", b"x")
    with pytest.raises(PreconditionError) as refused:
        await space.backup(tmp_path / "b.backup")
    assert refused.value.reason == "NOT_A_BRAINY_BUCKET"
    with pytest.raises(PreconditionError):
        await space.backup(tmp_path / "no" / "b.backup")
    assert names_in(tmp_path) == []


async def test_an_empty_namespace_is_backed_up(tmp_path: Path) -> None:
    space = Namespace()
    await space.adopt()
    await space.backup(tmp_path / "b.backup")
    assert_holds(tmp_path / "b.backup", space)


class _Cut(MemoryStore):
    """A store that others write to while heads are read, and that fails when told to."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__()
        self._objects = inner._objects
        self.before_list: list[object] = []
        self.gets_left = 1 << 30

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        self.gets_left -= len(keys)
        if self.gets_left < 0:
            raise UnavailableError("the store is away")
        return await super().get_many(keys, concurrency=concurrency)


async def test_writes_go_on_meanwhile_and_the_cut_holds(tmp_path: Path) -> None:
    space = await filled()
    cut = await take_cut(space.store, SystemClock())
    before = dict(space.nouns)
    await space.put(*(noun(f"later{number}") for number in range(50)), replace(space.nouns["n1"], metadata=b"2"))
    await space.drop(nouns=["n2"])
    reader = CutReader(space.store, cut)
    seen: dict[str, Noun | None] = {}
    for shard in range(SHARDS):
        seen.update((await reader.overlay(shard)).nouns)
    assert seen == before


async def test_a_backup_while_a_writer_never_rests_is_a_state_that_was(tmp_path: Path) -> None:
    """One writer per shard numbers its commits; a cut must hold, of each shard, a prefix of them."""
    space = await filled(10)
    stop = asyncio.Event()
    acknowledged = dict.fromkeys(range(SHARDS), 0)
    names = {shard: next(f"c{n}" for n in range(99) if shard_of(f"c{n}", SHARDS) == shard) for shard in range(SHARDS)}

    async def write(shard: int) -> None:
        while not stop.is_set():
            await space.put(noun(names[shard], acknowledged[shard] + 1))
            acknowledged[shard] += 1
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(write(shard)) for shard in range(SHARDS)]
    for turn in range(5):
        while min(acknowledged.values()) < 3 * (turn + 1):
            await asyncio.sleep(0)
        low = dict(acknowledged)
        path = tmp_path / f"{turn}.backup"
        summary = await space.backup(path)
        high = dict(acknowledged)
        found = {one.id: one for batch in check_backup(path).items() for one in batch.nouns}
        for shard, name in names.items():
            value = int(np.frombuffer(found[name].vector, "<f4")[0])
            assert low[shard] <= value <= high[shard] + 1
            # The position says which prefix it is: fence, ten nouns and verbs before, then one commit a value.
            assert summary.positions[shard] >= value
    stop.set()
    await asyncio.gather(*tasks)


async def test_a_killed_backup_goes_on_at_the_same_cut(tmp_path: Path) -> None:
    space = await filled()
    size = PartSize(rows=30)
    path = tmp_path / "b.backup"
    store, flaky = space.store, _Cut(space.store)
    space.store = flaky
    # The log of one shard is read, the next is not.
    flaky.gets_left = 9
    with pytest.raises(UnavailableError):
        await space.backup(path, part_size=size)
    assert names_in(tmp_path) == [".b.backup.journal", ".b.backup.part"]
    left = (tmp_path / ".b.backup.part").stat().st_size
    assert left > 0
    space.store = store
    state = (dict(space.nouns), dict(space.verbs))
    await space.put(noun("later"))
    summary = await space.backup(path, part_size=size)
    assert summary.resumed
    space.nouns, space.verbs = state
    assert_holds(path, space)
    assert names_in(tmp_path) == ["b.backup"]
    # Not asked to, it begins anew.
    space.store = flaky
    flaky.gets_left = 9
    with pytest.raises(UnavailableError):
        await space.backup(path, part_size=size)
    space.store = store
    space.nouns["later"] = noun("later")
    assert not (await space.backup(path, part_size=size, resume=False)).resumed
    assert_holds(path, space)


@pytest.mark.parametrize("harm", ["part", "short", "journal", "old", "other"])
async def test_what_a_killed_backup_left_is_not_trusted(tmp_path: Path, harm: str) -> None:
    space = await filled()
    path, size = tmp_path / "b.backup", PartSize(rows=30)
    store, flaky = space.store, _Cut(space.store)
    space.store = flaky
    flaky.gets_left = 9
    with pytest.raises(UnavailableError):
        await space.backup(path, part_size=size)
    space.store = store
    part, journal = tmp_path / ".b.backup.part", tmp_path / ".b.backup.journal"
    match harm:
        case "part":
            body = bytearray(part.read_bytes())
            body[len(body) // 2] ^= 1
            part.write_bytes(body)
        case "short":
            part.write_bytes(part.read_bytes()[:-100])
        case "journal":
            journal.write_bytes(journal.read_bytes().replace(b'"end": ', b'"end": 1'))
        case "old":
            clock = SystemClock()

            class Later(SystemClock):
                def wall(self) -> float:
                    return clock.wall() + RESUME_SECONDS + 60

            options = BackupOptions(format=BackupFormat.NATIVE)
            summary = await write_backup(store, NAMESPACE, path, options, clock=Later(), ids=Ids())
            assert not summary.resumed
        case "other":
            journal.write_bytes(b"{}")
    assert not (await space.backup(path, part_size=size)).resumed
    assert_holds(path, space)


async def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    space = await filled()
    held = ArchiveWriter(tmp_path / ".b.backup.part")
    with pytest.raises(PreconditionError, match="another process"):
        await space.backup(tmp_path / "b.backup")
    held.abandon()
    await space.backup(tmp_path / "b.backup")


async def test_both_formats_hold_the_same(tmp_path: Path) -> None:
    space = await filled()
    await space.backup(tmp_path / "b.backup")
    summary = await write_backup(
        space.store, NAMESPACE, tmp_path / "b.json", BackupOptions(), clock=SystemClock(), ids=Ids()
    )
    assert summary.digest == space.digest == check_backup(tmp_path / "b.json").verification.digest
    assert summary.positions == {shard: writer.next_position - 1 for shard, writer in space.writers.items()}


def test_an_archive_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    writer = ArchiveWriter(path)
    writer.add_bytes("one", b"1" * 1000)
    entries, end = list(writer.entries), writer.end
    writer.add_bytes("half", b"2" * 1000)
    writer.abandon()
    writer = ArchiveWriter(path, entries=entries, end=end)
    assert writer.read(entries[0]) == b"1" * 1000
    writer.add_bytes("two", b"3" * 10)
    size = writer.seal()
    assert size == path.stat().st_size
    archive = Archive(path)
    assert archive.names == ["one", "two"]
    assert archive.entry("two").to_pybytes() == b"3" * 10
    with pytest.raises(CorruptDataError):
        archive.entry("half")
    archive.close()
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
    fresh = ArchiveWriter(tmp_path / "b.zip")
    fresh.add_bytes("one", b"1" * 1000)
    fresh.add_bytes("two", b"3" * 10)
    fresh.seal()
    assert (tmp_path / "b.zip").read_bytes() == path.read_bytes()


def test_every_byte_of_an_archive_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    writer = ArchiveWriter(path)
    writer.add_bytes("one", b"123")
    writer.seal()
    body = path.read_bytes()
    for place in range(len(body)):
        path.write_bytes(body[:place] + bytes([body[place] ^ 4]) + body[place + 1 :])
        with pytest.raises((CorruptDataError, InvalidRequestError)):
            Archive(path)
        path.write_bytes(body[:place])
        with pytest.raises((CorruptDataError, InvalidRequestError)):
            Archive(path)
