"""What a simulation came to."""

from __future__ import annotations

from dataclasses import dataclass

from tests.sim.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one seed at one level."""

    level: str
    seed: int
    violations: tuple[str, ...]
    trace: Trace
    #: Virtual seconds, callbacks run, requests acknowledged.
    seconds: float
    steps: int
    acknowledged: int
