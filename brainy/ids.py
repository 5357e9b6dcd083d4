"""Identifiers and randomness, handed in like time, so that a simulation can replay them."""

from __future__ import annotations

import random  # noqa: TID251 - the one place that may
import uuid


class Ids:
    """Source of nonces, ids and jitter."""

    def __init__(self, rng: random.Random | None = None) -> None:
        # SystemRandom reads the kernel's entropy; a simulation hands in random.Random(seed).
        self._rng = rng or random.SystemRandom()

    def uuid(self) -> str:
        """Return a random UUID (version 4) as text."""
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def nonce(self) -> bytes:
        """Return 16 fresh random bytes."""
        return self._rng.getrandbits(128).to_bytes(16, "big")

    def short(self, length: int = 8) -> str:
        """Return ``length`` random lower-case letters and digits."""
        return "".join(self._rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length))

    def jitter(self, low: float, high: float) -> float:
        """Return a number in [low, high]."""
        return self._rng.uniform(low, high)
