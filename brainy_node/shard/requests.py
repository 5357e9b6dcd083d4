"""Requests a shard has answered, so that a repeat is recognised."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

#: Requests whose position is remembered, so that a repeat is answered instead of committed again.
REMEMBERED_REQUESTS = 100_000

#: Of those, how many a fold carries over: some retries' worth, in a manifest that stays small.
FOLDED_REQUESTS = 4_096


class Requests:
    """Positions by request id, of the newest requests; what was remembered first is forgotten first."""

    __slots__ = ("_positions",)

    def __init__(self, positions: Mapping[str, int]) -> None:
        self._positions: dict[str, int] = dict(positions)

    def remember(self, seen: Mapping[str, int]) -> None:
        """Take in request ids -> positions; one that is known keeps its position."""
        positions = self._positions
        for request_id, position in seen.items():
            positions.setdefault(request_id, position)
        if len(positions) > REMEMBERED_REQUESTS:
            for request_id in list(islice(positions, len(positions) - REMEMBERED_REQUESTS)):
                del positions[request_id]

    def recent(self) -> dict[str, int]:
        """Return the newest, oldest first: as many as a base remembers."""
        skipped = max(0, len(self._positions) - FOLDED_REQUESTS)
        return dict(islice(self._positions.items(), skipped, None))

    def position_of(self, request_id: str) -> int | None:
        """Return the position of a request, None if it is not known."""
        return self._positions.get(request_id)
