"""Retrying, metering, prefixes, opening, the probe's negative cases."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from brainy.bucket.namespace import Namespace
from brainy.config.environment import s3_endpoint, s3_region
from brainy.config.settings import StoreSettings, load_settings
from brainy.errors import PermissionDeniedError, PreconditionError, UnavailableError
from brainy.ids import Ids
from brainy.store.base import ObjectStore, PutOutcome, PutState, StoredObject
from brainy.store.capability import PROBE_PREFIX, examine, probe_conditional_writes
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy.store.opening import open_store
from brainy.store.prefixed import PrefixedStore
from brainy.store.retrying import RetryingStore
from brainy.store.s3_access import S3Access
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore, UnconditionalStore


async def run(clock: ManualClock, coroutine: object) -> object:
    task = asyncio.ensure_future(coroutine)  # type: ignore[arg-type]
    while not task.done():
        await clock.advance(1.0)
    return await task


def retrying(max_retries: int = 3) -> tuple[ManualClock, FaultyStore, RetryingStore]:
    clock = ManualClock()
    faulty = FaultyStore(MemoryStore(clock), clock=clock)
    return clock, faulty, RetryingStore(faulty, max_retries=max_retries, clock=clock, ids=Ids())


async def test_what_may_be_repeated_is_repeated() -> None:
    clock, faulty, store = retrying()
    faulty.plan(kind="put", fault=Fault.UNAVAILABLE, times=2)
    assert await run(clock, store.put("a", b"1"))
    faulty.plan(kind="get", fault=Fault.UNAVAILABLE, times=3)
    found = await run(clock, store.get("a"))
    assert isinstance(found, StoredObject)
    faulty.plan(kind="get_range", fault=Fault.UNAVAILABLE)
    assert await run(clock, store.get_range("a", 0, 1)) == b"1"
    faulty.plan(kind="delete", fault=Fault.LANDED_UNKNOWN)
    await run(clock, store.delete("a"))
    assert await store.get("a") is None
    assert store.retries == 7


async def test_it_gives_up_with_the_error_of_the_store() -> None:
    clock, faulty, store = retrying(max_retries=2)
    faulty.plan(kind="get", fault=Fault.UNAVAILABLE, times=-1)
    started = clock.monotonic()
    with pytest.raises(UnavailableError):
        await run(clock, store.get("a"))
    assert faulty.journal.keys("get") == ["a"] * 3
    assert clock.monotonic() > started


async def test_no_retries_at_all() -> None:
    _, faulty, store = retrying(max_retries=0)
    faulty.plan(kind="get", fault=Fault.UNAVAILABLE, times=-1)
    with pytest.raises(UnavailableError):
        await store.get("a")
    assert faulty.journal.keys("get") == ["a"]


async def test_conditional_writes_are_never_repeated() -> None:
    _, faulty, store = retrying()
    faulty.plan(kind="put*", fault=Fault.LANDED_UNKNOWN)
    assert (await store.put_if_absent("a", b"1")).state is PutState.UNKNOWN
    faulty.plan(kind="put*", fault=Fault.UNAVAILABLE)
    with pytest.raises(UnavailableError):
        await store.put_if_match("a", b"2", "etag")
    assert [kind for kind, _ in faulty.journal.calls] == ["put_if_absent", "put_if_match"]


async def test_only_failed_objects_are_read_again() -> None:
    clock, faulty, store = retrying()
    keys = [f"k{n}" for n in range(5)]
    for key in keys:
        await store.put(key, key.encode())
    faulty.plan(kind="get_many", key_prefix="k3", fault=Fault.UNAVAILABLE, times=2)
    found = await run(clock, store.get_many([*keys, "missing"]))
    assert isinstance(found, list)
    assert [item and item.body for item in found] == [b"k0", b"k1", b"k2", b"k3", b"k4", None]
    assert faulty.journal.keys("get_many") == [*keys, "missing", "k3", "k3"]


async def test_a_listing_goes_on_where_it_broke() -> None:
    clock, faulty, store = retrying()
    keys = [f"k{n:04}" for n in range(2500)]
    for key in keys:
        await store.put(key, b"")

    async def collect() -> list[str]:
        return [item.key async for page in store.list("k") for item in page]

    faulty.plan(kind="list", fault=Fault.UNAVAILABLE)  # at the start
    faulty.plan(kind="list", fault=None)
    faulty.plan(kind="list", fault=Fault.UNAVAILABLE, times=3)  # behind the first page
    assert await run(clock, collect()) == keys
    faulty.plan(kind="list", fault=Fault.UNAVAILABLE, times=-1)
    with pytest.raises(UnavailableError):
        await run(clock, collect())


async def test_calls_are_counted_by_kind() -> None:
    store = MeteredStore(MemoryStore())
    for number in range(1001):
        await store.put(f"k{number:04}", b"x")
    await store.get("k0000")
    await store.get_many(["k0001", "k0002", "none"])
    await store.get_range("k0000", 0, 1)
    await store.put_if_absent("k0000", b"")
    await store.put_if_match("k0000", b"", "no")
    await store.delete("k0000")
    assert len([page async for page in store.list("k")]) == 1
    assert len([page async for page in store.list("none")]) == 0
    await store.put("k0000", b"x")
    assert len([page async for page in store.list("k")]) == 2
    assert store.calls == {
        "get": 4,
        "get_range": 1,
        "put": 1002,
        "put_conditional": 2,
        "delete": 1,
        "list": 4,
    }


async def test_a_prefix_hides_the_rest() -> None:
    whole = MemoryStore()
    part = PrefixedStore(whole, "app/v2/")
    await whole.put("app/v20/x", b"")
    await whole.put("app/x", b"")
    await part.put("a/x", b"1")
    await part.put("b/x", b"2")
    assert [item.key async for page in part.list("") for item in page] == ["a/x", "b/x"]
    assert [item.key async for page in part.list("", start_after="a/x") for item in page] == ["b/x"]
    found = await part.get("a/x")
    assert found is not None
    assert (found.key, found.body) == ("a/x", b"1")
    assert await whole.get("app/v2/a/x") is not None
    assert (await part.put_if_match("a/x", b"3", found.etag)).won
    assert not (await part.put_if_absent("a/x", b"3")).won
    assert await part.get_range("a/x", 0, 9) == b"3"
    await part.delete("a/x")
    assert [item and item.key for item in await part.get_many(["a/x", "b/x"]) if not isinstance(item, Exception)]


async def test_memory_namespaces_of_one_process_are_shared() -> None:
    def opened(uri: str) -> ObjectStore:
        return open_store(Namespace.parse(uri), StoreSettings(), clock=ManualClock(), ids=Ids())

    await opened("memory://shared-name").put("p/x", b"1")
    assert await opened("memory://shared-name/p").get("x") is not None
    assert await opened("memory://other-name/p").get("x") is None


async def test_s3_needs_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(PermissionDeniedError, match="no credentials"):
        open_store(Namespace.parse("s3://bucket"), StoreSettings(), clock=ManualClock(), ids=Ids())


def test_where_the_endpoint_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert s3_endpoint({}) == ""
    assert s3_endpoint({"AWS_ENDPOINT_URL": "http://a"}) == "http://a"
    assert s3_endpoint({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}) == "http://b"
    assert s3_region({"AWS_DEFAULT_REGION": "eu-west-1"}) == "eu-west-1"
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert (S3Access.of(StoreSettings()).endpoint, S3Access.of(StoreSettings()).region) == ("", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://env:1/")
    assert S3Access.of(StoreSettings()).endpoint == "http://env:1"
    assert S3Access.of(StoreSettings(endpoint="http://set:1")).endpoint == "http://set:1"
    assert load_settings(environment={"BRAINY_FIXTURES": "/somewhere"}) == load_settings(environment={})


async def test_the_probe_names_what_is_ignored() -> None:
    memory = MemoryStore()
    with pytest.raises(PreconditionError) as caught:
        await probe_conditional_writes(UnconditionalStore(memory), Ids())
    assert caught.value.reason == "STORE_UNFIT"
    assert caught.value.fields["check"] == "create-if-absent"
    assert [page async for page in memory.list(PROBE_PREFIX)] == []


class _IgnoresMatch(FaultyStore):
    async def put_if_match(self, key: str, body: bytes, etag: str):  # type: ignore[no-untyped-def]
        if await self.inner.get(key) is None:
            return await self.inner.put_if_match(key, body, etag)
        return await UnconditionalStore(self.inner).put_if_match(key, body, etag)


class _CreatesOnMatch(FaultyStore):
    async def put_if_match(self, key: str, body: bytes, etag: str):  # type: ignore[no-untyped-def]
        if await self.inner.get(key) is None:
            return await self.inner.put_if_absent(key, body)
        return await self.inner.put_if_match(key, body, etag)


class _ChecksThenActs(FaultyStore):
    async def put_if_absent(self, key: str, body: bytes):  # type: ignore[no-untyped-def]
        there = await self.inner.get(key)
        await asyncio.sleep(0)
        if there is not None:
            return await self.inner.put_if_absent(key, body)
        return await UnconditionalStore(self.inner).put_if_absent(key, body)


@pytest.mark.parametrize(
    ("kind", "check"),
    [(_IgnoresMatch, "stale-etag"), (_CreatesOnMatch, "match-on-missing"), (_ChecksThenActs, "create-race")],
)
async def test_the_probe_finds_the_finer_faults(kind: type[FaultyStore], check: str) -> None:
    with pytest.raises(PreconditionError) as caught:
        await probe_conditional_writes(kind(MemoryStore()), Ids())
    assert (caught.value.reason, caught.value.fields["check"]) == ("STORE_UNFIT", check)


@pytest.mark.parametrize("kind", ["put_if_absent", "put_if_match"])
async def test_the_probe_does_not_take_a_write_sent_twice_on_the_way_for_a_refusal(kind: str) -> None:
    store = FaultyStore(MemoryStore())
    store.plan(kind=kind, fault=Fault.LANDED_LOST)
    assert (await examine(store, Ids())).fit


async def test_the_probe_does_not_blame_a_store_that_is_away() -> None:
    store = FaultyStore(MemoryStore())
    store.plan(kind="put_if_absent", fault=Fault.LANDED_UNKNOWN)
    with pytest.raises(UnavailableError):
        await probe_conditional_writes(store, Ids())


async def test_a_store_that_keeps_its_promises_is_fit() -> None:
    memory = MemoryStore()
    found = await examine(memory, Ids())
    assert [check.name for check in found.checks if not check.passed] == []
    assert len({check.name for check in found.checks}) == 10
    assert (found.fit, found.store_locks_safe, found.redis_locks_safe) == (True, True, True)
    assert [page async for page in memory.list(PROBE_PREFIX)] == []


async def test_a_store_without_conditions_is_told_in_full() -> None:
    memory = MemoryStore()
    found = await examine(UnconditionalStore(memory), Ids())
    assert {check.name for check in found.checks if not check.passed} == {
        "create-if-absent",
        "create-after-delete",
        "stale-etag",
        "match-on-missing",
        "create-race",
        "replace-race",
    }
    assert (found.fit, found.store_locks_safe, found.redis_locks_safe) == (False, False, True)
    assert [page async for page in memory.list(PROBE_PREFIX)] == []


class _Forgets(FaultyStore):
    """Acknowledges writes and keeps the first."""

    async def put(self, key: str, body: bytes, *, user_metadata=None):  # type: ignore[no-untyped-def]
        found = await self.inner.get(key)
        return found.etag if found else await self.inner.put(key, body, user_metadata=user_metadata)


class _RemembersDeleted(FaultyStore):
    """A key that once was is refused for ever."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.deleted: set[str] = set()

    async def put_if_absent(self, key: str, body: bytes):  # type: ignore[no-untyped-def]
        if key in self.deleted:
            return PutOutcome(state=PutState.LOST)
        return await self.inner.put_if_absent(key, body)

    async def delete(self, key: str) -> None:
        self.deleted.add(key)
        await self.inner.delete(key)


@pytest.mark.parametrize(
    ("kind", "check", "redis"),
    [(_Forgets, "read-after-write", False), (_RemembersDeleted, "create-after-delete", True)],
)
async def test_what_redis_locks_need_of_a_store(kind: type[FaultyStore], check: str, redis: bool) -> None:
    found = await examine(kind(MemoryStore()), Ids())
    failed = found.first_failure()
    assert failed is not None
    assert failed.name == check
    assert (found.store_locks_safe, found.redis_locks_safe) == (False, redis)
