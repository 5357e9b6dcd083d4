"""Processes that share one bucket and one Redis after another, for tests of their locks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from brainy.clock import Clock, SystemClock
from brainy.ids import Ids
from brainy.locks import redis_scripts
from brainy.locks.base import Grant, LockProvider
from brainy.locks.object_store import ObjectStoreLocks
from brainy.locks.redis import RedisLocks
from brainy.locks.tokens import BucketTokens
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy.testing.faulty import FaultyStore
from brainy.testing.servers import RedisServer

StartServer = Callable[..., AbstractContextManager[RedisServer]]


SCOPE = "s3://bucket/a b{c}*"


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
        locks = RedisLocks(server.url, clock, Ids(), scope=SCOPE, floor=floor, timeout_seconds=10.0)
        self.opened.append(locks)
        return locks

    def on_store(self) -> ObjectStoreLocks:
        return ObjectStoreLocks(self.metered, self.clock, Ids())

    async def close(self) -> None:
        for locks in self.opened:
            await locks.close()


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
