"""What a lock costs: calls, round trips and time, measured in one run.

    python -m tests.bench.locks

Prints one line per backend. Fails when an uncontended grant costs more than one GET and one conditional PUT in an
object store, or more than one round trip to Redis; and, on an S3 server, when a grant and its release take more than
twice as long through a coordinator as directly. Beside it stands what two calls cost that do nothing: where they take
longer than the lock itself (a directory, a Redis on the same machine), no coordinator can stay below twice.

Fails, too, when keeping a thousand leases alive takes a coordinator more than a tenth of one core.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.environment import export
from brainy.config.settings import LockSettings, StoreSettings
from brainy.ids import Ids
from brainy.locks.base import Grant, LockProvider
from brainy.locks.opening import open_locks
from brainy.sdk.local_cluster import LocalCluster
from brainy.store.metered import MeteredStore
from brainy.store.opening import open_store
from brainy.telemetry.logs import configure_logs
from brainy.testing.servers import RedisServer, ministack, redis_server, seaweedfs, valkey

ROUNDS = 200
HANDOVERS = 30
#: Leases kept alive together, and for how long they are watched: more than two of their renewals.
LEASES, HELD_SECONDS = 1_000, 30.0
CLOCK = SystemClock()


def commands(server: RedisServer) -> int:
    """Scripts a server has run since CONFIG RESETSTAT; what a script calls itself does not count."""
    lines = server.command("INFO", "commandstats").splitlines()
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in lines if line.startswith("cmdstat_eval"))


async def take(locks: LockProvider, name: str) -> Grant:
    return await locks.grant(name, owner="bench", incarnation="1", ttl_seconds=30)


async def handovers(first: LockProvider, second: LockProvider) -> list[float]:
    """Seconds from the call of release to the waiter's grant."""
    times = []
    holder, waiter = first, second
    grant = await take(holder, "handover")
    for _ in range(HANDOVERS):
        waiting = asyncio.create_task(
            waiter.acquire("handover", owner="w", incarnation="1", ttl_seconds=30, wait_until=CLOCK.monotonic() + 30)
        )
        await asyncio.sleep(Ids().jitter(0.05, 0.15))
        start = CLOCK.monotonic()
        await holder.release(grant)
        grant = await waiting
        times.append(CLOCK.monotonic() - start)
        holder, waiter = waiter, holder
    return sorted(times)


async def measure(label: str, namespace: str, settings: LockSettings, server: RedisServer | None) -> None:
    store: MeteredStore = open_store(Namespace.parse(namespace), StoreSettings(), clock=CLOCK, ids=Ids())
    locks, other = (open_locks(settings, store, CLOCK, Ids(), scope=namespace) for _ in range(2))
    for _ in range(5):  # connections, scripts, the first block of tokens
        await locks.release(await take(locks, "x"))
    before = dict(store.calls)
    if server is not None:
        server.command("CONFIG", "RESETSTAT")
    times, grants = [], 0.0
    trips = 0
    releases = {"get": 0, "put_conditional": 0}
    for _ in range(ROUNDS):
        calls = dict(store.calls)
        start = CLOCK.monotonic()
        grant = await take(locks, "x")
        times.append(CLOCK.monotonic() - start)
        granted = dict(store.calls)
        grants += 1
        for kind in releases:
            releases[kind] += granted[kind] - calls[kind]
        await locks.release(grant)
    if server is not None:
        trips = commands(server)
        assert trips == 2 * ROUNDS, f"{trips} scripts for {ROUNDS} grants and releases"
        assert store.calls == before, "an uncontended grant on redis asked the bucket"
        cost = f"{trips / 2 / ROUNDS:.2f} round trips"
    else:
        assert releases == {"get": ROUNDS, "put_conditional": ROUNDS}, releases
        cost = f"{releases['get'] / ROUNDS:.2f} GET + {releases['put_conditional'] / ROUNDS:.2f} PUT"
    times.sort()
    waits = await handovers(locks, other)
    print(
        f"{label:12} grant: {cost:22} p50 {statistics.median(times) * 1000:6.2f} ms"
        f"  p99 {times[int(len(times) * 0.99)] * 1000:6.2f} ms"
        f"  | hand-over p50 {statistics.median(waits) * 1000:6.1f} ms  max {waits[-1] * 1000:6.1f} ms",
        flush=True,
    )
    for provider in (locks, other):
        await provider.close()
    await store.close()


