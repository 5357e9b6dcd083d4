"""Processes killed at the exact moment at which a step of a migration has become durable.

All processes reach the object server through a proxy that holds answers. When the server has taken the event of a step
and before the coordinator hears of it, the victims are killed; then the answer goes on its way, to nobody if the
coordinator was one of them. So the event is in the history and nothing that follows from it has been done.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

from brainy.bucket import layout
from brainy.bucket.records import Routing
from brainy.clock import SystemClock
from brainy.sdk.local_cluster import LocalCluster
from brainy.store.base import ObjectStore

_TRIGGER = re.compile(rb'"trigger":\s*"([a-z_]+)"')
#: A step that is no event: amid the copy, when so many objects of the source were read.
COPYING = "copying"
_COPIED_OBJECTS = 60


class Killer:
    """Kills at each of some steps once, and starts again what it killed."""

    def __init__(self, cluster: LocalCluster, store: ObjectStore, victim: str, steps: Iterable[str]) -> None:
        """Prepare.

        Args:
            cluster: whose processes are killed.
            store: of the namespace, past the proxy.
            victim: coordinator, node or both. The node is the owner of the first shard, by turns of the side that
                follows and of the one that is active.
            steps: triggers of events, or ``COPYING``.
        """
        self._cluster = cluster
        self._store = store
        self._victim = victim
        self._left = list(steps)
        self._kills = 0
        self._turn = asyncio.Lock()
        self._starting: asyncio.Task[None] | None = None
        self._copied: int | None = None
        #: Step and who was killed at it.
        self.struck: list[str] = []
        #: GETs of the source's objects while the target was being filled.
        self.source_reads = 0

    async def on_answer(self, method: str, path: str, body: bytes, status: int) -> None:
        """What the proxy waits for."""
        if method == "PUT" and status == 200 and layout.MIGRATIONS in path:
            found = _TRIGGER.search(body)
            trigger = found[1].decode() if found else ""
            self._copied = {"preflight_passed": 0, "copy_done": None}.get(trigger, self._copied)
            if trigger in self._left:
                await self._strike(trigger)
        elif method == "GET" and self._copied is not None and layout.ROUTING not in path and "list-type" not in path:
            self.source_reads += 1
            self._copied += 1
            if COPYING in self._left and self._copied >= _COPIED_OBJECTS:
                await self._strike(COPYING)

    async def ended(self) -> list[str]:
        """Wait until all that was killed runs again; returns the steps that never came."""
        if self._starting is not None:
            await self._starting
        return self._left

    async def _strike(self, step: str) -> None:
        async with self._turn:
            if step not in self._left:
                return
            self._left.remove(step)
            # One blow at a time: what was struck before is up again.
            if self._starting is not None:
                await self._starting
            clock, names = SystemClock(), []
            if self._victim in ("coordinator", "both"):
                await self._cluster.coordinators[0].kill(clock)
                names.append("coordinator")
            if self._victim in ("node", "both"):
                owner = await self._owner()
                node = next(each for each in self._cluster.nodes if each.name == owner)
                await node.kill(clock)
                names.append(owner)
            self._kills += 1
            self.struck.append(f"{step}: {' and '.join(names)}")
            self._starting = asyncio.create_task(self._start(names))

    async def _owner(self) -> str:
        stored = await self._store.get(layout.ROUTING)
        assert stored is not None
        routing = Routing.decode(stored.body, key=layout.ROUTING)
        following = next((n for n in routing.generations if n != routing.active), routing.active)
        side = following if self._kills % 2 == 0 else routing.active
        return routing.generations[side].shards[0].owner

    async def _start(self, names: list[str]) -> None:
        if "coordinator" in names:
            await self._cluster.restart_coordinator()
        for index, node in enumerate(self._cluster.nodes):
            if node.name in names:
                await self._cluster.restart_node(index)
