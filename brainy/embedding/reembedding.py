"""Vectors made anew out of the texts of items that are stored: what a change of the embedding model does to each.

* A noun with a text (``brainy.embedding.text``) gets the vector of that text; its old one is dropped.
* A noun without a text keeps everything but its vector, and has none: one of another model would be found for the
  wrong reasons.
* Verbs, deletes and whatever else a log holds stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.embedding import EmbeddingIdentity
from brainy.bucket.items import Noun
from brainy.config.settings import EmbeddingSettings
from brainy.embedding.base import Embedder, as_vectors
from brainy.embedding.opening import embedder_at
from brainy.embedding.text import stored_text


@contextmanager
def reembedder_at(identity: EmbeddingIdentity, endpoint: str, settings: EmbeddingSettings) -> Iterator[Reembedder]:
    """Open the model that a record names, as ``embedder_at``, and close its connections in the end."""
    embedder = embedder_at(identity, endpoint, settings)
    try:
        yield Reembedder(embedder, identity)
    finally:
        close = getattr(embedder, "close", None)
        if close is not None:
            close()


class Reembedder:
    """Gives nouns the vectors of a model. Every call blocks while the model works; use it in a thread."""

    def __init__(self, embedder: Embedder, identity: EmbeddingIdentity) -> None:
        """Remember the model.

        Args:
            embedder: what embeds.
            identity: what the generation records; the embedder's answers are held to its dimensions.
        """
        self._embedder = embedder
        self.identity = identity

    def nouns(self, nouns: Sequence[Noun]) -> list[Noun]:
        """Return the same nouns with vectors of the model, in order.

        Raises:
            EmbeddingError: the model's answer is no embedding of the texts.
            BrainyError: as the embedder.
        """
        vectors = self._vectors([noun.metadata for noun in nouns])
        return [
            Noun(id=noun.id, vector=vector, metadata=noun.metadata, attributes=noun.attributes)
            for noun, vector in zip(nouns, vectors, strict=True)
        ]

    def records(self, records: Sequence[log_pb2.LogRecord]) -> list[log_pb2.LogRecord]:
        """Return log records with the nouns they upsert embedded; the others are returned as they are.

        Raises:
            EmbeddingError: as ``nouns``.
            BrainyError: as the embedder.
        """
        upserts = [record.upsert_noun for record in records if record.HasField("upsert_noun")]
        vectors = iter(self._vectors([noun.metadata if noun.HasField("metadata") else None for noun in upserts]))
        embedded = []
        for record in records:
            if not record.HasField("upsert_noun"):
                embedded.append(record)
                continue
            # A copy: the batch it came in may be followed by others.
            anew = log_pb2.LogRecord()
            anew.CopyFrom(record)
            anew.upsert_noun.vector = next(vectors)
            anew.upsert_noun.ClearField("raw_vector")
            embedded.append(anew)
        return embedded

    def _vectors(self, documents: Sequence[bytes | None]) -> list[bytes]:
        texts = [stored_text(document) for document in documents]
        wanted = [text for text in texts if text is not None]
        if not wanted:
            return [b""] * len(texts)
        answer = self._embedder.embed(wanted)
        made = as_vectors(answer, len(wanted), dimensions=self.identity.dimensions, model=self.identity.model).astype(
            "<f4", copy=False
        )
        rows = iter(made)
        return [b"" if text is None else next(rows).tobytes() for text in texts]
