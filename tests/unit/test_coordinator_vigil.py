"""A dead process is told from a slow one by a real connection."""

from __future__ import annotations

import asyncio

from brainy.clock import SystemClock
from brainy.rpc.channel import ChannelPool
from brainy.testing.servers import free_ports
from brainy_coordinator.membership.registry import NodeState, Registry, Report
from brainy_coordinator.nodes import GrpcNodeCalls
from brainy_coordinator.vigil import Vigil

INTERVAL = 0.2


def states(registry: Registry, clock: SystemClock) -> dict[str, NodeState]:
    return {member.node_id: member.state for member in registry.members(clock.monotonic())}


async def test_only_a_refused_connection_is_death() -> None:
    clock, pool = SystemClock(), ChannelPool()
    registry = Registry(ttl_seconds=60.0)
    vigil = Vigil(registry, GrpcNodeCalls(pool, clock=clock), interval_seconds=INTERVAL, clock=clock)
    # Accepts connections and says nothing, as a process that was stopped does.
    accepted: list[asyncio.StreamWriter] = []
    mute = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    (nobody,) = free_ports(1)
    now = clock.monotonic()
    for node, at in (("mute", port), ("dead", nobody)):
        registry.heartbeat(Report(node_id=node, incarnation="1", address=f"127.0.0.1:{at}"), now)
    vigil.look()
    assert set(states(registry, clock).values()) == {NodeState.ALIVE}, "nobody is late yet"
    async with asyncio.timeout(60):
        while states(registry, clock)["dead"] is not NodeState.SILENT:
            vigil.look()
            await asyncio.sleep(0.02)
    assert states(registry, clock)["mute"] is NodeState.ALIVE
    await vigil.close()
    await pool.close()
    for writer in accepted:
        writer.close()
    mute.close()
    await mute.wait_closed()
