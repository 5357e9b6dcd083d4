"""The one tree of errors.

A message is lower case and says what is wrong and where; ``remedy`` says what to do; ``data_safe`` says
whether anything may have been lost or half done. ``reason`` is the machine-readable cause and equals a name
of ``brainy.api.common.v1.ErrorReason`` without its prefix; ``fields`` travel with it over the wire.

    BrainyError                          gRPC code              what the caller does
     ├ InvalidRequestError               INVALID_ARGUMENT       fix the call
     ├ NotFoundError                     NOT_FOUND              fix the call
     ├ AlreadyExistsError                ALREADY_EXISTS         fix the call
     ├ PermissionDeniedError             PERMISSION_DENIED      get the permission
     ├ PreconditionError                 FAILED_PRECONDITION    change the state first
     │   ├ PastPointOfNoReturnError
     │   ├ EmbeddingMismatchError                              embed with the model that is named
     │   └ EmbeddingError                                      mend or change the embedder
     ├ ConflictError                     ABORTED                refresh, retry
     │   └ LeaseHeldError
     ├ FencedError                       ABORTED (FENCED)       stop; a newer holder exists; never retry
     ├ UnavailableError                  UNAVAILABLE            back off, retry
     │   └ LogCollectedError                                    open the newest checkpoint
     ├ OutcomeUnknownError               UNKNOWN                read back before retrying
     └ CorruptDataError                  DATA_LOSS              page a human
"""

from __future__ import annotations

from typing import ClassVar


class BrainyError(Exception):
    """Root of every error this product raises on purpose."""

    #: Default machine-readable reason of the class; an instance may name a narrower one.
    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        remedy: str = "",
        data_safe: bool = True,
        **fields: object,
    ) -> None:
        self.message = message
        self.reason = reason or self.default_reason
        self.remedy = remedy
        self.data_safe = data_safe
        self.fields = {name: str(value) for name, value in fields.items()}
        super().__init__(message)

    def __str__(self) -> str:
        details = " ".join(f"{name}={value}" for name, value in self.fields.items())
        text = f"{self.message} {details}" if details else self.message
        return f"{text} ({self.remedy})" if self.remedy else text


class InvalidRequestError(BrainyError):
    """The call is wrong; nothing was changed."""

    default_reason = "INVALID_ARGUMENT"


class NotFoundError(BrainyError):
    """What the call names does not exist."""

    default_reason = "NOT_FOUND"


class AlreadyExistsError(BrainyError):
    """What the call would create exists."""

    default_reason = "ALREADY_EXISTS"


class PermissionDeniedError(BrainyError):
    """The store or the cluster refuses this identity."""

    default_reason = "PERMISSION"


class PreconditionError(BrainyError):
    """The system is in a state that does not allow the call."""

    default_reason = "WRONG_PHASE"


class PastPointOfNoReturnError(PreconditionError):
    """The migration has committed; it can only be rolled back."""

    default_reason = "PAST_POINT_OF_NO_RETURN"


class EmbeddingMismatchError(PreconditionError):
    """The namespace's texts were embedded with another model; vectors of two models cannot be compared."""

    default_reason = "EMBEDDING_MISMATCH"


class EmbeddingError(PreconditionError):
    """An embedder answered what is no embedding of the texts it was given."""

    default_reason = "EMBEDDING_FAILED"


class ConflictError(BrainyError):
    """Another party changed the object first: refresh and retry."""

    default_reason = "CONFLICT"


class LeaseHeldError(ConflictError):
    """Another holder has the lock."""

    default_reason = "LEASE_HELD"


class FencedError(BrainyError):
    """A newer owner exists. Terminal: never retried by the one that was fenced."""

    default_reason = "FENCED"


class UnavailableError(BrainyError):
    """Cannot be answered now; the same call may succeed later."""

    default_reason = "UNAVAILABLE"


class LogCollectedError(UnavailableError):
    """The log positions asked for have been given up; a newer checkpoint includes them."""

    default_reason = "LOG_COLLECTED"


class OutcomeUnknownError(BrainyError):
    """The store did not say whether a write landed: read back before anything else."""

    default_reason = "OUTCOME_UNKNOWN"


class CorruptDataError(BrainyError):
    """A checksum or an invariant failed; nothing was served from the object."""

    default_reason = "CORRUPT_DATA"
