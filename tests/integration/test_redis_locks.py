"""Locks in real Redis and Valkey: what they cost, who waits, and how they are set up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis_cluster import SCOPE, Cluster, take, take_and_release

from brainy.config.settings import LockSettings, load_settings
from brainy.errors import InvalidRequestError
from brainy.ids import Ids
from brainy.locks import redis_scripts
from brainy.locks.opening import open_locks
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy.testing.servers import RedisServer, redis_server, valkey


@pytest.fixture(params=[redis_server, valkey], ids=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with request.param() as running:
        yield running


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await made.close()


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


async def test_a_release_wakes_the_first_waiter_without_polling(cluster: Cluster, server: RedisServer) -> None:
    """The waiter's clock stands still, so nothing but the message can wake it."""
    a, b = cluster.on_redis(server), cluster.on_redis(server, clock=ManualClock())
    held = await take(a)
    waiting = asyncio.create_task(b.acquire("x", owner="b", incarnation="1", ttl_seconds=30, wait_until=1e9))
    async with asyncio.timeout(60):
        while "zset" not in server.command("TYPE", redis_scripts.keys(SCOPE, "x")[1]):
            await asyncio.sleep(0.01)
    await a.release(held)
    async with asyncio.timeout(60):
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


async def test_a_cancellation_is_never_lost(cluster: Cluster, redis_server_7: RedisServer) -> None:
    redis_server_7.command("FLUSHALL")
    locks = cluster.on_redis(redis_server_7)
    grant = await take(locks)
    for turns in range(60):
        task = asyncio.create_task(locks.renew(grant))
        for _ in range(turns % 12):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task


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
