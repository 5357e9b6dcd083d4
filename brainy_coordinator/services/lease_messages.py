"""Leases on the wire: what a request may say, and what is answered."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from google.protobuf import duration_pb2

from brainy.api.coordinator.v1 import lease_pb2
from brainy.errors import InvalidRequestError
from brainy.locks import record
from brainy.locks.base import Grant, LockState

MAX_HOLDER: Final = 256
MAX_PURPOSE: Final = 1024
MAX_BATCH: Final = 1000

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_PREFIX = re.compile(r"[A-Za-z0-9._/-]*")
_NAME_REMEDY = "use 1 to 256 of A-Z a-z 0-9 . _ - in parts joined by '/', none empty or beginning with '.'"


def stored_name(name: str) -> str:
    """Return the name of a user's lock as the provider knows it.

    Raises:
        InvalidRequestError: not a legal name.
    """
    if len(name) > record.MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        raise InvalidRequestError(
            "not a legal lock name", remedy=_NAME_REMEDY, field="name", name=name[: record.MAX_NAME_LENGTH]
        )
    return record.USERS + name


def stored_prefix(prefix: str) -> str:
    """Return the beginning of names as the provider knows it.

    Raises:
        InvalidRequestError: no name begins so.
    """
    if len(prefix) > record.MAX_NAME_LENGTH or not _PREFIX.fullmatch(prefix):
        raise InvalidRequestError("no lock's name begins so", remedy=_NAME_REMEDY, field="prefix")
    return record.USERS + prefix


def ttl_seconds(request: lease_pb2.GrantRequest) -> float:
    """Return the length asked for, or the default.

    Raises:
        InvalidRequestError: shorter than a second or longer than a day.
    """
    if not request.HasField("ttl"):
        return record.DEFAULT_TTL_SECONDS
    asked = seconds(request.ttl)
    if not record.MIN_PUBLIC_TTL_SECONDS <= asked <= record.MAX_TTL_SECONDS:
        raise InvalidRequestError(
            "not a sensible length for a lease",
            remedy="ask for 1 to 86,400 seconds; 30 is usual",
            field="ttl",
            ttl_seconds=asked,
        )
    return asked


def text(value: str, field: str, limit: int, *, required: bool = False) -> str:
    """Return a text for people.

    Raises:
        InvalidRequestError: too long, or missing where it is required.
    """
    if len(value) > limit or (required and not value.strip()):
        raise InvalidRequestError(
            f"{field} is too long" if value.strip() else f"{field} is missing",
            remedy=f"give 1 to {limit} characters" if required else f"give up to {limit} characters",
            field=field,
        )
    return value


def lease_id(name: str, holder: str, request_id: str) -> str:
    """Return what tells a lease from every other: the same for each send of one request, for ever.

    It is what makes a coordinator without memory recognise a repeat: the record names the lease it was granted to.
    """
    parts = "\0".join((name, holder, request_id))
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def seconds(value: duration_pb2.Duration) -> float:
    """Convert from the wire; out of a Duration's range nothing overflows."""
    return value.seconds + value.nanos / 1e9


def duration(value: float) -> duration_pb2.Duration:
    """Convert for the wire."""
    nanos = round(value * 1e9)
    # Both parts have the sign of the whole.
    whole, rest = divmod(abs(nanos), 1_000_000_000)
    sign = 1 if nanos >= 0 else -1
    return duration_pb2.Duration(seconds=sign * whole, nanos=sign * rest)


def lock_message(name: str, state: LockState | None) -> lease_pb2.Lock:
    """Return what anybody may see; a lock nobody ever held has token 0."""
    if state is None:
        return lease_pb2.Lock(name=name, state=lease_pb2.LOCK_STATE_FREE)
    shown = lease_pb2.LOCK_STATE_FREE
    if state.held:
        over = state.unchanged_seconds >= state.ttl_seconds * (1 + record.DRIFT)
        shown = lease_pb2.LOCK_STATE_EXPIRED if over else lease_pb2.LOCK_STATE_HELD
    return lease_pb2.Lock(
        name=name,
        state=shown,
        token=state.token,
        holder=state.owner,
        purpose=state.purpose,
        ttl=duration(state.ttl_seconds),
        renewals=state.renewals,
        unchanged_for=duration(state.unchanged_seconds),
    )


def lease_message(name: str, grant: Grant) -> lease_pb2.Lease:
    """Return what the holder must show later."""
    return lease_pb2.Lease(
        name=name,
        token=grant.token,
        lease_id=grant.incarnation,
        holder=grant.owner,
        ttl=duration(grant.ttl_seconds),
    )
