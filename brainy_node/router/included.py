"""Questions whose answers also say what they include: how two generations that move can be compared.

``included`` was in the replicas before they were read, so the answer shows at least that; ``reached`` was in them
afterwards, so it shows nothing later. Both name the replicas' own positions and, for a generation that follows
another, the positions of what it follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from brainy.api.common.v1.common_pb2 import Position
from brainy.api.node.v1 import shard_pb2
from brainy.clock import Deadline
from brainy.rpc.channel import call
from brainy_node.router.fan_out import Target
from brainy_node.router.held import held
from brainy_node.router.reads import ItemsQuestion
from brainy_node.router.search import SearchQuestion
from brainy_node.router.sessions import settle
from brainy_node.runtime.ports import NamespaceRuntime
from brainy_node.shard.hits import Hits
from brainy_node.shard.shard import Shard

if TYPE_CHECKING:  # exists in the generated stubs only
    from brainy.api.node.v1.shard_pb2_grpc import ShardServiceAsyncStub


@dataclass(frozen=True, slots=True, kw_only=True)
class Included:
    """What one answer shows."""

    included: Sequence[Position] = ()
    reached: Sequence[Position] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSeen(Included):
    """Hits, and what they show."""

    hits: Hits


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsSeen(Included):
    """Items, and what they show."""

    items: shard_pb2.GetItemsResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchIncluding:
    """As ``SearchQuestion``; the work here leaves the event loop, which serves clients."""

    question: SearchQuestion

    async def local(self, runtime: NamespaceRuntime, target: Target, deadline: Deadline) -> SearchSeen:
        """Search local replicas."""
        await settle(runtime, target.generation, target.shards, self.question.session, deadline, besides=True)
        shards = [held(runtime, target.generation, number) for number in target.shards]
        before = positions_of(target.generation, target.shards, shards)
        hits = await asyncio.to_thread(self.question.search_held, shards)
        return SearchSeen(hits=hits, included=before, reached=positions_of(target.generation, target.shards, shards))

    async def remote(self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline) -> SearchSeen:
        """Let a peer search its replicas."""
        request = self.question.request(target)
        request.with_positions = True
        answer = await call(peer.SearchShards, request, deadline=deadline)
        hits = Hits.from_columns(answer.counts, answer.ids, answer.distances)
        return SearchSeen(hits=hits, included=tuple(answer.included), reached=tuple(answer.reached))


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsIncluding:
    """As ``ItemsQuestion``."""

    question: ItemsQuestion

    async def local(self, runtime: NamespaceRuntime, target: Target, deadline: Deadline) -> ItemsSeen:
        """Read from local replicas."""
        question = self.question
        await settle(runtime, target.generation, target.shards, question.session, deadline, besides=True)
        shards = [held(runtime, target.generation, number) for number in target.shards]
        before = positions_of(target.generation, target.shards, shards)
        items = await replace(question, session=()).local(runtime, target, deadline)
        return ItemsSeen(items=items, included=before, reached=positions_of(target.generation, target.shards, shards))

    async def remote(self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline) -> ItemsSeen:
        """Read from a peer."""
        request = self.question.request(target)
        request.with_positions = True
        answer = await call(peer.GetItems, request, deadline=deadline)
        return ItemsSeen(items=answer, included=tuple(answer.included), reached=tuple(answer.reached))


def positions_of(generation: int, numbers: Iterable[int], shards: Iterable[Shard]) -> list[Position]:
    """Return what replicas include now: their own positions, and those of the generation they follow."""
    found: list[Position] = []
    for number, shard in zip(numbers, shards, strict=True):
        found.append(Position(generation=generation, shard=number, position=shard.applied))
        source = shard.source_generation
        if source is not None:
            found += [
                Position(generation=source, shard=of, position=position) for of, position in shard.source_cursor.items()
            ]
    return found


def newest(positions: Iterable[Position], generation: int) -> list[Position]:
    """Return the highest position of each shard of one generation: what a session would carry."""
    highest: dict[int, int] = {}
    for position in positions:
        if position.generation == generation:
            highest[position.shard] = max(highest.get(position.shard, 0), position.position)
    return [Position(generation=generation, shard=s, position=p) for s, p in sorted(highest.items()) if p]
