"""Which ids a listing named, in eight bytes an id.

Ids are remembered as 64-bit hashes. A false "present" (about one in 10^12 at ten million ids) only costs a
request for an object that is not there; a false "absent" cannot happen.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainy.bucket.partition import key_hash

Hashes = npt.NDArray[np.uint64]


def hashes_of(ids: Sequence[str]) -> Hashes:
    """Hash ids."""
    return np.fromiter(map(key_hash, ids), dtype=np.uint64, count=len(ids))


class Presence:
    """A set of ids that is filled first and asked afterwards."""

    def __init__(self) -> None:
        self._filling = array("Q")
        self._sorted: Hashes | None = None

    @property
    def complete(self) -> bool:
        """Whether the listing has been seen to its end."""
        return self._sorted is not None

    def __len__(self) -> int:
        """Different ids so far; exact once complete."""
        return len(self._filling) if self._sorted is None else len(self._sorted)

    def add(self, hashes: Hashes) -> None:
        """Note ids. Not after ``finish``."""
        self._filling.frombytes(hashes.tobytes())

    def finish(self) -> None:
        """Declare the listing complete."""
        if self._sorted is None:
            self._sorted = np.unique(np.frombuffer(self._filling, dtype=np.uint64))
            self._filling = array("Q")

    @property
    def hashes(self) -> Hashes:
        """All ids, sorted. Only once complete."""
        if self._sorted is None:
            raise ValueError("the listing is not complete")
        return self._sorted

    def contains(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Say of each id whether it is there. Only once complete."""
        known = self.hashes
        if not len(known):
            return np.zeros(len(hashes), dtype=np.bool_)
        places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        return np.asarray(known[places] == hashes, dtype=np.bool_)
