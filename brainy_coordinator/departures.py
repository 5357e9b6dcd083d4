"""Nodes that go: when they may, and telling those that were asked to.

Before: a node drains, by its own word (SIGTERM) or an operator's (``DrainNode``). Placement gives it nothing new and
moves what it holds to replicas that are ready.
Steps: 1. no routing record names it any more; 2. it is told so: by ``may_leave`` in its next heartbeat's answer, and,
if an operator asked, by ``ControlService.Drain``; 3. it says good-bye and exits.
After: its shards were never without a node that could take them, so a write waits for one replay and one fence.
If the leader crashes: a node that drains by itself says so to the next one; an operator's wish is repeated by the
operator. If the node crashes: as any crash.
Cancel safety: telling twice is harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from brainy.bucket.records import Routing
from brainy.clock import Clock
from brainy.errors import BrainyError
from brainy.telemetry.logs import get_logger
from brainy_coordinator.membership.registry import NodeState, Registry
from brainy_coordinator.nodes import NodeCalls
from brainy_coordinator.pools import heirless

_log = get_logger(__name__)

_TIMEOUT_SECONDS = 2.0
_TELL_AGAIN_SECONDS = 1.0


def held(routings: Mapping[str, Routing], node_id: str) -> tuple[int, int]:
    """Return how many shards the records name a node for: as owner, and in all."""
    shards = [
        shard
        for routing in routings.values()
        if not _has_moved(routing)
        for placement in routing.generations.values()
        for shard in placement.shards.values()
    ]
    owned = sum(shard.owner == node_id for shard in shards)
    return owned, owned + sum(node_id in shard.replicas for shard in shards)


def _has_moved(routing: Routing) -> bool:
    """Whether nobody is served from there any more, so that any node may go."""
    return routing.moving is not None and routing.moving.done


class Departures:
    """One leader's view of who may go."""

    def __init__(self, registry: Registry, nodes: NodeCalls, *, clock: Clock) -> None:
        self._registry = registry
        self._nodes = nodes
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def may_leave(self, node_id: str, routings: Mapping[str, Routing]) -> bool:
        """Say whether nothing is lost by letting a node go now: it holds nothing, or nobody could take it."""
        members = self._registry.members(self._clock.monotonic())
        labels = {m.node_id: m.report.pool for m in members if m.state is NodeState.ALIVE}
        return all(
            number in heirless(routing, node_id, labels)
            for routing in routings.values()
            if not _has_moved(routing)
            for number, placement in routing.generations.items()
            if any(node_id in (shard.owner, *shard.replicas) for shard in placement.shards.values())
        )

    def dismiss(self, routings: Mapping[str, Routing]) -> None:
        """Tell every unwanted node that holds nothing to exit; returns at once."""
        now = self._clock.monotonic()
        for member in self._registry.unwanted(now):
            key = (member.node_id, member.report.incarnation)
            if held(routings, member.node_id)[1] or now - self._told.get(key, -1e9) < _TELL_AGAIN_SECONDS:
                continue
            self._told[key] = now
            task = asyncio.get_running_loop().create_task(self._tell(member.node_id, member.report.address))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell(self, node_id: str, address: str) -> None:
        try:
            await self._nodes.drain(address, timeout=_TIMEOUT_SECONDS)
        except BrainyError as error:
            _log.info("dismissal_missed", node=node_id, reason=error.reason)
        else:
            _log.info("node_dismissed", node=node_id)

    async def close(self) -> None:
        """Cancel what is still under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
