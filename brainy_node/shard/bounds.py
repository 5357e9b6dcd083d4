"""How large a shard's vectors are: what a smaller scalar kind, or a metric of directions, has to be able to hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainy_node.shard.base import Base

#: A vector no longer than this has no component that half precision could not hold; only longer ones are looked into.
_LOOK_FROM = 60_000.0
_BLOCK = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorBounds:
    """Bounds of the searchable vectors."""

    count: int
    #: Those that are all zeros.
    zeros: int
    #: No component is larger, by absolute value; beyond 60,000 it is the largest one itself.
    largest: float


def bounds_of(base: Base, alive: npt.NDArray[np.bool_], newer: npt.NDArray[np.float32]) -> VectorBounds:
    """Measure a base's rows that are ``alive`` (bool, rows) and the vectors beside them (n x dimensions)."""
    lengths = base.lengths[alive]
    zeros = int(np.count_nonzero(lengths == 0.0)) + int(np.count_nonzero(~newer.any(axis=1)))
    largest = float(lengths.max(initial=0.0))
    if largest > _LOOK_FROM:
        rows = np.flatnonzero(alive & (base.lengths > _LOOK_FROM))
        largest = max(
            _LOOK_FROM,
            *(
                float(np.abs(base.vectors[rows[start : start + _BLOCK]]).max(initial=0.0))
                for start in range(0, len(rows), _BLOCK)
            ),
        )
    return VectorBounds(
        count=len(lengths) + len(newer),
        zeros=zeros,
        largest=max(largest, float(np.abs(newer).max(initial=0.0))),
    )
