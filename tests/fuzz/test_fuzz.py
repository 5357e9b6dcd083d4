"""A short run of the fuzzer with seeds that stay the same; ``make fuzz`` runs new ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainy.clock import SystemClock
from tests.fuzz.runner import make, try_bucket

_SECONDS = 1.0


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
async def test_damaged_buckets_lose_nothing_without_a_word(seed: int, tmp_path: Path) -> None:
    clock = SystemClock()
    until = clock.monotonic() + _SECONDS
    number = 0
    while number == 0 or (number < 40 and clock.monotonic() < until):
        number += 1
        await try_bucket(make(seed, number), tmp_path)
