"""Search: from a request to merged columns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import search_pb2, shard_pb2
from brainy.bucket.embedding import check_same_model
from brainy.bucket.records import Spec
from brainy.clock import Clock, Deadline
from brainy.errors import InvalidRequestError, NotFoundError
from brainy.rpc.channel import call
from brainy_node.router.embeddings import embedding_of
from brainy_node.router.fan_out import FanOut, Target
from brainy_node.router.held import by_shard, held
from brainy_node.router.reads import ItemsQuestion, gather_items
from brainy_node.router.sessions import settle
from brainy_node.router.validation import check_ids, check_k, query_matrix
from brainy_node.router.view import View
from brainy_node.router.weighted import WeightedReads
from brainy_node.runtime.ports import NamespaceRuntime
from brainy_node.shard.hits import Hits, merge_hits
from brainy_node.shard.shard import Shard

if TYPE_CHECKING:  # exists in the generated stubs only
    from brainy.api.node.v1.shard_pb2_grpc import ShardServiceAsyncStub
    from brainy_node.router.shadow import ShadowReads

#: From this many queries on, and for exact scans, the work leaves the event loop's thread.
THREAD_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuestion:
    """The nearest ``k`` nouns of each query."""

    #: Row-major little-endian float32: what ``matrix`` views, and what goes to peers as it is.
    vectors: bytes
    #: n x dimensions.
    matrix: npt.NDArray[np.float32]
    k: int
    include_metadata: bool = False
    include_soft_deleted: bool = False
    exact: bool = False
    session: Sequence[common_pb2.Position] = ()

    async def local(self, runtime: NamespaceRuntime, target: Target, deadline: Deadline) -> Hits:
        """Search local replicas, after they have caught up with the session."""
        await settle(runtime, target.generation, target.shards, self.session, deadline)
        shards = [held(runtime, target.generation, shard) for shard in target.shards]
        if self.exact or len(self.matrix) >= THREAD_BATCH:
            return await asyncio.to_thread(self.search_held, shards)
        return self.search_held(shards)

    def search_held(self, shards: Sequence[Shard]) -> Hits:
        """Search replicas and merge; may be called in a thread."""
        parts = []
        for shard in shards:
            hits = shard.search(self.matrix, self.k, exact=self.exact, include_soft_deleted=self.include_soft_deleted)
            if self.include_metadata and hits.metadata is None:
                hits = replace(hits, metadata=shard.metadata_of(hits))
            parts.append(hits)
        return merge_hits(parts, self.k)

    async def remote(self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline) -> Hits:
        """Let a peer search its replicas; it merges them."""
        answer = await call(peer.SearchShards, self.request(target), deadline=deadline)
        return Hits.from_columns(
            answer.counts,
            answer.ids,
            answer.distances,
            answer.metadata if self.include_metadata else None,
        )

    def request(self, target: Target) -> shard_pb2.SearchShardsRequest:
        """Build the request to a peer."""
        return shard_pb2.SearchShardsRequest(
            namespace=target.namespace,
            generation=target.generation,
            shards=target.shards,
            vectors=self.vectors,
            dimensions=self.matrix.shape[1],
            k=self.k,
            include_metadata=self.include_metadata,
            include_soft_deleted=self.include_soft_deleted,
            exact=self.exact,
            session=self.session,
        )


class SearchRouter:
    """Answers SearchService for the whole namespace."""

    def __init__(
        self, fan_out: FanOut, weighted: WeightedReads, shadow: ShadowReads, *, clock: Clock, max_batch: int
    ) -> None:
        self._fan_out = fan_out
        self._weighted = weighted
        self._shadow = shadow
        self._clock = clock
        self._max_batch = max_batch
        #: Queries answered and the seconds their calls took, since the start.
        self.queries = 0
        self.calls = 0
        self.seconds = 0.0

    async def search(
        self, runtime: NamespaceRuntime, request: search_pb2.SearchRequest, deadline: Deadline
    ) -> search_pb2.SearchResponse:
        """Validate, resolve queries by id, ask every shard, merge.

        Raises:
            InvalidRequestError: INVALID_K, INVALID_DIMENSION, INVALID_VECTOR, INVALID_ID, BATCH_TOO_LARGE.
            EmbeddingMismatchError: the namespace's texts were embedded with another model than the queries.
            NotFoundError: a query's id.
            UnavailableError: a shard has no replica that answers.
        """
        started = self._clock.monotonic()
        if bool(request.vectors) == bool(request.ids):
            raise InvalidRequestError("a search needs either vectors or ids", remedy="set exactly one of the two")
        check_k(request.k, max(1, len(request.ids)))
        check_ids(request.ids, self._max_batch)

        async def act(view: View, deadline: Deadline) -> search_pb2.SearchResponse:
            return await self._search(runtime, view, request, deadline)

        response = await self._weighted.reading(runtime, request.session, request.session_id, deadline, act)
        self.queries += len(response.counts)
        self.calls += 1
        self.seconds += self._clock.monotonic() - started
        return response

    async def _search(
        self,
        runtime: NamespaceRuntime,
        view: View,
        request: search_pb2.SearchRequest,
        deadline: Deadline,
    ) -> search_pb2.SearchResponse:
        spec = await runtime.spec(view.generation)
        embedding = embedding_of(request)
        if embedding is not None:
            check_same_model(embedding, await runtime.embedding(view.generation))
        vectors, dimensions = request.vectors, request.dimensions
        if request.ids:
            vectors, dimensions = await self._vectors_of(runtime, view, request, spec, deadline)
        matrix = query_matrix(vectors, dimensions, spec)
        check_k(request.k, len(matrix))
        question = SearchQuestion(
            vectors=vectors,
            matrix=matrix,
            k=request.k,
            include_metadata=request.include_metadata,
            include_soft_deleted=request.include_soft_deleted,
            exact=request.exact,
            session=request.session,
        )
        missing: Sequence[int] = ()
        if not spec.dimensions:  # nothing was ever written
            hits = Hits.none(len(matrix))
        else:
            # A generation that is only tried answers whole or not at all: the one in service may have the rest.
            partial = request.allow_partial and not view.tried
            answer = await self._fan_out.ask(runtime, view, question, view.shards, deadline, allow_partial=partial)
            missing = answer.missing
            hits = merge_hits(answer.parts, request.k) if answer.parts else Hits.none(len(matrix))
            if not missing:
                self._shadow.searched(runtime, view, question)
        return search_pb2.SearchResponse(
            header=view.header(runtime.node_id, missing),
            counts=hits.counts.tolist(),
            ids=hits.ids,
            distances=distance_bytes(hits),
            metadata=hits.metadata if request.include_metadata else None,
        )

    async def _vectors_of(
        self,
        runtime: NamespaceRuntime,
        view: View,
        request: search_pb2.SearchRequest,
        spec: Spec,
        deadline: Deadline,
    ) -> tuple[bytes, int]:
        question = ItemsQuestion(
            nouns=by_shard(request.ids, view.placement.shard_count),
            include_vectors=True,
            session=request.session,
        )
        found = await gather_items(self._fan_out, runtime, view, question, deadline)
        vectors = {noun.id: noun.vector for noun in found.nouns}
        rows = []
        for index, item_id in enumerate(request.ids):
            vector = vectors.get(item_id)
            if vector is None:
                raise NotFoundError(
                    "no noun has this id", remedy="query by a stored noun's id", index=index, id=item_id[:64]
                )
            if len(vector) != 4 * spec.dimensions:
                raise InvalidRequestError(
                    "the noun has no vector to search by",
                    reason="INVALID_VECTOR",
                    remedy="query by vector, or by a noun that is indexed",
                    index=index,
                    id=item_id[:64],
                )
            rows.append(vector)
        return b"".join(rows), spec.dimensions


def distance_bytes(hits: Hits) -> bytes:
    """Return the distances as they travel: little-endian float32."""
    return hits.distances.astype("<f4", copy=False).tobytes()
