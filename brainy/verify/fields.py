"""In what two items differ."""

from __future__ import annotations

from dataclasses import fields as fields_of
from typing import Any, Final

import numpy as np
import orjson

from brainy.verify.values import Difference, Item, Name, What

_KEYS_NAMED: Final = 20


def difference(name: Name, a: Item | None, b: Item | None) -> Difference:
    """Return the difference of two items of one name that are not equal."""
    kind, item_id = name
    if a is None or b is None:
        return Difference(kind=kind, id=item_id, what=What.MISSING if b is None else What.EXTRA)
    differing = tuple(each.name for each in fields_of(a) if not _same(getattr(a, each.name), getattr(b, each.name)))
    detail: dict[str, Any] = {}
    if "vector" in differing:
        detail["vector"] = _vectors(a.vector, b.vector)
    for field in ("metadata", "attributes"):
        if field in differing and (keys := _keys(getattr(a, field), getattr(b, field))):
            detail[field] = {"keys": keys[:_KEYS_NAMED]}
    return Difference(kind=kind, id=item_id, what=What.MISMATCHED, fields=differing, detail=detail)


def _same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        # As the digest has it: the bits. NaN equals itself, and 0.0 is not -0.0.
        return np.float64(a).tobytes() == np.float64(b).tobytes()
    return a == b


def _vectors(a: bytes, b: bytes) -> dict[str, Any]:
    lengths = len(a) // 4, len(b) // 4
    if len(a) != len(b) or len(a) % 4:
        return {"length_a": lengths[0], "length_b": lengths[1]}
    steps = np.abs(_ordered(a) - _ordered(b))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(np.frombuffer(a, "<f4").astype("f8") - np.frombuffer(b, "<f4").astype("f8"))
    finite = apart[np.isfinite(apart)]
    return {
        "components": int(np.count_nonzero(steps)),
        #: In units in the last place: 1 is the next float32.
        "largest_ulps": int(steps.max()),
        "largest": float(finite.max()) if len(finite) else None,
    }


def _ordered(vector: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    # Two neighbouring float32 values are one apart.
    bits = np.frombuffer(vector, "<i4").astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)


def _keys(a: bytes | None, b: bytes | None) -> list[str]:
    try:
        one, other = (orjson.loads(each) if each else {} for each in (a, b))
    except orjson.JSONDecodeError:
        return []
    if not isinstance(one, dict) or not isinstance(other, dict):
        return []
    absent = object()
    return sorted(key for key in one.keys() | other.keys() if one.get(key, absent) != other.get(key, absent))
