"""Builder jobs over a real store layout: what they make, what they cost, and how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import psutil
import pytest

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.digest import MultisetDigest, digest_of
from brainy.bucket.items import Noun, Verb, noun_to_proto, verb_to_proto
from brainy.bucket.namespace import Namespace
from brainy.bucket.partition import shard_of
from brainy.bucket.records import Manifest, Spec
from brainy.changelog.reading import read_log
from brainy.changelog.writing import LogWriter
from brainy.clock import SystemClock
from brainy.config.settings import Settings, StoreSettings
from brainy.errors import CorruptDataError, FencedError, NotFoundError, UnavailableError
from brainy.ids import Ids
from brainy.store.base import StoredObject
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy.store.opening import open_store
from brainy_node.builder.client import BuilderClient
from brainy_node.builder.job import Built, Job, Progress
from brainy_node.builder.run import run_job
from brainy_node.builder.workspace import sweep
from brainy_node.shard.base import Base
from brainy_node.shard.shard import Shard

DIMENSIONS = 8
NOUNS, VERBS, BROKEN = 300, 80, 3


def spec_of(generation: int, *, source: str = "brainy", shard_count: int = 2) -> Spec:
    return Spec(
        generation=generation,
        dimensions=DIMENSIONS,
        shard_count=shard_count,
        source=source,
        source_trees=("flat",) if source == "brainy" else (),
    )


def vector_of(number: int) -> list[float]:
    return np.random.default_rng(number).normal(size=DIMENSIONS).astype("<f4").tolist()


def tree_objects() -> dict[str, bytes]:
    """A small flat tree, three unreadable objects included."""
    objects: dict[str, bytes] = {}
    for i in range(NOUNS):
        objects[f"nouns/n{i}.json"] = orjson.dumps({"id": f"n{i}", "vector": vector_of(i), "connections": {}})
        objects[f"metadata/n{i}.json"] = orjson.dumps({"noun": "person", "name": f"person {i}"})
    for i in range(VERBS):
        objects[f"verbs/v{i}.json"] = orjson.dumps(
            {
                "id": f"v{i}",
                "vector": vector_of(i),
                "connections": {},
                "sourceId": f"n{i}",
                "targetId": "n0",
                "type": "likes",
            }
        )
    for i in range(BROKEN):
        objects[f"nouns/broken{i}.json"] = b"{"
    return objects


async def seeded_store() -> MeteredStore:
    store = MeteredStore(MemoryStore())
    for key, body in tree_objects().items():
        await store.put(key, body)
    await store.put(layout.spec(0), spec_of(0).encode())
    store.calls.update(dict.fromkeys(store.calls, 0))
    return store


def job_of(kind: str, spec: Spec, output: Path, shards: Sequence[int] | None = None, **more: object) -> Job:
    chosen = tuple(range(spec.shard_count)) if shards is None else tuple(shards)
    return Job.model_validate(
        {
            "kind": kind,
            "namespace": "memory://unused",
            "spec": spec,
            "shards": chosen,
            "output": str(output),
            "epochs": dict.fromkeys(chosen, 5),
            "threads": 1,
            **more,
        }
    )


async def do(job: Job, store: MeteredStore | MemoryStore) -> dict[int, Built]:
    built = await run_job(job, store, clock=SystemClock(), ids=Ids(), report=lambda progress: None)
    assert not list((Path(job.output) / ".building").iterdir())
    return {one.shard: one for one in built}


def shards_of(built: dict[int, Built], spec: Spec) -> list[Shard]:
    return [Shard.open(Base.open(Path(built[number].directory)), spec, threads=1) for number in sorted(built)]


def total_digest(shards: Sequence[Shard]) -> MultisetDigest:
    total = MultisetDigest()
    for shard in shards:
        total.merge(shard.digest())
    return total


def change(number: int) -> log_pb2.LogRecord:
    record = log_pb2.LogRecord(request_id=f"request-{number}")
    if number % 5 == 0:
        record.delete_noun = f"n{number}"
    elif number % 5 == 1:
        record.upsert_verb.CopyFrom(verb_to_proto(Verb(id=f"w{number}", source_id="n1", target_id="n2", type="owns")))
    else:
        vector = np.asarray(vector_of(1000 + number), "<f4").tobytes()
        record.upsert_noun.CopyFrom(
            noun_to_proto(Noun(id=f"n{number * 3}", vector=vector, metadata=b'{"noun":"thing"}'))
        )
    return record


def target_of(record: log_pb2.LogRecord) -> str:
    name = record.WhichOneof("operation")
    value = getattr(record, name)
    return value if isinstance(value, str) else value.id


async def write_log(
    store: MeteredStore | MemoryStore, spec: Spec, shard: int, records: list[log_pb2.LogRecord], *, epoch: int = 5
) -> None:
    writer = LogWriter(
        store,
        generation=spec.generation,
        shard=shard,
        epoch=epoch,
        writer_node="node-1",
        incarnation="one",
        ids=Ids(),
        clock=SystemClock(),
        next_position=1,
    )
    await writer.fence()
    for start in range(0, len(records), 10):
        await writer.commit(records[start : start + 10], {shard: start + 1})


async def test_adopting_reads_the_tree_once_for_all_shards(tmp_path):
    store, spec = await seeded_store(), spec_of(0)
    seen: list[Progress] = []
    built = await run_job(job_of("adopt", spec, tmp_path), store, clock=SystemClock(), ids=Ids(), report=seen.append)
    shards = shards_of({one.shard: one for one in built}, spec)
    nouns = {noun.id: noun for shard in shards for batch in shard.scan_nouns() for noun in batch}
    verbs = [verb for shard in shards for batch in shard.find_verbs(None, None, None) for verb in batch]
    assert set(nouns) == {f"n{i}" for i in range(NOUNS)}
    assert nouns["n7"].vector == np.asarray(vector_of(7), "<f4").tobytes()
    assert orjson.loads(nouns["n7"].metadata) == {"noun": "person", "name": "person 7"}
    assert {verb.id for verb in verbs} == {f"v{i}" for i in range(VERBS)}
    assert total_digest(shards) == digest_of((item.id, item.digest()) for item in [*nouns.values(), *verbs])
    for shard in shards:
        assert all(shard_of(noun.id, 2) == shard.number for batch in shard.scan_nouns() for noun in batch)
        assert (shard.applied, shard.source_cursor) == (0, {})
    quarantined = [entry.key for shard in shards for entry in shard.quarantined()]
    assert sorted(quarantined) == [f"nouns/broken{i}.json" for i in range(BROKEN)]
    assert sum(shard.statistics().quarantined for shard in shards) == BROKEN
    assert {progress.stage for progress in seen} == {"reading", "indexing"}
    last = {progress.shard: progress for progress in seen if progress.stage == "reading"}
    assert sum(progress.done for progress in last.values()) == NOUNS + VERBS
    indexed = {progress.shard: progress for progress in seen if progress.stage == "indexing"}
    assert sum(progress.done for progress in indexed.values()) == NOUNS
    last = {**last, **indexed}
    assert all(progress.done == progress.total for progress in last.values())
    # Each object once, each prefix listed a bounded number of times, nothing written.
    assert store.calls["get"] <= NOUNS * 2 + VERBS * 2 + BROKEN * 2 + 10
    assert store.calls["put"] == store.calls["put_conditional"] == 0


async def test_an_empty_namespace_is_adopted_as_empty_shards_that_learn_their_dimensions(tmp_path):
    spec = Spec(generation=0, dimensions=0, shard_count=1, source="empty")
    store = MemoryStore()
    built = await do(job_of("adopt", spec, tmp_path), store)
    (shard,) = shards_of(built, spec)
    assert shard.statistics().nouns == 0
    assert shard.search(np.ones((2, 4), np.float32), 3).counts.tolist() == [0, 0]
    known = spec.model_copy(update={"dimensions": 4})
    shard.use_spec(known)
    noun = Noun(id="a", vector=np.ones(4, "<f4").tobytes())
    await write_log(store, known, 0, [log_pb2.LogRecord(upsert_noun=noun_to_proto(noun))])
    async for slot in read_log(store, 0, 0, from_position=1):
        shard.apply(slot.batch)
    assert shard.search(np.ones((1, 4), np.float32), 3).ids == ["a"]
    folded = await do(job_of("fold", known, tmp_path, base_directory=built[0].directory), store)
    shard.swap_base(Base.open(Path(folded[0].directory)))
    assert shard.search(np.ones((1, 4), np.float32), 3).ids == ["a"]
    assert (shard.tail_records, shard.base_rows) == (0, 1)


async def test_a_filled_generation_is_opened_from_few_objects_and_is_equal(tmp_path):
    store, source, target = await seeded_store(), spec_of(0), spec_of(1, source="0")
    before = shards_of(await do(job_of("adopt", source, tmp_path / "g0"), store), source)
    filled = await do(job_of("fill", target, tmp_path / "g1"), store)
    assert all(one.published and one.position == 0 for one in filled.values())
    store.calls.update(dict.fromkeys(store.calls, 0))
    opened = await do(job_of("open", target, tmp_path / "elsewhere"), store)
    assert sum(store.calls.values()) <= 8 * 2
    assert store.calls["list"] == 0
    assert not any(one.rebuilt for one in opened.values())
    after = shards_of(opened, target)
    assert total_digest(after) == total_digest(before) == total_digest(shards_of(filled, target))
    assert [shard.source_cursor for shard in after] == [{0: 0}, {1: 0}]
    assert [shard.statistics() for shard in after] == [shard.statistics() for shard in before]
    queries = np.array([vector_of(5), vector_of(11)], np.float32)
    for one, other in zip(before, after, strict=True):
        assert one.search(queries, 7, exact=True).ids == other.search(queries, 7, exact=True).ids
        assert sorted(one.quarantined(), key=lambda q: q.key) == sorted(other.quarantined(), key=lambda q: q.key)


async def test_filling_again_opens_what_is_published_and_reads_no_source(tmp_path):
    store, target = await seeded_store(), spec_of(1, source="0")
    await do(job_of("fill", target, tmp_path / "a", [1]), store)
    store.calls.update(dict.fromkeys(store.calls, 0))
    again = await do(job_of("fill", target, tmp_path / "b", [1]), store)
    assert again[1].published
    assert store.calls["list"] == store.calls["put"] == store.calls["put_conditional"] == 0


async def test_a_generation_is_filled_from_another_with_other_shards(tmp_path):
    store, first = await seeded_store(), spec_of(1, source="0")
    filled = await do(job_of("fill", first, tmp_path / "g1"), store)
    await store.put(layout.spec(1), first.encode())
    wider = spec_of(2, source="1", shard_count=3)
    target = shards_of(await do(job_of("fill", wider, tmp_path / "g2"), store), wider)
    assert total_digest(target) == total_digest(shards_of(filled, first))
    assert all(shard.source_cursor == {0: 0, 1: 0} for shard in target)
    assert sum(shard.statistics().quarantined for shard in target) == BROKEN


async def test_a_generation_that_does_not_exist_is_no_source(tmp_path):
    with pytest.raises(NotFoundError):
        await do(job_of("fill", spec_of(2, source="1"), tmp_path), MemoryStore())


async def test_opening_what_nobody_filled_is_not_ready(tmp_path):
    with pytest.raises(UnavailableError) as raised:
        await do(job_of("open", spec_of(1), tmp_path), MemoryStore())
    assert raised.value.reason == "SHARD_NOT_READY"


@pytest.mark.parametrize("publish", [False, True])
async def test_a_fold_equals_the_log_applied(tmp_path, publish):
    store, spec = await seeded_store(), spec_of(1, source="0")
    built = await do(job_of("fill", spec, tmp_path), store)
    (shard,) = [one for one in shards_of(built, spec) if one.number == 1]
    records = [record for i in range(200) if shard_of(target_of(record := change(i)), 2) == 1]
    await write_log(store, spec, 1, records)
    slots = [slot async for slot in read_log(store, 1, 1, from_position=1)]
    middle = slots[len(slots) // 2].last
    directory = built[1].directory
    job = job_of("fold", spec, tmp_path, [1], base_directory=directory, up_to_position=middle + 3, publish=publish)
    folded = (await do(job, store))[1]
    # Whole objects only, although the bound lies inside one.
    assert (folded.position, folded.published) == (middle, publish)
    for slot in slots:
        shard.apply(slot.batch)
    queries = np.array([vector_of(5), vector_of(1005)], np.float32)
    expected, digest, figures = shard.search(queries, 9, exact=True), shard.digest(), shard.statistics()
    base = Base.open(Path(folded.directory))
    assert base.rows < base.record.noun_count + 1  # no dead rows
    shard.swap_base(base)
    assert shard.tail_records == slots[-1].last - middle
    assert (shard.digest(), shard.statistics()) == (digest, figures)
    assert shard.search(queries, 9, exact=True).ids == expected.ids
    assert shard.search(queries, 9).ids == expected.ids
    assert all(shard.position_of(f"{r.request_id}") is not None for r in records)
    rest = (await do(job_of("fold", spec, tmp_path, [1], base_directory=folded.directory, publish=publish), store))[1]
    shard.swap_base(Base.open(Path(rest.directory)))
    assert (shard.tail_records, shard.digest()) == (0, digest)
    assert shard.search(queries, 9).ids == expected.ids
    assert shard.base.source_cursor == shard.source_cursor == {1: len(records) // 10 * 10 + 1}
    if publish:
        (opened,) = shards_of(await do(job_of("open", spec, tmp_path / "other", [1]), store), spec)
        assert (opened.applied, opened.digest(), opened.statistics()) == (shard.applied, digest, figures)
        assert opened.search(queries, 9).ids == expected.ids


async def test_a_stale_owner_cannot_publish_and_an_older_position_is_dropped(tmp_path):
    store, spec = await seeded_store(), spec_of(1, source="0")
    built = await do(job_of("fill", spec, tmp_path, [0]), store)
    records = [record for i in range(60) if shard_of(target_of(record := change(i)), 2) == 0]
    await write_log(store, spec, 0, records)
    base = built[0].directory
    newest = job_of("fold", spec, tmp_path, [0], base_directory=base, publish=True, epochs={0: 7})
    assert (await do(newest, store))[0].published
    key = layout.manifest(1, 0)
    published = await store.get(key)
    assert Manifest.decode(published.body, key=key).epoch == 7
    older = job_of("fold", spec, tmp_path, [0], base_directory=base, publish=True, up_to_position=11, epochs={0: 7})
    assert not (await do(older, store))[0].published
    stale = job_of("fold", spec, tmp_path, [0], base_directory=base, publish=True, epochs={0: 6})
    with pytest.raises(FencedError):
        await do(stale, store)
    assert (await store.get(key)).etag == published.etag


async def test_a_lost_fill_takes_the_winner_s_base(tmp_path):
    """Another owner publishes while this one reads: the local base must be the published one."""
    target = spec_of(1, source="0")
    rival_store = await seeded_store()

    class Rival(MeteredStore):
        """Lets another node fill the shard right before this one's manifest is swapped."""

        async def put_if_absent(self, key, body):
            if key == layout.manifest(1, 0):
                await do(job_of("fill", target, tmp_path / "rival", [0]), rival_store)
            return await super().put_if_absent(key, body)

    built = await do(job_of("fill", target, tmp_path / "own", [0]), Rival(rival_store))
    key = layout.manifest(1, 0)
    manifest = Manifest.decode((await rival_store.get(key)).body, key=key)
    base = Base.open(Path(built[0].directory))
    assert base.record.digest == manifest.digest
    assert len(list((tmp_path / "own" / "s0").iterdir())) == 1
    assert len(list((tmp_path / "rival" / "s0").iterdir())) == 1


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
async def test_a_damaged_index_is_rebuilt_and_a_damaged_segment_refused(tmp_path, damage):
    store, spec = await seeded_store(), spec_of(1, source="0")
    await do(job_of("fill", spec, tmp_path / "a", [0]), store)
    key = layout.manifest(1, 0)
    manifest = Manifest.decode((await store.get(key)).body, key=key)

    async def hurt(file: str) -> None:
        body = bytearray((await store.get(file)).body)
        if damage == "missing":
            await store.delete(file)
            return
        body[len(body) // 2] ^= 1
        await store.put(file, bytes(body if damage == "flipped" else body[:-1]))

    await hurt(manifest.index.key)
    opened = await do(job_of("open", spec, tmp_path / "b", [0]), store)
    assert opened[0].rebuilt
    (shard,) = shards_of(opened, spec)
    queries = np.array([vector_of(5)], np.float32)
    assert shard.search(queries, 5).ids == shard.search(queries, 5, exact=True).ids
    await hurt(manifest.nouns[0].key)
    with pytest.raises(CorruptDataError) as raised:
        await do(job_of("open", spec, tmp_path / "c", [0]), store)
    assert raised.value.fields["key"] == manifest.nouns[0].key
    assert not (tmp_path / "c" / "s0").exists()


class Retiring(MeteredStore):
    """A store in which a generation is deleted, manifests first, right after its manifest was read."""

    def __init__(self, inner: MeteredStore, generation: int) -> None:
        super().__init__(inner)
        self.generation = generation

    async def get(self, key: str) -> StoredObject | None:
        found = await super().get(key)
        if key.startswith(layout.manifests(self.generation)):
            for prefix in (layout.manifests(self.generation), layout.generation(self.generation)):
                async for page in self.list(prefix):
                    for meta in page:
                        if meta.key != layout.spec(self.generation):
                            await self.delete(meta.key)
        return found


async def test_a_node_that_lags_behind_a_deletion_waits_and_speaks_of_no_damage(tmp_path):
    store, spec = await seeded_store(), spec_of(1, source="0")
    await do(job_of("fill", spec, tmp_path / "a"), store)
    with pytest.raises(UnavailableError) as raised:
        await do(job_of("open", spec, tmp_path / "b", [0]), Retiring(store, 1))
    assert raised.value.reason == "SHARD_NOT_READY"
    assert not (tmp_path / "b" / "s0").exists()
    # Whoever looks later finds no manifest at all.
    with pytest.raises(UnavailableError) as raised:
        await do(job_of("open", spec, tmp_path / "c", [0]), store)
    assert raised.value.reason == "SHARD_NOT_READY"


# --- as a process --------------------------------------------------------------------------------------------


async def directory_namespace(root: Path) -> tuple[str, MeteredStore]:
    uri = f"file://{root / 'bucket'}"
    store = open_store(Namespace.parse(uri), StoreSettings(), clock=SystemClock(), ids=Ids())
    for key, body in tree_objects().items():
        await store.put(key, body)
    await store.put(layout.spec(0), spec_of(0).encode())
    return uri, store


async def test_jobs_run_in_a_process_of_their_own_and_fail_with_typed_errors(tmp_path):
    uri, store = await directory_namespace(tmp_path)
    client, spec = BuilderClient(Settings()), spec_of(0)
    seen: list[Progress] = []
    job = job_of("adopt", spec, tmp_path / "data", namespace=uri)
    built = await client.run(job, seen.append)
    shards = shards_of(built, spec)
    assert sum(shard.statistics().nouns for shard in shards) == NOUNS
    assert {progress.shard for progress in seen} == {0, 1}
    assert not list((tmp_path / "data" / ".building").iterdir())
    missing = job_of("open", spec_of(1), tmp_path / "data", namespace=uri)
    with pytest.raises(UnavailableError) as raised:
        await client.run(missing, seen.append)
    assert raised.value.reason == "SHARD_NOT_READY"
    assert raised.value.fields["key"] == layout.manifest(1, 0)
    assert raised.value.remedy
    await store.close()


async def test_cancelling_kills_the_process_and_a_killed_one_is_unavailable(tmp_path):
    uri, store = await directory_namespace(tmp_path)
    client = BuilderClient(Settings())
    job = job_of("adopt", spec_of(0), tmp_path / "data", namespace=uri)

    # Other tests' servers are children of this process too.
    others = set(psutil.Process().children())

    def builders() -> set[psutil.Process]:
        return set(psutil.Process().children()) - others

    begun = asyncio.Event()
    running = asyncio.create_task(client.run(job, lambda progress: begun.set()))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not builders()

    def kill(progress: Progress) -> None:
        for child in builders():
            child.kill()

    with pytest.raises(UnavailableError) as raised:
        await client.run(job, kill)
    assert raised.value.fields["exit_code"] == "-9"
    # What the two left behind is removed by the next job, which works.
    built = await client.run(job, lambda progress: None)
    assert sorted(built) == [0, 1]
    assert not list((tmp_path / "data" / ".building").iterdir())
    await store.close()


async def test_sweeping_removes_what_is_no_longer_used(tmp_path):
    store, spec = await seeded_store(), spec_of(0)
    old = await do(job_of("adopt", spec, tmp_path), store)
    new = await do(job_of("adopt", spec, tmp_path), store)
    gone = tmp_path / ".building" / "999999999-abandoned" / "s0"
    gone.mkdir(parents=True)
    mapped = Shard.open(Base.open(Path(old[0].directory)), spec, threads=1)
    removed = sweep(tmp_path, [Path(one.directory) for one in new.values()])
    assert set(removed) == {Path(old[0].directory), Path(old[1].directory), gone.parent}
    assert not gone.exists()
    assert {Base.open(Path(one.directory)).position for one in new.values()} == {0}
    # What is still mapped goes on answering.
    assert mapped.search(np.array([vector_of(5)], np.float32), 3).counts.tolist() == [3]


async def test_a_folded_request_is_still_recognised(tmp_path):
    store = MemoryStore()
    spec = spec_of(1, source="empty", shard_count=1)
    filled = await do(job_of("fill", spec, tmp_path / "a"), store)
    writer = LogWriter(
        store,
        generation=1,
        shard=0,
        epoch=5,
        writer_node="n",
        incarnation="i",
        ids=Ids(),
        clock=SystemClock(),
        next_position=1,
    )
    await writer.fence()
    noun = noun_to_proto(Noun(id="a", vector=np.ones(DIMENSIONS, "<f4").tobytes()))
    slot = await writer.commit([log_pb2.LogRecord(request_id="call/0", upsert_noun=noun)])
    fold = job_of("fold", spec, tmp_path / "a", base_directory=filled[0].directory, publish=True)
    folded = await do(fold, store)
    opened = await do(job_of("open", spec, tmp_path / "b"), store)
    for built in (folded, opened):
        (shard,) = shards_of(built, spec)
        assert shard.applied == slot.last
        assert shard.tail_records == 0
        assert shard.position_of("call/0") == slot.last
        assert shard.position_of("call/1") is None
    # The next generation knows the request too, although it never saw the record.
    await store.put(layout.spec(1), spec.encode())
    onward = spec_of(2, source="1", shard_count=3)
    for shard in shards_of(await do(job_of("fill", onward, tmp_path / "c"), store), onward):
        assert shard.position_of("call/0") == 0
