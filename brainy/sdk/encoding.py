"""Between the caller's Python values and the bytes on the wire."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from brainy.api.common.v1 import common_pb2
from brainy.errors import InvalidRequestError
from brainy.legacy.values import parse_json
from brainy.sdk.values import Json, Noun, Vector, Verb

_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def encode_vector(vector: npt.ArrayLike) -> bytes:
    """Return a vector as little-endian float32.

    Raises:
        InvalidRequestError: not a non-empty, one-dimensional sequence of finite numbers.
    """
    row = _floats(vector)
    if row.ndim != 1 or not row.size:
        raise _bad_vector("a vector is a non-empty, one-dimensional sequence of numbers", shape=row.shape)
    return row.tobytes()


def encode_matrix(vectors: npt.ArrayLike) -> tuple[bytes, int]:
    """Return the rows of a matrix as little-endian float32, and how long a row is.

    Raises:
        InvalidRequestError: not a non-empty matrix of finite numbers.
    """
    matrix = _floats(vectors)
    if matrix.ndim != 2 or not matrix.size:
        raise _bad_vector(
            "queries are a non-empty list of vectors of one length",
            remedy="hand one vector to search, a list of them to search_many",
            shape=matrix.shape,
        )
    return matrix.tobytes(), int(matrix.shape[1])


def _floats(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    try:
        # '<f4' so that the bytes are little-endian on any machine; overflow to inf is refused below.
        with np.errstate(over="ignore"):
            array = np.asarray(values, dtype="<f4", order="C")
    except (TypeError, ValueError, OverflowError) as error:
        raise _bad_vector("not a vector of numbers", cause=error) from error
    if not np.isfinite(array).all():
        raise _bad_vector("a vector holds NaN or infinity, or a number beyond float32")
    return array


def _bad_vector(
    message: str, *, remedy: str = "correct the vector; nothing was sent", **fields: object
) -> InvalidRequestError:
    error = InvalidRequestError(message, reason="INVALID_VECTOR", remedy=remedy)
    error.fields.update((name, str(value)) for name, value in fields.items())
    return error


def sendable(text: str) -> str:
    """Return an id or the like as it is.

    Raises:
        InvalidRequestError: it holds a lone surrogate, which no message can carry (INVALID_ID).
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            "an id must be text that UTF-8 can hold",
            reason="INVALID_ID",
            remedy="remove the lone surrogate; nothing was sent",
            at=error.start,
            id=text[:64].encode("utf-8", "backslashreplace").decode(),
        ) from None
    return text


def decode_vector(body: bytes) -> Vector | None:
    """Return a read-only array over the bytes, or None where there are none."""
    return np.frombuffer(body, dtype="<f4") if body else None


def encode_metadata(metadata: Json) -> bytes | None:
    """Return compact JSON; None means no metadata at all.

    Raises:
        InvalidRequestError: not a JSON value.
    """
    if metadata is None:
        return None
    try:
        return orjson.dumps(metadata, option=_JSON_OPTIONS)
    except TypeError as error:
        raise InvalidRequestError(
            "metadata is not a JSON value",
            reason="INVALID_METADATA",
            remedy="use None, bool, int (64 bit), float, str, list and dict with str keys; nothing was sent",
            cause=error,
        ) from error


def decode_metadata(body: bytes) -> Any:
    """Parse a stored document; b"" gives None. What JavaScript wrote may hold lone surrogates."""
    return parse_json(body) if body else None


def noun_from_wire(message: common_pb2.Noun) -> Noun:
    """Copy a noun out of its protobuf."""
    return Noun(
        id=message.id,
        vector=decode_vector(message.vector),
        metadata_json=message.metadata if message.HasField("metadata") else None,
        attributes_json=message.attributes if message.HasField("attributes") else None,
    )


def verb_from_wire(message: common_pb2.Verb) -> Verb:
    """Copy a verb out of its protobuf."""
    return Verb(
        id=message.id,
        source=message.source_id,
        target=message.target_id,
        type=message.type,
        weight=message.weight if message.HasField("weight") else None,
        vector=decode_vector(message.vector),
        metadata_json=message.metadata if message.HasField("metadata") else None,
        attributes_json=message.attributes if message.HasField("attributes") else None,
    )
