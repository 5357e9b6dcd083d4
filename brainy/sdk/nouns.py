"""Calls about nouns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import data_pb2
from brainy.bucket.embedding import EmbeddingIdentity, embedding_to_proto
from brainy.errors import InvalidRequestError
from brainy.sdk.encoding import encode_matrix, encode_metadata, encode_vector, noun_from_wire, sendable
from brainy.sdk.texts import TextCalls
from brainy.sdk.values import Json, NewNoun, Noun

#: One message: at most this many items and about this many bytes.
BATCH_ITEMS = 1000
BATCH_BYTES = 4 << 20
#: Messages of a bulk call under way at once.
IN_FLIGHT = 4


class NounCalls(TextCalls):
    """Read, scan and write nouns."""

    async def add(self, vector: npt.ArrayLike | str, metadata: Json = None, id: str | None = None) -> str:  # noqa: A002 - Brainy's own word
        """Insert or replace a noun. Durable in the object store when this returns.

        Args:
            vector: one-dimensional, as long as the namespace's vectors; stored as float32. Or a text, which is
                embedded here (see ``AsyncBrainy.embedder``).
            metadata: any JSON value; None stores none, or ``{"text": ...}`` with a text.
            id: 1 to 1,024 bytes of UTF-8; a UUID is made if it is left out.

        Returns:
            The id.

        Raises:
            InvalidRequestError: the vector, the metadata or the id is not acceptable; nothing was written.
            EmbeddingMismatchError: the namespace's texts were embedded with another model; nothing was written.
            OutcomeUnknownError: not confirmed in time; repeat it with the same id.
        """
        if isinstance(vector, str):
            kept = {"text": vector} if metadata is None else metadata
            noun = self._noun([0.0], kept, id)  # refuses a bad id or metadata before anything is embedded

            async def send(rows: npt.NDArray[np.float32], model: EmbeddingIdentity) -> list[str]:
                noun.vector = encode_vector(rows[0])
                return await self._upsert([noun], embedding=model)

            (noun_id,) = await self._with_vectors([vector], send)
            return noun_id
        (noun_id,) = await self._upsert([self._noun(vector, metadata, id)])
        return noun_id

    async def add_many(
        self,
        vectors: npt.ArrayLike,
        metadata: Sequence[Json] | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[str]:
        """Insert or replace many nouns, in messages of up to 1,000.

        All nouns of one message are validated before any is written. On an error, earlier messages may have
        been written; repeating the call with the same ids is safe.

        Args:
            vectors: n x dimensions.
            metadata: n JSON values, or None.
            ids: n ids, or None to make UUIDs.

        Returns:
            The n ids.

        Raises:
            InvalidRequestError: the columns differ in length, or as ``add``.
            OutcomeUnknownError: as ``add``.
        """
        body, dimensions = encode_matrix(vectors)
        width = 4 * dimensions
        count = len(body) // width
        for name, column in (("metadata", metadata), ("ids", ids)):
            if column is not None and len(column) != count:
                raise InvalidRequestError(
                    f"{name} must have one entry per vector",
                    remedy="give as many entries as vectors; nothing was sent",
                    vectors=count,
                    entries=len(column),
                )
        nouns = [
            common_pb2.Noun(
                id=sendable(ids[row]) if ids is not None else self._ids.uuid(),
                vector=body[row * width : (row + 1) * width],
                metadata=encode_metadata(metadata[row]) if metadata is not None else None,
            )
            for row in range(count)
        ]
        await self._write_all(_batches(nouns))
        return [noun.id for noun in nouns]

    async def import_nouns(
        self,
        nouns: Iterable[NewNoun] | AsyncIterable[NewNoun],
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Insert or replace nouns from an iterator of any length, in bounded memory.

        A few messages of up to 1,000 nouns are under way at once; the iterator is read no faster than they are
        acknowledged. If two nouns have the same id, either may win.

        Args:
            nouns: what to write.
            on_progress: called with the number of nouns acknowledged so far.

        Returns:
            How many were written.

        Raises:
            InvalidRequestError: as ``add``; earlier messages have been written.
            OutcomeUnknownError: as ``add``.
        """
        written = 0
        pending: set[asyncio.Task[list[str]]] = set()
        try:
            async for batch in _abatches(self._noun(new.vector, new.metadata, new.id) async for new in _each(nouns)):
                if len(pending) >= IN_FLIGHT:
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    written += sum(len(task.result()) for task in done)
                    if on_progress:
                        on_progress(written)
                pending.add(asyncio.ensure_future(self._upsert(batch)))
            for ids in await asyncio.gather(*pending):
                written += len(ids)
                if on_progress:
                    on_progress(written)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        return written

    async def get(self, id: str, *, include_vector: bool = True) -> Noun | None:  # noqa: A002 - Brainy's own word
        """Read a noun; None if it does not exist."""
        return (await self.get_many([id], include_vectors=include_vector)).get(id)

    async def get_many(self, ids: Iterable[str], *, include_vectors: bool = True) -> dict[str, Noun]:
        """Read nouns by id. Those that do not exist are left out."""
        wanted = list(dict.fromkeys(map(sendable, ids)))
        found: dict[str, Noun] = {}
        for start in range(0, len(wanted), BATCH_ITEMS):
            request = data_pb2.GetNounsRequest(
                namespace=self.namespace,
                ids=wanted[start : start + BATCH_ITEMS],
                include_vectors=include_vectors,
                session=self._session.tokens(),
                session_id=self._session.id,
            )
            answer = await self._nodes.unary(lambda node: node.nouns.GetNouns, request, self._read)
            found.update((noun.id, noun_from_wire(noun)) for noun in answer.nouns)
        return found

    async def scan(
        self, *, include_vectors: bool = True, include_soft_deleted: bool = False
    ) -> AsyncGenerator[Noun, None]:
        """Yield every noun once, in no particular order.

        If the node fails on the way another goes on; ids already handed out are remembered for that. A noun
        written or deleted while the scan runs may or may not be seen.

        Args:
            include_vectors: whether to fetch vectors.
            include_soft_deleted: also nouns whose metadata carries Brainy's soft-delete marker.
        """
        request = data_pb2.ScanNounsRequest(
            namespace=self.namespace,
            include_vectors=include_vectors,
            include_soft_deleted=include_soft_deleted,
        )
        seen: set[str] = set()
        async for answer in self._nodes.stream(lambda node: node.nouns.ScanNouns, request, self._scan):
            for noun in answer.nouns:
                if noun.id not in seen:
                    seen.add(noun.id)
                    yield noun_from_wire(noun)

    async def delete(self, id: str) -> None:  # noqa: A002 - Brainy's own word
        """Delete a noun; deleting one that does not exist succeeds. Its verbs stay."""
        await self.delete_many([id])

    async def delete_many(self, ids: Iterable[str]) -> None:
        """Delete nouns, in messages of up to 1,000."""
        gone = list(dict.fromkeys(map(sendable, ids)))
        for start in range(0, len(gone), BATCH_ITEMS):
            request = data_pb2.DeleteNounsRequest(
                namespace=self.namespace,
                request_id=self._changing(),
                ids=gone[start : start + BATCH_ITEMS],
            )
            answer = await self._nodes.unary(lambda node: node.nouns.DeleteNouns, request, self._write)
            self._session.note(answer.positions)

    def _noun(self, vector: npt.ArrayLike, metadata: Json, noun_id: str | None) -> common_pb2.Noun:
        return common_pb2.Noun(
            id=self._ids.uuid() if noun_id is None else sendable(noun_id),
            vector=encode_vector(vector),
            metadata=encode_metadata(metadata),
        )

    async def _write_all(self, batches: Iterable[list[common_pb2.Noun]]) -> None:
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def write(batch: list[common_pb2.Noun]) -> None:
            async with gate:
                await self._upsert(batch)

        tasks = [asyncio.ensure_future(write(batch)) for batch in batches]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _upsert(self, nouns: list[common_pb2.Noun], *, embedding: EmbeddingIdentity | None = None) -> list[str]:
        request = data_pb2.UpsertNounsRequest(
            namespace=self.namespace,
            request_id=self._changing(),
            nouns=nouns,
            embedding=None if embedding is None else embedding_to_proto(embedding),
        )
        answer = await self._nodes.unary(lambda node: node.nouns.UpsertNouns, request, self._write)
        self._session.note(answer.positions)
        return [noun.id for noun in nouns]


def _batches(nouns: Iterable[common_pb2.Noun]) -> Iterable[list[common_pb2.Noun]]:
    batch: list[common_pb2.Noun] = []
    size = 0
    for noun in nouns:
        if batch and (len(batch) >= BATCH_ITEMS or size >= BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(noun)
        size += len(noun.vector) + len(noun.metadata) + len(noun.id)
    if batch:
        yield batch


async def _abatches(nouns: AsyncIterator[common_pb2.Noun]) -> AsyncIterator[list[common_pb2.Noun]]:
    batch: list[common_pb2.Noun] = []
    size = 0
    async for noun in nouns:
        if batch and (len(batch) >= BATCH_ITEMS or size >= BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(noun)
        size += len(noun.vector) + len(noun.metadata) + len(noun.id)
    if batch:
        yield batch


async def _each(nouns: Iterable[NewNoun] | AsyncIterable[NewNoun]) -> AsyncIterator[NewNoun]:
    if isinstance(nouns, AsyncIterable):
        async for noun in nouns:
            yield noun
    else:
        for noun in nouns:
            yield noun
