"""Streams over a whole namespace, shard by shard, that survive the loss of the replica they read from."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import data_pb2, shard_pb2
from brainy.bucket.items import noun_to_proto, verb_to_proto
from brainy.clock import Clock, Deadline
from brainy.errors import BrainyError
from brainy.rpc.channel import stream
from brainy.rpc.options import DEFAULT_DEADLINE_SECONDS
from brainy_node.router.fan_out import Target, ask_elsewhere
from brainy_node.router.held import held, paced, sliced
from brainy_node.router.peers import Peers
from brainy_node.router.placement import assign
from brainy_node.router.reads import VerbsQuestion
from brainy_node.router.sessions import settle, stale
from brainy_node.router.view import RoutingRefresher, View
from brainy_node.runtime.ports import NamespaceRuntime

if TYPE_CHECKING:  # exists in the generated stubs only
    from brainy.api.node.v1.shard_pb2_grpc import ShardServiceAsyncStub

Item = TypeVar("Item")


class Scan(Protocol[Item]):
    """What is streamed from one shard: by this process or by a peer."""

    def local(self, runtime: NamespaceRuntime, target: Target, deadline: Deadline) -> AsyncIterator[Sequence[Item]]:
        """Stream from the local replica of the one shard of ``target``."""

    def remote(
        self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline | None
    ) -> AsyncIterator[Sequence[Item]]:
        """Stream from a peer's."""

    def key(self, item: Item) -> str:
        """Return what tells items of a shard apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NounScan:
    """Every noun."""

    include_vectors: bool
    include_soft_deleted: bool

    async def local(
        self, runtime: NamespaceRuntime, target: Target, deadline: Deadline
    ) -> AsyncIterator[Sequence[common_pb2.Noun]]:
        """Scan the replica here."""
        shard = held(runtime, target.generation, target.shards[0])
        batches = shard.scan_nouns(include_vectors=self.include_vectors, include_soft_deleted=self.include_soft_deleted)
        async for batch in paced(batches):
            yield [noun_to_proto(noun) for noun in batch]

    async def remote(
        self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline | None
    ) -> AsyncIterator[Sequence[common_pb2.Noun]]:
        """Scan a peer's replica."""
        request = shard_pb2.ScanShardRequest(
            namespace=target.namespace,
            generation=target.generation,
            shard=target.shards[0],
            include_vectors=self.include_vectors,
            include_soft_deleted=self.include_soft_deleted,
        )
        async for message in stream(peer.ScanShard, request, deadline=deadline):
            yield message.nouns

    def key(self, item: common_pb2.Noun) -> str:
        """Return the id."""
        return item.id


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbScan:
    """Every verb that matches; streamed, for questions whose answer may be large."""

    question: VerbsQuestion

    async def local(
        self, runtime: NamespaceRuntime, target: Target, deadline: Deadline
    ) -> AsyncIterator[Sequence[common_pb2.Verb]]:
        """Look in the replicas here."""
        asked = self.question
        await settle(runtime, target.generation, target.shards, asked.session, deadline)
        for number in target.shards:
            shard = held(runtime, target.generation, number)
            batches = shard.find_verbs(
                asked.source_id, asked.target_id, asked.type, include_vectors=asked.include_vectors
            )
            async for batch in paced(batches):
                yield [verb_to_proto(verb) for verb in batch]

    async def remote(
        self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline | None
    ) -> AsyncIterator[Sequence[common_pb2.Verb]]:
        """Let a peer look."""
        async for message in stream(peer.FindShardVerbs, self.question.request(target), deadline=deadline):
            yield message.verbs

    def key(self, item: common_pb2.Verb) -> str:
        """Return the id."""
        return item.id


