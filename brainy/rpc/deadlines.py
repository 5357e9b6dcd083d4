"""How long a call may take, as seen by its handler."""

from __future__ import annotations

from typing import Any

import grpc

from brainy.clock import Clock, Deadline
from brainy.rpc.options import DEFAULT_DEADLINE_SECONDS, MAX_DEADLINE_SECONDS


def deadline_of(
    context: grpc.aio.ServicerContext[Any, Any],
    clock: Clock,
    *,
    default_seconds: float = DEFAULT_DEADLINE_SECONDS,
    max_seconds: float = MAX_DEADLINE_SECONDS,
) -> Deadline:
    """Return the deadline a handler should keep.

    It lies a little before the client's (5 %, at most 100 ms), so that what is wrong reaches the client as a
    typed error before its own deadline hides it.
    """
    remaining: float | None = context.time_remaining()
    if remaining is None:
        return Deadline.after(clock, min(default_seconds, max_seconds))
    return Deadline.after(clock, min(remaining - min(0.1, remaining * 0.05), max_seconds))


def stream_deadline_of(context: grpc.aio.ServicerContext[Any, Any], clock: Clock) -> Deadline | None:
    """Return the client's deadline for a stream, None if it set none: then it may take any time."""
    remaining: float | None = context.time_remaining()
    return None if remaining is None else Deadline.after(clock, remaining)
