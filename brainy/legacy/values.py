"""JSON as Brainy and its neighbours leave it, turned into the values this product keeps.

The reader is tolerant where JavaScript is (lone surrogates, a byte order mark, NaN, huge integers) and names a
reason where nothing can be read. It never follows nesting so deep that it could crash.
"""

from __future__ import annotations

import json
import re
import sys
from array import array
from typing import Any

import numpy as np
import orjson

from brainy.errors import CorruptDataError
from brainy.legacy.batch import Reason

#: Larger objects are not fetched: the largest vector object in use is about 100 kB.
MAX_OBJECT_BYTES = 64 << 20

_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# +inf, -inf, 0.0 and 1.0 as float32: where a number overflowed or a boolean may have been taken for a number.
_SUSPICIOUS = (b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff", b"\x00\x00\x00\x00", b"\x00\x00\x80\x3f")


class UnreadableError(CorruptDataError):
    """An object of the source is not what its key says; ``cause`` tells why. Becomes a quarantine entry."""

    def __init__(self, cause: Reason, *, in_companion: bool = False) -> None:
        super().__init__("an object of the source cannot be read", cause=cause)
        self.cause = cause
        #: The object at fault is the one beside the vector object.
        self.in_companion = in_companion


def parse_json(body: bytes) -> Any:
    """Parse an object's body.

    Raises:
        UnreadableError: EMPTY, NOT_JSON or TOO_DEEP.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_slowly(body)


def _parse_slowly(body: bytes) -> Any:
    # What orjson refuses and JavaScript or Python accept: lone surrogates, NaN, a BOM, endless integers.
    body = body.removeprefix(_BOM)
    if not body.strip():
        raise UnreadableError(Reason.EMPTY)
    try:
        # JSON.stringify writes null for NaN and Infinity, so that is what they mean here too.
        return json.loads(body.decode(), parse_constant=lambda _: None, parse_int=_integer)
    except RecursionError:
        raise UnreadableError(Reason.TOO_DEEP) from None
    except ValueError:
        raise UnreadableError(Reason.NOT_JSON) from None


def _integer(text: str) -> int | float:
    # Python refuses to parse integers of thousands of digits; every JSON number is a double to Brainy.
    return int(text) if len(text) < 20 else float(text)


def dump_json(value: object) -> bytes:
    """Return compact UTF-8 JSON in the order of the keys; lone surrogates stay ``\\uXXXX`` escapes.

    Raises:
        UnreadableError: TOO_DEEP.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        # Surrogates, or more than 254 levels.
        try:
            try:
                text = _dump_slowly(value)
            except ValueError:
                text = _dump_slowly(_finite(value))
        except RecursionError:
            raise UnreadableError(Reason.TOO_DEEP) from None
        return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def _dump_slowly(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _finite(value: object) -> object:
    # 1e999 parses to infinity, which JSON cannot say; orjson writes null for it, so do the same.
    if isinstance(value, float) and value - value != 0.0:
        return None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return value


def compact(body: bytes) -> bytes:
    """Return a stored JSON document in compact form.

    Raises:
        UnreadableError: EMPTY, NOT_JSON or TOO_DEEP.
    """
    return dump_json(parse_json(body))


def differ(one: object, other: object) -> bool:
    """Whether two parsed values differ.

    Raises:
        UnreadableError: TOO_DEEP.
    """
    try:
        return bool(one != other)
    except RecursionError:
        raise UnreadableError(Reason.TOO_DEEP) from None


def vector_bytes(components: object, *, keep_doubles: bool = False) -> tuple[bytes, bytes | None]:
    """Return (float32 LE, raw): raw is the JSON array where float32 cannot carry it, else None.

    Components that are no number become NaN. With ``keep_doubles`` raw is also there where a stored double is
    not a float32: the array in compact form, every number the double it was.

    Raises:
        UnreadableError: MISSING_VECTOR for null, WRONG_SHAPE for anything but an array.
    """
    if components is None:
        raise UnreadableError(Reason.MISSING_VECTOR)
    if not isinstance(components, list):
        raise UnreadableError(Reason.WRONG_SHAPE)
    try:
        packed = array("f", components)
    except (TypeError, OverflowError):
        return _odd_vector(components)
    if sys.byteorder == "big":
        packed.byteswap()
    vector = packed.tobytes()
    if any(pattern in vector for pattern in _SUSPICIOUS) and not _all_fit(components):
        return _odd_vector(components)
    if keep_doubles and not np.array_equal(array("f", components), np.array(components, dtype=np.float64)):
        return vector, dump_json(components)
    return vector, None


def _all_fit(components: list[Any]) -> bool:
    if not set(map(type, components)) <= {float, int}:
        return False
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.array(components, dtype=np.float64).astype("<f4")).all())


def _odd_vector(components: list[Any]) -> tuple[bytes, bytes | None]:
    numbers = np.array([_component(value) for value in components], dtype=np.float64)
    with np.errstate(over="ignore"):
        return numbers.astype("<f4").tobytes(), dump_json(components)


def _component(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return float("inf")
    return float("nan")


def text_id(value: object) -> str:
    """Return an id as text; JavaScript turned whole numbers into text when it built keys of them.

    Raises:
        UnreadableError: MISSING_ID, WRONG_SHAPE or INVALID_ID.
    """
    if value is None:
        raise UnreadableError(Reason.MISSING_ID)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UnreadableError(Reason.WRONG_SHAPE)
    if not value or "\x00" in value or len(value) > 1024:
        raise UnreadableError(Reason.INVALID_ID)
    if not value.isascii():
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise UnreadableError(Reason.INVALID_ID) from None
        if size > 1024:
            raise UnreadableError(Reason.INVALID_ID)
    return value
