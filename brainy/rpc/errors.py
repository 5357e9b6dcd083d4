"""``BrainyError`` on the wire: google.rpc.Status with an ErrorInfo, both ways.

The status travels in the trailing metadata ``grpc-status-details-bin``. Its ErrorInfo carries ``reason`` (a
name of ``brainy.api.common.v1.ErrorReason`` without its prefix), domain ``brainy`` and as metadata the error's
fields, its ``remedy`` and ``data_safe`` ("true" or "false"). Errors worth repeating carry a RetryInfo as well.
A client of any language can read it with its stock gRPC status library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from brainy.errors import (
    AlreadyExistsError,
    BrainyError,
    ConflictError,
    CorruptDataError,
    EmbeddingError,
    EmbeddingMismatchError,
    FencedError,
    InvalidRequestError,
    LeaseHeldError,
    LogCollectedError,
    NotFoundError,
    OutcomeUnknownError,
    PastPointOfNoReturnError,
    PermissionDeniedError,
    PreconditionError,
    UnavailableError,
)

#: Domain of every ErrorInfo this product sends.
DOMAIN: Final = "brainy"
DETAILS_KEY: Final = "grpc-status-details-bin"

#: Trailing metadata beyond 8 KiB may be refused by the peer, so texts are cut.
_MAX_MESSAGE = 1024
_MAX_FIELD = 256
_MAX_FIELDS = 10
_RETRY_AFTER_NANOS = 100_000_000

_CODES: Final[tuple[tuple[type[BrainyError], grpc.StatusCode], ...]] = (
    (InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (AlreadyExistsError, grpc.StatusCode.ALREADY_EXISTS),
    (PermissionDeniedError, grpc.StatusCode.PERMISSION_DENIED),
    (PreconditionError, grpc.StatusCode.FAILED_PRECONDITION),
    (ConflictError, grpc.StatusCode.ABORTED),
    (FencedError, grpc.StatusCode.ABORTED),
    (UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (OutcomeUnknownError, grpc.StatusCode.UNKNOWN),
    (CorruptDataError, grpc.StatusCode.DATA_LOSS),
)

#: Classes that share a code with another are told apart by their reason.
_BY_REASON: Final[dict[str, type[BrainyError]]] = {
    "EMBEDDING_FAILED": EmbeddingError,
    "EMBEDDING_MISMATCH": EmbeddingMismatchError,
    "FENCED": FencedError,
    "LEASE_HELD": LeaseHeldError,
    "LOG_COLLECTED": LogCollectedError,
    "PAST_POINT_OF_NO_RETURN": PastPointOfNoReturnError,
}

_BY_CODE: Final[dict[grpc.StatusCode, type[BrainyError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDeniedError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.UNIMPLEMENTED: PreconditionError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.UNKNOWN: OutcomeUnknownError,
    grpc.StatusCode.DATA_LOSS: CorruptDataError,
}

_GRPC_CODES: Final = {int(code.value[0]): code for code in grpc.StatusCode}

_REPEAT_WRITE = "repeat the call with the same request_id: it has one effect however often it is sent"


def code_of(error: BrainyError) -> grpc.StatusCode:
    """Return the gRPC code of an error; INTERNAL for a bare ``BrainyError``."""
    if error.reason == "BUFFER_FULL":
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def to_status(error: BrainyError, *, code: grpc.StatusCode | None = None) -> status_pb2.Status:
    """Convert an error to the message of the wire; ``code`` overrides the class's own."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    for name, value in list(error.fields.items())[:_MAX_FIELDS]:
        info.metadata[name] = _cut(value, _MAX_FIELD)
    info.metadata["data_safe"] = "true" if error.data_safe else "false"
    if error.remedy:
        info.metadata["remedy"] = _cut(error.remedy, _MAX_FIELD)
    status = status_pb2.Status(
        code=(code or code_of(error)).value[0], message=_cut(error.message, _MAX_MESSAGE), details=[_pack(info)]
    )
    if isinstance(error, UnavailableError):
        delay = duration_pb2.Duration(nanos=_RETRY_AFTER_NANOS)
        status.details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def from_status(status: status_pb2.Status) -> BrainyError:
    """Convert a message of the wire back to the error it was.

    A status without our ErrorInfo becomes the class its code stands for, with that class's default reason. An
    unknown reason (a newer server's) is kept as it came.
    """
    code = _GRPC_CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            break
    else:
        return _plain(code, status.message)
    fields = dict(info.metadata)
    remedy = fields.pop("remedy", "")
    data_safe = fields.pop("data_safe", "true") == "true"
    return error_of(status.code, info.reason, status.message, remedy=remedy, data_safe=data_safe, fields=fields)


def error_of(
    code: int, reason: str, message: str, *, remedy: str = "", data_safe: bool = True, fields: Mapping[str, str]
) -> BrainyError:
    """Return the error that a gRPC code and a reason stand for; an unknown reason is kept as it came."""
    known = _GRPC_CODES.get(code, grpc.StatusCode.UNKNOWN)
    kind = _BY_REASON.get(reason) or _BY_CODE.get(known, BrainyError)
    error = kind(message, reason=reason, remedy=remedy, data_safe=data_safe)
    error.fields.update(fields)
    return error


def from_rpc_error(error: grpc.RpcError, *, write: bool = False) -> BrainyError:
    """Convert what a gRPC call raised to the error the server meant.

    Without a rich status the plain code decides: UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED and
    RESOURCE_EXHAUSTED become ``UnavailableError``. With ``write`` (the call may have changed something) a lost
    connection or deadline says so: reason OUTCOME_UNKNOWN and ``data_safe`` False.
    """
    # Both kinds of client (grpc and grpc.aio) raise an error with these three; a bare RpcError has none.
    call: Any = error
    code: grpc.StatusCode = call.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    details: str = (call.details() if hasattr(error, "details") else None) or ""
    metadata: Iterable[tuple[str, str | bytes]] = (
        call.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    ) or ()
    for key, value in metadata:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break  # a proxy mangled it: the plain code still says something
    if "larger than max" in details or "larger_than_max" in details:
        return InvalidRequestError(
            "the message is larger than the other side accepts",
            reason="BATCH_TOO_LARGE",
            remedy="send or ask for less at once",
            details=details,
        )
    lost = code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    )
    if write and lost:
        return UnavailableError(
            "the connection or the deadline ended before the answer came",
            reason="OUTCOME_UNKNOWN",
            remedy=_REPEAT_WRITE,
            data_safe=False,
            code=code.name,
            details=details,
        )
    return _plain(code, details)


def _plain(code: grpc.StatusCode, details: str) -> BrainyError:
    kind = _BY_CODE.get(code, BrainyError)
    reason = "BUFFER_FULL" if code is grpc.StatusCode.RESOURCE_EXHAUSTED else None
    return kind(details or f"the call failed with {code.name.lower()}", reason=reason, code=code.name)


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def legible(text: str) -> str:
    """Return a text that can travel in a protobuf string: a lone surrogate (of some store's key) becomes '?'."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _cut(text: str, limit: int) -> str:
    clean = legible(text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
