"""Noticing the death of a process before its time to live is over.

Before: a node has missed a heartbeat.
Steps: 1. call it; 2. its address refuses the connection: the machine is there and nobody listens, so the process is
gone. Anything else, an answer, an error or silence, says nothing, and the time to live decides.
After: the node counts as silent at once and its shards move. Should the judgement be wrong (the process listens
again in a moment), its next heartbeat lifts it, and its epochs keep what it does meanwhile from doing harm.
Cancel safety: nothing is written.
"""

from __future__ import annotations

import asyncio
from functools import partial

from brainy.clock import Clock
from brainy.telemetry.logs import get_logger
from brainy_coordinator.membership.registry import Member, Registry
from brainy_coordinator.nodes import NodeCalls

_log = get_logger(__name__)

#: Heartbeat intervals of silence after which a node is called.
_MISSED = 1.5
_TIMEOUT_SECONDS = 1.0


class Vigil:
    """Calls nodes that have missed a heartbeat."""

    def __init__(self, registry: Registry, nodes: NodeCalls, *, interval_seconds: float, clock: Clock) -> None:
        self._registry = registry
        self._nodes = nodes
        self._patience = _MISSED * interval_seconds
        self._clock = clock
        self._calling: dict[str, asyncio.Task[None]] = {}

    def look(self) -> None:
        """Start calling every node that is late; returns at once."""
        for member in self._registry.members(self._clock.monotonic()):
            if member.reachable and member.silent_for > self._patience and member.node_id not in self._calling:
                task = asyncio.get_running_loop().create_task(self._call(member))
                self._calling[member.node_id] = task
                task.add_done_callback(partial(self._called, member.node_id))

    def _called(self, node_id: str, _: asyncio.Task[None]) -> None:
        self._calling.pop(node_id, None)

    async def _call(self, member: Member) -> None:
        heard_at = self._clock.monotonic() - member.silent_for
        if not await self._nodes.refuses(member.report.address, timeout=_TIMEOUT_SECONDS):
            # Not again at once: the next look is a tick away.
            await self._clock.sleep(self._patience / 4)
            return
        if self._registry.lost(member.node_id, member.report.incarnation, heard_at):
            _log.warning("node_process_gone", node=member.node_id, silent_for=round(member.silent_for, 3))

    async def close(self) -> None:
        """Cancel what is still under way."""
        tasks = list(self._calling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
