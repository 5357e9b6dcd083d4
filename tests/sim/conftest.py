"""No log lines of simulated processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.sim.levels import quiet


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Put the log configuration back afterwards."""
    configured = structlog.get_config()
    quiet()
    yield
    structlog.configure(**configured)
