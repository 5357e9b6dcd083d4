"""ShardService: what nodes ask of one another. Answers come from local replicas only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from brainy.api.node.v1 import shard_pb2, shard_pb2_grpc
from brainy.bucket.items import noun_to_proto, verb_to_proto
from brainy.bucket.records import Spec
from brainy.clock import Clock
from brainy.errors import InvalidRequestError, UnavailableError
from brainy.rpc.deadlines import deadline_of
from brainy_node.router.fan_out import Target
from brainy_node.router.held import by_shard, check_generation, held, paced, sliced
from brainy_node.router.included import ItemsIncluding, SearchIncluding
from brainy_node.router.nearby import MOST_VECTORS, VectorsQuestion
from brainy_node.router.reads import ItemsQuestion
from brainy_node.router.search import SearchQuestion, distance_bytes
from brainy_node.router.sessions import settle
from brainy_node.router.statistics import StatisticsQuestion
from brainy_node.router.validation import check_k, query_matrix
from brainy_node.router.view import RoutingRefresher
from brainy_node.runtime.ports import NamespaceRuntime, Runtimes

Context = grpc.aio.ServicerContext[Any, Any]


class ShardServicer(shard_pb2_grpc.ShardServiceServicer):
    """Answers from the replicas held here.

    A generation the routing record in force does not have is UNAVAILABLE (STALE_ROUTING); a shard that is not
    ready here UNAVAILABLE (SHARD_NOT_READY). The caller then reads the record again and asks elsewhere. A caller
    may also be ahead of this node: before refusing a generation or a write, the record is read again here.
    """

    def __init__(self, runtimes: Runtimes, refresher: RoutingRefresher, *, clock: Clock) -> None:
        self._runtimes = runtimes
        self._refresher = refresher
        self._clock = clock

    async def SearchShards(
        self, request: shard_pb2.SearchShardsRequest, context: Context
    ) -> shard_pb2.SearchShardsResponse:
        """Search the shards named and merge their hits."""
        runtime = await self._runtime(request.namespace, request.generation)
        spec: Spec = await runtime.spec(request.generation)
        matrix = query_matrix(request.vectors, request.dimensions, spec)
        check_k(request.k, len(matrix))
        if not request.shards:
            raise InvalidRequestError("a search of shards needs shards", remedy="name at least one")
        question = SearchQuestion(
            vectors=request.vectors,
            matrix=matrix,
            k=request.k,
            include_metadata=request.include_metadata,
            include_soft_deleted=request.include_soft_deleted,
            exact=request.exact,
            session=request.session,
        )
        target = Target(namespace=runtime.name, generation=request.generation, shards=tuple(request.shards))
        deadline = deadline_of(context, self._clock)
        if request.with_positions:
            seen = await SearchIncluding(question=question).local(runtime, target, deadline)
            return shard_pb2.SearchShardsResponse(
                counts=seen.hits.counts.tolist(),
                ids=seen.hits.ids,
                distances=distance_bytes(seen.hits),
                included=seen.included,
                reached=seen.reached,
            )
        hits = await question.local(runtime, target, deadline)
        return shard_pb2.SearchShardsResponse(
            counts=hits.counts.tolist(),
            ids=hits.ids,
            distances=distance_bytes(hits),
            metadata=hits.metadata if request.include_metadata else None,
        )

    async def GetItems(self, request: shard_pb2.GetItemsRequest, context: Context) -> shard_pb2.GetItemsResponse:
        """Read nouns and verbs by id."""
        runtime = await self._runtime(request.namespace, request.generation)
        count = runtime.routing.generations[request.generation].shard_count
        question = ItemsQuestion(
            nouns=by_shard(request.noun_ids, count),
            verbs=by_shard(request.verb_ids, count),
            include_vectors=request.include_vectors,
            session=request.session,
        )
        shards = sorted(question.nouns.keys() | question.verbs.keys())
        target = Target(namespace=runtime.name, generation=request.generation, shards=tuple(shards))
        deadline = deadline_of(context, self._clock)
        if request.with_positions:
            seen = await ItemsIncluding(question=question).local(runtime, target, deadline)
            seen.items.included.extend(seen.included)
            seen.items.reached.extend(seen.reached)
            return seen.items
        return await question.local(runtime, target, deadline)

    async def ScanShard(
        self, request: shard_pb2.ScanShardRequest, context: Context
    ) -> AsyncIterator[shard_pb2.ScanShardResponse]:
        """Stream the nouns of one shard."""
        runtime = await self._runtime(request.namespace, request.generation)
        shard = held(runtime, request.generation, request.shard)
        batches = shard.scan_nouns(
            include_vectors=request.include_vectors, include_soft_deleted=request.include_soft_deleted
        )
        async for batch in paced(batches):
            yield shard_pb2.ScanShardResponse(nouns=[noun_to_proto(noun) for noun in batch])

    async def FindShardVerbs(
        self, request: shard_pb2.FindShardVerbsRequest, context: Context
    ) -> AsyncIterator[shard_pb2.FindShardVerbsResponse]:
        """Stream the verbs of some shards that match."""
        runtime = await self._runtime(request.namespace, request.generation)
        deadline = deadline_of(context, self._clock)
        await settle(runtime, request.generation, request.shards, request.session, deadline)
        for shard in [held(runtime, request.generation, number) for number in request.shards]:
            batches = shard.find_verbs(
                request.source_id if request.HasField("source_id") else None,
                request.target_id if request.HasField("target_id") else None,
                request.type if request.HasField("type") else None,
                include_vectors=request.include_vectors,
            )
            async for batch in paced(batches):
                yield shard_pb2.FindShardVerbsResponse(verbs=[verb_to_proto(verb) for verb in batch])

    async def CommitRecords(
        self, request: shard_pb2.CommitRecordsRequest, context: Context
    ) -> shard_pb2.CommitRecordsResponse:
        """Commit records to a shard this node owns; the runtime refuses if it does not."""
        runtime = self._runtimes.get(request.namespace)
        try:
            position = await runtime.commit(request.generation, request.shard, request.records)
        except UnavailableError as error:
            if error.reason not in ("NOT_OWNER", "STALE_ROUTING"):
                raise
            await self._refresher.refresh(runtime)
            position = await runtime.commit(request.generation, request.shard, request.records)
        return shard_pb2.CommitRecordsResponse(position=position)

    async def FollowLog(
        self, request: shard_pb2.FollowLogRequest, context: Context
    ) -> AsyncIterator[shard_pb2.FollowLogResponse]:
        """Stream log objects as stored, for ever."""
        runtime = self._runtimes.get(request.namespace)
        slots = runtime.follow_log(request.generation, request.shard, max(1, request.from_position))
        async for slot in slots:
            yield shard_pb2.FollowLogResponse(first_position=slot.first, last_position=slot.last, object=slot.body)

    async def GetShardStatistics(
        self, request: shard_pb2.GetShardStatisticsRequest, context: Context
    ) -> shard_pb2.GetShardStatisticsResponse:
        """Sum the figures of the shards named."""
        runtime = await self._runtime(request.namespace, request.generation)
        target = Target(namespace=runtime.name, generation=request.generation, shards=tuple(request.shards))
        question = StatisticsQuestion(include_digest=request.include_digest, session=request.session)
        return await question.local(runtime, target, deadline_of(context, self._clock))

    async def ListShardUnindexed(
        self, request: shard_pb2.ListShardUnindexedRequest, context: Context
    ) -> AsyncIterator[shard_pb2.ListShardUnindexedResponse]:
        """Stream the nouns that are stored but not in the index."""
        runtime = await self._runtime(request.namespace, request.generation)
        for number in request.shards:
            pairs = held(runtime, request.generation, number).unindexed()
            async for batch in paced(sliced(pairs)):
                yield shard_pb2.ListShardUnindexedResponse(
                    ids=[item_id for item_id, _ in batch], reasons=[reason for _, reason in batch]
                )

    async def ListShardQuarantine(
        self, request: shard_pb2.ListShardQuarantineRequest, context: Context
    ) -> AsyncIterator[shard_pb2.ListShardQuarantineResponse]:
        """Stream the source objects that could not be read."""
        runtime = await self._runtime(request.namespace, request.generation)
        for number in request.shards:
            objects = held(runtime, request.generation, number).quarantined()
            async for batch in paced(sliced(objects)):
                yield shard_pb2.ListShardQuarantineResponse(
                    keys=[found.key for found in batch],
                    reasons=[found.reason for found in batch],
                    sizes=[found.size for found in batch],
                )

    async def SampleVectors(
        self, request: shard_pb2.SampleVectorsRequest, context: Context
    ) -> shard_pb2.SampleVectorsResponse:
        """Return vectors of some nouns of the shards named."""
        runtime = await self._runtime(request.namespace, request.generation)
        if not 1 <= request.count <= MOST_VECTORS:
            raise InvalidRequestError("a sample is out of bounds", remedy=f"1 to {MOST_VECTORS}", count=request.count)
        spec: Spec = await runtime.spec(request.generation)
        target = Target(namespace=runtime.name, generation=request.generation, shards=tuple(request.shards))
        question = VectorsQuestion(count=request.count, seed=request.seed, dimensions=spec.dimensions)
        found = await question.local(runtime, target, deadline_of(context, self._clock))
        return shard_pb2.SampleVectorsResponse(vectors=found.tobytes(), dimensions=spec.dimensions)

    async def _runtime(self, namespace: str, generation: int) -> NamespaceRuntime:
        runtime = self._runtimes.get(namespace)
        if generation not in runtime.routing.generations:
            await self._refresher.refresh(runtime)
            check_generation(runtime, generation)
        return runtime
