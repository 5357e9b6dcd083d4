"""The words of advice: counts and times as people read them."""

from __future__ import annotations

from brainy.legacy.census import Advice, Severity


def advice(code: str, severity: Severity, message: str, remedy: str, count: int) -> Advice:
    """Return a piece of advice."""
    return Advice(code=code, severity=severity, message=message, remedy=remedy, count=count)


def many(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def claimed(count: int | None) -> str:
    """Return a count that may not have been readable."""
    return "an unreadable number of" if count is None else f"{count:,}"


def span(seconds: float) -> str:
    """Return a time in the largest unit of which it is at least two."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {name}s"
    return f"{seconds:,.0f} s"
