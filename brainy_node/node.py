"""One node: its namespaces, its server, its heartbeat, and how it goes away."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from brainy.clock import Clock
from brainy.config.settings import EmbeddingSettings, NodeSettings
from brainy.ids import Ids
from brainy.rpc.channel import ChannelPool
from brainy.rpc.server import RunningServer
from brainy.telemetry.logs import get_logger
from brainy_node.router.served import ServedBook
from brainy_node.runtime.foreground import Foreground
from brainy_node.runtime.heartbeat import Heartbeat
from brainy_node.runtime.namespaces import HostedNamespaces
from brainy_node.server import build_node_server

_log = get_logger(__name__)
_HEALTH_SECONDS = 0.1


class Node:
    """Runs until drained.

    Draining, in order: health says NOT_SERVING; the coordinator is told, and moves the shards while this node still
    serves them; the node says good-bye; calls in flight end; then the duties end. A crash at any point loses nothing:
    everything acknowledged is in the bucket, and the coordinator moves the shards when the heartbeats stay away.
    """

    def __init__(
        self,
        *,
        node_id: str,
        incarnation: str,
        namespaces: HostedNamespaces,
        peers: ChannelPool,
        settings: NodeSettings,
        clock: Clock,
        ids: Ids,
        foreground: Foreground | None = None,
        embedding: EmbeddingSettings | None = None,
    ) -> None:
        self._foreground = foreground
        self._namespaces = namespaces
        self._embedding = embedding
        self._peers = peers
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._draining = asyncio.Event()
        self._address = settings.advertise
        self._served = ServedBook(clock=clock)
        self._heartbeat = Heartbeat(
            node_id=node_id,
            incarnation=incarnation,
            address=lambda: self._address,
            pool=settings.pool,
            coordinators=settings.coordinators,
            namespaces=namespaces,
            peers=peers,
            clock=clock,
            served=self._served.report,
            disk_free=(lambda: shutil.disk_usage(settings.data_dir).free) if settings.data_dir else None,
        )

    def drain(self) -> None:
        """Begin to go away; returns at once."""
        self._draining.set()

    async def drained(self) -> None:
        """Wait until ``drain`` was called."""
        await self._draining.wait()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve for the length of the block; yields the address that answers."""
        server = await build_node_server(
            self._namespaces,
            self._peers,
            settings=self._settings,
            clock=self._clock,
            ids=self._ids,
            on_drain=self.drain,
            served=self._served,
            serving=False,
            embedding=self._embedding,
        )
        if self._foreground is not None:
            self._foreground.listen(server.metrics)
        self._address = self._address or server.address
        loops = [asyncio.create_task(namespace.run()) for namespace in self._namespaces.all()]
        heartbeat = asyncio.create_task(self._heartbeat.run())
        health = asyncio.create_task(self._tell_health(server))
        for task in (*loops, heartbeat, health):
            task.add_done_callback(self._ended)
        try:
            yield self._address
        finally:
            health.cancel()
            await server.set_serving(False)
            heartbeat.cancel()
            # Shards first, then the process: whoever gets them needs one replay and one fence.
            await self._heartbeat.relieved(self._settings.drain_seconds / 2)
            await self._heartbeat.leave()
            await server.drain(self._settings.drain_seconds)
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, heartbeat, health, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # A loop ends only by cancellation; anything else is a bug, and a node without it would be a half-dead one.
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("node_loop_crashed", exc_info=error)
            self._draining.set()

    async def _tell_health(self, server: RunningServer) -> None:
        known: bool | None = None
        while True:
            ready = all(namespace.ready for namespace in self._namespaces.all())
            if ready != known:
                await server.set_serving(ready)
                known = ready
            await self._clock.sleep(_HEALTH_SECONDS)