@dataclass(frozen=True, slots=True, kw_only=True)
class UnindexedScan:
    """Nouns stored but not in the index."""

    async def local(
        self, runtime: NamespaceRuntime, target: Target, deadline: Deadline
    ) -> AsyncIterator[Sequence[data_pb2.UnindexedItem]]:
        """List the replicas' here."""
        for number in target.shards:
            pairs = held(runtime, target.generation, number).unindexed()
            async for batch in paced(sliced(pairs)):
                yield [data_pb2.UnindexedItem(id=item_id, reason=reason) for item_id, reason in batch]

    async def remote(
        self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline | None
    ) -> AsyncIterator[Sequence[data_pb2.UnindexedItem]]:
        """List a peer's."""
        request = shard_pb2.ListShardUnindexedRequest(
            namespace=target.namespace, generation=target.generation, shards=target.shards
        )
        async for message in stream(peer.ListShardUnindexed, request, deadline=deadline):
            pairs = zip(message.ids, message.reasons, strict=True)
            yield [data_pb2.UnindexedItem(id=item_id, reason=reason) for item_id, reason in pairs]

    def key(self, item: data_pb2.UnindexedItem) -> str:
        """Return the id."""
        return item.id


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineScan:
    """Objects of the source that could not be read."""

    async def local(
        self, runtime: NamespaceRuntime, target: Target, deadline: Deadline
    ) -> AsyncIterator[Sequence[data_pb2.QuarantinedObject]]:
        """List the replicas' here."""
        for number in target.shards:
            objects = held(runtime, target.generation, number).quarantined()
            async for batch in paced(sliced(objects)):
                yield [data_pb2.QuarantinedObject(key=o.key, reason=o.reason, size=o.size) for o in batch]

    async def remote(
        self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline | None
    ) -> AsyncIterator[Sequence[data_pb2.QuarantinedObject]]:
        """List a peer's."""
        request = shard_pb2.ListShardQuarantineRequest(
            namespace=target.namespace, generation=target.generation, shards=target.shards
        )
        async for message in stream(peer.ListShardQuarantine, request, deadline=deadline):
            columns = zip(message.keys, message.reasons, message.sizes, strict=True)
            yield [data_pb2.QuarantinedObject(key=key, reason=reason, size=size) for key, reason, size in columns]

    def key(self, item: data_pb2.QuarantinedObject) -> str:
        """Return the object's key."""
        return item.key


class ScanRouter:
    """Streams shard by shard.

    Before: a view. A scan keeps its generation to the end: items of two generations are never mixed.
    Steps, for each shard: stream from the local replica, or else from a peer's; when that fails, stream again
    from another one and leave out the items already passed on; when none is left, read the routing record again
    and pause, up to 30 s without progress.
    After: each item that existed throughout was passed on exactly once. (One written meanwhile may be or not.)
    If the generation is retired meanwhile: UnavailableError (STALE_ROUTING), begin again.
    Cancel safety: closing the iterator cancels the call to the peer.
    """

    def __init__(self, peers: Peers, refresher: RoutingRefresher, *, clock: Clock) -> None:
        self._peers = peers
        self._refresher = refresher
        self._clock = clock
        self._rotation = itertools.count()

    async def scan(
        self, runtime: NamespaceRuntime, view: View, scan: Scan[Item], deadline: Deadline | None
    ) -> AsyncIterator[Sequence[Item]]:
        """Stream a whole generation in batches; ``deadline`` None means as long as it takes.

        Raises:
            UnavailableError: a shard has no replica that answers, or STALE_ROUTING.
        """
        for shard in view.shards:
            async for batch in self._shard(runtime, view, scan, shard, deadline):
                yield batch

    async def _shard(
        self, runtime: NamespaceRuntime, view: View, scan: Scan[Item], shard: int, deadline: Deadline | None
    ) -> AsyncIterator[Sequence[Item]]:
        passed: set[str] = set()  # keys passed on before a failure: another replica must not repeat them
        tried: set[str] = set()
        patience = self._patience(deadline)
        rounds = 0
        target = Target(namespace=runtime.name, generation=view.generation, shards=(shard,))
        error: BrainyError | None = None
        while True:
            routing = runtime.routing
            placement = routing.generations.get(view.generation)
            if placement is None:
                raise stale(routing, view.generation)
            plan = assign(
                placement,
                (shard,),
                node_id=runtime.node_id,
                ready=(shard,) if runtime.shard(view.generation, shard) is not None else (),
                reachable=routing.nodes,
                tried={shard: tried},
                suspects=self._peers.suspects(),
                rotation=next(self._rotation),
            )
            if plan.missing:
                if patience.passed:
                    raise error or stale(routing, view.generation, f"no replica of shard {shard} is known")
                await self._refresher.pause(rounds, patience)
                await self._refresher.refresh(runtime)
                rounds += 1
                tried.clear()
                continue
            node = runtime.node_id if plan.local else next(iter(plan.remote))
            current: set[str] = set()
            try:
                if plan.local:
                    batches = scan.local(runtime, target, patience)
                else:
                    batches = scan.remote(self._peers.stub(routing, node), target, deadline)
                async for batch in batches:
                    fresh = [item for item in batch if scan.key(item) not in passed] if passed else batch
                    if not plan.local:  # a local replica does not go away half-way
                        current.update(map(scan.key, fresh))
                    if fresh:
                        yield fresh
                return
            except BrainyError as failure:
                if not ask_elsewhere(failure):
                    raise
                error = failure
                tried.add(node)
                if node != runtime.node_id:
                    self._peers.suspect(node)
                if current:  # progress: patience starts anew
                    passed |= current
                    patience = self._patience(deadline)

    def _patience(self, deadline: Deadline | None) -> Deadline:
        seconds = DEFAULT_DEADLINE_SECONDS
        return Deadline.after(self._clock, min(seconds, deadline.remaining()) if deadline else seconds)