async def through_coordinator(label: str, namespace: str, settings: LockSettings, *, bar: float | None) -> None:
    """Grant and release, directly and through a coordinator's process, in turns."""
    variables = {"BRAINY_LOCKS__PROVIDER": settings.provider, "BRAINY_LOCKS__REDIS_URL": settings.redis_url}
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=CLOCK, ids=Ids())
    locks = open_locks(settings, store, CLOCK, Ids(), scope=namespace)
    with tempfile.TemporaryDirectory(prefix="brainy-bench-") as directory:
        cluster = LocalCluster(namespace, nodes=1, directory=Path(directory), settings=variables)
        await cluster.start(timeout_seconds=60.0)
        client = cluster.client()

        async def direct() -> float:
            start = CLOCK.monotonic()
            await locks.release(await take(locks, "user/direct"))
            return CLOCK.monotonic() - start

        async def through() -> float:
            lock = client.lock("through", watch=False)
            start = CLOCK.monotonic()
            await lock.acquire()
            await lock.release()
            return CLOCK.monotonic() - start

        channel = grpc.aio.insecure_channel(cluster.coordinator)
        health = health_pb2_grpc.HealthStub(channel)

        async def empty() -> float:
            start = CLOCK.monotonic()
            await health.Check(health_pb2.HealthCheckRequest())
            await health.Check(health_pb2.HealthCheckRequest())
            return CLOCK.monotonic() - start

        for _ in range(10):
            await direct()
            await through()
            await empty()
        taken = [(await direct(), await through(), await empty()) for _ in range(ROUNDS)]
        await channel.close()
        await client.close()
        await cluster.stop()
    await locks.close()
    await store.close()
    here, there, nothing = (statistics.median(times) for times in zip(*taken, strict=True))
    shown = (
        f"direct {here * 1000:.2f} ms, coordinator {there * 1000:.2f} ms = {there / here:.2f};"
        f" two empty calls {nothing * 1000:.2f} ms, so at best {(here + nothing) / here:.2f}"
    )
    print(f"{label:12} grant + release: {shown}", flush=True)
    assert bar is None or there / here <= bar, f"through the coordinator: {there / here:.2f} > {bar}"


async def held(label: str, namespace: str, settings: LockSettings) -> None:
    """Keep a thousand leases of 30 s alive; what the coordinator's process takes beyond its idle share."""
    variables = {"BRAINY_LOCKS__PROVIDER": settings.provider, "BRAINY_LOCKS__REDIS_URL": settings.redis_url}
    with tempfile.TemporaryDirectory(prefix="brainy-bench-") as directory:
        cluster = LocalCluster(namespace, nodes=1, directory=Path(directory), settings=variables)
        await cluster.start(timeout_seconds=60.0)
        coordinator = psutil.Process(cluster.coordinators[0].record.pid)

        async def share(seconds: float) -> float:
            before, began = coordinator.cpu_times(), CLOCK.monotonic()
            await CLOCK.sleep(seconds)
            after = coordinator.cpu_times()
            return (after.user + after.system - before.user - before.system) / (CLOCK.monotonic() - began)

        idle = await share(10.0)
        client = cluster.client()
        locks = [client.lock(f"held/{number}", ttl=30.0) for number in range(LEASES)]
        for first in range(0, LEASES, 50):
            await asyncio.gather(*(lock.acquire() for lock in locks[first : first + 50]))
        busy = await share(HELD_SECONDS)
        kept = await client.list_locks("held/")
        await client.close()
        await cluster.stop()
    lost = sum(lock.state != "held" for lock in kept)
    print(
        f"{label:12} {len(kept)} leases kept alive, {lost} lost:"
        f" {(busy - idle) * 100:.1f} % of one core, idle {idle * 100:.1f} %",
        flush=True,
    )
    assert len(kept) == LEASES and not lost
    assert busy - idle < 0.1, f"a thousand leases took {busy - idle:.3f} of one core"


def main() -> None:
    configure_logs(level="error", form="json", role="bench")
    in_bucket = LockSettings()
    with tempfile.TemporaryDirectory(prefix="brainy-bench-") as directory:
        asyncio.run(measure("directory", f"file://{directory}/locks", in_bucket, None))
        asyncio.run(through_coordinator("directory", f"file://{directory}/through", in_bucket, bar=None))
    for label, start_s3 in (("ministack", ministack), ("seaweedfs", seaweedfs)):
        with start_s3() as s3:
            s3.create_bucket("bench")
            export(**s3.environment)
            asyncio.run(measure(label, "s3://bench/locks", in_bucket, None))
            asyncio.run(through_coordinator(label, "s3://bench/through", in_bucket, bar=2.0))
            asyncio.run(held(label, "s3://bench/held", in_bucket))
    for label, start in (("redis", redis_server), ("valkey", valkey)):
        with ExitStack() as servers:
            server = servers.enter_context(start())
            settings = LockSettings(provider="redis", redis_url=server.url)
            asyncio.run(measure(label, "memory://bench-" + label, settings, server))
            with tempfile.TemporaryDirectory(prefix="brainy-bench-") as bucket:
                asyncio.run(through_coordinator(label, f"file://{bucket}", settings, bar=None))
                asyncio.run(held(label, f"file://{bucket}/held", settings))


if __name__ == "__main__":
    main()
