"""``brainy.verify``: every planted difference is found, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_backup_native as spaces
import test_dataset_generation as generations
from backed_up_namespace import Namespace, noun, verb
from hypothesis import given, settings
from hypothesis import strategies as st

from brainy.api.storage.v1 import log_pb2
from brainy.backup.values import BackupFormat
from brainy.backup.writing import BackupOptions, write_backup
from brainy.bucket import layout
from brainy.bucket.items import Noun, Verb
from brainy.bucket.records import Collected
from brainy.clock import SystemClock
from brainy.errors import BrainyError, CorruptDataError, InvalidRequestError, NotFoundError, PreconditionError
from brainy.ids import Ids
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy.verify.namespace_side import NamespaceSide, Which
from brainy.verify.opening import open_side, parse_which
from brainy.verify.rechecking import Patience
from brainy.verify.rows import RowReader, RowWriter, noun_key, suspects
from brainy.verify.sides import Side
from brainy.verify.values import NOUN, VERB, Comparison, Verdict
from brainy.verify.verifying import VerifyOptions, verify

CLOCK = SystemClock()
AT_ONCE = Patience(rechecks=3, pause=0.0)


def side(store: MemoryStore, name: str = "memory://side", which: Which = None) -> NamespaceSide:
    return NamespaceSide(name, store, which, CLOCK)


async def compare(a: Side, b: Side, **options: object) -> Comparison:
    given_options = VerifyOptions(**{"patience": AT_ONCE, **options})  # type: ignore[arg-type]
    return await verify(a, b, given_options, clock=CLOCK, ids=Ids())


class Killed(Exception):
    """The process ends here."""


async def pair(nouns: int = 250) -> tuple[Namespace, Namespace]:
    return await spaces.filled(nouns), await spaces.filled(nouns)


def one_ulp(item: Noun) -> Noun:
    values = np.frombuffer(item.vector, "<f4").copy()
    values[1] = np.nextafter(values[1], np.float32(np.inf))
    return replace(item, vector=values.tobytes())


async def plant(a: Namespace, b: Namespace) -> dict[tuple[str, str], tuple[str, tuple[str, ...]]]:
    """Plant one of each; returns what has to be found."""
    await b.put(one_ulp(b.nouns["n3"]))
    await b.put(replace(b.nouns["n4"], metadata=b'{"x":1,"y":2}'))
    await b.put(replace(b.nouns["n5"], attributes=b'{"level":1}'))
    await b.put(replace(b.verbs["v3"], target_id="n2"))
    await b.put(replace(b.verbs["v4"], type="other"))
    await b.put(replace(b.verbs["v5"], weight=0.25))
    await b.drop(nouns=["n6"], verbs=["v6"])
    await b.put(noun("only-b"))
    # Deleted on A, and back on B, as a slow writer would bring it.
    gone = a.nouns["n7"]
    await a.drop(nouns=["n7"])
    await b.drop(nouns=["n7"])
    await b.put(gone)
    return {
        (NOUN, "n3"): ("mismatched", ("vector",)),
        (NOUN, "n4"): ("mismatched", ("metadata",)),
        (NOUN, "n5"): ("mismatched", ("attributes",)),
        (VERB, "v3"): ("mismatched", ("target_id",)),
        (VERB, "v4"): ("mismatched", ("type",)),
        (VERB, "v5"): ("mismatched", ("weight",)),
        (NOUN, "n6"): ("missing", ()),
        (VERB, "v6"): ("missing", ()),
        (NOUN, "only-b"): ("extra", ()),
        (NOUN, "n7"): ("extra", ()),
    }


def found(result: Comparison) -> dict[tuple[str, str], tuple[str, tuple[str, ...]]]:
    return {(one.kind, one.id): (one.what.value, one.fields) for one in result.differences}


async def test_equal_namespaces_end_after_the_digests() -> None:
    a, b = await pair()
    await b.put(*(b.nouns[f"n{number}"] for number in range(30)))
    result = await compare(side(a.store), side(b.store), relations=True)
    assert result.verdict is Verdict.EQUAL
    assert (result.unequal_buckets, result.suspected, result.settled_a) == (0, 0, None)
    assert (result.a.nouns, result.a.verbs) == (250, 20)
    assert result.a.digest == result.b.digest == a.digest
    assert result.a.read_at.positions == {shard: writer.next_position - 1 for shard, writer in a.writers.items()}
    assert result.a.read_at.positions != result.b.read_at.positions
    assert result.relations is not None
    assert (result.relations.dangling_a, result.relations.different) == (0, 0)


async def test_every_planted_difference_is_found_and_named() -> None:
    a, b = await pair()
    expected = await plant(a, b)
    result = await compare(side(a.store), side(b.store))
    assert found(result) == expected
    assert result.verdict is Verdict.DIFFERENT
    assert (result.missing, result.extra, result.mismatched, result.unsettled) == (2, 2, 6, 0)
    details = {one.id: one.detail for one in result.differences}
    assert details["n3"]["vector"]["largest_ulps"] == 1
    assert details["n3"]["vector"]["components"] == 1
    assert details["n4"]["metadata"] == {"keys": ["y"]}
    assert result.settled_b is not None
    assert result.settled_b.positions == {shard: writer.next_position - 1 for shard, writer in b.writers.items()}


async def test_a_generation_a_tree_and_backups_of_them(tmp_path: Path) -> None:
    store = MemoryStore()
    await generations.publish(store, tmp_path, positions=(0, 0, 0))
    await generations.put_routing(store, 1)
    tree = MemoryStore()
    for one in generations.NOUNS[:700]:
        await tree.put(f"nouns/{one.id}.json", _body(one))
    files = {}
    for name, source in (("generation", store), ("tree", tree)):
        for form in BackupFormat:
            files[name, form] = tmp_path / f"{name}.{form.value}"
            await write_backup(
                source, "memory://x", files[name, form], BackupOptions(format=form), clock=CLOCK, ids=Ids()
            )

    async def opened(path: Path) -> Side:
        return (await open_side(str(path), lambda _: store, CLOCK))[0]

    for form in BackupFormat:
        assert (await compare(side(store), await opened(files["generation", form]))).verdict is Verdict.EQUAL
        assert (await compare(side(tree), await opened(files["tree", form]))).verdict is Verdict.EQUAL
    between = await compare(
        await opened(files["generation", BackupFormat.BRAINY]), await opened(files["generation", BackupFormat.NATIVE])
    )
    assert between.verdict is Verdict.EQUAL
    result = await compare(side(tree), side(store))
    assert (result.missing, result.extra, result.mismatched) == (0, 1800 + 40, 700)
    assert {one.fields for one in result.differences if one.what == "mismatched"} == {("metadata",)}
    sampled = await compare(side(store), await opened(files["generation", BackupFormat.NATIVE]), sample=250)
    assert sampled.verdict is Verdict.EQUAL
    assert sampled.sample is not None
    assert sampled.sample.of == 10
    assert 150 < sampled.a.nouns + sampled.a.verbs < 400


def _body(item: Noun) -> bytes:
    values = np.frombuffer(item.vector, "<f4").tolist()
    return f'{{"id": "{item.id}", "vector": {values}, "connections": {{}}}}'.encode()


async def test_what_a_side_may_be_called() -> None:
    assert parse_which("s3://bucket/p@3") == ("s3://bucket/p", 3)
    assert parse_which("s3://bucket/p@tree") == ("s3://bucket/p", "tree")
    assert parse_which("file:///a@b/c") == ("file:///a@b/c", None)
    with pytest.raises(InvalidRequestError):
        parse_which("s3://bucket/p@latest")
    a, _ = await pair(10)
    with pytest.raises(NotFoundError):
        await compare(side(a.store, which=7), side(a.store))
    with pytest.raises(NotFoundError):
        await compare(side(MemoryStore()), side(a.store))
    with pytest.raises(InvalidRequestError):
        await compare(side(a.store), side(a.store), relations=True, sample=5)
    assert (await compare(side(a.store, which=0), side(a.store))).verdict is Verdict.EQUAL


class Traffic:
    """Writes into A; what was written reaches B later, in order, as a follower would bring it."""

    def __init__(self, a: Namespace, b: Namespace, seed: int) -> None:
        self._a, self._b = a, b
        self._chances = np.random.default_rng(seed)
        self._way: asyncio.Queue[Callable[[Namespace], object]] = asyncio.Queue()
        self.writes = 0

    async def write(self) -> None:
        began = CLOCK.monotonic()
        while True:
            for _ in range(3):
                step = self._step()
                await step(self._a)  # type: ignore[misc]
                self._way.put_nowait(step)
            # Three writes in a hundredth of a second: 300 a second.
            await CLOCK.sleep(max(0.0, began + self.writes / 300 - CLOCK.monotonic()))

    async def carry(self) -> None:
        while True:
            step = await self._way.get()
            # So far behind that every scan meets writes under way.
            while self._way.qsize() < 8:
                await asyncio.sleep(0.005)
            await step(self._b)  # type: ignore[misc]

    def _step(self) -> Callable[[Namespace], object]:
        self.writes += 1
        name = f"n{int(self._chances.integers(20, 250))}"
        value = float(self._chances.random())
        match int(self._chances.integers(5)):
            case 0:
                fresh = noun(f"new{self.writes}", value)
                return lambda space: space.put(fresh)
            case 1:
                return lambda space: space.drop(nouns=[name])
            case 2:
                related = verb(f"w{int(self._chances.integers(50))}", value)
                return lambda space: space.put(related)
            case _:
                made = noun(name, value)
                return lambda space: space.put(made)


@asynccontextmanager
async def under_load(a: Namespace, b: Namespace, seed: int) -> AsyncIterator[Traffic]:
    traffic = Traffic(a, b, seed)
    tasks = [asyncio.create_task(traffic.write()), asyncio.create_task(traffic.carry())]
    try:
        yield traffic
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


PATIENT = Patience(rechecks=4, pause=0.1)


async def test_ten_clean_runs_under_writes_without_a_false_alarm() -> None:
    a, b = await pair()
    suspected = 0
    async with under_load(a, b, 1) as traffic:
        began = CLOCK.monotonic()
        for _ in range(10):
            result = await compare(side(a.store), side(b.store), patience=PATIENT, relations=True)
            assert result.verdict is Verdict.EQUAL, result
            suspected += result.suspected
        rate = traffic.writes / (CLOCK.monotonic() - began)
    assert suspected > 10
    assert rate > 200


async def test_planted_differences_are_found_while_writes_go_on() -> None:
    a, b = await pair()
    expected = await plant(a, b)
    async with under_load(a, b, 2) as traffic:
        began, before = CLOCK.monotonic(), traffic.writes
        result = await compare(side(a.store), side(b.store), patience=PATIENT)
        rate = (traffic.writes - before) / (CLOCK.monotonic() - began)
    assert found(result) == expected
    assert result.suspected > len(expected)
    assert rate > 200


async def test_a_tree_that_is_written_against_a_generation_that_follows() -> None:
    tree = MemoryStore()
    b = Namespace()
    await b.adopt()
    names = [f"n{number}" for number in range(200)]
    for name in names:
        await tree.put(f"nouns/{name}.json", _body(noun(name)))
        await b.put(noun(name, metadata=None))
    await b.put(noun("ghost", metadata=None))
    await b.put(one_ulp(noun("n0", metadata=None)))

    async def write() -> None:
        chances = np.random.default_rng(3)
        while True:
            name, value = names[int(chances.integers(1, 200))], float(np.float32(chances.random()))
            await tree.put(f"nouns/{name}.json", _body(noun(name, value)))
            await asyncio.sleep(0.003)
            await b.put(noun(name, value, metadata=None))

    writer = asyncio.create_task(write())
    try:
        result = await compare(side(tree, which="tree"), side(b.store), patience=PATIENT)
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    assert found(result) == {(NOUN, "ghost"): ("extra", ()), (NOUN, "n0"): ("mismatched", ("vector",))}
    assert result.a.read_at.kind == "tree"


async def test_an_object_under_a_foreign_key_is_no_false_alarm() -> None:
    tree, b = MemoryStore(), Namespace()
    await b.adopt()
    await tree.put("nouns/key.json", _body(noun("inside")))
    await tree.put("nouns/a.json", _body(noun("a")))
    await b.put(noun("inside", 2.0, metadata=None), noun("a", metadata=None))
    result = await compare(side(tree), side(b.store))
    assert found(result) == {(NOUN, "inside"): ("mismatched", ("vector",))}


async def test_an_item_that_never_holds_still_is_unsettled() -> None:
    a, b = await pair(30)
    await b.put(noun("hot", 0.0))
    values = iter(range(1, 1000))

    class Restless:
        """The machine's time; while one waits, something is written."""

        monotonic, wall = CLOCK.monotonic, CLOCK.wall

        async def sleep(self, seconds: float) -> None:
            await b.put(noun("hot", float(next(values))))

    options = VerifyOptions(patience=AT_ONCE)
    result = await verify(side(a.store), side(b.store), options, clock=Restless(), ids=Ids())
    assert result.verdict is Verdict.UNSETTLED
    assert result.unsettled_items == ((NOUN, "hot"),)
    assert not result.differences


