"""What the command's exit status says: the one table."""

from __future__ import annotations

import enum

from brainy.errors import (
    AlreadyExistsError,
    BrainyError,
    ConflictError,
    CorruptDataError,
    FencedError,
    InvalidRequestError,
    LeaseHeldError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    PreconditionError,
    UnavailableError,
)


class Exit(enum.IntEnum):
    """Exit status of ``brainy``."""

    #: Done; the result is good.
    OK = 0
    #: Done; the result is bad: a demonstration lost a write, a watched migration was aborted.
    FAILED_RESULT = 1
    #: The command line or a value in it is wrong. Nothing was done.
    USAGE = 2
    #: The namespace, item, migration or cluster named does not exist.
    NOT_FOUND = 3
    #: The state of things does not allow it; the message says what to change first.
    PRECONDITION = 4
    #: Cannot be reached or answered now; trying again may help.
    UNAVAILABLE = 5
    #: Stored bytes fail their checksum or invariant. Nothing was served from them.
    CORRUPT = 6
    #: The store or the cluster refuses this identity.
    PERMISSION = 7
    #: A change was sent and not confirmed; read back before anything else.
    OUTCOME_UNKNOWN = 8
    #: A fault of this program.
    INTERNAL = 70
    #: Another held the lock for as long as was waited. The command was not started.
    LOCK_HELD = 75
    #: The lock was lost while the command ran, which was stopped.
    LOCK_LOST = 76
    #: Ctrl-C.
    INTERRUPTED = 130


_TABLE: tuple[tuple[type[BrainyError], Exit], ...] = (
    (InvalidRequestError, Exit.USAGE),
    (NotFoundError, Exit.NOT_FOUND),
    (AlreadyExistsError, Exit.PRECONDITION),
    (PreconditionError, Exit.PRECONDITION),
    (LeaseHeldError, Exit.LOCK_HELD),
    (ConflictError, Exit.PRECONDITION),
    (FencedError, Exit.PRECONDITION),
    (UnavailableError, Exit.UNAVAILABLE),
    (CorruptDataError, Exit.CORRUPT),
    (PermissionDeniedError, Exit.PERMISSION),
    (OutcomeUnknownError, Exit.OUTCOME_UNKNOWN),
)


def exit_of(error: BrainyError) -> Exit:
    """Return the exit status that stands for an error."""
    return next((code for kind, code in _TABLE if isinstance(error, kind)), Exit.INTERNAL)


def table() -> str:
    """Return the table as text for ``brainy --help``."""
    meanings = {
        Exit.OK: "done",
        Exit.FAILED_RESULT: "done, with a bad result",
        Exit.USAGE: "wrong usage",
        Exit.NOT_FOUND: "not found",
        Exit.PRECONDITION: "the state does not allow it",
        Exit.UNAVAILABLE: "unavailable, try again",
        Exit.CORRUPT: "corrupt data",
        Exit.PERMISSION: "not permitted",
        Exit.OUTCOME_UNKNOWN: "outcome unknown, read back",
        Exit.INTERNAL: "a fault of this program",
        Exit.LOCK_HELD: "another holds the lock",
        Exit.LOCK_LOST: "the lock was lost",
        Exit.INTERRUPTED: "interrupted",
    }
    return "Exit status: " + ", ".join(f"{code.value} {meanings[code]}" for code in Exit) + "."
