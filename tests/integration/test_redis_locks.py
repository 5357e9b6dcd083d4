"""Locks in real Redis and Valkey: tokens that its loss cannot turn back, and failures that grant nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from brainy.clock import Clock, SystemClock
from brainy.config.settings import LockSettings, load_settings
from brainy.errors import (
    BrainyError,
    CorruptDataError,
    FencedError,
    InvalidRequestError,
    LeaseHeldError,
    PermissionDeniedError,
    PreconditionError,
    UnavailableError,
)
from brainy.ids import Ids
from brainy.locks import redis_scripts
from brainy.locks.base import Grant, LockProvider
from brainy.locks.object_store import ObjectStoreLocks
from brainy.locks.opening import open_locks
from brainy.locks.redis import RedisLocks
from brainy.locks.tokens import BucketTokens, TokenBlock
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore
from brainy.testing.servers import RedisServer, redis_server, valkey

StartServer = Callable[..., AbstractContextManager[RedisServer]]
SCOPE = "s3://bucket/a b{c}*"


@pytest.fixture(params=[redis_server, valkey], ids=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with request.param() as running:
        yield running


class Cluster:
    """Processes over one bucket and one Redis after another."""

    def __init__(self) -> None:
        self.store = FaultyStore(MemoryStore())
        self.metered = MeteredStore(self.store)
        self.clock = SystemClock()
        self.opened: list[LockProvider] = []

    def on_redis(self, server: RedisServer, *, tokens: int = 1000, clock: Clock | None = None) -> RedisLocks:
        clock = clock or self.clock
        floor = BucketTokens(ObjectStoreLocks(self.metered, clock, Ids()), Ids(), tokens=tokens)
        locks = RedisLocks(server.url, clock, Ids(), scope=SCOPE, floor=floor, timeout_seconds=2.0)
        self.opened.append(locks)
        return locks

    def on_store(self) -> ObjectStoreLocks:
        return ObjectStoreLocks(self.metered, self.clock, Ids())

    async def close(self) -> None:
        for locks in self.opened:
            await locks.close()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await made.close()


async def take(locks: LockProvider, owner: str = "a", *, name: str = "x", ttl: float = 30.0) -> Grant:
    return await locks.grant(name, owner=owner, incarnation="1", ttl_seconds=ttl)


async def take_and_release(locks: LockProvider, times: int = 1) -> list[int]:
    tokens = []
    for _ in range(times):
        grant = await take(locks)
        tokens.append(grant.token)
        await locks.release(grant)
    return tokens


def state_key(name: str = "x") -> str:
    return redis_scripts.keys(SCOPE, name)[0]


# --- tokens --------------------------------------------------------------------------------------------------


async def test_a_flushed_server_goes_on_above_every_token_it_gave(cluster: Cluster, server: RedisServer) -> None:
    a, b = cluster.on_redis(server), cluster.on_redis(server)
    tokens = await take_and_release(a, 3)
    held = await take(a)
    server.command("FLUSHALL")
    with pytest.raises(FencedError):
        await a.renew(held)
    tokens += [held.token, *(await take_and_release(b, 2)), *(await take_and_release(a, 2))]
    server.command("FLUSHALL")
    tokens += await take_and_release(cluster.on_redis(server), 2)
    assert tokens == [1, 2, 3, 4, 1001, 1002, 1003, 1004, 2001, 2002]


async def test_an_empty_second_server_goes_on_above(cluster: Cluster, server: RedisServer) -> None:
    tokens = await take_and_release(cluster.on_redis(server), 2)
    with redis_server() as second:
        locks = cluster.on_redis(second)
        tokens += await take_and_release(locks, 2)
        # And back again: the first one still has its old count.
        tokens += await take_and_release(cluster.on_redis(server), 2)
        tokens += await take_and_release(cluster.on_redis(second), 2)
    assert tokens == [1, 2, 1001, 1002, 2001, 2002, 3001, 3002]


@pytest.mark.parametrize("start", [redis_server, valkey], ids=["redis", "valkey"])
async def test_a_replica_that_lags_goes_on_above(cluster: Cluster, start: StartServer) -> None:
    with start() as first, start(options=["--replicaof", "127.0.0.1", str(first.port)]) as replica:
        locks = cluster.on_redis(first)
        tokens = await take_and_release(locks, 3)
        async with asyncio.timeout(30):
            while replica.command("HGET", state_key(), "token").splitlines()[:2] != ["$1", "3"]:
                await asyncio.sleep(0.05)
        replica.command("REPLICAOF", "NO", "ONE")
        tokens += await take_and_release(locks, 3)
        first.process.kill()
        tokens += await take_and_release(cluster.on_redis(replica), 2)
        assert tokens == [1, 2, 3, 4, 5, 6, 1001, 1002]


async def test_a_lease_on_a_new_master_begins_anew_on_its_clock(cluster: Cluster) -> None:
    with redis_server() as first, redis_server(options=["--replicaof", "127.0.0.1", str(first.port)]) as replica:
        locks = cluster.on_redis(first)
        grant = await take(locks, ttl=1.0)
        async with asyncio.timeout(30):
            while "held" not in replica.command("HGETALL", state_key()):
                await asyncio.sleep(0.05)
        first.process.kill()
        replica.command("REPLICAOF", "NO", "ONE")
        successor = cluster.on_redis(replica)
        with pytest.raises(LeaseHeldError):
            await take(successor, "b")
        after = await successor.acquire(
            "x", owner="b", incarnation="1", ttl_seconds=5, wait_until=cluster.clock.monotonic() + 10
        )
        assert after.token > grant.token


@pytest.mark.parametrize("start", [redis_server, valkey], ids=["redis", "valkey"])
async def test_a_restart_from_an_old_snapshot_goes_on_above(
    cluster: Cluster, start: StartServer, tmp_path: Path
) -> None:
    with start(tmp_path) as server:
        tokens = await take_and_release(cluster.on_redis(server), 2)
        server.command("SAVE")
        tokens += await take_and_release(cluster.on_redis(server), 2)
    with start(tmp_path) as server:
        assert "token" in server.command("HGETALL", state_key())
        tokens += await take_and_release(cluster.on_redis(server), 2)
    assert tokens == [1, 2, 3, 4, 1001, 1002]


async def test_tokens_rise_across_changes_of_backend(cluster: Cluster, server: RedisServer) -> None:
    tokens = await take_and_release(cluster.on_store(), 2)
    for _ in range(3):
        tokens += await take_and_release(cluster.on_redis(server), 2)
        tokens += await take_and_release(cluster.on_store(), 2)
    assert tokens == sorted(set(tokens))
    assert tokens[:6] == [1, 2, 3, 4, 1003, 1004]


async def test_a_change_of_backend_is_noticed_by_a_process_that_runs_on(cluster: Cluster, server: RedisServer) -> None:
    clock = ManualClock()
    locks = cluster.on_redis(server, clock=clock)
    assert await take_and_release(locks) == [1]
    assert await take_and_release(cluster.on_store()) == [1001]
    await clock.advance(61)
    waiting = asyncio.create_task(take_and_release(locks))
    while not waiting.done():
        await clock.advance(0.1)
        await asyncio.wait([waiting], timeout=0.005)
    assert await waiting == [1002]


async def test_a_holder_in_the_bucket_is_respected(cluster: Cluster, server: RedisServer) -> None:
    in_bucket = cluster.on_store()
    grant = await take(in_bucket, "old", ttl=30)
    locks = cluster.on_redis(server)
    with pytest.raises(LeaseHeldError) as caught:
        await take(locks)
    assert caught.value.fields["holder"] == "old"
    await in_bucket.release(grant)
    assert (await take(locks)).token == 2


async def test_a_block_that_is_used_up_is_followed_by_the_next(cluster: Cluster, server: RedisServer) -> None:
    locks = cluster.on_redis(server, tokens=3)
    assert await take_and_release(locks, 10) == list(range(1, 11))
    assert cluster.metered.calls["put_conditional"] == 4


async def test_tokens_rise_in_time_while_servers_are_flushed_under_contention(
    cluster: Cluster, server: RedisServer
) -> None:
    clock = cluster.clock
    seen: list[tuple[float, float, int]] = []

    async def contender(number: int) -> None:
        locks = cluster.on_redis(server, tokens=5)
        for _ in range(6):
            grant = await locks.acquire(
                "x", owner=str(number), incarnation="1", ttl_seconds=20, wait_until=clock.monotonic() + 60
            )
            seen.append((grant.deadline - 18, clock.monotonic(), grant.token))
            if grant.token % 7 == 0:
                server.command("FLUSHALL")
            try:
                await locks.release(grant)
            except FencedError:
                continue

    await asyncio.gather(*(contender(number) for number in range(8)))
    assert len({token for _, _, token in seen}) == len(seen) == 48
    for sent, _, token in seen:
        assert all(earlier < token for _, answered, earlier in seen if answered < sent)


async def test_a_block_that_was_overtaken_is_given_up(cluster: Cluster, server: RedisServer) -> None:
    """Stopped between reserving a block and using it, while others went on and Redis forgot everything."""

    class Stopped(BucketTokens):
        stop: Callable[[], object] | None = None

        async def reserve(self, name: str, *, above: int) -> TokenBlock | None:
            block = await super().reserve(name, above=above)
            stop, self.stop = self.stop, None
            if stop is not None:
                await stop()  # type: ignore[misc]
            return block

    floor = Stopped(cluster.on_store(), Ids())
    slow = RedisLocks(server.url, cluster.clock, Ids(), scope=SCOPE, floor=floor)
    cluster.opened.append(slow)
    tokens: list[int] = []

    async def meanwhile() -> None:
        tokens.extend(await take_and_release(cluster.on_redis(server), 2))
        server.command("FLUSHALL")

    floor.stop = meanwhile
    grant = await take(slow)
    assert tokens == [1001, 1002]
    assert grant.token > 1002
    assert (await slow.renew(grant)).token == grant.token


async def test_a_block_that_was_overtaken_is_not_used_by_a_newcomer_either(
    cluster: Cluster, server: RedisServer
) -> None:
    """One stopped before it puts a block in, one that has read of that block, and a Redis that forgets in between."""
    has_read, may_ask, tokens = asyncio.Event(), asyncio.Event(), list[int]()

    class Newcomer(BucketTokens):
        async def current(self, name: str) -> str:
            block = await super().current(name)
            has_read.set()
            await may_ask.wait()
            return block

    class Stopped(BucketTokens):
        asked: asyncio.Task[Grant] | None = None

        async def reserve(self, name: str, *, above: int) -> TokenBlock | None:
            block = await super().reserve(name, above=above)
            if self.asked is None:
                self.asked = asyncio.create_task(take(newcomer))
                await has_read.wait()
                tokens.extend(await take_and_release(cluster.on_redis(server), 2))
                server.command("FLUSHALL")
            return block

        async def current(self, name: str) -> str:
            if self.asked is not None:
                may_ask.set()
            return await super().current(name)

    def on(floor: BucketTokens) -> RedisLocks:
        locks = RedisLocks(server.url, cluster.clock, Ids(), scope=SCOPE, floor=floor)
        cluster.opened.append(locks)
        return locks

    newcomer = on(Newcomer(cluster.on_store(), Ids()))
    stopped = Stopped(cluster.on_store(), Ids())
    locks = on(stopped)
    granted: list[int] = []
    try:
        grant = await take(locks)
        granted.append(grant.token)
        await locks.release(grant)
    except LeaseHeldError:
        pass  # the newcomer was faster
    assert stopped.asked is not None
    with suppress(LeaseHeldError):
        granted.append((await stopped.asked).token)
    assert tokens == [1001, 1002]
    assert granted
    assert min(granted) > 1002


async def test_without_a_floor_tokens_are_the_servers(cluster: Cluster, server: RedisServer) -> None:
    locks = RedisLocks(server.url, cluster.clock, Ids(), scope=SCOPE)
    cluster.opened.append(locks)
    tokens = await take_and_release(locks, 2)
    # One that has a floor goes on above them, and the other way round.
    for other in (cluster.on_redis(server), locks, cluster.on_redis(server), locks):
        tokens += await take_and_release(other)
    assert tokens[:2] == [1, 2]
    assert tokens == sorted(set(tokens))


# --- what it costs -------------------------------------------------------------------------------------------


async def test_an_uncontended_grant_is_one_round_trip(cluster: Cluster, server: RedisServer) -> None:
    locks = cluster.on_redis(server)
    await take_and_release(locks)
    server.command("CONFIG", "RESETSTAT")
    before = dict(cluster.metered.calls)
    await take_and_release(locks, 10)
    stats = server.command("INFO", "commandstats")
    (line,) = (line for line in stats.splitlines() if line.startswith("cmdstat_evalsha:"))
    assert line.startswith("cmdstat_evalsha:calls=20,")  # 10 grants, 10 releases
    assert cluster.metered.calls == before


async def test_scopes_are_apart(cluster: Cluster, server: RedisServer) -> None:
    settings = LockSettings(provider="redis", redis_url=server.url)
    one, two = (
        open_locks(settings, MemoryStore(), cluster.clock, Ids(), scope=scope) for scope in ("s3://b/1", "s3://b/2")
    )
    cluster.opened += [one, two]
    assert (await take(one)).token == (await take(two)).token == 1
    assert len(await one.list()) == 1


# --- failures ------------------------------------------------------------------------------------------------


async def everything_fails(locks: LockProvider, held: Grant, error: type[BrainyError]) -> None:
    for call in (
        lambda: take(locks, "b", name="y"),
        lambda: locks.acquire("y", owner="b", incarnation="1", ttl_seconds=5, wait_until=1e12),
        lambda: locks.renew(held),
        lambda: locks.release(held),
        lambda: locks.force_release("x", by="op", reason="r"),
    ):
        with pytest.raises(error):
            await call()


async def test_a_server_that_is_down_grants_nothing(cluster: Cluster, server: RedisServer) -> None:
    locks = cluster.on_redis(server)
    held = await take(locks)
    server.process.kill()
    server.process.wait()
    await everything_fails(locks, held, UnavailableError)
    with pytest.raises(UnavailableError):
        await locks.describe("x")
    with pytest.raises(UnavailableError):
        await locks.list()


async def test_a_server_that_hangs_grants_nothing(cluster: Cluster, server: RedisServer) -> None:
    locks = RedisLocks(server.url, cluster.clock, Ids(), scope=SCOPE, timeout_seconds=0.3)
    cluster.opened.append(locks)
    await take_and_release(locks)
    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(UnavailableError):
        await take(locks)


async def test_a_full_server_grants_nothing(cluster: Cluster, server: RedisServer) -> None:
    locks = cluster.on_redis(server)
    held = await take(locks)
    server.command("CONFIG", "SET", "maxmemory", "1")
    await everything_fails(locks, held, UnavailableError)
    server.command("CONFIG", "SET", "maxmemory", "0")
    assert (await locks.renew(held)).token == held.token
    assert await locks.describe("y") is None


async def test_a_read_only_server_grants_nothing(cluster: Cluster, server: RedisServer) -> None:
    locks = cluster.on_redis(server)
    held = await take(locks)
    server.command("REPLICAOF", "127.0.0.1", "1")
    await everything_fails(locks, held, UnavailableError)
    server.command("REPLICAOF", "NO", "ONE")
    # The holder may go on; the next grant comes from a new block, because this server was a replica meanwhile.
    held = await locks.renew(held)
    await locks.release(held)
    assert await take_and_release(locks) == [1001]


async def test_a_server_that_refuses_us(cluster: Cluster) -> None:
    with redis_server() as server:
        locks = cluster.on_redis(server)
        held = await take(locks)
        server.command("CONFIG", "SET", "requirepass", "secret")
        fresh = cluster.on_redis(server)
        with pytest.raises(PermissionDeniedError) as caught:
            await take(fresh, name="y")
        assert "secret" not in str(caught.value)
        assert (await locks.renew(held)).token == 1  # an old connection stays


async def test_a_server_that_comes_back_empty_is_used_again(cluster: Cluster, server: RedisServer) -> None:
    locks = cluster.on_redis(server)
    held = await take(locks)
    server.process.kill()
    server.process.wait()
    with pytest.raises(UnavailableError):
        await locks.renew(held)
    with redis_server(port=server.port):
        grant = await take(locks)
    assert grant.token == 1001


async def test_a_bucket_that_is_away_stops_only_new_blocks(cluster: Cluster, server: RedisServer) -> None:
    locks = cluster.on_redis(server)
    await take_and_release(locks)
    cluster.store.plan(fault=Fault.UNAVAILABLE, times=-1)
    assert await take_and_release(locks, 2) == [2, 3]
    server.command("FLUSHALL")
    with pytest.raises(UnavailableError):
        await take(locks)
    cluster.store.heal()
    assert await take_and_release(locks) == [1001]


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (["SET", "{key}", "text"], CorruptDataError),
        (["HSET", "{key}", "token", "many"], CorruptDataError),
        (["HDEL", "{key}", "nonce"], CorruptDataError),
        (["HDEL", "{key}", "v"], CorruptDataError),
        (["HSET", "{key}", "v", "2"], PreconditionError),
        (["HSET", "{key}", "v", "x"], CorruptDataError),
    ],
)
async def test_a_lock_that_cannot_be_read_is_left_alone(
    cluster: Cluster, redis_server_7: RedisServer, damage: list[str], error: type[BrainyError]
) -> None:
    redis_server_7.command("FLUSHALL")
    locks = cluster.on_redis(redis_server_7)
    held = await take(locks)
    redis_server_7.command(*(word.replace("{key}", state_key()) for word in damage))
    before = redis_server_7.command("DUMP", state_key())
    for call in (
        lambda: take(locks),
        lambda: locks.grant("x", owner="b", incarnation="1", ttl_seconds=5, force=True),
        lambda: locks.renew(held),
        lambda: locks.release(held),
        lambda: locks.force_release("x", by="op", reason="r"),
        lambda: locks.describe("x"),
    ):
        with pytest.raises(error):
            await call()
    assert redis_server_7.command("DUMP", state_key()) == before
    redis_server_7.command("FLUSHALL")


# --- waiting -------------------------------------------------------------------------------------------------


async def test_a_release_wakes_the_first_waiter_without_polling(cluster: Cluster, server: RedisServer) -> None:
    """The waiter's clock stands still, so nothing but the message can wake it."""
    a, b = cluster.on_redis(server), cluster.on_redis(server, clock=ManualClock())
    held = await take(a)
    waiting = asyncio.create_task(b.acquire("x", owner="b", incarnation="1", ttl_seconds=30, wait_until=1e9))
    async with asyncio.timeout(20):
        while "zset" not in server.command("TYPE", redis_scripts.keys(SCOPE, "x")[1]):
            await asyncio.sleep(0.01)
    await a.release(held)
    async with asyncio.timeout(20):
        assert (await waiting).token == 2


