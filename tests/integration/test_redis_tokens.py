"""Tokens of locks in real Redis and Valkey, which the loss of the server cannot turn back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis_cluster import SCOPE, Cluster, StartServer, state_key, take, take_and_release

from brainy.errors import (
    FencedError,
    LeaseHeldError,
)
from brainy.ids import Ids
from brainy.locks.base import Grant
from brainy.locks.redis import RedisLocks
from brainy.locks.tokens import BucketTokens, TokenBlock
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
        async with asyncio.timeout(60):
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
        async with asyncio.timeout(60):
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
