"""The work of one import of sparse data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import orjson

from brainy.api.common.v1 import common_pb2
from brainy.bucket.embedding import EmbeddingIdentity
from brainy.errors import InvalidRequestError
from brainy.sdk.nouns import BATCH_BYTES
from brainy.sdk.sparse import Row
from brainy.sdk.sparse_rows import Prepared, RowReader
from brainy.sdk.texts import TextModel
from brainy.sdk.values import ImportResult, Noun, SkippedRow, Verb

if TYPE_CHECKING:
    from brainy.embedding.opening import EmbedderLike
    from brainy.sdk.imports import ImportCalls

T = TypeVar("T", common_pb2.Noun, common_pb2.Verb)

#: Rows embedded at once. What is embedded but not yet written is lost with the process: two windows at most.
WINDOW_ROWS = 256


@dataclass(slots=True)
class Window:
    """Rows that are embedded together and written together."""

    rows: list[Prepared[Any]] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    size: int = 0

    def takes(self, row: Prepared[Any]) -> bool:
        """Whether a row fits; a second one of an id belongs into a later window, so that it is written later."""
        return len(self.rows) < WINDOW_ROWS and self.size < BATCH_BYTES and row.item.id not in self.ids

    def add(self, row: Prepared[Any]) -> None:
        self.rows.append(row)
        self.ids.add(row.item.id)
        self.size += row.size


class ImportRun:
    """One call of ``import_sparse_data`` under way."""

    def __init__(
        self,
        client: ImportCalls,
        embedder: EmbedderLike | None,
        total: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self._client = client
        self._embedder = embedder
        self._model: TextModel | None = None
        self._reader = RowReader()
        self._total = total
        self._on_progress = on_progress
        self._skipped: list[SkippedRow] = []
        self._embedded = 0
        self._unchanged = 0
        self.nouns_written = 0
        self.verbs_written = 0
        #: Hashes of the ids this call has dealt with: their stored rows are its own.
        self._seen: set[int] = set()
        self._writing: asyncio.Task[None] | None = None

    def result(self) -> ImportResult:
        return ImportResult(
            nouns_imported=self.nouns_written,
            verbs_imported=self.verbs_written,
            embedded=self._embedded,
            unchanged=self._unchanged,
            skipped=tuple(sorted(self._skipped, key=lambda row: (row.kind, row.number))),
        )

    async def nouns(self, rows: Iterator[Row]) -> None:
        """Embed and write window after window."""
        await self._all("noun", rows, self._reader.noun, self._noun_window)

    async def verbs(self, rows: Iterator[Row]) -> None:
        """Likewise."""
        await self._all("verb", rows, self._reader.verb, self._verb_window)

    async def _all(
        self,
        kind: str,
        rows: Iterator[Row],
        prepare: Callable[[Row], Prepared[Any]],
        handle: Callable[[list[Prepared[Any]]], Coroutine[Any, Any, None]],
    ) -> None:
        waiting: list[Prepared[Any]] = []
        try:
            while True:
                window, waiting, done = await asyncio.to_thread(self._fill, kind, rows, prepare, waiting)
                if window.rows:
                    await handle(window.rows)
                if done and not waiting:
                    break
            await self._written()
        except BaseException as error:
            if self._writing is not None:
                # What went wrong was the next window: this one shall be written, and counted.
                if not isinstance(error, Exception):
                    self._writing.cancel()
                await asyncio.gather(self._writing, return_exceptions=True)
            raise

    def _fill(
        self, kind: str, rows: Iterator[Row], prepare: Callable[[Row], Prepared[Any]], waiting: list[Prepared[Any]]
    ) -> tuple[Window, list[Prepared[Any]], bool]:
        window = Window()
        for prepared in waiting:
            window.add(prepared)
        for row in rows:
            try:
                prepared = prepare(row)
            except InvalidRequestError as error:
                self._skip(kind, row.number, error.fields.get("id") or _id_in(row.value), error)
                continue
            if not window.takes(prepared):
                return window, [prepared], False
            window.add(prepared)
        return window, [], True

    async def _noun_window(self, rows: list[Prepared[common_pb2.Noun]]) -> None:
        async def stored(ids: list[str]) -> dict[str, Noun]:
            return await self._client.get_many(ids)

        kept = await self._without_stored("noun", rows, stored)
        await self._embed(kept)
        await self._hand_over(self._write_nouns(kept))

    async def _verb_window(self, rows: list[Prepared[common_pb2.Verb]]) -> None:
        # The nouns of the last window are among the ends.
        await self._written()
        ends = {end for row in rows for end in (row.item.source_id, row.item.target_id)}
        found = await self._client.get_many(ends, include_vectors=False)
        joined = []
        for row in rows:
            absent = next((end for end in (row.item.source_id, row.item.target_id) if end not in found), None)
            if absent is None:
                joined.append(row)
                continue
            error = InvalidRequestError(f"an end of the verb does not exist: {absent[:64]}", reason="NOT_FOUND")
            self._skip("verb", row.number, row.item.id, error)

        async def stored(ids: list[str]) -> dict[str, Verb]:
            return await self._client.get_verbs(ids)

        kept = await self._without_stored("verb", joined, stored)
        await self._embed(kept)
        await self._hand_over(self._write_verbs(kept))

    async def _without_stored(
        self,
        kind: str,
        rows: list[Prepared[T]],
        read: Callable[[list[str]], Coroutine[Any, Any, Mapping[str, Noun | Verb]]],
    ) -> list[Prepared[T]]:
        """Leave out what an earlier call has embedded and stored."""
        texts = [row for row in rows if row.text and hash((kind, row.item.id)) not in self._seen]
        self._seen.update(hash((kind, row.item.id)) for row in rows)
        if not texts:
            return rows
        model = await self._opened()
        if model.recorded is None:
            return rows
        try:
            stored = await read([row.item.id for row in texts])
        except InvalidRequestError as error:
            if error.reason != "BATCH_TOO_LARGE":
                raise
            return rows  # what is stored there is huge: writing it again does no harm
        done = {
            row.item.id
            for row in texts
            if row.item.id in stored and _same(stored[row.item.id], row.item, model.identity.dimensions)
        }
        self._unchanged += len(done)
        return [row for row in rows if row.item.id not in done]

    async def _opened(self) -> TextModel:
        if self._model is None:
            self._model = await self._client._model(self._embedder, fresh=True)
        return self._model

    async def _embed(self, rows: list[Prepared[Any]]) -> None:
        texts = [row for row in rows if row.text]
        if texts:
            model = await self._opened()
            vectors = await model.embed([row.text for row in texts])
            for row, vector in zip(texts, vectors.astype("<f4", copy=False), strict=True):
                row.item.vector = vector.tobytes()

    async def _hand_over(self, write: Coroutine[Any, Any, None]) -> None:
        """Begin a write once the one before has ended."""
        try:
            await self._written()
        except BaseException:
            write.close()
            raise
        self._writing = asyncio.ensure_future(write)

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def _write_nouns(self, rows: list[Prepared[common_pb2.Noun]]) -> None:
        client = self._client

        async def send(part: list[Prepared[common_pb2.Noun]], embedding: EmbeddingIdentity | None) -> None:
            await client._upsert([row.item for row in part], embedding=embedding)
            self.nouns_written += len(part)

        await self._send_all("noun", rows, send)

    async def _write_verbs(self, rows: list[Prepared[common_pb2.Verb]]) -> None:
        client = self._client

        async def send(part: list[Prepared[common_pb2.Verb]], embedding: EmbeddingIdentity | None) -> None:
            await client._upsert_verbs([row.item for row in part], embedding=embedding)
            self.verbs_written += len(part)

        await self._send_all("verb", rows, send)

    async def _send_all(
        self,
        kind: str,
        rows: list[Prepared[T]],
        send: Callable[[list[Prepared[T]], EmbeddingIdentity | None], Coroutine[Any, Any, None]],
    ) -> None:
        for made in (True, False):
            part = [row for row in rows if bool(row.text) is made]
            identity = self._model.identity if made and self._model else None
            while part:
                try:
                    await send(part, identity)
                except InvalidRequestError as error:
                    # All rows of a message are checked before any is written: leave out the one it names.
                    place = error.fields.get("index", "")
                    if not place.isdecimal() or int(place) >= len(part):
                        raise
                    for refused in _like(part, int(place), error):
                        self._skip(kind, refused.number, refused.item.id, error)
                        part.remove(refused)
                    continue
                self._embedded += len(part) if made else 0
                break
        if self._on_progress:
            done = self.nouns_written + self.verbs_written + self._unchanged + len(self._skipped)
            self._on_progress(done, self._total)

    def _skip(self, kind: str, number: int, row_id: str, error: InvalidRequestError) -> None:
        self._skipped.append(
            SkippedRow(kind=kind, number=number, id=row_id, reason=error.reason, message=error.message)
        )


def _like(part: list[Prepared[T]], place: int, error: InvalidRequestError) -> list[Prepared[T]]:
    """The row a message was refused for, and those that are refused for the same length of their vectors."""
    if error.reason != "INVALID_DIMENSION":
        return [part[place]]
    length = len(part[place].item.vector)
    return [row for row in part if len(row.item.vector) == length]


def _id_in(value: Any) -> str:
    given = value.get("id") if isinstance(value, Mapping) else None
    return given[:64].encode("utf-8", "replace").decode() if isinstance(given, str) else ""


def _same(stored: Noun | Verb, wanted: common_pb2.Noun | common_pb2.Verb, dimensions: int) -> bool:
    """Whether a stored item is the one wanted, with a vector that a search can find."""
    vector = stored.vector
    if vector is None or len(vector) != dimensions or not np.isfinite(vector).all() or not vector.any():
        return False
    if isinstance(stored, Verb) and isinstance(wanted, common_pb2.Verb):
        weight = wanted.weight if wanted.HasField("weight") else None
        if (stored.source, stored.target, stored.type, stored.weight) != (
            wanted.source_id,
            wanted.target_id,
            wanted.type,
            weight,
        ):
            return False
    kept = stored.metadata_json
    return kept is not None and (kept == wanted.metadata or orjson.loads(kept) == orjson.loads(wanted.metadata))
