"""Times as people type them: ``7d``, ``2h``, ``90m``, ``1h30m``, ``45s``, ``45``."""

from __future__ import annotations

import re
from datetime import datetime

import typer

from brainy.clock import SystemClock

_UNITS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)([wdhms]?)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def seconds_of(text: str) -> float:
    """Return a time in seconds.

    Raises:
        typer.BadParameter: it is none.
    """
    if not _WHOLE.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not a time; write it as 7d, 2h, 90m, 1h30m or 45s")
    return sum(float(part[1]) * _UNITS[part[2]] for part in _PART.finditer(text))


def seconds_until(text: str) -> float:
    """Return how many seconds from now a moment is, by the clock of this machine; one without a zone is local time.

    Raises:
        typer.BadParameter: it is no moment, or it has passed.
    """
    try:
        moment = datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a moment; write it as 2025-01-31T22:00 or with +00:00") from None
    left = moment - SystemClock().wall()
    if left <= 0.0:
        raise typer.BadParameter(f"{text} has passed")
    return left
