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
import test_dataset_generation as generations

from brainy.api.storage.v1 import log_pb2
from brainy.backup.archive import Archive, ArchiveWriter
from brainy.backup.native import RESUME_SECONDS
from brainy.backup.native_reading import CheckedNative
from brainy.backup.opening import check_backup
from brainy.backup.parts import PartSize
from brainy.backup.values import BackupFormat, BackupSummary
from brainy.backup.writing import BackupOptions, write_backup
from brainy.bucket import layout
from brainy.bucket.digest import digest_of
from brainy.bucket.items import Noun, Verb, noun_to_proto, verb_to_proto
from brainy.bucket.partition import shard_of
from brainy.bucket.records import (
    Collected,
    GenerationPlacement,
    Manifest,
    NodeAddress,
    Routing,
    ShardPlacement,
    Spec,
)
from brainy.bucket.segments import stored_file, write_nouns, write_verbs
from brainy.changelog.writing import LogWriter
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

SHARDS = 3
NAMESPACE = "memory://test"


def noun(name: str, value: float = 1.0, metadata: bytes | None = b'{"x":1}') -> Noun:
    return Noun(id=name, vector=np.array([value, 2.0], dtype="<f4").tobytes(), metadata=metadata)


def verb(name: str, weight: float | None = 0.5) -> Verb:
    return Verb(id=name, source_id="n0", target_id="n1", type="relatedTo", weight=weight)


