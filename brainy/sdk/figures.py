"""Statistics, metrics, and what is not in the index."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from brainy.api.node.v1 import data_pb2
from brainy.bucket.embedding import embedding_from_proto
from brainy.sdk.connection import Connection
from brainy.sdk.values import PerformanceMetrics, Quarantined, ServiceStatistics, Statistics, UnindexedNoun


class FigureCalls(Connection):
    """Counted figures of the namespace."""

    async def get_statistics(self) -> Statistics:
        """Count what is stored."""
        answer = await self._nodes.unary(
            lambda node: node.statistics.GetStatistics,
            data_pb2.GetStatisticsRequest(namespace=self.namespace),
            self._read,
        )
        return Statistics(
            noun_count=answer.noun_count,
            verb_count=answer.verb_count,
            metadata_count=sum(answer.metadata_by_service.values()),
            soft_deleted_count=answer.soft_deleted_count,
            unindexed_count=answer.unindexed_count,
            quarantined_count=answer.quarantined_count,
            nouns_by_service=dict(answer.nouns_by_service),
            nouns_by_type=dict(answer.nouns_by_type),
            verbs_by_type=dict(answer.verbs_by_type),
            by_service=_by_service(answer),
            dimensions=answer.dimensions,
            generation=answer.header.generation,
            embedding=embedding_from_proto(answer.embedding) if answer.HasField("embedding") else None,
        )

    async def get_performance_metrics(self) -> PerformanceMetrics:
        """Return the figures of whichever node answers; connect to one endpoint to ask a certain node."""
        answer = await self._nodes.unary(
            lambda node: node.statistics.GetPerformanceMetrics,
            data_pb2.GetPerformanceMetricsRequest(namespace=self.namespace),
            self._read,
        )
        return PerformanceMetrics(
            node_id=answer.header.node_id,
            generation=answer.header.generation,
            index_size=answer.index_size,
            tail_size=answer.tail_size,
            total_searches=answer.total_searches,
            average_search_milliseconds=answer.average_search_milliseconds,
            memory_usage=answer.memory_usage,
            cache_hit_rate=(
                1 - answer.shard_searches_from_disk / answer.shard_searches if answer.shard_searches else None
            ),
            compression_ratio=answer.vector_bytes / answer.index_bytes if answer.index_bytes else None,
            store_calls=dict(answer.store_calls),
        )

    async def unindexed(self) -> AsyncGenerator[UnindexedNoun, None]:
        """Yield the nouns that are stored and readable but cannot be found by a search."""
        request = data_pb2.ListUnindexedRequest(namespace=self.namespace)
        seen: set[str] = set()
        async for answer in self._nodes.stream(lambda node: node.statistics.ListUnindexed, request, self._scan):
            for item in answer.items:
                if item.id not in seen:
                    seen.add(item.id)
                    yield UnindexedNoun(id=item.id, reason=item.reason)

    async def quarantined(self) -> AsyncGenerator[Quarantined, None]:
        """Yield the objects of the source that could not be read."""
        request = data_pb2.ListQuarantineRequest(namespace=self.namespace)
        seen: set[str] = set()
        async for answer in self._nodes.stream(lambda node: node.statistics.ListQuarantine, request, self._scan):
            for item in answer.objects:
                if item.key not in seen:
                    seen.add(item.key)
                    yield Quarantined(key=item.key, reason=item.reason, size=item.size)


def _by_service(answer: data_pb2.GetStatisticsResponse) -> dict[str, ServiceStatistics]:
    nouns, verbs, documents = answer.nouns_by_service, answer.verbs_by_service, answer.metadata_by_service
    # Asking a protobuf map for a name would put it in.
    return {
        name: ServiceStatistics(
            noun_count=nouns.get(name, 0), verb_count=verbs.get(name, 0), metadata_count=documents.get(name, 0)
        )
        for name in sorted({*nouns, *verbs, *documents})
    }
