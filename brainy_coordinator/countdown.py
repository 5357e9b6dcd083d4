"""How often a countdown that survives its leader is written down. Pure."""

from __future__ import annotations

_SHORTEST_STEP_SECONDS = 1.0
_LONGEST_STEP_SECONDS = 3600.0


def step_seconds(length: float) -> float:
    """Return how much of a countdown may be counted before it is written down: a hundredth, 1 s to 1 h."""
    return min(_LONGEST_STEP_SECONDS, max(_SHORTEST_STEP_SECONDS, length / 100.0))