class Namespace:
    """A served namespace, without the cluster: a routing record, a spec and logs."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.writers: dict[int, LogWriter] = {}
        self.nouns: dict[str, Noun] = {}
        self.verbs: dict[str, Verb] = {}

    async def adopt(self, *, source: str = "empty", trees: tuple[str, ...] = ()) -> None:
        spec = Spec(generation=0, dimensions=2, shard_count=SHARDS, source=source, source_trees=trees)
        await self.store.put(layout.spec(0), spec.encode())
        shards = {number: ShardPlacement(owner="n", epoch=1) for number in range(SHARDS)}
        routing = Routing(
            namespace=NAMESPACE,
            epoch=1,
            nonce="n",
            leader_epoch=1,
            active=0,
            write=0,
            nodes={"n": NodeAddress(address="n:1", incarnation="1")},
            generations={0: GenerationPlacement(state="serving", shard_count=SHARDS, shards=shards)},
        )
        await self.store.put(layout.ROUTING, routing.encode())
        for shard in range(SHARDS):
            self.writers[shard] = LogWriter(
                self.store,
                generation=0,
                shard=shard,
                epoch=1,
                writer_node="n",
                incarnation="1",
                ids=Ids(),
                clock=SystemClock(),
                next_position=1,
            )
            await self.writers[shard].fence()

    async def commit(self, *records: log_pb2.LogRecord) -> None:
        groups: dict[int, list[log_pb2.LogRecord]] = {}
        for record in records:
            kind = record.WhichOneof("operation")
            found = getattr(record, str(kind))
            item_id = found if isinstance(found, str) else found.id
            groups.setdefault(shard_of(item_id, SHARDS), []).append(record)
        for shard, group in groups.items():
            await self.writers[shard].commit(group)

    async def put(self, *items: Noun | Verb) -> None:
        records = []
        for item in items:
            if isinstance(item, Noun):
                self.nouns[item.id] = item
                records.append(log_pb2.LogRecord(upsert_noun=noun_to_proto(item)))
            else:
                self.verbs[item.id] = item
                records.append(log_pb2.LogRecord(upsert_verb=verb_to_proto(item)))
        await self.commit(*records)

    async def drop(self, *, nouns: Sequence[str] = (), verbs: Sequence[str] = ()) -> None:
        for name in nouns:
            self.nouns.pop(name, None)
        for name in verbs:
            self.verbs.pop(name, None)
        await self.commit(
            *(log_pb2.LogRecord(delete_noun=name) for name in nouns),
            *(log_pb2.LogRecord(delete_verb=name) for name in verbs),
        )

    @property
    def digest(self) -> str:
        pairs = [(one.id, one.digest()) for one in self.nouns.values()]
        return digest_of(pairs + [(one.id, one.digest()) for one in self.verbs.values()]).fold()

    async def backup(self, path: Path, **options: object) -> BackupSummary:
        given = BackupOptions(format=BackupFormat.NATIVE, **options)  # type: ignore[arg-type]
        return await write_backup(self.store, NAMESPACE, path, given, clock=SystemClock(), ids=Ids())


async def filled(nouns: int = 250) -> Namespace:
    space = Namespace()
    await space.adopt()
    for start in range(0, nouns, 50):
        await space.put(*(noun(f"n{number}", number + 1) for number in range(start, min(start + 50, nouns))))
    await space.put(*(verb(f"v{number}") for number in range(20)))
    return space


def assert_holds(path: Path, space: Namespace) -> CheckedNative:
    backup = check_backup(path)
    assert isinstance(backup, CheckedNative)
    nouns = {one.id: one for batch in backup.items() for one in batch.nouns}
    verbs = {one.id: one for batch in backup.items() for one in batch.verbs}
    assert (nouns, verbs) == (space.nouns, space.verbs)
    assert backup.verification.digest == space.digest
    assert (backup.verification.nouns, backup.verification.verbs) == (len(nouns), len(verbs))
    return backup


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


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


async def test_incremental_backups_hold_what_changed(tmp_path: Path) -> None:
    space = await filled()
    await space.backup(tmp_path / "0.backup")
    await space.put(noun("n1", 77.0), noun("fresh"), verb("v1", 0.25))
    await space.put(space.nouns["n5"])  # written again, the same
    await space.drop(nouns=["n2", "never"], verbs=["v2"])
    one = await space.backup(tmp_path / "1.backup", since=tmp_path / "0.backup")
    assert (one.changed, one.deleted) == (3, 2)
    assert (one.nouns, one.verbs) == (250, 19)
    assert_holds(tmp_path / "1.backup", space)
    await space.drop(nouns=["fresh"])
    await space.put(noun("n2", 5.0))
    await space.backup(tmp_path / "2.backup", since=tmp_path / "1.backup")
    backup = assert_holds(tmp_path / "2.backup", space)
    assert [Path(file).name for file in backup.verification.chain] == ["2.backup", "1.backup", "0.backup"]
    assert (tmp_path / "2.backup").stat().st_size < (tmp_path / "0.backup").stat().st_size
    nothing = await space.backup(tmp_path / "3.backup", since=tmp_path / "2.backup")
    assert (nothing.changed, nothing.deleted) == (0, 0)
    assert_holds(tmp_path / "3.backup", space)
    # Without the middle of the chain nothing is restored.
    (tmp_path / "1.backup").rename(tmp_path / "elsewhere")
    with pytest.raises(NotFoundError):
        check_backup(tmp_path / "2.backup")
    (tmp_path / "0.backup").rename(tmp_path / "1.backup")
    with pytest.raises(PreconditionError):
        check_backup(tmp_path / "2.backup")


async def test_an_incremental_backup_of_a_tree_compares_items(tmp_path: Path) -> None:
    space = Namespace()
    objects = [(key, body) for key, body, _ in sample_objects()]
    for key, body in objects:
        await space.store.put(key, body)
    await space.backup(tmp_path / "0.backup")
    gone = next(key for key, _ in objects if key.startswith("nouns/"))
    altered = next(key for key, _ in objects if key.startswith("nouns/") and key != gone)
    await space.store.delete(gone)
    stored = orjson.loads(dict(objects)[altered])
    stored["vector"][0] += 1
    await space.store.put(altered, orjson.dumps(stored))
    one = await space.backup(tmp_path / "1.backup", since=tmp_path / "0.backup")
    assert (one.nouns, one.changed, one.deleted) == (188, 1, 1)
    await space.backup(tmp_path / "whole.backup")
    whole, both = check_backup(tmp_path / "whole.backup"), check_backup(tmp_path / "1.backup")
    assert whole.verification.digest == both.verification.digest


def state_of(path: Path) -> tuple[dict[str, Noun], dict[str, Verb]]:
    backup = check_backup(path)
    nouns = {one.id: one for batch in backup.items() for one in batch.nouns}
    return nouns, {one.id: one for batch in backup.items() for one in batch.verbs}


async def test_a_later_generation_with_its_log_collected_or_not(tmp_path: Path) -> None:
    space = Namespace()
    space.store = store = MemoryStore()
    files = tmp_path / "files"
    files.mkdir()
    await generations.publish(store, files, positions=(4, 4, 4))
    await generations.put_routing(store, 1)
    await space.backup(tmp_path / "0.backup", part_size=PartSize(unit_items=900))
    assert state_of(tmp_path / "0.backup") == (
        {one.id: one for one in generations.NOUNS},
        {one.id: one for one in generations.VERBS},
    )
    assert check_backup(tmp_path / "0.backup").verification.digest != ""
    await generations.write_log(store, 1, generations.CHANGES, base=4)
    summary = await space.backup(tmp_path / "whole.backup")
    await space.backup(tmp_path / "1.backup", since=tmp_path / "0.backup")
    nouns, verbs = state_of(tmp_path / "whole.backup")
    assert (nouns, verbs) == state_of(tmp_path / "1.backup")
    assert nouns["n7"].vector != generations.NOUNS[7].vector
    assert not {"n8", "v3"} & {*nouns, *verbs}
    assert {"new", "w"} <= {*nouns, *verbs}
    assert len(summary.quarantined) == SHARDS
    positions = summary.positions
    # Meanwhile everything was folded, and the log is given up: items are compared instead.
    for shard in range(SHARDS):
        collected = Collected(generation=1, shard=shard, epoch=9, nonce="n", position=positions[shard])
        await store.put(layout.collected(1, shard), collected.encode())
        key = layout.manifest(1, shard)
        found = await store.get(key)
        assert found is not None
        manifest = Manifest.decode(found.body, key=key)
        own = [one for one in nouns.values() if shard_of(one.id, SHARDS) == shard]
        path = files / f"folded-{shard}.parquet"
        rows = write_nouns(path, [own], dimensions=2)
        place = layout.segment(1, "nouns", shard, "folded")
        await store.put(place, path.read_bytes())
        own_verbs = [one for one in verbs.values() if shard_of(one.id, SHARDS) == shard]
        verb_path = files / f"folded-{shard}-v.parquet"
        verb_rows = write_verbs(verb_path, [own_verbs], dimensions=2)
        verb_place = layout.segment(1, "verbs", shard, "folded")
        await store.put(verb_place, verb_path.read_bytes())
        folded = manifest.model_copy(
            update={
                "position": positions[shard],
                "nouns": (stored_file(path, key=place, rows=rows),),
                "verbs": (stored_file(verb_path, key=verb_place, rows=verb_rows),),
                "noun_count": rows,
                "verb_count": verb_rows,
            }
        )
        await store.put(key, folded.encode())
    again = await space.backup(tmp_path / "2.backup", since=tmp_path / "0.backup")
    assert state_of(tmp_path / "2.backup") == (nouns, verbs)
    assert again.digest == summary.digest
    assert again.positions == positions
    nothing = await space.backup(tmp_path / "3.backup", since=tmp_path / "2.backup")
    assert (nothing.changed, nothing.deleted) == (0, 0)


async def test_wrong_predecessors_are_refused(tmp_path: Path) -> None:
    space = await filled()
    await space.backup(tmp_path / "0.backup")
    (tmp_path / "sub").mkdir()
    for since, target in (("0.backup", "0.backup"), ("0.backup", "sub/1.backup")):
        with pytest.raises(InvalidRequestError):
            await space.backup(tmp_path / target, since=tmp_path / since)
    with pytest.raises(InvalidRequestError):
        await write_backup(
            space.store,
            "memory://another",
            tmp_path / "1.backup",
            BackupOptions(format=BackupFormat.NATIVE, since=tmp_path / "0.backup"),
            clock=SystemClock(),
            ids=Ids(),
        )
    with pytest.raises(InvalidRequestError):
        await write_backup(
            space.store,
            NAMESPACE,
            tmp_path / "1.json",
            BackupOptions(since=tmp_path / "0.backup"),
            clock=SystemClock(),
            ids=Ids(),
        )


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
