"""Items as a namespace holds them.

A backup may keep a vector's stored doubles in ``raw_vector``; a namespace keeps that text only where float32 cannot
carry the vector at all (a component that is null or no number). Digests of backups are over the latter form, so that
they can be compared with a namespace's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from brainy.bucket.items import Noun, Verb

I = TypeVar("I", Noun, Verb)  # noqa: E741 - an item


def as_held(item: I) -> I:
    """Return the item without doubles that float32 merely rounds."""
    if item.raw_vector is None or needs_raw(item.vector):
        return item
    return replace(item, raw_vector=None)


def needs_raw(vector: bytes) -> bool:
    """Whether float32 cannot carry what the vector was read from: such components are NaN or infinite in it."""
    return not np.isfinite(np.frombuffer(vector, dtype="<f4")).all()
