"""What of items is compared where two generations have vectors of different models."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.bucket.embedding import EmbeddingIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """Ids, metadata and attributes of nouns, verbs as a whole; and of the nouns' vectors as much as is said here."""

    #: Whose vectors nouns with a text must have; None: vectors do not count at all.
    embedding: EmbeddingIdentity | None = None
    #: The side that is still to be embedded: counts as if every noun with a text had its vector.
    expected: bool = False
