"""What Redis answers, as values and errors of this product; and waiting for it without losing a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from brainy.errors import BrainyError, CorruptDataError, FencedError, PreconditionError
from brainy.locks import redis_scripts as scripts
from brainy.locks.base import Grant, LockState
from brainy.telemetry.logs import get_logger

_log = get_logger(__name__)


async def cancellable(call: Coroutine[Any, Any, Any]) -> Any:
    """Await a call of the client so that a cancellation is never lost.

    The client sends through ``asyncio.wait_for``, which on Python 3.11 swallows a cancellation that meets the
    end of the send: a renewing task that was cancelled would go on for ever.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: nobody else will ask for it
        raise
    return task.result()


def state_of(name: str, key: str, raw: Mapping[str, str], now: int) -> LockState | None:
    """Read a lock's hash; None for an absent one. CorruptDataError or PreconditionError as ``corrupt`` says."""
    if not raw:
        return None
    if raw.get("v") != str(scripts.FORMAT_VERSION):
        raise newer_version(key, raw.get("v", ""))
    try:
        int(raw["ceiling"]), raw["nonce"]  # checked as the scripts do
        return LockState(
            name=name,
            token=int(raw["token"]),
            held=raw["held"] == "1" and int(raw["expires"]) > now,
            owner=raw["owner"],
            incarnation=raw["incarnation"],
            ttl_seconds=int(raw["ttl"]) / 1000,
            renewals=int(raw["renewals"]),
            purpose=raw["purpose"],
            unchanged_seconds=max(0, now - int(raw["since"])) / 1000,
        )
    except (KeyError, ValueError) as error:
        raise corrupt(key) from error


def corrupt(key: str) -> CorruptDataError:
    """Return the error for a key that holds something else."""
    return CorruptDataError(
        "not a valid lock in redis",
        remedy="find out who writes under brainy:, then delete the key; its token is kept in the bucket",
        key=key,
    )


def newer_version(key: str, version: str) -> BrainyError:
    """Return the error for a version that is not ours."""
    if not version.isdecimal() or int(version) <= scripts.FORMAT_VERSION:
        return corrupt(key)
    return PreconditionError(
        "this lock was written by a newer version of the software",
        reason="UNSUPPORTED_FORMAT",
        remedy="upgrade this process; nothing was changed",
        key=key,
        format_version=version,
    )


def lost(grant: Grant, answer: Sequence[Any]) -> FencedError:
    """Return the error for a lease that is another's by now."""
    _log.warning("lock_lost", lock=grant.name, token=grant.token, current_token=answer[1], holder=answer[2])
    return FencedError(
        "the lease is no longer this holder's",
        remedy="stop the guarded work; ask for a new grant",
        lock=grant.name,
        token=grant.token,
        current_token=answer[1] or "none",
        holder=answer[2],
    )
