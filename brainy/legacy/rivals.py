"""Several objects of one id in folders of equal rank: the one modified later wins.

Seventeen bytes an object. Stores tell the time to the second; of two objects of the same second the one in the
folder named first wins.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainy.legacy.presence import Hashes, Presence


class Rivals:
    """Ids by folder, filled first and asked afterwards."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._times = array("d")
        self._places = array("B")
        self._losers: dict[int, Presence] = {}

    def add(self, place: int, hashes: Hashes, times: Sequence[float]) -> None:
        """Note objects of the folder ``place``, with the times at which they were modified."""
        self._hashes.frombytes(hashes.tobytes())
        self._times.extend(times)
        self._places.extend([place] * len(times))

    def finish(self) -> None:
        """Find those that lose against another folder's object of the same id."""
        hashes = np.frombuffer(self._hashes, dtype=np.uint64)
        places = np.frombuffer(self._places, dtype=np.uint8)
        order = np.lexsort((places, -np.frombuffer(self._times, dtype=np.float64), hashes))
        hashes, places = hashes[order], places[order]
        lost = np.zeros(len(hashes), dtype=np.bool_)
        lost[1:] = hashes[1:] == hashes[:-1]
        for place in np.unique(places[lost]).tolist():
            losers = self._losers[place] = Presence()
            losers.add(hashes[lost & (places == place)])
            losers.finish()
        self._hashes, self._times, self._places = array("Q"), array("d"), array("B")

    def lost(self, place: int, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Say of ids of the folder ``place`` whether another folder has them in a later version."""
        losers = self._losers.get(place)
        return np.zeros(len(hashes), dtype=np.bool_) if losers is None else losers.contains(hashes)