async def test_relations_that_lost_an_end_on_one_side() -> None:
    a, b = await pair(30)
    for space in (a, b):
        await space.put(Verb(id="loose", source_id="n1", target_id="nobody", type="t"))
    await b.drop(nouns=["n1"])
    result = await compare(side(a.store), side(b.store), relations=True)
    assert result.relations is not None
    assert (result.relations.dangling_a, result.relations.dangling_b) == (1, 22)
    assert result.relations.different == 21
    by_id = {one.id: (one.a, one.b) for one in result.relations.examples}
    assert by_id["v0"] == ((), ("target_id",))
    assert by_id["loose"] == (("target_id",), ("source_id", "target_id"))


@pytest.mark.parametrize("dies_at", [1, 2, 3, 4, 6, 9])
async def test_a_killed_run_goes_on(tmp_path: Path, dies_at: int) -> None:
    store = MemoryStore()
    await generations.publish(store, tmp_path, positions=(0, 0, 0))
    await generations.put_routing(store, 1)
    b = Namespace()
    await b.adopt()
    await b.put(*generations.NOUNS[5:], *generations.VERBS)
    state = tmp_path / "state"
    steps = 0

    def step(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == dies_at:
            raise Killed

    whole: list[tuple[int, int | None]] = []
    with pytest.raises(Killed):
        await compare(side(store), side(b.store), resume=state, on_progress=step, on_remark=step)
    result = await compare(
        side(store), side(b.store), resume=state, on_progress=lambda done, total: whole.append((done, total))
    )
    assert found(result) == {(NOUN, f"n{number}"): ("missing", ()) for number in range(5)}
    assert (result.a.nouns, result.b.nouns) == (2500, 2495)
    assert whole[-1][0] == 2500 + 2495 + 80
    assert not state.exists()
    assert not state.with_name("state.d").exists()


async def test_a_killed_run_does_not_read_twice_what_was_read(tmp_path: Path) -> None:
    a, b = await pair()
    await plant(a, b)
    state = tmp_path / "state"

    def die(*_: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        await compare(side(a.store), side(b.store), resume=state, on_remark=die)
    with pytest.raises(PreconditionError):
        await compare(side(a.store, name="memory://other"), side(b.store), resume=state)
    first: list[int] = []
    result = await compare(
        side(a.store), side(b.store), resume=state, on_progress=lambda done, total: first.append(done)
    )
    assert result.resumed
    assert len(first) == 1
    assert len(result.differences) == 10
    state.write_bytes(b"{}")
    state.with_name("state.d").mkdir()
    with pytest.raises(BrainyError):
        await compare(side(a.store), side(b.store), resume=state)


async def test_groups_and_an_end_of_looking(tmp_path: Path) -> None:
    a, b = await pair()
    await b.drop(nouns=[f"n{number}" for number in range(100)])
    result = await compare(side(a.store), side(b.store), at_once=7, enough=50)
    assert (result.missing + result.unexamined, result.suspected) == (100, 100)
    assert 50 <= result.missing < 60
    assert result.verdict is Verdict.DIFFERENT


async def test_the_active_generation_changes_between_two_looks(tmp_path: Path) -> None:
    a = await spaces.filled(30)
    one = side(a.store)
    await one.begin()
    names = [(NOUN, "n1"), (NOUN, "n2400")]
    watch = one.watch(names)
    held = await watch.look(names)
    assert held == {names[0]: a.nouns["n1"], names[1]: None}
    await generations.publish(a.store, tmp_path, positions=(0, 0, 0))
    await generations.put_routing(a.store, 1)
    held = await watch.look(names)
    assert held[names[1]] == generations.NOUNS[2400]
    assert watch.place.generation == 1


async def test_the_log_behind_the_last_look_was_collected(tmp_path: Path) -> None:
    store = MemoryStore()
    await generations.publish(store, tmp_path, positions=(0, 0, 0))
    await generations.put_routing(store, 1)
    await generations.write_log(store, 1, [log_pb2.LogRecord(delete_noun="n1")], 0)
    b = Namespace()
    await b.adopt()
    await b.put(*generations.NOUNS, *generations.VERBS)
    watch = side(store).watch([(NOUN, "n1")])
    assert await watch.look([(NOUN, "n1")]) == {(NOUN, "n1"): None}
    state, steps = tmp_path / "state", iter(range(9))

    def step(*_: object) -> None:
        if next(steps, None) is None:
            raise Killed

    with pytest.raises(Killed):
        await compare(side(store), side(b.store), resume=state, on_progress=step)
    assert state.exists()
    ends = tuple(watch.place.positions.get(shard, 0) + 5 for shard in range(3))
    await generations.publish(store, tmp_path, positions=ends)
    for shard, end in enumerate(ends):
        collected = Collected(generation=1, shard=shard, epoch=1, nonce="n", position=end)
        await store.put(layout.collected(1, shard), collected.encode())
        async for page in store.list(layout.log(1, shard)):
            for meta in page:
                await store.delete(meta.key)
    # The newer checkpoint has it again.
    assert await watch.look([(NOUN, "n1")]) == {(NOUN, "n1"): generations.NOUNS[1]}
    # A run that was begun before that is read from a new point.
    remarks: list[str] = []
    result = await compare(side(store), side(b.store), resume=state, on_remark=remarks.append)
    assert (result.resumed, result.verdict) == (True, Verdict.EQUAL)
    assert result.a.nouns == 2500
    assert remarks == ["the change log moved on; reading this side again"]


async def test_a_followed_tree_is_read_as_the_cluster_serves_it(tmp_path: Path) -> None:
    """Generation 0 with checkpoints: what Brainy writes later counts once it is followed, not before."""
    store = MemoryStore()
    manifests = await generations.publish(store, tmp_path, positions=(0, 0, 0))
    await generations.put_spec(store, 0, source="brainy")
    await generations.put_routing(store, 0)
    for shard, manifest in manifests.items():
        moved = manifest.encode().replace(b"cluster/generations/1/", b"cluster/generations/0/").partition(b"\n")
        body = b"{\n" + moved[2].partition(b"\n")[2].replace(b'"generation": 1,', b'"generation": 0,')
        await store.put(layout.manifest(0, shard), body)
        async for page in store.list("cluster/generations/1/"):
            for meta in page:
                stored = await store.get(meta.key)
                assert stored is not None
                if "/manifests/" not in meta.key and "spec" not in meta.key:
                    await store.put(meta.key.replace("generations/1/", "generations/0/"), stored.body)
    await store.put("nouns/late.json", _body(noun("late")))
    for one in generations.NOUNS:
        await store.put(f"nouns/{one.id}.json", _body(one))
        await store.put(f"metadata/{one.id}.json", one.metadata or b"null")
    result = await compare(side(store, which="tree"), side(store), patience=AT_ONCE)
    verbs = {(VERB, one.id): ("extra", ()) for one in generations.VERBS}
    assert found(result) == {(NOUN, "late"): ("missing", ()), **verbs}


async def test_equal_sets_cost_no_more_than_the_reading() -> None:
    a, b = await pair()
    stores = [MeteredStore(space.store) for space in (a, b)]
    read: list[tuple[int, int]] = []
    result = await compare(
        NamespaceSide("a", stores[0], None, CLOCK),
        NamespaceSide("b", stores[1], None, CLOCK),
        on_progress=lambda done, _: read.append((done, sum(sum(store.calls.values()) for store in stores))),
    )
    assert result.verdict is Verdict.EQUAL
    assert read[-1][0] == 540
    assert sum(sum(store.calls.values()) for store in stores) == read[-1][1]
    assert all(store.calls[kind] == 0 for store in stores for kind in ("put", "put_conditional", "delete"))


async def test_a_damaged_log_is_an_error_and_no_difference() -> None:
    a, b = await pair(30)
    key = layout.log_slot(0, 1, 1)
    stored = await b.store.get(key)
    assert stored is not None
    await b.store.put(key, stored.body[:-1] + b"x")
    with pytest.raises(CorruptDataError):
        await compare(side(a.store), side(b.store))


def test_rows_of_many_runs(tmp_path: Path) -> None:
    written = {}
    for label, other in (("a", 17), ("b", 4711)):
        rows = RowWriter(tmp_path, label, run_rows=1000)
        for number in range(5000):
            value = b"y" if number == other else b"x"
            rows.add(noun_key(f"é{number}"), value * 16, f"é{number}")
        runs = rows.close()
        assert runs == 5
        written[label] = RowReader(tmp_path, [f"{label}.{run}" for run in range(runs)])
    names = [name for bucket in range(4096) for name in suspects(written["a"], written["b"], bucket)]
    assert sorted(names) == [(NOUN, "é17"), (NOUN, "é4711")]
    assert sum(written["a"].size(bucket) for bucket in range(4096)) == 5000


ITEMS = st.dictionaries(
    st.tuples(st.sampled_from([NOUN, VERB]), st.sampled_from(["a", "b", "c", "é", "n0"])),
    st.tuples(st.sampled_from([0.0, -0.0, 1.0, float("nan")]), st.sampled_from([None, b"{}", b'{"k":1}', b"[]"])),
)


@settings(max_examples=30, deadline=None)
@given(ITEMS, ITEMS)
def test_the_diff_of_anything(on_a: dict[tuple[str, str], object], on_b: dict[tuple[str, str], object]) -> None:
    async def run() -> None:
        both = []
        for items in (on_a, on_b):
            space = Namespace()
            await space.adopt()
            for (kind, name), (value, metadata) in items.items():  # type: ignore[misc]
                made = noun(name, value, metadata) if kind == NOUN else replace(verb(name, value), metadata=metadata)
                await space.put(made)
            both.append(space)
        a, b = both
        result = await compare(side(a.store), side(b.store))
        expected = {}
        for name in on_a.keys() | on_b.keys():
            kind, item_id = name
            one = (a.nouns if kind == NOUN else a.verbs).get(item_id)
            other = (b.nouns if kind == NOUN else b.verbs).get(item_id)
            if one is None or other is None:
                expected[name] = "missing" if other is None else "extra"
            elif one.digest() != other.digest():
                expected[name] = "mismatched"
        assert {name: what for name, (what, _) in found(result).items()} == expected
        assert all(fields for what, fields in found(result).values() if what == "mismatched")
        assert (result.verdict is Verdict.EQUAL) == (not expected)

    asyncio.run(run())
