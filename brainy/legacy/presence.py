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


#: Ids compared at once, so that comparing millions takes no memory to speak of.
_AT_ONCE = 1 << 16


def among(known: Hashes, hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Say of each hash whether it is among ``known``, which is sorted."""
    found = np.zeros(len(hashes), dtype=np.bool_)
    if len(known):
        for start in range(0, len(hashes), _AT_ONCE):
            part = hashes[start : start + _AT_ONCE]
            places = np.minimum(np.searchsorted(known, part), len(known) - 1)
            found[start : start + _AT_ONCE] = known[places] == part
    return found


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
        return among(self.hashes, hashes)
