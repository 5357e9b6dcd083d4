"""The levels by name, and quiet logs for all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import structlog

from tests.sim import cluster, owners
from tests.sim.outcome import Outcome

#: The fast one first: it gets most of the seeds.
LEVELS: dict[str, Callable[[int], Outcome]] = {
    owners.LEVEL: owners.run,
    cluster.LEVEL: cluster.run,
}


def quiet() -> None:
    """The product's own log lines are not wanted: a trace says more."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
    )
