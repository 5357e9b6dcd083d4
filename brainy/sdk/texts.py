"""Texts instead of vectors: embedded by the client, with the model the namespace's texts were embedded with."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from brainy.api.node.v1 import data_pb2
from brainy.bucket.embedding import EmbeddingIdentity, check_same_model, embedding_from_proto
from brainy.errors import EmbeddingMismatchError, InvalidRequestError
from brainy.sdk.connection import Connection

if TYPE_CHECKING:  # embedders import what connects to endpoints, which a client of vectors never needs
    from brainy.embedding.base import Embedder
    from brainy.embedding.opening import EmbedderLike


R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """An embedder at work for a namespace."""

    embedder: Embedder
    identity: EmbeddingIdentity
    #: What the namespace's texts were embedded with when it was last asked; None while nothing was.
    recorded: EmbeddingIdentity | None

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return n x dimensions, made in another thread and checked."""
        from brainy.embedding.base import as_vectors

        answer = await asyncio.to_thread(self.embedder.embed, texts)
        return as_vectors(answer, len(texts), dimensions=self.identity.dimensions, model=self.identity.model)


class TextCalls(Connection):
    """Chooses what texts are embedded with."""

    #: What this client embeds texts with: "minilm", ``http(s)://host/...#model``, a function, or an ``Embedder``.
    #: None: whatever is recorded in the namespace; with nothing recorded, the model Brainy uses.
    embedder: EmbedderLike | None = None
    _text_model: tuple[EmbedderLike | None, TextModel] | None = None

    @functools.cached_property
    def _own_embedders(self) -> list[Embedder]:
        return []

    async def _model(self, wanted: EmbedderLike | None = None, *, fresh: bool = False) -> TextModel:
        """Return the embedder to use.

        Args:
            wanted: instead of the client's own.
            fresh: ask the namespace again what is recorded.

        Raises:
            EmbeddingMismatchError: the namespace's texts were embedded with another model.
            PreconditionError: the model is not installed here.
        """
        wanted = self.embedder if wanted is None else wanted
        known = self._text_model
        alike = known is not None and _alike(known[0], wanted)
        # A node refuses vectors of another model than the recorded one, so what is known here need not be new.
        if known is not None and alike and not fresh:
            return known[1]
        answer = await self._nodes.unary(
            lambda node: node.statistics.GetStatistics,
            data_pb2.GetStatisticsRequest(namespace=self.namespace),
            self._read,
        )
        recorded = embedding_from_proto(answer.embedding) if answer.HasField("embedding") else None
        if known is not None and (known[1].identity == recorded if wanted is None else alike):
            opened = replace(known[1], recorded=recorded)
        else:
            opened = await asyncio.to_thread(_open, wanted, recorded, answer.dimensions)
            if isinstance(wanted, str | None):
                self._own_embedders.append(opened.embedder)
        check_same_model(opened.identity, recorded)
        self._text_model = (wanted, opened)
        return opened

    async def _with_vectors(
        self,
        texts: Sequence[str],
        send: Callable[[npt.NDArray[np.float32], EmbeddingIdentity], Coroutine[Any, Any, R]],
    ) -> R:
        """Embed texts of a caller and send them; once more if the namespace meanwhile records another model.

        Raises:
            InvalidRequestError: one of them is blank (NO_TEXT).
            EmbeddingMismatchError: the namespace's texts were embedded with another model than the client's own.
        """
        for place, text in enumerate(texts):
            if not text.strip():
                raise InvalidRequestError(
                    "a text is empty", reason="NO_TEXT", remedy="give a text with words in it", index=place
                )
        model = await self._model()
        try:
            return await send(await model.embed(texts), model.identity)
        except EmbeddingMismatchError:
            if self.embedder is not None:
                raise
        model = await self._model(fresh=True)
        return await send(await model.embed(texts), model.identity)

    async def close(self) -> None:
        """Close the connections, also those of embedders that this client opened."""
        for embedder in self._own_embedders:
            close = getattr(embedder, "close", None)
            if close is not None:
                close()
        self._own_embedders.clear()
        self._text_model = None
        await super().close()


def _alike(one: EmbedderLike | None, other: EmbedderLike | None) -> bool:
    return one is other or (isinstance(one, str) and one == other)


def _open(wanted: EmbedderLike | None, recorded: EmbeddingIdentity | None, dimensions: int) -> TextModel:
    from brainy.embedding.opening import embedder_for, open_embedder

    embedder = embedder_for(recorded, dimensions) if wanted is None else open_embedder(wanted)
    return TextModel(embedder=embedder, identity=embedder.identity, recorded=recorded)


def are_texts(values: Any) -> TypeGuard[Sequence[str]]:
    """Whether queries are texts, not vectors."""
    return isinstance(values, list | tuple) and bool(values) and all(isinstance(value, str) for value in values)
