"""A few of the queries a front door was asked lately, to ask them again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainy.ids import Ids

#: Queries remembered for each namespace; one of 1,536 dimensions takes 6 KiB.
CAPACITY = 256
#: Once that many are there, one query in so many takes the place of another.
_EVERY = 8


class RecordedQueries:
    """A sample of query vectors, in memory only. Older ones fade: any may be the next to be replaced."""

    def __init__(self, *, ids: Ids, capacity: int = CAPACITY) -> None:
        self._ids = ids
        self._capacity = capacity
        self._kept: dict[str, list[npt.NDArray[np.float32]]] = {}
        self._seen = 0

    def note(self, namespace: str, matrix: npt.NDArray[np.float32]) -> None:
        """Perhaps remember one of the queries of a call (n x dimensions)."""
        if not len(matrix) or not self._capacity:
            return
        kept = self._kept.setdefault(namespace, [])
        self._seen += 1
        if len(kept) < self._capacity:
            kept.append(np.array(matrix[self._seen % len(matrix)], dtype="<f4"))
        elif self._seen % _EVERY == 0:
            place = min(self._capacity - 1, int(self._ids.jitter(0.0, self._capacity)))
            kept[place] = np.array(matrix[self._seen % len(matrix)], dtype="<f4")

    def count(self, namespace: str) -> int:
        """How many are remembered."""
        return len(self._kept.get(namespace, ()))

    def sample(self, namespace: str, limit: int, *, dimensions: int, part: int = 0) -> npt.NDArray[np.float32]:
        """Return up to ``limit`` of them, n x dimensions, spread over what is remembered.

        Another ``part`` returns others, until there are none left.
        """
        kept = [row for row in self._kept.get(namespace, ()) if len(row) == dimensions]
        step = max(1, len(kept) // limit) if limit else 1
        chosen = kept[part::step][:limit] if part < step else []
        return np.array(chosen, dtype="<f4").reshape(len(chosen), dimensions)
