"""The lock contract: leases with fencing tokens.

A lock is for manners: it keeps two honest processes from doing the same work. What makes a stale holder
harmless is the token: guarded writes carry it, and the guarded resource refuses an older one. Tokens of a name
only rise, across release, expiry, restarts and changes of backend.

Every implementation passes ``tests/contract/test_lock_provider.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A lease in force, as its holder sees it. Renewal returns a new one."""

    name: str
    owner: str
    incarnation: str
    #: The fencing token: strictly above every earlier grant's of this name.
    token: int
    #: Identifies the write that made or renewed it, hex.
    nonce: str
    ttl_seconds: float
    #: Monotonic time, on the clock the provider was given, after which guarded work must have stopped.
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LockState:
    """A lock, as anybody sees it."""

    name: str
    #: Token of the latest grant.
    token: int
    held: bool
    #: Of the latest grant, also once it was released.
    owner: str
    incarnation: str
    ttl_seconds: float
    renewals: int
    purpose: str
    #: For how long the record is known to be unchanged; 0 when this provider sees it for the first time and
    #: its backend does not say.
    unchanged_seconds: float


class LockProvider(Protocol):
    """Grants, keeps and releases leases.

    Errors of every method: ``UnavailableError`` when the backend cannot be reached, is full or read-only (then
    nothing is held, and nobody may assume otherwise), ``PermissionDeniedError`` when it refuses this identity,
    ``InvalidRequestError`` for an illegal name or length, ``CorruptDataError`` and ``PreconditionError``
    (UNSUPPORTED_FORMAT) for a record that cannot be read: it is never overwritten.
    """

    async def grant(
        self,
        name: str,
        *,
        owner: str,
        incarnation: str,
        ttl_seconds: float,
        purpose: str = "",
        force: bool = False,
    ) -> Grant:
        """Take the lock if it is free or its lease ran out; with ``force`` take it at once.

        Raises:
            LeaseHeldError: another holder has it; fields ``holder``, ``token``, ``retry_after``.
            OutcomeUnknownError: the backend did not say before the lease would have ended.
        """

    async def acquire(
        self,
        name: str,
        *,
        owner: str,
        incarnation: str,
        ttl_seconds: float,
        wait_until: float,
        purpose: str = "",
    ) -> Grant:
        """Like ``grant``, but wait for a held lock until the monotonic time ``wait_until``.

        Waiters are served in the order of their arrival where the backend can tell it (Redis, memory); over an
        object store any waiter may be next.
        """

    async def renew(self, grant: Grant) -> Grant:
        """Begin the lease anew, with the same token.

        Raises:
            FencedError: the lease was lost (taken over, released, deleted) or its deadline has passed.
        """

    async def release(self, grant: Grant) -> None:
        """Give the lock back; the token is kept. Releasing again what this grant released succeeds.

        Raises:
            FencedError: the lease was lost (taken over, broken, deleted); nothing was changed.
        """

    async def force_release(self, name: str, *, by: str, reason: str) -> LockState:
        """Take the lock from whoever holds it and leave it free, one token higher. For operators.

        The record then names ``by`` as its owner and ``reason`` as its purpose, and a log event
        (``lock_broken``) names both and the former holder. The former holder's writes are refused as soon as the
        guarded resource has seen a token that is at least the returned one.

        Raises:
            NotFoundError: nobody ever held a lock of this name.
            InvalidRequestError: ``by`` is empty.
        """

    async def describe(self, name: str) -> LockState | None:
        """Return a lock's state, or None if nobody ever held it."""

    async def list(self, prefix: str = "") -> Sequence[LockState]:
        """Return the state of every lock whose name starts with ``prefix``, by name."""

    async def close(self) -> None:
        """Give back connections of the provider's own; leases are left as they are, the store stays open."""
