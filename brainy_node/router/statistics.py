"""Counted figures of a namespace: the sum over its shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import data_pb2, shard_pb2
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.embedding import embedding_to_proto
from brainy.clock import Deadline
from brainy.rpc.channel import call
from brainy_node.router.fan_out import FanOut, Target
from brainy_node.router.held import held
from brainy_node.router.search import SearchRouter
from brainy_node.router.sessions import settle
from brainy_node.router.view import RoutingRefresher, View
from brainy_node.runtime.ports import NamespaceRuntime

if TYPE_CHECKING:  # exists in the generated stubs only
    from brainy.api.node.v1.shard_pb2_grpc import ShardServiceAsyncStub

Figures = shard_pb2.GetShardStatisticsResponse | data_pb2.GetStatisticsResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsQuestion:
    """The figures of some shards, summed."""

    include_digest: bool = False
    session: Sequence[common_pb2.Position] = ()

    async def local(
        self, runtime: NamespaceRuntime, target: Target, deadline: Deadline
    ) -> shard_pb2.GetShardStatisticsResponse:
        """Sum the replicas' here."""
        await settle(runtime, target.generation, target.shards, self.session, deadline)
        total = shard_pb2.GetShardStatisticsResponse()
        digest = MultisetDigest()
        for number in target.shards:
            shard = held(runtime, target.generation, number)
            if self.include_digest:
                digest.merge(shard.digest())
            figures = shard.statistics()
            one = shard_pb2.GetShardStatisticsResponse(
                noun_count=figures.nouns,
                verb_count=figures.verbs,
                soft_deleted_count=figures.soft_deleted,
                unindexed_count=figures.unindexed,
                quarantined_count=figures.quarantined,
                nouns_by_service=figures.nouns_by_service,
                nouns_by_type=figures.nouns_by_type,
                verbs_by_type=figures.verbs_by_type,
                verbs_by_service=figures.verbs_by_service,
                metadata_by_service=figures.metadata_by_service,
            )
            add(total, one)
        if self.include_digest:
            total.digest = digest.encode()
        return total

    async def remote(
        self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline
    ) -> shard_pb2.GetShardStatisticsResponse:
        """Let a peer sum its replicas'."""
        request = shard_pb2.GetShardStatisticsRequest(
            namespace=target.namespace,
            generation=target.generation,
            shards=target.shards,
            include_digest=self.include_digest,
            session=self.session,
        )
        return await call(peer.GetShardStatistics, request, deadline=deadline)


def add(total: Figures, part: shard_pb2.GetShardStatisticsResponse) -> None:
    """Add the figures of a part, but for the digest."""
    total.noun_count += part.noun_count
    total.verb_count += part.verb_count
    total.soft_deleted_count += part.soft_deleted_count
    total.unindexed_count += part.unindexed_count
    total.quarantined_count += part.quarantined_count
    for name, count in part.nouns_by_service.items():
        total.nouns_by_service[name] += count
    for name, count in part.nouns_by_type.items():
        total.nouns_by_type[name] += count
    for name, count in part.verbs_by_type.items():
        total.verbs_by_type[name] += count
    for name, count in part.verbs_by_service.items():
        total.verbs_by_service[name] += count
    for name, count in part.metadata_by_service.items():
        total.metadata_by_service[name] += count


class StatisticsRouter:
    """Answers GetStatistics and GetPerformanceMetrics."""

    def __init__(self, fan_out: FanOut, refresher: RoutingRefresher, search: SearchRouter) -> None:
        self._fan_out = fan_out
        self._refresher = refresher
        self._search = search
        self._process = psutil.Process()

    async def statistics(
        self,
        runtime: NamespaceRuntime,
        deadline: Deadline,
        question: StatisticsQuestion,
    ) -> data_pb2.GetStatisticsResponse:
        """Sum the figures of every shard.

        Raises:
            UnavailableError: a shard has no replica that answers.
        """

        async def act(view: View) -> data_pb2.GetStatisticsResponse:
            answer = await self._fan_out.ask(runtime, view, question, view.shards, deadline)
            spec = await runtime.spec(view.generation)
            total = data_pb2.GetStatisticsResponse(header=view.header(runtime.node_id), dimensions=spec.dimensions)
            digest = MultisetDigest()
            embedding = await runtime.embedding(view.generation)
            if embedding is not None:
                total.embedding.CopyFrom(embedding_to_proto(embedding))
            for part in answer.parts:
                add(total, part)
                if part.digest:
                    digest.merge(MultisetDigest.decode(part.digest))
            if question.include_digest:
                total.digest = digest.encode()
            return total

        return await self._refresher.reading(runtime, question.session, deadline, act)

    async def performance(
        self, runtime: NamespaceRuntime, deadline: Deadline
    ) -> data_pb2.GetPerformanceMetricsResponse:
        """Figures of this node: its replicas, the searches it answered, its memory, its store calls."""
        view = await self._refresher.view(runtime, (), deadline)
        found = [runtime.shard(view.generation, shard) for shard in view.shards]
        here = [shard for shard in found if shard is not None]
        missing: Sequence[int] = [number for number, shard in zip(view.shards, found, strict=True) if shard is None]
        calls = self._search.calls
        return data_pb2.GetPerformanceMetricsResponse(
            header=view.header(runtime.node_id, missing),
            index_size=sum(shard.base_rows for shard in here),
            tail_size=sum(shard.tail_records for shard in here),
            total_searches=self._search.queries,
            average_search_milliseconds=1000 * self._search.seconds / calls if calls else 0.0,
            memory_usage=self._process.memory_info().rss,
            store_calls=runtime.metrics,
            shard_searches=sum(shard.searches for shard in here),
            shard_searches_from_disk=sum(shard.searches_from_disk for shard in here),
            vector_bytes=sum(shard.base.vector_bytes for shard in here),
            index_bytes=sum(shard.base.index_bytes for shard in here),
        )
