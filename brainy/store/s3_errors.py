"""What an answer of S3 means in our terms.

obstore reports a status only inside its message, and boto3 in a dictionary; both end here as (status, code).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import BaseError

from brainy.errors import (
    BrainyError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from brainy.store.base import PutOutcome, PutState

#: Everything the two libraries raise for an answer or for the lack of one.
S3_FAILURES = (BaseError, FileNotFoundError, ClientError, BotoCoreError)

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]+)</Code>")
_DETAIL_CHARACTERS = 300
_CREDENTIAL_CODES = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
_REFUSALS = (*_CREDENTIAL_CODES, "AccessDenied")


class Answer(NamedTuple):
    """What the store said. ``status`` is 0 when no answer came."""

    status: int
    code: str
    text: str


def answer_of(error: Exception) -> Answer:
    """Read status and code out of an error of obstore or boto3."""
    if isinstance(error, ClientError):
        response: Mapping[str, Any] = error.response
        code = str(response.get("Error", {}).get("Code", ""))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return Answer(status, code, str(error)[:_DETAIL_CHARACTERS])
    # Behind this mark obstore repeats the whole request, with its headers.
    text = str(error).partition("Debug source:")[0].strip()
    status_match, code_match = _STATUS.search(text), _CODE.search(text)
    status = int(status_match[1]) if status_match else 404 if isinstance(error, FileNotFoundError) else 0
    return Answer(status, code_match[1] if code_match else "", text[:_DETAIL_CHARACTERS])


def failure_of(error: Exception, *, bucket: str, key: str) -> BrainyError:
    """Return our error for a request that may simply be repeated or not at all."""
    answer = answer_of(error)
    if answer.code == "NoSuchBucket":
        return NotFoundError(
            "the bucket does not exist",
            reason="UNKNOWN_NAMESPACE",
            remedy="create the bucket, or correct the name or the endpoint",
            bucket=bucket,
        )
    if answer.status in (401, 403) or answer.code in _REFUSALS:
        return PermissionDeniedError(
            "s3 refuses these credentials",
            remedy="correct the credentials: the AWS variables, profile or role of this process"
            if answer.code in _CREDENTIAL_CODES
            else "allow GetObject, PutObject, DeleteObject and ListBucket on the namespace",
            bucket=bucket,
            key=key,
            code=answer.code or answer.status,
        )
    if answer.status in (301, 307, 400) or "redirect" in answer.text:
        return InvalidRequestError(
            "s3 does not understand the request",
            remedy="check region, endpoint and key",
            bucket=bucket,
            key=key,
            detail=answer.text,
        )
    return UnavailableError(
        "s3 did not answer" if answer.status == 0 else "s3 cannot answer now",
        reason="STORE_UNAVAILABLE",
        remedy="check that the endpoint is reachable; the call is safe to repeat",
        bucket=bucket,
        key=key,
        detail=answer.text,
    )


def outcome_of(error: Exception, *, bucket: str, key: str) -> PutOutcome:
    """Return what became of a conditional write that did not succeed.

    412 and a missing object (404) are LOST. 409 (another conditional write is running), no answer, and every
    answer of a server in trouble are UNKNOWN: the write may have landed.

    Raises:
        BrainyError: the store certainly refused the request itself (permission, bucket, form).
    """
    answer = answer_of(error)
    if answer.code == "NoSuchBucket":
        raise failure_of(error, bucket=bucket, key=key) from error
    if answer.status in (404, 412):
        return PutOutcome(state=PutState.LOST, detail=answer.text)
    if answer.status == 0 or answer.status == 409 or answer.status >= 500:
        return PutOutcome(state=PutState.UNKNOWN, detail=answer.text)
    raise failure_of(error, bucket=bucket, key=key) from error
