"""How many seeds a run plays: SIM_SEEDS of the first level, a tenth of the slower ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from brainy.config.environment import inherited
from tests.sim.levels import quiet

#: What a run without SIM_SEEDS plays.
FEW = 200


@pytest.fixture(scope="session")
def seeds() -> int:
    """Seeds of the first level."""
    return int(inherited().get("SIM_SEEDS") or FEW)


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """No log lines of simulated processes."""
    configured = structlog.get_config()
    quiet()
    yield
    structlog.configure(**configured)
