"""A small bucket written by the real Brainy, for demonstrations and tests (see brainy-0.46/README.md)."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

_SAMPLE = "brainy-0.46"

__all__ = ["sample_objects", "sample_truth"]


def sample_objects() -> Iterator[tuple[str, bytes, Mapping[str, str]]]:
    """Yield (key, body, S3 user metadata) of every object, 1,808 in all."""
    packed = files(__name__).joinpath(_SAMPLE, "objects.jsonl.gz").read_bytes()
    for line in gzip.decompress(packed).splitlines():
        stored = json.loads(line)
        yield stored["key"], base64.b64decode(stored["body_b64"]), stored["metadata"]


def sample_truth() -> dict[str, Any]:
    """Return what a reader must find in it: ``nouns`` and ``verbs`` by id, ``counts``, and more."""
    packed = files(__name__).joinpath(_SAMPLE, "truth.json.gz").read_bytes()
    truth: dict[str, Any] = json.loads(gzip.decompress(packed))
    return truth
