"""Tell nodes of a new routing record, without waiting: they would find it by themselves, only later."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from brainy.bucket.records import Routing
from brainy.errors import BrainyError
from brainy.telemetry.logs import get_logger
from brainy_coordinator.nodes import NodeCalls

_log = get_logger(__name__)

_TIMEOUT_SECONDS = 5.0


class Announcer:
    """Background calls of ``ApplyRouting``. A node that misses one polls, or hears by heartbeat."""

    def __init__(self, nodes: NodeCalls) -> None:
        self._nodes = nodes
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, routing: Routing, addresses: Mapping[str, str]) -> None:
        """Start telling every node; returns at once."""
        for node_id, address in addresses.items():
            task = asyncio.get_running_loop().create_task(self._tell(node_id, address, routing))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell(self, node_id: str, address: str, routing: Routing) -> None:
        try:
            await self._nodes.apply_routing(address, routing.namespace, epoch=routing.epoch, timeout=_TIMEOUT_SECONDS)
        except BrainyError as error:
            _log.info("announcement_missed", node=node_id, epoch=routing.epoch, reason=error.reason)

    async def close(self) -> None:
        """Cancel what is still under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
