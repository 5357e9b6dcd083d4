"""The multiset digest: whether two moving datasets are equal, in constant time.

Item hashes (SHA-256, 256 bits) are summed modulo 2^256 in 4,096 buckets chosen by the item's id. Adding and
subtracting keep it current with every write, whatever the order; sums of shards are the sum of the whole,
however it is partitioned. (XOR would let two equal items cancel each other.) It detects accidents, not an
adversary who can choose records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from brainy.bucket.partition import key_hash

BUCKETS = 4096
_WIDTH = 32
_MASK = (1 << 256) - 1


class MultisetDigest:
    """4,096 sums of item hashes."""

    __slots__ = ("_sums",)

    def __init__(self, sums: dict[int, int] | None = None) -> None:
        self._sums: dict[int, int] = sums or {}

    def add(self, item_id: str, item_hash: bytes) -> None:
        """Count an item in."""
        self._shift(item_id, int.from_bytes(item_hash, "little"))

    def add_all(self, ids: Iterable[str], hashes: Iterable[bytes]) -> None:
        """Count items in: their ids, and as many hashes."""
        # As ``add``, written out: the call would cost as much as what it does.
        sums = self._sums
        for item_id, item_hash in zip(ids, hashes, strict=True):
            bucket = key_hash(item_id) >> 52
            total = (sums.get(bucket, 0) + int.from_bytes(item_hash, "little")) & _MASK
            if total:
                sums[bucket] = total
            else:
                sums.pop(bucket, None)

    def remove(self, item_id: str, item_hash: bytes) -> None:
        """Count an item out."""
        self._shift(item_id, -int.from_bytes(item_hash, "little"))

    def _shift(self, item_id: str, amount: int) -> None:
        bucket = key_hash(item_id) >> 52
        total = (self._sums.get(bucket, 0) + amount) & _MASK
        if total:
            self._sums[bucket] = total
        else:
            self._sums.pop(bucket, None)

    def merge(self, other: MultisetDigest) -> None:
        """Add another part's sums."""
        for bucket, amount in other._sums.items():
            total = (self._sums.get(bucket, 0) + amount) & _MASK
            if total:
                self._sums[bucket] = total
            else:
                self._sums.pop(bucket, None)

    def copy(self) -> MultisetDigest:
        """Return an independent copy."""
        return MultisetDigest(dict(self._sums))

    def differing(self, other: MultisetDigest) -> list[int]:
        """Buckets in which the two differ; empty means equal."""
        return [b for b in sorted(self._sums.keys() | other._sums.keys()) if self._sums.get(b) != other._sums.get(b)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MultisetDigest) and self._sums == other._sums

    __hash__ = None  # type: ignore[assignment]  # mutable

    def encode(self) -> bytes:
        """Return 4,096 x 32 bytes, each sum little endian."""
        body = bytearray(BUCKETS * _WIDTH)
        for bucket, total in self._sums.items():
            body[bucket * _WIDTH : (bucket + 1) * _WIDTH] = total.to_bytes(_WIDTH, "little")
        return bytes(body)

    @classmethod
    def decode(cls, body: bytes) -> MultisetDigest:
        """Read what ``encode`` wrote."""
        if len(body) != BUCKETS * _WIDTH:
            raise ValueError(f"a digest has {BUCKETS * _WIDTH} bytes, not {len(body)}")
        sums = {}
        for bucket in range(BUCKETS):
            total = int.from_bytes(body[bucket * _WIDTH : (bucket + 1) * _WIDTH], "little")
            if total:
                sums[bucket] = total
        return cls(sums)

    def fold(self) -> str:
        """Return 64 hex digits that stand for the whole digest."""
        return hashlib.sha256(self.encode()).hexdigest()


def digest_of(items: Iterable[tuple[str, bytes]]) -> MultisetDigest:
    """Sum (id, item hash) pairs."""
    digest = MultisetDigest()
    for item_id, item_hash in items:
        digest.add(item_id, item_hash)
    return digest
