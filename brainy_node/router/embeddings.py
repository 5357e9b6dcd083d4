"""What a request says of the model that made its vectors out of texts."""

from __future__ import annotations

from brainy.api.node.v1 import data_pb2, search_pb2
from brainy.bucket.embedding import EmbeddingIdentity, embedding_from_proto

Embedded = (
    data_pb2.UpsertNounsRequest | data_pb2.ImportNounsRequest | data_pb2.UpsertVerbsRequest | search_pb2.SearchRequest
)


def embedding_of(request: Embedded) -> EmbeddingIdentity | None:
    """Return the identity a request carries, or None.

    Raises:
        InvalidRequestError: it carries something else.
    """
    return embedding_from_proto(request.embedding) if request.HasField("embedding") else None
