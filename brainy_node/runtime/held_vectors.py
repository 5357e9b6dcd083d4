"""What replicas of this node can say of their vectors, and of their items without them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from brainy.api.common.v1 import common_pb2
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.projection import Projection
from brainy.embedding.text import stored_text
from brainy.errors import UnavailableError
from brainy.telemetry.logs import get_logger
from brainy_node.shard.bounds import VectorBounds
from brainy_node.shard.shard import Shard

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """The digest of some shards under a projection."""

    digest: MultisetDigest
    nouns: int
    verbs: int
    positions: list[common_pb2.Position]


class HeldVectors:
    """Answers for the replicas of one namespace."""

    def __init__(self, owned: Callable[[int, int], Shard | None], held: Callable[[int, int], Shard | None]) -> None:
        """Remember where to look.

        Args:
            owned: (generation, shard) -> a replica that is owned here and readable, or None.
            held: the same of any replica that is ready for reads.
        """
        self._owned = owned
        self._held = held
        self._counting: dict[Shard, asyncio.Task[None]] = {}

    async def projected(self, generation: int, shards: Sequence[int], projection: Projection) -> Projected:
        """Return the sum over owned shards. The first time it is counted, which may outlast the call: it goes on then.

        Raises:
            UnavailableError: a shard is not owned here (NOT_OWNER), or another projection was asked for meanwhile.
        """
        total, nouns, verbs = MultisetDigest(), 0, 0
        owned: list[Shard] = []
        for number in shards:
            shard = self._owned(generation, number)
            if shard is None:
                raise UnavailableError("this node does not own the shard", reason="NOT_OWNER", shard=number)
            owned.append(shard)
        await asyncio.gather(*(self._counted(shard, projection) for shard in owned))
        positions = []
        for shard in owned:
            kept = shard.projected()
            if kept is None or kept[0] != projection or kept[1] is None:
                raise UnavailableError(
                    "the shard is being counted for another comparison",
                    reason="SHARD_NOT_READY",
                    remedy="try again",
                    shard=shard.number,
                )
            total.merge(kept[1])
            statistics = shard.statistics()
            nouns += statistics.nouns
            verbs += statistics.verbs
            positions.append(common_pb2.Position(generation=generation, shard=shard.number, position=kept[2]))
        return Projected(digest=total, nouns=nouns, verbs=verbs, positions=positions)

    async def _counted(self, shard: Shard, projection: Projection) -> None:
        kept = shard.projected()
        if kept is not None and kept[0] == projection and kept[1] is not None:
            return
        running = self._counting.get(shard)
        if running is None or kept is None or kept[0] != projection:
            if running is not None:
                running.cancel()
            running = asyncio.create_task(_step_by_step(shard.project(projection)))
            self._counting[shard] = running
            running.add_done_callback(lambda done: self._ended(shard, done))
        # Not awaited itself: whoever asked may give up, and the count goes on.
        await asyncio.wait((running,))

    def _ended(self, shard: Shard, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.error("projection_failed", shard=f"{shard.generation}/{shard.number}", exc_info=failure)
        if self._counting.get(shard) is task:
            del self._counting[shard]

    def bounds(self, generation: int, shards: Sequence[int]) -> list[VectorBounds]:
        """Return the bounds of the searchable vectors of shards held here. Blocks while it measures.

        Raises:
            UnavailableError: a shard is not ready here (SHARD_NOT_READY).
        """
        return [self._ready(generation, number).vector_bounds() for number in shards]

    def texts(self, generation: int, shards: Sequence[int], sample: int) -> tuple[int, int]:
        """Look at about so many nouns of each shard: how many were looked at, and how many of them have no text.

        Raises:
            UnavailableError: a shard is not ready here (SHARD_NOT_READY).
        """
        looked = without = 0
        for shard in [self._ready(generation, number) for number in shards] if sample else ():
            nouns = chain.from_iterable(shard.scan_nouns(include_vectors=False))
            for noun in islice(nouns, sample):
                looked += 1
                without += stored_text(noun.metadata) is None
        return looked, without

    def _ready(self, generation: int, number: int) -> Shard:
        shard = self._held(generation, number)
        if shard is None:
            raise UnavailableError("the shard is not ready here", reason="SHARD_NOT_READY", shard=number)
        return shard

    def let_go(self, shards: Iterator[Shard]) -> None:
        """Keep no projection any more: nothing is migrated."""
        for shard in shards:
            if shard.projected() is not None:
                shard.project(None)

    def close(self) -> None:
        """Stop counting."""
        for task in self._counting.values():
            task.cancel()


async def _step_by_step(steps: Iterator[int]) -> None:
    # A thread for each block, so that reads and writes get their turn in between.
    counted: int | None = 0
    while counted is not None:
        counted = await asyncio.to_thread(next, steps, None)
