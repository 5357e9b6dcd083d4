"""The book of seen versions as an object of the bucket.

    offset  bytes
    0       8      magic "BRNYSEEN"
    8       32     SHA-256 of the rest
    40      4      n, little endian
    44      n      JSON: format_version, generation, shard, epoch, position, nonce, places [{prefix, count}], and, where
                   the namespace is mirrored, mirrored {dialect, positions, nonces, idle}
    44+n           for each place: count hashes (u64, ascending), count tags (u64), count seconds (u32), little endian

It is swapped by its ETag and carries the epoch of the owner that wrote it; a lower epoch does not replace a higher
one. A book that is lost or does not hash costs a comparison of everything, nothing else.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import orjson

from brainy.errors import CorruptDataError, PreconditionError
from brainy.legacy.seen import ENTRY_BYTES, Mirrored, Place, SeenBook

MAGIC: Final = b"BRNYSEEN"
FORMAT_VERSION: Final = 1
_HEADER: Final = len(MAGIC) + 32


def encode_book(book: SeenBook, *, generation: int, shard: int, epoch: int, nonce: str) -> bytes:
    """Return the bytes of a book's object."""
    arrays = {prefix: place.arrays for prefix, place in book.places.items()}
    fields: dict[str, object] = {
        "format_version": FORMAT_VERSION,
        "generation": generation,
        "shard": shard,
        "epoch": epoch,
        "position": book.position,
        "nonce": nonce,
        "places": [{"prefix": prefix, "count": len(parts[0])} for prefix, parts in arrays.items()],
    }
    if (mirrored := book.mirrored) is not None:
        fields["mirrored"] = {
            "dialect": mirrored.dialect,
            "positions": dict(mirrored.positions),
            "nonces": dict(mirrored.nonces),
            "idle": mirrored.idle,
        }
    about = orjson.dumps(fields)
    payload = b"".join(
        (
            len(about).to_bytes(4, "little"),
            about,
            *(
                part
                for hashes, tags, seconds in arrays.values()
                for part in (
                    hashes.astype("<u8").tobytes(),
                    tags.astype("<u8").tobytes(),
                    seconds.astype("<u4").tobytes(),
                )
            ),
        )
    )
    return b"".join((MAGIC, hashlib.sha256(payload).digest(), payload))


def decode_book(body: bytes, *, generation: int, shard: int, key: str) -> tuple[SeenBook, int]:
    """Return the book and the epoch it was written under.

    Raises:
        CorruptDataError: altered, or the book of another shard.
        PreconditionError: written by a newer version of this software (UNSUPPORTED_FORMAT).
    """
    payload = memoryview(body)[_HEADER:]
    if not body.startswith(MAGIC) or hashlib.sha256(payload).digest() != body[len(MAGIC) : _HEADER]:
        raise _corrupt("a book of seen versions does not hash to its own checksum", key)
    size = int.from_bytes(payload[:4], "little")
    about = orjson.loads(payload[4 : 4 + size])
    if about["format_version"] > FORMAT_VERSION:
        raise PreconditionError(
            "this book was written by a newer version of the software",
            reason="UNSUPPORTED_FORMAT",
            remedy="upgrade this process; nothing was changed",
            key=key,
            format_version=about["format_version"],
        )
    counts = {str(place["prefix"]): int(place["count"]) for place in about["places"]}
    if (about["generation"], about["shard"]) != (generation, shard):
        raise _corrupt("a book of seen versions lies under a key that is not its own", key)
    if len(payload) != 4 + size + ENTRY_BYTES * sum(counts.values()):
        raise _corrupt("a book of seen versions has another length than it says", key)
    book = SeenBook(counts, position=int(about["position"]))
    if (mirrored := about.get("mirrored")) is not None:
        book.mirrored = Mirrored(
            dialect=str(mirrored["dialect"]),
            positions={str(log): int(position) for log, position in mirrored["positions"].items()},
            nonces={str(log): str(found) for log, found in mirrored["nonces"].items()},
            idle=bool(mirrored["idle"]),
        )
    at = 4 + size
    for prefix, count in counts.items():
        hashes = np.frombuffer(payload, "<u8", count, at).astype(np.uint64)
        tags = np.frombuffer(payload, "<u8", count, at + 8 * count).astype(np.uint64)
        seconds = np.frombuffer(payload, "<u4", count, at + 16 * count).astype(np.uint32)
        book.places[prefix] = Place.of(hashes, tags, seconds)
        at += ENTRY_BYTES * count
    return book, int(about["epoch"])


def _corrupt(message: str, key: str) -> CorruptDataError:
    return CorruptDataError(message, remedy="delete the object: the next pass compares everything", key=key)
