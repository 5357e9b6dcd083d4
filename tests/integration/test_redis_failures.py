"""Locks in real Redis and Valkey: failures grant nothing."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from redis_cluster import SCOPE, Cluster, state_key, take, take_and_release

from brainy.errors import (
    BrainyError,
    CorruptDataError,
    PermissionDeniedError,
    PreconditionError,
    UnavailableError,
)
from brainy.ids import Ids
from brainy.locks.base import Grant, LockProvider
from brainy.locks.redis import RedisLocks
from brainy.testing.faulty import Fault
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
