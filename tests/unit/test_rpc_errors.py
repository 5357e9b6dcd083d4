"""BrainyError to google.rpc.Status and back."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from brainy import errors
from brainy.api.common.v1 import common_pb2
from brainy.rpc.errors import DETAILS_KEY, code_of, from_rpc_error, from_status, to_status

CODES = {
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PastPointOfNoReturnError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EmbeddingMismatchError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EmbeddingError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConflictError: grpc.StatusCode.ABORTED,
    errors.LeaseHeldError: grpc.StatusCode.ABORTED,
    errors.FencedError: grpc.StatusCode.ABORTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.LogCollectedError: grpc.StatusCode.UNAVAILABLE,
    errors.OutcomeUnknownError: grpc.StatusCode.UNKNOWN,
    errors.CorruptDataError: grpc.StatusCode.DATA_LOSS,
    errors.BrainyError: grpc.StatusCode.INTERNAL,
}


def rpc_error(code: grpc.StatusCode, details: str = "", body: bytes | None = None) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata() if body is None else grpc.aio.Metadata((DETAILS_KEY, body))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details=details)


def every_class(kind: type[errors.BrainyError]) -> set[type[errors.BrainyError]]:
    return {kind}.union(*(every_class(sub) for sub in kind.__subclasses__() if sub.__module__ == "brainy.errors"))


def test_every_class_of_the_tree_is_in_this_table() -> None:
    assert every_class(errors.BrainyError) == set(CODES)


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
def test_round_trip_keeps_class_reason_fields_remedy_and_safety(kind: type[errors.BrainyError]) -> None:
    error = kind("no such thing", remedy="do this", data_safe=False, shard=3, key="a/b")
    status = to_status(error)
    assert status.code == CODES[kind].value[0]
    back = from_rpc_error(rpc_error(CODES[kind], status.message, status.SerializeToString()))
    assert type(back) is kind
    assert (back.message, back.reason, back.remedy, back.data_safe) == (
        "no such thing",
        kind.default_reason,
        "do this",
        False,
    )
    assert back.fields == {"shard": "3", "key": "a/b"}


def test_default_reasons_are_names_of_the_proto_enum() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name, _ in common_pb2.ErrorReason.items()}
    assert {kind.default_reason for kind in CODES} <= names


def test_buffer_full_is_resource_exhausted_and_comes_back_as_unavailable() -> None:
    error = errors.UnavailableError("the buffer is full", reason="BUFFER_FULL")
    assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED
    back = from_status(to_status(error))
    assert type(back) is errors.UnavailableError
    assert back.reason == "BUFFER_FULL"


def test_unavailable_says_when_to_retry() -> None:
    status = to_status(errors.UnavailableError("later"))
    info = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(info)
    assert info.retry_delay.nanos > 0


def test_texts_are_cut_so_that_metadata_stays_small() -> None:
    fields = {f"field{n}": "x" * 5000 for n in range(40)}
    error = errors.InvalidRequestError("m" * 50_000, remedy="r" * 50_000, **fields)
    assert len(to_status(error).SerializeToString()) < 6000


def test_lone_surrogates_do_not_break_the_answer() -> None:
    back = from_status(to_status(errors.InvalidRequestError("bad id \ud800", id="\ud800x")))
    assert back.fields["id"] == "?x"


def test_a_reason_of_a_newer_server_is_kept() -> None:
    status = to_status(errors.PreconditionError("not yet", reason="MOON_PHASE"))
    back = from_status(status)
    assert type(back) is errors.PreconditionError
    assert back.reason == "MOON_PHASE"


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.UnavailableError, "UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.UnavailableError, "UNAVAILABLE"),
        (grpc.StatusCode.CANCELLED, errors.UnavailableError, "UNAVAILABLE"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.UnavailableError, "BUFFER_FULL"),
        (grpc.StatusCode.UNIMPLEMENTED, errors.PreconditionError, "WRONG_PHASE"),
        (grpc.StatusCode.UNAUTHENTICATED, errors.PermissionDeniedError, "PERMISSION"),
        (grpc.StatusCode.INTERNAL, errors.BrainyError, "INTERNAL"),
        (grpc.StatusCode.UNKNOWN, errors.OutcomeUnknownError, "OUTCOME_UNKNOWN"),
    ],
)
def test_plain_codes_of_other_servers(code: grpc.StatusCode, kind: type[errors.BrainyError], reason: str) -> None:
    back = from_rpc_error(rpc_error(code, "words of a proxy"))
    assert type(back) is kind
    assert back.reason == reason
    assert back.message == "words of a proxy"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_a_write_without_an_answer_is_of_unknown_outcome(code: grpc.StatusCode) -> None:
    back = from_rpc_error(rpc_error(code, "gone"), write=True)
    assert type(back) is errors.UnavailableError
    assert back.reason == "OUTCOME_UNKNOWN"
    assert not back.data_safe
    assert "request_id" in back.remedy


def test_a_write_that_was_answered_keeps_its_answer() -> None:
    status = to_status(errors.UnavailableError("not mine", reason="NOT_OWNER"))
    back = from_rpc_error(rpc_error(grpc.StatusCode.UNAVAILABLE, "not mine", status.SerializeToString()), write=True)
    assert back.reason == "NOT_OWNER"
    assert back.data_safe


def test_a_message_over_the_limit_is_the_callers_to_fix() -> None:
    details = "CLIENT: Sent message larger than max (70000000 vs. 67108864)"
    back = from_rpc_error(rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, details))
    assert type(back) is errors.InvalidRequestError
    assert back.reason == "BATCH_TOO_LARGE"


def test_mangled_details_and_foreign_domains_fall_back_to_the_code() -> None:
    assert from_rpc_error(rpc_error(grpc.StatusCode.NOT_FOUND, "x", b"\xff\xff")).reason == "NOT_FOUND"
    status = status_pb2.Status(code=5, message="theirs")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="THEIRS", domain="example.org"))
    assert from_status(status).reason == "NOT_FOUND"
    assert type(from_rpc_error(grpc.RpcError())) is errors.OutcomeUnknownError
