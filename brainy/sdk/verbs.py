"""Calls about verbs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

import numpy.typing as npt

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import data_pb2
from brainy.bucket.embedding import EmbeddingIdentity, embedding_to_proto
from brainy.errors import InvalidRequestError
from brainy.sdk.connection import Connection
from brainy.sdk.encoding import encode_metadata, encode_vector, sendable, verb_from_wire
from brainy.sdk.nouns import BATCH_ITEMS
from brainy.sdk.values import Json, Verb


class VerbCalls(Connection):
    """Read, find and write verbs."""

    async def add_verb(
        self,
        source: str,
        target: str,
        type: str,  # noqa: A002 - Brainy's own word
        metadata: Json = None,
        *,
        weight: float | None = None,
        vector: npt.ArrayLike | None = None,
        id: str | None = None,  # noqa: A002 - Brainy's own word
    ) -> str:
        """Insert or replace a relation. Durable in the object store when this returns.

        The nouns it joins need not exist.

        Args:
            source: id of the noun it starts from.
            target: id of the noun it leads to.
            type: what the relation is, such as ``relatedTo``.
            metadata: any JSON value; None stores none.
            weight: strength of the relation, if it has one.
            vector: the relation's own vector, if it has one; any length.
            id: a UUID is made if it is left out.

        Returns:
            The id.

        Raises:
            InvalidRequestError: a value is not acceptable; nothing was written.
            OutcomeUnknownError: not confirmed in time; repeat it with the same id.
        """
        verb = common_pb2.Verb(
            id=self._ids.uuid() if id is None else sendable(id),
            source_id=sendable(source),
            target_id=sendable(target),
            type=sendable(type),
            weight=weight,
            vector=b"" if vector is None else encode_vector(vector),
            metadata=encode_metadata(metadata),
        )
        await self._upsert_verbs([verb])
        return verb.id

    async def _upsert_verbs(self, verbs: list[common_pb2.Verb], *, embedding: EmbeddingIdentity | None = None) -> None:
        request = data_pb2.UpsertVerbsRequest(
            namespace=self.namespace,
            request_id=self._changing(),
            verbs=verbs,
            embedding=None if embedding is None else embedding_to_proto(embedding),
        )
        answer = await self._nodes.unary(lambda node: node.verbs.UpsertVerbs, request, self._write)
        self._session.note(answer.positions)

    async def get_verb(self, id: str, *, include_vector: bool = True) -> Verb | None:  # noqa: A002 - Brainy's own word
        """Read a verb; None if it does not exist."""
        return (await self.get_verbs([id], include_vectors=include_vector)).get(id)

    async def get_verbs(self, ids: Iterable[str], *, include_vectors: bool = True) -> dict[str, Verb]:
        """Read verbs by id. Those that do not exist are left out."""
        wanted = list(dict.fromkeys(map(sendable, ids)))
        found: dict[str, Verb] = {}
        for start in range(0, len(wanted), BATCH_ITEMS):
            request = data_pb2.GetVerbsRequest(
                namespace=self.namespace,
                ids=wanted[start : start + BATCH_ITEMS],
                include_vectors=include_vectors,
                session=self._session.tokens(),
                session_id=self._session.id,
            )
            answer = await self._nodes.unary(lambda node: node.verbs.GetVerbs, request, self._read)
            found.update((verb.id, verb_from_wire(verb)) for verb in answer.verbs)
        return found

    async def find_verbs(
        self,
        *,
        source: str | None = None,
        target: str | None = None,
        type: str | None = None,  # noqa: A002 - Brainy's own word
        include_vectors: bool = False,
    ) -> list[Verb]:
        """Return the verbs that match all that is given.

        Raises:
            InvalidRequestError: nothing is given; ``scan_verbs`` walks through all of them.
        """
        if source is None and target is None and type is None:
            raise InvalidRequestError(
                "find_verbs needs a source, a target or a type", remedy="use scan_verbs to walk through all"
            )
        found = self.scan_verbs(source=source, target=target, type=type, include_vectors=include_vectors)
        return [verb async for verb in found]

    async def scan_verbs(
        self,
        *,
        source: str | None = None,
        target: str | None = None,
        type: str | None = None,  # noqa: A002 - Brainy's own word
        include_vectors: bool = True,
    ) -> AsyncGenerator[Verb, None]:
        """Yield every verb that matches once, in no particular order. Survives nodes like ``scan``."""
        request = data_pb2.FindVerbsRequest(
            namespace=self.namespace,
            source_id=None if source is None else sendable(source),
            target_id=None if target is None else sendable(target),
            type=None if type is None else sendable(type),
            include_vectors=include_vectors,
            session=self._session.tokens(),
            session_id=self._session.id,
        )
        seen: set[str] = set()
        async for answer in self._nodes.stream(lambda node: node.verbs.FindVerbs, request, self._scan):
            for verb in answer.verbs:
                if verb.id not in seen:
                    seen.add(verb.id)
                    yield verb_from_wire(verb)

    async def delete_verb(self, id: str) -> None:  # noqa: A002 - Brainy's own word
        """Delete a verb; deleting one that does not exist succeeds."""
        await self.delete_verbs([id])

    async def delete_verbs(self, ids: Iterable[str]) -> None:
        """Delete verbs, in messages of up to 1,000."""
        gone = list(dict.fromkeys(map(sendable, ids)))
        for start in range(0, len(gone), BATCH_ITEMS):
            request = data_pb2.DeleteVerbsRequest(
                namespace=self.namespace,
                request_id=self._changing(),
                ids=gone[start : start + BATCH_ITEMS],
            )
            answer = await self._nodes.unary(lambda node: node.verbs.DeleteVerbs, request, self._write)
            self._session.note(answer.positions)
