"""The byte of flags that a base keeps for each noun."""

from __future__ import annotations

from brainy.bucket.items import Unindexed

#: Bits that say why a noun is not in the index; 0 means it is.
REASON = 0b0111
#: The noun carries Brainy's soft-delete marker.
SOFT_DELETED = 0b1000

#: Reasons by their bits.
REASONS: tuple[Unindexed | None, ...] = (
    None,
    Unindexed.NO_VECTOR,
    Unindexed.NON_FINITE,
    Unindexed.ZERO,
    Unindexed.DIMENSION,
)

NO_VECTOR, NON_FINITE, ZERO, DIMENSION = 1, 2, 3, 4
