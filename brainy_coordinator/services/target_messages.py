"""What a migration's target shall look like, on the wire."""

from __future__ import annotations

from brainy.api.coordinator.v1 import migration_pb2
from brainy.bucket.embedding import Reembedding, embedding_from_proto, embedding_to_proto
from brainy.errors import InvalidRequestError
from brainy_coordinator.migration.record import TargetWish


def target_wish(message: migration_pb2.TargetSpec) -> TargetWish:
    """Return what a caller wishes for.

    Raises:
        InvalidRequestError: an embedding without a model, or with an endpoint that is none.
    """
    embedding, reembedding = None, None
    if message.HasField("embedding"):
        embedding = embedding_from_proto(message.embedding.identity)
        endpoint = message.embedding.endpoint
        if endpoint and not endpoint.startswith(("http://", "https://")):
            raise InvalidRequestError(
                "the endpoint of a model is an http(s) URL", remedy="write http://host:8080", endpoint=endpoint[:64]
            )
        reembedding = Reembedding(endpoint=endpoint, without_text_limit=message.embedding.without_text_limit)
    return TargetWish(
        shard_count=message.shard_count,
        metric=message.metric,
        scalar_kind=message.scalar_kind,
        connectivity=message.connectivity,
        pool=message.pool,
        expansion_add=message.expansion_add,
        expansion_search=message.expansion_search,
        partitioning=message.partitioning,
        dimensions=message.dimensions,
        embedding=embedding,
        reembedding=reembedding,
    )


def target_message(wish: TargetWish) -> migration_pb2.TargetSpec:
    """Return a wish as the protos carry it."""
    reembedding = wish.reembedding or Reembedding()
    return migration_pb2.TargetSpec(
        shard_count=wish.shard_count,
        metric=wish.metric,
        scalar_kind=wish.scalar_kind,
        connectivity=wish.connectivity,
        pool=wish.pool,
        expansion_add=wish.expansion_add,
        expansion_search=wish.expansion_search,
        partitioning=wish.partitioning,
        dimensions=wish.dimensions,
        embedding=migration_pb2.Reembedding(
            identity=embedding_to_proto(wish.embedding),
            endpoint=reembedding.endpoint,
            without_text_limit=reembedding.without_text_limit,
        )
        if wish.embedding is not None
        else None,
    )
