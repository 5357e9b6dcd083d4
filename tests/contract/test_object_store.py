"""The contract of ``brainy.store.base``, kept by every implementation and wrapper."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.errors import InvalidRequestError, NotFoundError, PermissionDeniedError, UnavailableError
from brainy.ids import Ids
from brainy.store.base import ObjectMeta, ObjectStore, PutState, StoredObject
from brainy.store.capability import PROBE_PREFIX, probe_conditional_writes
from brainy.store.cas import CasRegister
from brainy.store.local import LocalStore
from brainy.store.opening import open_store
from brainy.testing.fixtures import load_fixture, read_objects
from brainy.testing.servers import S3Server

#: Made by the fixtures that start the servers.
BUCKET = "brainy-tests"
STORES = ("memory", "local", "s3[seaweedfs]", "s3[ministack]")
#: SeaweedFS takes keys for paths: it refuses "." parts, drops empty ones, and lists directory by directory. No key
#: of the cluster has such a part, and no listing the cluster relies on spans directories; so these are asked less.
STORES_OF_ANY_KEY = ("memory", "local", "s3[ministack]")

ODD_KEYS = [
    "nouns/with space.json",
    "nouns/a+b&c=d.json",
    "nouns/50%.json",
    "nouns/%2F.json",
    "nouns/%25.json",
    "nouns/ünï/ñ😀.json",
    "nouns/" + unicodedata.normalize("NFC", "é") + ".json",
    "nouns/" + unicodedata.normalize("NFD", "é") + ".json",
    "nouns/a.json",
    "nouns/a.json/b.json",
    "nouns/report.json.json",
    "nouns/a'b\"c(d)*!~@:;,$?#[]{}|^`<>.json",
    "locks/statistics-flush",
    "locks/statistics-flush/deeper",
    "nouns/" + "x" * 600 + ".json",
    "nouns/" + "é" * 300 + ".json",
    " leading",
    "trailing ",
]


@dataclass
class Case:
    name: str
    store: ObjectStore
    server: S3Server | None = None

    @property
    def racers(self) -> int:
        # Contended conditional writes are slow on SeaweedFS: seconds a round.
        return 8 if self.name == "s3[seaweedfs]" else 32

    @property
    def longest_part(self) -> int:
        # SeaweedFS keeps entries of a directory under names of at most 255 characters.
        return 255 if self.name == "s3[seaweedfs]" else 1024


@pytest.fixture(params=STORES)
async def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    name = request.param
    server = None
    prefix = Ids().short(10)
    if name.startswith("s3"):
        server = request.getfixturevalue(name[3:-1] + "_server")
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        uri = f"s3://{BUCKET}/{prefix}"
    else:
        uri = f"memory://{prefix}" if name == "memory" else f"file://{tmp_path}"
    store = open_store(Namespace.parse(uri), StoreSettings(), clock=SystemClock(), ids=Ids())
    yield Case(name, store, server)
    await store.close()


async def listed(store: ObjectStore, prefix: str, *, start_after: str = "") -> list[ObjectMeta]:
    return [item async for page in store.list(prefix, start_after=start_after) for item in page]


async def keys_of(store: ObjectStore, prefix: str, *, start_after: str = "") -> list[str]:
    return [item.key for item in await listed(store, prefix, start_after=start_after)]


async def test_what_was_put_is_read(case: Case) -> None:
    store = case.store
    assert await store.get("a.json") is None
    assert await store.get_range("a.json", 0, 5) is None
    etag = await store.put("a.json", b"hello")
    found = await store.get("a.json")
    assert found is not None
    assert (found.key, found.body, found.etag) == ("a.json", b"hello", etag)
    assert found.last_modified > 1_600_000_000
    assert await store.put("a.json", b"") != etag
    empty = await store.get("a.json")
    assert empty is not None
    assert empty.body == b""


async def test_ranges(case: Case) -> None:
    await case.store.put("r.bin", bytes(range(100)))
    assert await case.store.get_range("r.bin", 10, 5) == bytes(range(10, 15))
    assert await case.store.get_range("r.bin", 95, 50) == bytes(range(95, 100))
    assert await case.store.get_range("r.bin", 100, 5) == b""
    assert await case.store.get_range("r.bin", 500, 5) == b""
    assert await case.store.get_range("r.bin", 0, 0) == b""
    assert await case.store.get_range("none.bin", 0, 0) is None


async def test_a_large_object(case: Case) -> None:
    body = Ids().nonce() * (700_000)
    await case.store.put("large.bin", body)
    found = await case.store.get("large.bin")
    assert found is not None
    assert found.body == body
    assert await case.store.get_range("large.bin", 5_000_000, 16) == body[5_000_000:5_000_016]
    assert (await listed(case.store, "large"))[0].size == len(body)


async def test_deleting_twice_is_fine(case: Case) -> None:
    await case.store.put("d/x.json", b"1")
    await case.store.delete("d/x.json")
    await case.store.delete("d/x.json")
    assert await case.store.get("d/x.json") is None
    assert await keys_of(case.store, "") == []
    assert (await case.store.put_if_absent("d/x.json", b"2")).won


async def test_put_if_absent_never_replaces(case: Case) -> None:
    first = await case.store.put_if_absent("c/k.log", b"one")
    assert first.won
    second = await case.store.put_if_absent("c/k.log", b"two")
    assert second.state is PutState.LOST
    found = await case.store.get("c/k.log")
    assert found is not None
    assert (found.body, found.etag) == (b"one", first.etag)


async def test_put_if_match_needs_the_current_etag(case: Case) -> None:
    store = case.store
    old = await store.put("m.json", b"one")
    won = await store.put_if_match("m.json", b"two", old)
    assert won.won
    assert won.etag != old
    assert (await store.put_if_match("m.json", b"three", old)).state is PutState.LOST
    assert (await store.put_if_match("m.json", b"three", "")).state is PutState.LOST
    found = await store.get("m.json")
    assert found is not None
    assert (found.body, found.etag) == (b"two", won.etag)


async def test_put_if_match_does_not_create(case: Case) -> None:
    etag = await case.store.put("gone.json", b"one")
    await case.store.delete("gone.json")
    assert (await case.store.put_if_match("gone.json", b"two", etag)).state is PutState.LOST
    assert await case.store.get("gone.json") is None


async def test_one_creator_wins(case: Case) -> None:
    for number in range(1 if case.racers == 8 else 5):
        outcomes = await asyncio.gather(
            *(case.store.put_if_absent(f"race/{number}.log", f"{i}".encode()) for i in range(case.racers))
        )
        winners = [i for i, outcome in enumerate(outcomes) if outcome.won]
        assert len(winners) == 1
        found = await case.store.get(f"race/{number}.log")
        assert found is not None
        assert found.body == f"{winners[0]}".encode()


async def test_one_replacer_wins(case: Case) -> None:
    etag = await case.store.put("race.json", b"start")
    outcomes = await asyncio.gather(
        *(case.store.put_if_match("race.json", f"{i}".encode(), etag) for i in range(case.racers))
    )
    winners = [i for i, outcome in enumerate(outcomes) if outcome.won]
    assert len(winners) == 1
    found = await case.store.get("race.json")
    assert found is not None
    assert found.body == f"{winners[0]}".encode()


async def test_odd_keys(case: Case) -> None:
    keys = [key for key in ODD_KEYS if max(map(len, key.split("/"))) <= case.longest_part]
    for key in keys:
        assert (await case.store.put_if_absent(key, b"body of " + key.encode())).won, key
    for key in keys:
        assert not (await case.store.put_if_absent(key, b"")).won, key
    found = await case.store.get_many(keys)
    assert [(item.key, item.body) for item in found if isinstance(item, StoredObject)] == [
        (key, b"body of " + key.encode()) for key in keys
    ]
    assert sorted(await keys_of(case.store, "")) == sorted(keys)
    for key in keys:
        assert await keys_of(case.store, key) == sorted(k for k in keys if k.startswith(key))
        await case.store.delete(key)
    assert await keys_of(case.store, "") == []


@pytest.mark.parametrize("case", STORES_OF_ANY_KEY, indirect=True)
async def test_keys_obstore_cannot_address(case: Case) -> None:
    keys = ["a//b.json", "a/./b.json", "../b.json", "a/..", "dir/", "tab\t.json", "line\n.json"]
    for key in keys:
        await case.store.put(key, b"x" + key.encode())
    assert await keys_of(case.store, "") == sorted(keys)
    for key in keys:
        found = await case.store.get(key)
        assert found is not None
        assert found.body == b"x" + key.encode()
        assert await case.store.get_range(key, 1, 2) == key.encode()[:2]
        assert (await case.store.put_if_absent(key, b"")).state is PutState.LOST
        changed = await case.store.put_if_match(key, b"y", found.etag)
        assert changed.won
        assert (await case.store.put_if_match(key, b"z", found.etag)).state is PutState.LOST
        await case.store.delete(key)
        assert await case.store.get(key) is None


@pytest.mark.parametrize("key", ["", "/a", "a\0b", "x" * 1025, "\ud800"])
async def test_illegal_keys_are_refused(key: str, tmp_path: Path) -> None:
    for uri in ("memory://illegal", f"file://{tmp_path}"):
        store = open_store(Namespace.parse(uri), StoreSettings(), clock=SystemClock(), ids=Ids())
        with pytest.raises(InvalidRequestError):
            await store.put(key, b"")
        with pytest.raises(InvalidRequestError):
            await store.put_if_absent(key, b"")
        with pytest.raises(InvalidRequestError):
            await store.get(key)


async def test_listing_in_pages_and_in_order(case: Case) -> None:
    keys = [f"log/{number:020d}.log" for number in range(1300)]
    await asyncio.gather(*(case.store.put(key, key.encode()) for key in reversed(keys)))
    await case.store.put("logs/other.log", b"")
    pages = [page async for page in case.store.list("log/")]
    assert [item.key for page in pages for item in page] == keys
    assert max(len(page) for page in pages) <= 1000
    assert len(pages) == 2
    assert await keys_of(case.store, "log/", start_after=keys[999]) == keys[1000:]
    assert await keys_of(case.store, "log/", start_after=keys[-1]) == []
    assert await keys_of(case.store, "log/000000000000000012") == keys[1200:]
    item = (await listed(case.store, keys[7]))[0]
    found = await case.store.get(keys[7])
    assert found is not None
    assert (item.size, item.etag) == (len(keys[7]), found.etag)
    assert abs(item.last_modified - found.last_modified) <= 1.5


@pytest.mark.parametrize("case", STORES_OF_ANY_KEY, indirect=True)
async def test_order_across_directories(case: Case) -> None:
    keys = ["a", "a/b", "a/b.json", "a.json", "a/b/c", "a-b", "b", "ab/c.json", "a0", "é/x", "z/y", "a!/x"]
    for key in keys:
        await case.store.put(key, b"")
    ordered = sorted(keys, key=str.encode)
    assert await keys_of(case.store, "") == ordered
    assert await keys_of(case.store, "a") == [key for key in ordered if key.startswith("a")]
    for place, key in enumerate(ordered):
        assert await keys_of(case.store, "", start_after=key) == ordered[place + 1 :]
    assert await keys_of(case.store, "", start_after="a/b.") == [key for key in ordered if key > "a/b."]


async def test_get_many_keeps_order_and_gaps(case: Case) -> None:
    await asyncio.gather(*(case.store.put(f"g/{n}.json", str(n).encode()) for n in range(0, 500, 2)))
    found = await case.store.get_many([f"g/{n}.json" for n in range(500)], concurrency=16)
    assert [None if item is None else item.body for item in found if not isinstance(item, Exception)] == [
        None if n % 2 else str(n).encode() for n in range(500)
    ]
    assert await case.store.get_many([]) == []


async def test_user_metadata(case: Case) -> None:
    await case.store.put("meta.json", b"{}", user_metadata={"entity-type": "noun", "timestamp": "1795330056696"})
    found = await case.store.get("meta.json")
    assert found is not None
    assert dict(found.user_metadata) == {"entity-type": "noun", "timestamp": "1795330056696"}
    await case.store.put("meta.json", b"{}")
    found = await case.store.get("meta.json")
    assert found is not None
    assert dict(found.user_metadata) == {}


async def test_the_probe_accepts_it(case: Case) -> None:
    await probe_conditional_writes(case.store, Ids())
    assert await keys_of(case.store, PROBE_PREFIX) == []


async def test_a_counter_behind_compare_and_swap(case: Case) -> None:
    ids = Ids()
    tasks, rounds = (3, 2) if case.name == "s3[seaweedfs]" else (8, 5)

    def register() -> CasRegister[int]:
        return CasRegister(
            case.store,
            "cluster/counter",
            encode=lambda value: b"%d %s" % (value, ids.nonce().hex().encode()),
            decode=lambda body: int(body.split()[0]),
            clock=SystemClock(),
            ids=ids,
        )

    async def add() -> None:
        mine = register()
        for _ in range(rounds):
            while True:
                loaded = await mine.load()
                value, etag = loaded or (0, None)
                if await mine.swap(value + 1, etag):
                    break

    await asyncio.gather(*(add() for _ in range(tasks)))
    loaded = await register().load()
    assert loaded is not None
    assert loaded[0] == tasks * rounds


async def test_a_recorded_bucket(case: Case, recorded_buckets: Path) -> None:
    folder = recorded_buckets / "v0.10.0"
    recorded = {item.key: item for item in read_objects(folder)}
    await load_fixture(case.store, folder)
    assert set(await keys_of(case.store, "")) == set(recorded)
    for item in await case.store.get_many(list(recorded)):
        assert isinstance(item, StoredObject)
        assert item.body == recorded[item.key].body
        assert dict(item.user_metadata) == recorded[item.key].metadata


@pytest.mark.parametrize("name", ["seaweedfs", "ministack"])
async def test_a_missing_bucket_says_so(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: S3Server = request.getfixturevalue(f"{name}_server")
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    place = Namespace.parse("s3://no-such-bucket/x")
    store = open_store(place, StoreSettings(), clock=SystemClock(), ids=Ids())
    with pytest.raises(NotFoundError, match="bucket") as caught:
        await store.get("a.json")
    assert caught.value.fields["bucket"] == "no-such-bucket"
    assert "create the bucket" in caught.value.remedy
    for call in (store.put("a", b""), store.put_if_absent("a", b""), keys_of(store, "")):
        with pytest.raises(NotFoundError):
            await call
    await store.close()


async def test_wrong_credentials_are_refused(seaweedfs_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in seaweedfs_server.environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    place = Namespace.parse(f"s3://{BUCKET}/x")
    store = open_store(place, StoreSettings(), clock=SystemClock(), ids=Ids())
    calls = (
        store.get("a"),
        store.get_range("a", 0, 1),
        store.put("a", b""),
        store.put_if_absent("a", b""),
        store.put_if_match("a", b"", '"e"'),
        store.delete("a"),
        keys_of(store, ""),
    )
    for call in calls:
        with pytest.raises(PermissionDeniedError) as caught:
            await call
        assert "wrong" not in str(caught.value)
    await store.close()


async def test_an_unreachable_server(ministack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in ministack_server.environment.items():
        monkeypatch.setenv(variable, value)
    settings = StoreSettings(endpoint="http://127.0.0.1:9", max_retries=1)
    store = open_store(Namespace.parse(f"s3://{BUCKET}/x"), settings, clock=SystemClock(), ids=Ids())
    with pytest.raises(UnavailableError):
        await store.get("a")
    with pytest.raises(UnavailableError):
        await keys_of(store, "")
    assert (await store.put_if_absent("a", b"")).state is PutState.UNKNOWN
    assert (await store.put_if_match("a", b"", '"e"')).state is PutState.UNKNOWN
    found = await store.get_many(["a", "b"])
    assert [type(item) for item in found] == [UnavailableError, UnavailableError]
    await store.close()


_RACER = """
import asyncio, sys
from brainy.ids import Ids
from brainy.store.local import LocalStore

async def run(directory, number, rounds):
    store, ids = LocalStore(directory, durable=False), Ids()
    created = swapped = 0
    for step in range(rounds):
        created += (await store.put_if_absent(f"race/{step}", number)).won
        found = await store.get("register")
        body = b"%d %s" % (int(found.body.split()[0]) + 1, ids.nonce().hex().encode())
        swapped += (await store.put_if_match("register", body, found.etag)).won
    print(created, swapped)

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(run(sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])))
"""


async def test_several_processes_race_on_a_directory(tmp_path: Path) -> None:
    processes, rounds = 4, 100
    store = LocalStore(tmp_path)
    await store.put("register", b"0 start")
    children = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _RACER, str(tmp_path), str(number), str(rounds)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(processes)
    ]
    for child in children:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(child.communicate(b"\n") for child in children))
    outcomes = [tuple(map(int, output.split())) for output, _ in outputs]
    assert sum(created for created, _ in outcomes) == rounds
    register = await store.get("register")
    assert register is not None
    assert int(register.body.split()[0]) == sum(swapped for _, swapped in outcomes)
    assert sum(swapped for _, swapped in outcomes) >= rounds // processes
