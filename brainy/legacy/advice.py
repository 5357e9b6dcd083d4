"""What follows from an inspection: what to beware of, what to do first. Pure.

The codes are stable; ``docs/guide/inspect.md`` lists them.
"""

from __future__ import annotations

from brainy.legacy import hazards, remarks
from brainy.legacy.census import Advice, Inspection, Severity

SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")

_RULES = (
    hazards.readability,
    hazards.dangers,
    hazards.writers,
    hazards.losses,
    remarks.visibility,
    remarks.oddities,
    remarks.bookkeeping,
)


def advise(found: Inspection) -> tuple[Advice, ...]:
    """Return all advice, most severe first. ``found.advice`` is not looked at."""
    given = [advice for rule in _RULES for advice in rule(found)]
    return tuple(sorted(given, key=lambda advice: SEVERITIES.index(advice.severity)))
