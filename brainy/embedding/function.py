"""Any Python callable as an embedder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from brainy.bucket.embedding import EmbeddingIdentity
from brainy.embedding.base import as_vectors
from brainy.errors import BrainyError, EmbeddingError

#: Takes texts, returns one vector each: a matrix, or a list of lists.
EmbeddingFunction = Callable[[list[str]], npt.ArrayLike]


class FunctionEmbedder:
    """Calls a function with lists of texts, one call at a time.

    ``model`` and ``revision`` are recorded in the namespace and must change whenever the vectors do.
    """

    def __init__(
        self, function: EmbeddingFunction, *, model: str, dimensions: int | None = None, revision: str = ""
    ) -> None:
        """Wrap a function.

        Args:
            function: takes texts, returns one vector each.
            model: the model's name.
            dimensions: length of its vectors; one text is embedded to find out if it is left out.
            revision: which edition of the model.
        """
        self._function = function
        self._model = model
        self._dimensions = dimensions
        self._revision = revision
        self._lock = threading.Lock()

    @property
    def identity(self) -> EmbeddingIdentity:
        """Which model it is."""
        if self._dimensions is None:
            self._dimensions = int(self.embed(["dimensions"]).shape[1])
        return EmbeddingIdentity(model=self._model, dimensions=self._dimensions, revision=self._revision)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Call the function.

        Raises:
            EmbeddingError: it raised, or answered what is no embedding of the texts.
        """
        try:
            with self._lock:
                answer = self._function(list(texts))
        except BrainyError:
            raise
        except Exception as error:
            raise EmbeddingError(
                "the embedding function raised an exception",
                remedy="mend the function; nothing was written of these texts",
                model=self._model,
                cause=f"{type(error).__name__}: {error}"[:200],
            ) from error
        return as_vectors(answer, len(texts), dimensions=self._dimensions, model=self._model)
