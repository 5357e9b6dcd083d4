"""What one read is answered from: a generation, and how the routing record is brought up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from brainy.api.common.v1.common_pb2 import Coverage, Position, ResponseHeader
from brainy.bucket.records import GenerationPlacement, Routing
from brainy.clock import Clock, Deadline
from brainy.errors import BrainyError, UnavailableError
from brainy.ids import Ids
from brainy.telemetry.logs import get_logger
from brainy_node.router.sessions import stale
from brainy_node.runtime.ports import NamespaceRuntime

Result = TypeVar("Result")

_log = get_logger(__name__)

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0


class GenerationMovedError(UnavailableError):
    """The generation a read began with is no longer the one to read: begin again."""

    default_reason = "STALE_ROUTING"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The generation a read is answered from; no answer mixes two."""

    routing: Routing
    generation: int
    placement: GenerationPlacement
    #: Whether the generation is only tried: it was asked for by number, whatever the record says to read, and a
    #: replica of it that does not answer is not waited for.
    tried: bool = False

    @property
    def shards(self) -> range:
        """All shards of the generation."""
        return range(self.placement.shard_count)

    def header(self, node_id: str, missing: Sequence[int] = ()) -> ResponseHeader:
        """Build the header of an answer that speaks for all shards but ``missing``."""
        return header(node_id, self.routing, self.generation, missing)


def header(node_id: str, routing: Routing, generation: int, missing: Sequence[int] = ()) -> ResponseHeader:
    """Build the header of an answer."""
    placement = routing.generations.get(generation)
    total = placement.shard_count if placement else 0
    return ResponseHeader(
        node_id=node_id,
        generation=generation,
        routing_epoch=routing.epoch,
        coverage=Coverage(shards_total=total, shards_answered=max(0, total - len(missing)), shards_missing=missing),
    )


class RoutingRefresher:
    """Refreshes the routing record of a namespace; callers that ask at the same time share one read."""

    def __init__(self, *, clock: Clock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids
        self._running: dict[str, asyncio.Task[None]] = {}

    async def refresh(self, runtime: NamespaceRuntime) -> None:
        """Read the record now. A store that cannot be reached is no error here: the old record stays in force.

        Cancel safety: the shared read goes on for the others.
        """
        task = self._running.get(runtime.name)
        if task is None:
            task = self._running[runtime.name] = asyncio.create_task(self._read(runtime))
            task.add_done_callback(lambda _: self._running.pop(runtime.name, None))
        await asyncio.shield(task)

    async def _read(self, runtime: NamespaceRuntime) -> None:
        try:
            await runtime.refresh()
        except BrainyError as error:
            _log.warning("routing_refresh_failed", namespace=runtime.name, error=str(error))

    async def pause(self, attempt: int, deadline: Deadline) -> None:
        """Wait before attempt ``attempt`` + 1: exponential with jitter, never past the deadline."""
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(attempt, 10))
        await self._clock.sleep(min(self._ids.jitter(pause / 2, pause), deadline.remaining()))

    async def view(self, runtime: NamespaceRuntime, session: Sequence[Position], deadline: Deadline) -> View:
        """Return what to read from: this node's read generation, not older than what the session has seen.

        Raises:
            UnavailableError: STALE_ROUTING, the record in force is behind the session until the deadline.
        """
        newest = max((position.generation for position in session), default=0)
        attempt = 0
        while True:
            routing = runtime.routing
            generation = routing.read_generation(runtime.node_id)
            placement = routing.generations.get(generation)
            if placement is not None and newest <= max(generation, routing.rolled_back_from):
                return View(routing=routing, generation=generation, placement=placement)
            if deadline.passed:
                raise stale(routing, generation, f"the session is of generation {newest}")
            if attempt:
                await self.pause(attempt, deadline)
            await self.refresh(runtime)
            attempt += 1

    async def reading(
        self,
        runtime: NamespaceRuntime,
        session: Sequence[Position],
        deadline: Deadline,
        act: Callable[[View], Awaitable[Result]],
    ) -> Result:
        """Run ``act`` on a view, and again from the start when its generation is no longer the one to read."""
        while True:
            view = await self.view(runtime, session, deadline)
            try:
                return await act(view)
            except GenerationMovedError:
                if deadline.passed:
                    raise
