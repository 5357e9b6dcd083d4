"""What vectors of a write were let in for: a generation of some dimensions and some model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from brainy.bucket.embedding import EmbeddingIdentity, check_same_model
from brainy_node.router.validation import check_same_dimension
from brainy_node.runtime.ports import NamespaceRuntime


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """What the check at the door rested on. A write that waits may be committed to a later generation."""

    generation: int
    dimensions: int
    #: What made the vectors out of texts, as far as the caller says.
    embedding: EmbeddingIdentity | None = None

    async def again(self, runtime: NamespaceRuntime, generation: int) -> Admitted:
        """Check the same vectors against another generation, and return what they are let in for now.

        Raises:
            InvalidRequestError: it has other dimensions (INVALID_DIMENSION).
            EmbeddingMismatchError: its texts are embedded with another model.
        """
        spec = await runtime.spec(generation)
        if self.embedding is not None:
            check_same_model(self.embedding, await runtime.embedding(generation))
        if spec.dimensions:
            check_same_dimension(self.dimensions, spec)
        return replace(self, generation=generation)
