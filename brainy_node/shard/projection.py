"""The digest without vectors: whether two generations hold the same items although another model embedded one of them.

What of an item counts is said in ``brainy.embedding.projection``.

Keeping it
----------
*Before.* The shard keeps its own digest and nothing of this.
*Steps.* 1. ``Shard.project`` notes, in one moment, what the shard holds, and every record applied from then on changes
``_since``. 2. What was noted is counted in blocks, beside reads and writes, into ``_noted``. 3. The digest is the sum
of both: sums commute, so it does not matter that they were made at the same time.
*After.* A record costs one hash more, and the digest is there at once.
*Cancel safety.* A count that is given up leaves a projection that is never ready; another begins afresh.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import Noun
from brainy.bucket.projection import Projection
from brainy.embedding.projection import projected_hash
from brainy_node.shard.base import Base
from brainy_node.shard.contents import Contents
from brainy_node.shard.tail import TailNoun

#: Items counted at a time, so that nobody waits long for the interpreter.
_BLOCK = 500

_T = TypeVar("_T")


class ProjectedDigest:
    """A shard's digest under a projection. The shard's lock guards ``_since``; counting needs none."""

    def __init__(self, projection: Projection) -> None:
        self.projection = projection
        self._since = MultisetDigest()
        self._noted: MultisetDigest | None = None

    @property
    def ready(self) -> bool:
        """Whether everything that was there when it began is counted."""
        return self._noted is not None

    def total(self) -> MultisetDigest:
        """Return a copy of the sum of everything; only once it is ready."""
        if self._noted is None:
            raise AssertionError("the projection is not counted yet")
        total = self._noted.copy()
        total.merge(self._since)
        return total

    def count(self, contents: Contents) -> Iterator[int]:
        """Count what was noted, a block at each step; yields how many items were counted so far."""
        noted, base, done = MultisetDigest(), contents.base, 0
        for rows in _blocks(contents.rows):
            for row in rows:
                self._row(noted, base, row, in_=True)
            done += len(rows)
            yield done
        for nouns in _blocks(contents.nouns):
            for noun, _ in nouns:
                noted.add(noun.id, projected_hash(self.projection, noun, len(noun.vector)))
            done += len(nouns)
            yield done
        for rows in _blocks(contents.verb_rows):
            noted.add_all([base.verb_ids.text(row) for row in rows], [base.verb_hash(row) for row in rows])
            done += len(rows)
            yield done
        noted.add_all([verb.id for verb, _ in contents.verbs], [item_hash for _, item_hash in contents.verbs])
        self._noted = noted

    # -- as records are applied; the lock is held --------------------------------------------------------------

    def noun_in(self, noun: Noun) -> None:
        """Count a noun in."""
        self._since.add(noun.id, projected_hash(self.projection, noun, len(noun.vector)))

    def state_out(self, state: TailNoun) -> None:
        """Count a noun of the tail out, unless it is a tombstone."""
        if state.noun is not None:
            self._since.remove(state.noun.id, projected_hash(self.projection, state.noun, len(state.noun.vector)))

    def row_out(self, base: Base, row: int) -> None:
        """Count a noun of the base out."""
        self._row(self._since, base, row, in_=False)

    def verb_in(self, item_id: str, item_hash: bytes) -> None:
        """Count a verb in."""
        self._since.add(item_id, item_hash)

    def verb_out(self, item_id: str, item_hash: bytes) -> None:
        """Count a verb out."""
        self._since.remove(item_id, item_hash)

    def _row(self, digest: MultisetDigest, base: Base, row: int, *, in_: bool) -> None:
        noun = base.noun(row, include_vectors=False)
        item_hash = projected_hash(self.projection, noun, base.vector_size(row))
        if in_:
            digest.add(noun.id, item_hash)
        else:
            digest.remove(noun.id, item_hash)


def _blocks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _BLOCK):
        yield items[start : start + _BLOCK]
