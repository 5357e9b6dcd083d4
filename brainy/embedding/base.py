"""What every embedder is, and what its answers are held to."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import getattr_static
from typing import Any, Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from brainy.bucket.embedding import EmbeddingIdentity
from brainy.errors import EmbeddingError

__all__ = ["Embedder", "EmbeddingIdentity", "as_vectors", "is_embedder"]


class Embedder(Protocol):
    """Makes vectors out of texts. Called from several threads."""

    @property
    def identity(self) -> EmbeddingIdentity:
        """Which model it is. May embed a text, once, to find out how long its vectors are.

        Raises:
            BrainyError: as ``embed``.
        """

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one vector a text, n x dimensions, in the order of the texts; all finite. Blocks.

        Raises:
            EmbeddingError: the model's answer is no embedding of these texts.
            UnavailableError: it cannot be reached, or has no time.
            PermissionDeniedError: it does not know us.
        """


def is_embedder(value: object) -> TypeGuard[Embedder]:
    """Whether a value has what an embedder has. Asks it nothing: even its identity may cost a request."""
    return all(getattr_static(value, name, None) is not None for name in ("identity", "embed"))


def as_vectors(answer: Any, texts: int, *, dimensions: int | None, model: str) -> npt.NDArray[np.float32]:
    """Return a model's answer as a matrix, or say what is wrong with it.

    Args:
        answer: whatever the model answered.
        texts: how many texts it was given.
        dimensions: how long each vector has to be; None while that is not known.
        model: for the message.

    Raises:
        EmbeddingError: too few or too many vectors, of another length, or with what is no finite number.
    """
    try:
        raw = np.asarray(answer)
    except (TypeError, ValueError) as error:
        raise _unusable("vectors of different lengths, or no vectors at all", model, cause=error) from error
    if texts == 0 and raw.size == 0:
        return np.empty((0, dimensions or 0), dtype=np.float32)
    # Text and None convert to numbers, or nearly: what counts is what the model answered.
    if raw.dtype.kind not in "fiu":
        raise _unusable("components that are no numbers, or vectors of different lengths", model)
    if raw.ndim != 2 or not raw.shape[1]:
        raise _unusable("no matrix of one vector a text", model, shape=raw.shape)
    if len(raw) != texts:
        raise _unusable("another number of vectors than it was given texts", model, texts=texts, vectors=len(raw))
    if dimensions is not None and raw.shape[1] != dimensions:
        raise _unusable("vectors of another length", model, dimensions=raw.shape[1], expected=dimensions)
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(raw, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise _unusable("a vector that is not finite", model, text_number=int(np.argmin(np.isfinite(vectors).all(1))))
    return vectors


def _unusable(what: str, model: str, **fields: object) -> EmbeddingError:
    error = EmbeddingError(
        f"the embedding model answered {what}",
        remedy="mend or change the embedder; nothing of this answer was written",
        model=model,
    )
    error.fields.update((name, str(value)) for name, value in fields.items())
    return error
