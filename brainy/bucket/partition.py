"""Which shard an id belongs to."""

from __future__ import annotations

import xxhash


def shard_of(item_id: str, shard_count: int) -> int:
    """Return the shard of an id: XXH64 of its UTF-8 bytes modulo the shard count (docs/format.md)."""
    return xxhash.xxh64_intdigest(item_id.encode("utf-8", "surrogatepass")) % shard_count


def key_hash(item_id: str) -> int:
    """Return the 64-bit hash that lookups inside a shard are sorted by."""
    return xxhash.xxh64_intdigest(item_id.encode("utf-8", "surrogatepass"))
