"""LeaseService where Redis keeps the leases: any coordinator answers, and none grants what Redis cannot say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
from lease_cluster import LeaseCluster, duration, lease_cluster, renew

from brainy.api.coordinator.v1 import lease_pb2
from brainy.clock import SystemClock
from brainy.config.settings import LockSettings
from brainy.errors import FencedError, UnavailableError
from brainy.rpc.errors import from_rpc_error
from brainy.store.memory import MemoryStore
from brainy.testing.servers import RedisServer, redis_server, valkey


@pytest.fixture(scope="module", params=[redis_server, valkey], ids=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with request.param() as running:
        yield running


@pytest.fixture
async def cluster(server: RedisServer) -> AsyncIterator[LeaseCluster]:
    server.command("FLUSHALL")
    settings = LockSettings(provider="redis", redis_url=server.url)
    clock = SystemClock()
    async with lease_cluster(MemoryStore(clock), clock, locks=settings) as made:
        yield made


def wish(request_id: str, *, holder: str = "anna", wait: float = 0.0) -> lease_pb2.GrantRequest:
    return lease_pb2.GrantRequest(
        name="job", ttl=duration(30), holder=holder, request_id=request_id, wait_for=duration(wait)
    )


def revoke(lease: lease_pb2.Lease) -> lease_pb2.RevokeRequest:
    return lease_pb2.RevokeRequest(name=lease.name, token=lease.token, lease_id=lease.lease_id, holder=lease.holder)


async def test_one_coordinator_grants_another_renews_and_gives_back(cluster: LeaseCluster) -> None:
    one, two = cluster.stubs
    granted = await one.Grant(wish("r-1"))
    assert granted.acquired
    again = await two.Grant(wish("r-1"))
    assert (again.acquired, again.lease.token) == (True, granted.lease.token)
    refused = await two.Grant(wish("r-2", holder="bert"))
    assert (refused.acquired, refused.lock.holder) == (False, "anna")
    assert (await renew(two, [granted.lease]))["job"].state == lease_pb2.KEEP_ALIVE_STATE_RENEWED
    freed = await two.Revoke(revoke(granted.lease))
    assert (freed.lock.state, freed.lock.token) == (lease_pb2.LOCK_STATE_FREE, granted.lease.token)
    await one.Revoke(revoke(granted.lease))  # a repeat finds it given back
    next_one = await one.Grant(wish("r-3"))
    assert next_one.lease.token > granted.lease.token
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await two.Revoke(revoke(granted.lease))
    assert isinstance(from_rpc_error(caught.value), FencedError)


async def test_who_waits_is_granted_the_lock_of_a_holder_that_was_broken(cluster: LeaseCluster) -> None:
    one, two = cluster.stubs
    first = (await one.Grant(wish("r-1"))).lease
    waiting = asyncio.ensure_future(two.Grant(wish("r-2", holder="bert", wait=20)))
    broken = await one.ForceRelease(
        lease_pb2.ForceReleaseRequest(name="job", token=first.token, by="operator", reason="stuck")
    )
    assert broken.broken
    second = (await waiting).lease
    assert second.holder == "bert"
    # The break is a token of its own; the answer may already show the next holder.
    assert second.token >= first.token + 2
    assert second.token >= broken.lock.token > first.token
    assert (await renew(one, [first]))["job"].state == lease_pb2.KEEP_ALIVE_STATE_LOST


async def test_tokens_rise_although_redis_forgot_everything(cluster: LeaseCluster, server: RedisServer) -> None:
    one, two = cluster.stubs
    first = (await one.Grant(wish("r-1"))).lease
    server.command("FLUSHALL")
    assert (await renew(two, [first]))["job"].state == lease_pb2.KEEP_ALIVE_STATE_LOST
    assert (await two.Grant(wish("r-2", wait=20))).lease.token > first.token


async def test_without_redis_nothing_is_granted() -> None:
    clock = SystemClock()
    with redis_server() as server:
        settings = LockSettings(provider="redis", redis_url=server.url, redis_timeout_seconds=0.5)
        async with lease_cluster(MemoryStore(clock), clock, coordinators=1, locks=settings) as cluster:
            held = (await cluster.stubs[0].Grant(wish("r-1"))).lease
            server.process.kill()
            server.process.wait()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await cluster.stubs[0].Grant(wish("r-2", holder="bert"))
            assert isinstance(from_rpc_error(caught.value), UnavailableError)
            state = (await renew(cluster.stubs[0], [held]))["job"].state
            assert state == lease_pb2.KEEP_ALIVE_STATE_UNAVAILABLE
