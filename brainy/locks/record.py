"""What a lock is in the bucket, and the arithmetic of leases. Pure: no clock, no store.

    free ──grant──▶ held ──renew──▶ held ──release──▶ free
                      └──grant (lease unseen for its whole length, or forced)──▶ held, token + 1

The record is never deleted: a release keeps the epoch, so tokens rise for ever. It holds no point in time, only
a length; whoever waits measures that length on its own monotonic clock.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from brainy.bucket.records import Record
from brainy.errors import InvalidRequestError

#: Extra share of a lease that an observer waits, and that a holder gives up early: covers clocks whose *rates*
#: differ by a tenth. This is the only assumption about time, and only liveness and manners rest on it.
DRIFT: Final = 0.1

#: What a provider accepts; a front door is stricter (``check_public_ttl``).
MIN_TTL_SECONDS: Final = 0.05
MAX_TTL_SECONDS: Final = 86_400.0
#: What a caller gets who does not say, and the shortest a caller may ask for.
DEFAULT_TTL_SECONDS: Final = 30.0
MIN_PUBLIC_TTL_SECONDS: Final = 1.0
MAX_NAME_LENGTH: Final = 256
#: Users' locks lie below this, so that none can be the cluster's own; it does not count as a part of their names.
USERS: Final = "user/"

_PREFIX = re.compile(r"[A-Za-z0-9._/-]*")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


class LockRecord(Record):
    """``locks/<name>.json``."""

    #: The fencing token of the latest grant: +1 with every grant, unchanged by renewal and release.
    epoch: int
    state: Literal["held", "free"]
    owner: str
    #: Which life of the owner: a process that restarts is another holder.
    incarnation: str
    #: Fresh with every write, hex: tells a landed write of ours from another's, and keeps ETags apart.
    nonce: str
    lease_ms: int
    #: Renewals since the grant.
    renew_seq: int = 0
    #: For people: what the lock is held for.
    purpose: str = ""


def check_name(name: str) -> None:
    """Refuse a name that cannot be a key.

    Raises:
        InvalidRequestError: empty, over 256 characters, or not parts of A-Z a-z 0-9 . _ - joined by '/'.
    """
    if len(name.removeprefix(USERS)) > MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        raise InvalidRequestError(
            "not a legal lock name",
            remedy="use up to 256 of A-Z, a-z, 0-9, '.', '_', '-' in parts joined by '/'",
            name=name[:MAX_NAME_LENGTH],
        )


def check_prefix(prefix: str) -> None:
    """Refuse what no name can begin with.

    Raises:
        InvalidRequestError: other characters than those of names.
    """
    if len(prefix.removeprefix(USERS)) > MAX_NAME_LENGTH or not _PREFIX.fullmatch(prefix):
        raise InvalidRequestError(
            "no lock name begins like this",
            remedy="use A-Z, a-z, 0-9, '.', '_', '-' and '/'",
            prefix=prefix[:MAX_NAME_LENGTH],
        )


def check_ttl(ttl_seconds: float) -> None:
    """Refuse a lease too short or too long to be meant.

    Raises:
        InvalidRequestError: outside 0.05 s to a day.
    """
    if not MIN_TTL_SECONDS <= ttl_seconds <= MAX_TTL_SECONDS:
        raise InvalidRequestError(
            "not a sensible length for a lease",
            remedy="ask for 0.05 to 86,400 seconds; 30 is usual",
            ttl_seconds=ttl_seconds,
        )


def check_public_ttl(ttl_seconds: float) -> None:
    """Refuse a lease that a caller from outside may not ask for.

    Raises:
        InvalidRequestError: outside 1 s to a day.
    """
    if not MIN_PUBLIC_TTL_SECONDS <= ttl_seconds <= MAX_TTL_SECONDS:
        raise InvalidRequestError(
            "not a sensible length for a lease",
            remedy="ask for 1 to 86,400 seconds; 30 is usual",
            ttl_seconds=ttl_seconds,
        )


def granted(
    previous: LockRecord | None,
    *,
    owner: str,
    incarnation: str,
    ttl_seconds: float,
    purpose: str,
    nonce: str,
    floor: int = 0,
) -> LockRecord:
    """Return the record of a new grant; its token is above ``previous`` and above ``floor``."""
    return LockRecord(
        epoch=max(previous.epoch if previous else 0, floor) + 1,
        state="held",
        owner=owner,
        incarnation=incarnation,
        nonce=nonce,
        lease_ms=round(ttl_seconds * 1000),
        purpose=purpose,
    )


def renewed(record: LockRecord, *, nonce: str) -> LockRecord:
    """Return the record of the same grant, one renewal later."""
    return record.model_copy(update={"nonce": nonce, "renew_seq": record.renew_seq + 1})


def freed(record: LockRecord, *, nonce: str) -> LockRecord:
    """Return the record of a released lock; the epoch stays."""
    return record.model_copy(update={"nonce": nonce, "state": "free"})


def reserved(previous: LockRecord | None, *, floor: int, count: int, owner: str, block: str, nonce: str) -> LockRecord:
    """Return the record of a free lock whose next ``count`` tokens another backend hands out.

    Its epoch is the last of them, so that whoever grants from this record grants above all of them.
    """
    return LockRecord(
        epoch=max(previous.epoch if previous else 0, floor) + count,
        state="free",
        owner=owner,
        incarnation=block,
        nonce=nonce,
        lease_ms=0,
        purpose=f"the last {count} tokens up to this epoch are reserved",
    )


def broken(previous: LockRecord, *, by: str, reason: str, nonce: str, floor: int = 0) -> LockRecord:
    """Return the record of a lock taken from its holder: free, one token higher."""
    return LockRecord(
        epoch=max(previous.epoch, floor) + 1,
        state="free",
        owner=by,
        incarnation="",
        nonce=nonce,
        lease_ms=previous.lease_ms,
        purpose=reason,
    )


def check_breaker(by: str) -> None:
    """Refuse to break a lock for nobody.

    Raises:
        InvalidRequestError: ``by`` is empty.
    """
    if not by.strip():
        raise InvalidRequestError("breaking a lock needs a name to answer for it", remedy="say who does it")


def holds(record: LockRecord, *, token: int, owner: str, incarnation: str) -> bool:
    """Whether a grant is the one in force."""
    return (
        record.state == "held" and record.epoch == token and record.owner == owner and record.incarnation == incarnation
    )


def belongs(record: LockRecord, *, token: int, owner: str, incarnation: str) -> bool:
    """Whether a grant is the latest one, also once it was released."""
    return (record.epoch, record.owner, record.incarnation) == (token, owner, incarnation)


def deadline(sent_at: float, ttl_seconds: float) -> float:
    """Monotonic time at which a holder stops its guarded work.

    ``sent_at`` is taken *before* the request was sent: the lease cannot have begun earlier, so no observer's
    patience ends before the holder's.
    """
    return sent_at + ttl_seconds * (1 - DRIFT)


def patience(record: LockRecord) -> float:
    """Seconds a record must be seen unchanged, on the observer's own clock, before it may be taken over."""
    return record.lease_ms / 1000 * (1 + DRIFT)
