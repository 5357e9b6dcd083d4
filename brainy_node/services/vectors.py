"""VectorService: what a migration to another metric, scalar kind or embedding model has to know."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from brainy.api.node.v1 import vectors_pb2, vectors_pb2_grpc
from brainy.bucket.embedding import EmbeddingIdentity, embedding_from_proto
from brainy.bucket.items import Noun
from brainy.bucket.projection import Projection
from brainy.clock import Clock
from brainy.config.settings import EmbeddingSettings
from brainy.embedding.reembedding import reembedder_at
from brainy_node.runtime.ports import Runtimes

Context = grpc.aio.ServicerContext[Any, Any]

#: Of the length of a sentence; the rate is for such.
_PROBES = [
    Noun(
        id=f"probe-{number}",
        metadata=f'{{"text":"{number}: how long does this model take for a sentence of about this length?"}}'.encode(),
    )
    for number in range(8)
]


class VectorServicer(vectors_pb2_grpc.VectorServiceServicer):
    """Answers from local replicas; models are asked from here, as a fill and a follower would."""

    def __init__(self, runtimes: Runtimes, *, embedding: EmbeddingSettings, clock: Clock) -> None:
        self._runtimes = runtimes
        self._embedding = embedding
        self._clock = clock

    async def ProbeEmbedding(
        self, request: vectors_pb2.ProbeEmbeddingRequest, context: Context
    ) -> vectors_pb2.ProbeEmbeddingResponse:
        """Embed a few texts."""
        rate = await asyncio.to_thread(self._probe, embedding_from_proto(request.identity), request.endpoint)
        return vectors_pb2.ProbeEmbeddingResponse(texts_per_second=rate)

    def _probe(self, identity: EmbeddingIdentity, endpoint: str) -> float:
        with reembedder_at(identity, endpoint, self._embedding) as reembedder:
            # The first text pays for loading the model.
            for nouns in (_PROBES[:1], _PROBES):
                begun = self._clock.monotonic()
                reembedder.nouns(nouns)
            return len(_PROBES) / max(self._clock.monotonic() - begun, 1e-6)

    async def DescribeVectors(
        self, request: vectors_pb2.DescribeVectorsRequest, context: Context
    ) -> vectors_pb2.DescribeVectorsResponse:
        """Add up the bounds of shards."""
        vectors = self._runtimes.get(request.namespace).vectors
        found = await asyncio.to_thread(vectors.bounds, request.generation, request.shards)
        looked, without = await asyncio.to_thread(vectors.texts, request.generation, request.shards, request.sample)
        return vectors_pb2.DescribeVectorsResponse(
            count=sum(each.count for each in found),
            zeros=sum(each.zeros for each in found),
            largest=max((each.largest for each in found), default=0.0),
            sampled=looked,
            without_text=without,
        )

    async def GetProjection(
        self, request: vectors_pb2.GetProjectionRequest, context: Context
    ) -> vectors_pb2.GetProjectionResponse:
        """Sum item hashes without vectors."""
        projection = Projection(
            embedding=embedding_from_proto(request.embedding) if request.HasField("embedding") else None,
            expected=request.expected,
        )
        vectors = self._runtimes.get(request.namespace).vectors
        found = await vectors.projected(request.generation, request.shards, projection)
        return vectors_pb2.GetProjectionResponse(
            digest=found.digest.encode(), noun_count=found.nouns, verb_count=found.verbs, positions=found.positions
        )
