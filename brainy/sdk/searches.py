"""Nearest-neighbour search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainy.api.node.v1 import search_pb2
from brainy.bucket.embedding import EmbeddingIdentity, embedding_to_proto
from brainy.errors import InvalidRequestError
from brainy.sdk.encoding import decode_metadata, encode_matrix, sendable
from brainy.sdk.texts import TextCalls, are_texts
from brainy.sdk.values import SearchResult


class SearchCalls(TextCalls):
    """Search the namespace, whichever node answers."""

    async def search(
        self,
        vector: npt.ArrayLike | str | None = None,
        k: int = 10,
        *,
        id: str | None = None,  # noqa: A002 - Brainy's own word
        include_metadata: bool = True,
        include_soft_deleted: bool = False,
        exact: bool = False,
        allow_partial: bool = False,
    ) -> list[SearchResult]:
        """Return the nearest nouns, nearest first.

        Args:
            vector: the query, one-dimensional; or a text, which is embedded here with the model the namespace's texts
                were embedded with (see ``AsyncBrainy.embedder``). Exclusive with ``id``.
            k: how many, 1 to 10,000; fewer come back if the namespace holds fewer.
            id: query with the vector of this stored noun, which is itself among the results.
            include_metadata: whether results carry metadata.
            include_soft_deleted: also nouns whose metadata carries Brainy's soft-delete marker.
            exact: compare with every vector instead of using the approximate index.
            allow_partial: answer from the shards that can be reached rather than wait or fail.

        Raises:
            InvalidRequestError: wrong dimension, NaN, k out of range, an empty text, or neither vector nor id.
            EmbeddingMismatchError: the namespace's texts were embedded with another model than this text.
            NotFoundError: no noun has this ``id``.
            UnavailableError: not all shards could be reached in time.
        """
        queries: npt.ArrayLike | Sequence[str] | None = None
        if isinstance(vector, str):
            queries = [vector]
        elif vector is not None:
            row = np.asarray(vector)
            if row.ndim != 1:
                raise InvalidRequestError(
                    "search takes one vector",
                    reason="INVALID_VECTOR",
                    remedy="use search_many for several",
                    shape=row.shape,
                )
            queries = row[np.newaxis]
        (hits,) = await self.search_many(
            queries,
            k,
            ids=None if id is None else [id],
            include_metadata=include_metadata,
            include_soft_deleted=include_soft_deleted,
            exact=exact,
            allow_partial=allow_partial,
        )
        return hits

    async def search_many(
        self,
        vectors: npt.ArrayLike | Sequence[str] | None = None,
        k: int = 10,
        *,
        ids: Sequence[str] | None = None,
        include_metadata: bool = True,
        include_soft_deleted: bool = False,
        exact: bool = False,
        allow_partial: bool = False,
    ) -> list[list[SearchResult]]:
        """Search with many queries in one message, which is many times faster than one by one.

        Args:
            vectors: n x dimensions, or n texts. Exclusive with ``ids``.
            k: as ``search``.
            ids: query with the vectors of these stored nouns.
            include_metadata: as ``search``.
            include_soft_deleted: as ``search``.
            exact: as ``search``.
            allow_partial: as ``search``.

        Returns:
            n lists, each as ``search`` returns.

        Raises:
            InvalidRequestError: as ``search``.
            EmbeddingMismatchError: as ``search``.
            NotFoundError: one of ``ids`` does not exist.
            UnavailableError: as ``search``.
        """
        if (vectors is None) == (ids is None):
            raise InvalidRequestError(
                "a search needs either vectors or ids", remedy="give the one or the other; nothing was sent"
            )
        if not 1 <= k <= 10_000:
            raise InvalidRequestError(
                "k must be 1 to 10,000",
                remedy="ask for 1 to 10,000 neighbours; nothing was sent",
                reason="INVALID_K",
                k=k,
            )
        request = search_pb2.SearchRequest(
            namespace=self.namespace,
            ids=None if ids is None else [sendable(text) for text in ids],
            k=k,
            include_metadata=include_metadata,
            include_soft_deleted=include_soft_deleted,
            exact=exact,
            allow_partial=allow_partial,
            session=self._session.tokens(),
            session_id=self._session.id,
        )

        async def send(queries: npt.ArrayLike, model: EmbeddingIdentity | None) -> list[list[SearchResult]]:
            request.vectors, request.dimensions = encode_matrix(queries)
            if model is not None:
                request.embedding.CopyFrom(embedding_to_proto(model))
            return await self._ask(request)

        if vectors is None:
            return await self._ask(request)
        if are_texts(vectors):
            return await self._with_vectors(vectors, send)
        return await send(vectors, None)

    async def _ask(self, request: search_pb2.SearchRequest) -> list[list[SearchResult]]:
        return _results(await self._nodes.unary(lambda node: node.search.Search, request, self._read))


def _results(answer: search_pb2.SearchResponse) -> list[list[SearchResult]]:
    # float32 arithmetic would print 0.30000001192092896 as a score; round to what float32 can tell apart.
    distances = np.frombuffer(answer.distances, dtype="<f4").astype(np.float64)
    scores = np.round(1.0 - distances, 7).tolist()
    columns = zip(
        answer.ids,
        distances.tolist(),
        scores,
        map(decode_metadata, answer.metadata) if answer.metadata else [None] * len(answer.ids),
        strict=True,
    )
    hits = [SearchResult(*row) for row in columns]
    ends = np.cumsum(answer.counts, dtype=np.int64).tolist()
    return [hits[end - count : end] for end, count in zip(ends, answer.counts, strict=True)]