async def test_a_waiter_that_died_is_left_out(cluster: Cluster, server: RedisServer) -> None:
    a, b = cluster.on_redis(server), cluster.on_redis(server)
    held = await take(a)
    queue, alive = redis_scripts.keys(SCOPE, "x")[1:]
    server.command("ZADD", queue, "1", "dead:1")
    server.command("ZADD", alive, "1", "dead:1")  # counted as gone since 1970
    await a.release(held)
    assert (await take(b)).token == 2
    assert "dead" not in server.command("ZRANGE", queue, "0", "-1")


# --- settings ------------------------------------------------------------------------------------------------


def test_settings() -> None:
    assert load_settings(environment={}).locks == LockSettings()
    settings = load_settings(
        environment={"BRAINY_LOCKS__PROVIDER": "redis", "BRAINY_LOCKS__REDIS_URL": "redis://h:1/0"}
    )
    assert (settings.locks.provider, settings.locks.redis_url) == ("redis", "redis://h:1/0")
    with pytest.raises(InvalidRequestError):
        load_settings(environment={"BRAINY_LOCKS__PROVIDER": "zookeeper"})


@pytest.mark.parametrize("url", ["", "http://h", "nonsense"])
def test_a_redis_without_a_usable_address(url: str) -> None:
    with pytest.raises(InvalidRequestError):
        open_locks(LockSettings(provider="redis", redis_url=url), MemoryStore(), ManualClock(), Ids())
