"""Reads by id, and relations of a noun: one call per node, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import data_pb2, shard_pb2
from brainy.bucket.items import noun_to_proto, verb_to_proto
from brainy.clock import Deadline
from brainy.errors import InvalidRequestError
from brainy.rpc.channel import call, stream
from brainy.rpc.options import MAX_MESSAGE_BYTES
from brainy_node.router.fan_out import FanOut, Target
from brainy_node.router.held import by_shard, chosen, held, paced
from brainy_node.router.sessions import settle
from brainy_node.router.validation import check_ids
from brainy_node.router.view import View
from brainy_node.router.weighted import WeightedReads
from brainy_node.runtime.ports import NamespaceRuntime

if TYPE_CHECKING:  # exists in the generated stubs only
    from brainy.api.node.v1.shard_pb2_grpc import ShardServiceAsyncStub
    from brainy_node.router.shadow import ShadowReads

#: Vectors of one answer; the rest of the message is for ids and metadata.
_MAX_VECTOR_BYTES = MAX_MESSAGE_BYTES - (16 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsQuestion:
    """Nouns and verbs by id, grouped by shard."""

    nouns: Mapping[int, Sequence[str]] = field(default_factory=dict)
    verbs: Mapping[int, Sequence[str]] = field(default_factory=dict)
    include_vectors: bool = True
    session: Sequence[common_pb2.Position] = ()

    async def local(self, runtime: NamespaceRuntime, target: Target, deadline: Deadline) -> shard_pb2.GetItemsResponse:
        """Read from local replicas."""
        await settle(runtime, target.generation, target.shards, self.session, deadline)
        answer = shard_pb2.GetItemsResponse()
        for number in target.shards:
            shard = held(runtime, target.generation, number)
            if ids := self.nouns.get(number):
                nouns = shard.get_nouns(ids, include_vectors=self.include_vectors)
                answer.nouns.extend([noun_to_proto(noun) for noun in nouns])
            if ids := self.verbs.get(number):
                verbs = shard.get_verbs(ids, include_vectors=self.include_vectors)
                answer.verbs.extend([verb_to_proto(verb) for verb in verbs])
        return answer

    async def remote(
        self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline
    ) -> shard_pb2.GetItemsResponse:
        """Read from a peer."""
        return await call(peer.GetItems, self.request(target), deadline=deadline)

    def request(self, target: Target) -> shard_pb2.GetItemsRequest:
        """Build the request to a peer."""
        return shard_pb2.GetItemsRequest(
            namespace=target.namespace,
            generation=target.generation,
            noun_ids=chosen(self.nouns, target.shards),
            verb_ids=chosen(self.verbs, target.shards),
            include_vectors=self.include_vectors,
            session=self.session,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbsQuestion:
    """Verbs by source, target and type, gathered whole: meant for the relations of one noun."""

    source_id: str | None = None
    target_id: str | None = None
    type: str | None = None
    include_vectors: bool = False
    session: Sequence[common_pb2.Position] = ()

    async def local(self, runtime: NamespaceRuntime, target: Target, deadline: Deadline) -> list[common_pb2.Verb]:
        """Look in local replicas."""
        await settle(runtime, target.generation, target.shards, self.session, deadline)
        found: list[common_pb2.Verb] = []
        for number in target.shards:
            shard = held(runtime, target.generation, number)
            batches = shard.find_verbs(self.source_id, self.target_id, self.type, include_vectors=self.include_vectors)
            async for batch in paced(batches):
                found.extend([verb_to_proto(verb) for verb in batch])
        return found

    async def remote(self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline) -> list[common_pb2.Verb]:
        """Let a peer look in its replicas."""
        found: list[common_pb2.Verb] = []
        async for message in stream(peer.FindShardVerbs, self.request(target), deadline=deadline):
            found.extend(message.verbs)
        return found

    def request(self, target: Target) -> shard_pb2.FindShardVerbsRequest:
        """Build the request to a peer."""
        return shard_pb2.FindShardVerbsRequest(
            namespace=target.namespace,
            generation=target.generation,
            shards=target.shards,
            source_id=self.source_id,
            target_id=self.target_id,
            type=self.type,
            include_vectors=self.include_vectors,
            session=self.session,
        )


async def gather_items(
    fan_out: FanOut, runtime: NamespaceRuntime, view: View, question: ItemsQuestion, deadline: Deadline
) -> shard_pb2.GetItemsResponse:
    """Ask only the shards the ids belong to."""
    shards = question.nouns.keys() | question.verbs.keys()
    answer = await fan_out.ask(runtime, view, question, shards, deadline)
    if len(answer.parts) == 1:
        return answer.parts[0]
    whole = shard_pb2.GetItemsResponse()
    for part in answer.parts:
        whole.MergeFrom(part)
    return whole


class ReadRouter:
    """Answers GetNouns and GetVerbs. Items come in the order of the ids asked for, each once."""

    def __init__(self, fan_out: FanOut, weighted: WeightedReads, shadow: ShadowReads, *, max_batch: int) -> None:
        self._fan_out = fan_out
        self._weighted = weighted
        self._shadow = shadow
        self._max_batch = max_batch

    async def nouns(
        self, runtime: NamespaceRuntime, request: data_pb2.GetNounsRequest, deadline: Deadline
    ) -> data_pb2.GetNounsResponse:
        """Read nouns by id; ids that do not exist are absent.

        Raises:
            InvalidRequestError: INVALID_ID, BATCH_TOO_LARGE.
            UnavailableError: a shard has no replica that answers.
        """
        check_ids(request.ids, self._max_batch)

        async def act(view: View, deadline: Deadline) -> data_pb2.GetNounsResponse:
            await self._check_size(runtime, view, len(request.ids), request.include_vectors)
            question = ItemsQuestion(
                nouns=by_shard(request.ids, view.placement.shard_count),
                include_vectors=request.include_vectors,
                session=request.session,
            )
            found = await gather_items(self._fan_out, runtime, view, question, deadline)
            self._shadow.read(runtime, view, question)
            named = {noun.id: noun for noun in found.nouns}
            return data_pb2.GetNounsResponse(
                header=view.header(runtime.node_id),
                nouns=[named[i] for i in dict.fromkeys(request.ids) if i in named],
            )

        return await self._weighted.reading(runtime, request.session, request.session_id, deadline, act)

    async def verbs(
        self, runtime: NamespaceRuntime, request: data_pb2.GetVerbsRequest, deadline: Deadline
    ) -> data_pb2.GetVerbsResponse:
        """Read verbs by id; as ``nouns``."""
        check_ids(request.ids, self._max_batch)

        async def act(view: View, deadline: Deadline) -> data_pb2.GetVerbsResponse:
            await self._check_size(runtime, view, len(request.ids), request.include_vectors)
            question = ItemsQuestion(
                verbs=by_shard(request.ids, view.placement.shard_count),
                include_vectors=request.include_vectors,
                session=request.session,
            )
            found = await gather_items(self._fan_out, runtime, view, question, deadline)
            self._shadow.read(runtime, view, question)
            named = {verb.id: verb for verb in found.verbs}
            return data_pb2.GetVerbsResponse(
                header=view.header(runtime.node_id),
                verbs=[named[i] for i in dict.fromkeys(request.ids) if i in named],
            )

        return await self._weighted.reading(runtime, request.session, request.session_id, deadline, act)

    async def _check_size(self, runtime: NamespaceRuntime, view: View, count: int, include_vectors: bool) -> None:
        if not include_vectors:
            return
        spec = await runtime.spec(view.generation)
        size = 4 * spec.dimensions * count
        if size > _MAX_VECTOR_BYTES:
            raise InvalidRequestError(
                "one answer cannot hold so many vectors",
                reason="BATCH_TOO_LARGE",
                remedy="ask for fewer at once, or without vectors",
                bytes=size,
                limit=_MAX_VECTOR_BYTES,
            )
