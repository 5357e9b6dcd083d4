"""What a fold takes over of a shard."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.bucket.items import Noun, Verb
from brainy_node.shard.base import Base


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Everything alive in a shard: rows of its base in order, and the newer items with their digests."""

    base: Base
    rows: list[int]
    nouns: list[tuple[Noun, bytes]]
    verb_rows: list[int]
    verbs: list[tuple[Verb, bytes]]
