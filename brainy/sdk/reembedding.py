"""Another embedding model for all texts of a namespace, as a migration's target names it."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.api.coordinator.v1 import migration_pb2
from brainy.bucket.embedding import EmbeddingIdentity, embedding_to_proto


@dataclass(frozen=True, slots=True, kw_only=True)
class Reembedding:
    """A model, where nodes find it, and what is accepted."""

    identity: EmbeddingIdentity
    #: http(s)://host/... as the nodes reach it; "" for the offline model, and for the endpoint of their configuration.
    endpoint: str = ""
    #: How many nouns may end up without a vector because they have no text.
    without_text_limit: int = 0

    @classmethod
    def of(cls, model: str, *, without_text_limit: int = 0) -> Reembedding:
        """Name a model: "minilm", or ``http(s)://host:port#model``, which is asked once how long its vectors are.

        Raises:
            InvalidRequestError: neither.
            UnavailableError: the endpoint does not answer here.
        """
        from brainy.embedding.minilm import DIMENSIONS, MODEL, REVISION
        from brainy.embedding.opening import open_embedder

        if model in ("minilm", MODEL):
            # The nodes need the model, whoever asks them to use it does not.
            identity = EmbeddingIdentity(model=MODEL, dimensions=DIMENSIONS, revision=REVISION)
            return cls(identity=identity, without_text_limit=without_text_limit)
        embedder = open_embedder(model)
        try:
            identity = embedder.identity
        finally:
            close = getattr(embedder, "close", None)
            if close is not None:
                close()
        return cls(identity=identity, endpoint=model.partition("#")[0], without_text_limit=without_text_limit)


def reembedding_to_proto(wanted: Reembedding) -> migration_pb2.Reembedding:
    """Convert for the wire."""
    return migration_pb2.Reembedding(
        identity=embedding_to_proto(wanted.identity),
        endpoint=wanted.endpoint,
        without_text_limit=wanted.without_text_limit,
    )
