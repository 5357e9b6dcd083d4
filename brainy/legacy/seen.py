"""The book of seen versions: which version of each of Brainy's objects what is served already includes.

One book is for one shard. It knows an object by the prefix of its key and the 64-bit hash of the id in it, and a
version by the 64-bit hash of its ETag and the second of its LastModified, so an object costs 20 bytes (a million of
them 20 MB, and while new ones are being merged in twice that). Ids are not kept: whoever needs one back asks the
shard, whose lookups are sorted by the same hash.

A listing is compared with the book page by page. What the comparison reports is a reason to *read* an object, never
to believe something: the listing may be older than the book. Only what was read decides, and what was read goes into
the book with ``saw``.

**Own writes.** A part of the cluster that writes into the tree itself (mirroring) says so, so that its writes are not
taken for somebody else's:

1. ``hold(key)`` before the PUT or DELETE is sent: until released the key is never reported as changed or missing.
2. ``wrote(key, etag)`` once the PUT is known to have landed, ``deleted(key)`` for a DELETE; both release the key.
   ``release(key)`` if nothing landed.

A crash between the two, or before the book is saved, leaves a version that the next owner has never seen. It reads it
and finds that it says what is served, or what our own log said after ``SeenBook.mirrored``, and commits nothing; so a
mirrored object has to read back as the item it was made from.

Pure: no I/O, no clock. Not safe for threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from brainy.bucket.partition import key_hash
from brainy.legacy.keys import id_in
from brainy.store.base import StoredObject

Hashes = npt.NDArray[np.uint64]
Seconds = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

#: Bytes of one object in memory and in the bucket.
ENTRY_BYTES = 20


class Version(NamedTuple):
    """One version of an object."""

    #: Hash of the ETag, without the quotes some stores send.
    tag: int
    #: LastModified in whole seconds since 1970, as coarse as every store says it; 0 where it is not known.
    seconds: int = 0

    def same_as(self, other: Version) -> bool:
        """Whether both may be one version: the same ETag, and not written later, as far as is known."""
        return self.tag == other.tag and (not self.seconds or not other.seconds or self.seconds == other.seconds)


def version_of(etag: str, last_modified: float = 0.0, size: int = 0) -> Version:
    """Return the version an ETag and a LastModified stand for; a store without ETags is told apart by size."""
    text = etag.removeprefix("W/").strip('"') or f"{last_modified}-{size}"
    return Version(xxhash.xxh64_intdigest(text.encode()), max(0, int(last_modified)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """How far our own writes into the tree are known: everything the mirror wrote up to there is in a book."""

    dialect: str
    #: "generation/shard" of a log -> position.
    positions: Mapping[str, int] = field(default_factory=dict)
    #: "generation/shard" -> nonce of the mirror's record that the positions were read from.
    nonces: Mapping[str, str] = field(default_factory=dict)
    #: Nobody was mirroring then: while the nonces stand, nobody has since.
    idle: bool = False

    def idle_until(self, now: Mapping[str, str]) -> bool:
        """Whether nobody has mirrored since, where these are the nonces now."""
        return self.idle and dict(self.nonces) == dict(now)

    @classmethod
    def union(cls, parts: Sequence[Mirrored | None]) -> Mirrored | None:
        """Return what holds for the books of several shards together; None where that is nothing."""
        known = [part for part in parts if part is not None]
        if not known or len(known) < len(parts) or len({part.dialect for part in known}) > 1:
            return None
        positions: dict[str, int] = {}
        nonces: dict[str, str] = {}
        for part in known:
            nonces.update(part.nonces)
            for log, position in part.positions.items():
                positions[log] = min(position, positions.get(log, position))
        idle = all(part.idle for part in known)
        return cls(dialect=known[0].dialect, positions=positions, nonces=nonces, idle=idle)


class Place:
    """The objects under one prefix: three parallel arrays sorted by hash, and what came since."""

    __slots__ = ("_hashes", "_recent", "_seconds", "_tags")

    def __init__(self) -> None:
        self._hashes: Hashes = np.empty(0, np.uint64)
        self._tags: Hashes = np.empty(0, np.uint64)
        self._seconds: Seconds = np.empty(0, np.uint32)
        self._recent: dict[int, Version | None] = {}

    @classmethod
    def of(cls, hashes: Hashes, tags: Hashes, seconds: Seconds) -> Place:
        """Return a place with these objects, in any order; of an object given twice the last one counts."""
        place = cls()
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        last = np.ones(len(hashes), np.bool_)
        last[:-1] = hashes[1:] != hashes[:-1]
        place._hashes, place._tags, place._seconds = hashes[last], tags[order][last], seconds[order][last]
        return place

    def __len__(self) -> int:
        self.settle()
        return len(self._hashes)

    @property
    def arrays(self) -> tuple[Hashes, Hashes, Seconds]:
        """Hashes (sorted), tags and seconds of every object."""
        self.settle()
        return self._hashes, self._tags, self._seconds

    def get(self, item_hash: int) -> Version | None:
        """Return the version seen last, None if there was no such object."""
        if item_hash in self._recent:
            return self._recent[item_hash]
        at = int(self._hashes.searchsorted(np.uint64(item_hash)))
        if at == len(self._hashes) or self._hashes[at] != item_hash:
            return None
        return Version(int(self._tags[at]), int(self._seconds[at]))

    def set(self, item_hash: int, version: Version | None) -> None:
        """Note a version; None: there is no such object (any more)."""
        self._recent[item_hash] = version

    def recent(self) -> list[tuple[int, Version | None]]:
        """Return what came since the arrays were merged last."""
        return list(self._recent.items())

    def settle(self) -> None:
        """Merge what came since into the arrays."""
        if not self._recent:
            return
        recent, self._recent = self._recent, {}
        touched = np.fromiter(recent, np.uint64, len(recent))
        kept = ~np.isin(self._hashes, touched)
        new = {item_hash: version for item_hash, version in recent.items() if version is not None}
        merged = Place.of(
            np.concatenate([self._hashes[kept], np.fromiter(new, np.uint64, len(new))]),
            np.concatenate([self._tags[kept], np.fromiter((v.tag for v in new.values()), np.uint64, len(new))]),
            np.concatenate([self._seconds[kept], np.fromiter((v.seconds for v in new.values()), np.uint32, len(new))]),
        )
        self._hashes, self._tags, self._seconds = merged._hashes, merged._tags, merged._seconds


class SeenBook:
    """The versions of one shard's objects under some prefixes."""

    def __init__(self, prefixes: Iterable[str], *, position: int = 0) -> None:
        #: Prefix -> its objects.
        self.places: dict[str, Place] = {prefix: Place() for prefix in prefixes}
        self._by_length = sorted(self.places, key=len, reverse=True)
        self._held: Counter[str] = Counter()
        #: Position in the shard's log: every record at or below it was durable before the listing began that the
        #: versions in the book were compared with. A version that is not in the book is younger than those.
        self.position = position
        #: How far it knows what the mirror wrote; None where nobody has said. As of when it was saved.
        self.mirrored: Mirrored | None = None
        #: Versions noted since the book was made.
        self.changes = 0

    def __len__(self) -> int:
        return sum(map(len, self.places.values()))

    def __bool__(self) -> bool:
        return True  # an empty book is a book

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return ENTRY_BYTES * len(self)

    def locate(self, key: str) -> tuple[str, str] | None:
        """Return (prefix, id) of an object this book is about, None for any other."""
        for prefix in self._by_length:
            if key.startswith(prefix):
                item_id = id_in(prefix, key)
                return None if item_id is None else (prefix, item_id)
        return None

    def version(self, key: str) -> Version | None:
        """Return the version of an object seen last, None if there was no such object."""
        found = self.locate(key)
        return None if found is None else self.places[found[0]].get(key_hash(found[1]))

    def saw(self, key: str, version: Version | None) -> None:
        """Note what was read: a version, or None for an object that is not there."""
        if (found := self.locate(key)) is not None:
            self.changes += 1
            self.places[found[0]].set(key_hash(found[1]), version)

    def unchanged(self, key: str, found: StoredObject | None) -> bool:
        """Whether what was read now is the version (None: the absence) that was seen last."""
        known = self.version(key)
        if found is None or known is None:
            return found is None and known is None
        return known.same_as(version_of(found.etag, found.last_modified, len(found.body)))

    # --- own writes -----------------------------------------------------------------------------

    def hold(self, key: str) -> None:
        """Say that we are about to write or delete an object. Holds are counted."""
        self._held[key] += 1

    def release(self, key: str) -> None:
        """Say that one such write is over and nothing landed."""
        if self._held[key] <= 1:
            del self._held[key]
        else:
            self._held[key] -= 1

    def wrote(self, key: str, etag: str, last_modified: float = 0.0) -> None:
        """Say that we wrote an object; the store answered with this ETag."""
        self.saw(key, version_of(etag, last_modified))
        self.release(key)

    def deleted(self, key: str) -> None:
        """Say that we deleted an object."""
        self.saw(key, None)
        self.release(key)

    @property
    def held(self) -> Collection[str]:
        """Keys we are writing just now."""
        return self._held.keys()

    # --- comparing ------------------------------------------------------------------------------

    def compare(self) -> Comparison:
        """Begin to compare with a listing."""
        for place in self.places.values():
            place.settle()
        return Comparison(self)

    # --- other shard counts ---------------------------------------------------------------------

    def part(self, shard: int, shard_count: int) -> SeenBook:
        """Return what of the book belongs to one of ``shard_count`` shards."""
        part = SeenBook(self.places, position=self.position)
        for prefix, place in self.places.items():
            hashes, tags, seconds = place.arrays
            mine = hashes % np.uint64(shard_count) == np.uint64(shard)
            part.places[prefix] = Place.of(hashes[mine], tags[mine], seconds[mine])
        return part

    @classmethod
    def union(cls, books: Sequence[SeenBook]) -> SeenBook:
        """Return one book with everything in several whose objects differ. Its position is 0."""
        whole = cls(dict.fromkeys(prefix for book in books for prefix in book.places))
        for prefix in whole.places:
            parts = [book.places[prefix].arrays for book in books if prefix in book.places]
            whole.places[prefix] = Place.of(
                np.concatenate([part[0] for part in parts]),
                np.concatenate([part[1] for part in parts]),
                np.concatenate([part[2] for part in parts]),
            )
        return whole


class Comparison:
    """A listing being held against the book as it was when the comparison began."""

    def __init__(self, book: SeenBook) -> None:
        self._book = book
        self._arrays = {prefix: place.arrays for prefix, place in book.places.items()}
        self._listed: dict[str, Mask] = {
            prefix: np.zeros(len(arrays[0]), np.bool_) for prefix, arrays in self._arrays.items()
        }
        #: Sorted by the first question after the last page.
        self._sorted: dict[str, Hashes] = {}
        self._new: dict[str, list[Hashes]] = {prefix: [] for prefix in self._arrays}

    def page(self, prefix: str, hashes: Hashes, tags: Hashes, seconds: Seconds) -> Mask:
        """Take in listed objects under a prefix; say of each whether it is new or another version."""
        known, known_tags, known_seconds = self._arrays[prefix]
        if not len(known):
            self._new[prefix].append(hashes)
            return np.ones(len(hashes), np.bool_)
        at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        there = known[at] == hashes
        self._new[prefix].append(hashes[~there])
        self._listed[prefix][at[there]] = True
        earlier = known_seconds[at]
        later = (earlier != 0) & (seconds != 0) & (earlier != seconds)
        news: Mask = ~there | (known_tags[at] != tags) | later
        return news

    def missing(self, prefix: str) -> Hashes:
        """Return the hashes of the objects of the book that the listing did not name, sorted."""
        return self._arrays[prefix][0][~self._listed[prefix]]

    def may_hold(self, prefix: str, item_hash: int) -> bool:
        """Say whether there may be an object of an id: the listing named it, or the book knows it.

        One of the book that was not listed counts too, for the listing may be older than the book.
        """
        if self._book.places[prefix].get(item_hash) is not None:
            return True
        new = self._sorted.get(prefix)
        if new is None:
            new = self._sorted[prefix] = np.sort(np.concatenate([np.empty(0, np.uint64), *self._new[prefix]]))
        at = int(new.searchsorted(np.uint64(item_hash)))
        return at < len(new) and int(new[at]) == item_hash
