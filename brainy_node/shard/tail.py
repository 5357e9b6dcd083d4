"""The mutable part of a shard: what the log records after the base say, in memory.

For each id the tail keeps its latest state: an item or a tombstone, and the position that brought it. Vectors
that can be searched lie in one preallocated matrix and are scanned exactly: 23 to 66 microseconds for 500 to
2,000 of them, less than a graph would cost to maintain. A replaced vector's slot is used again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from brainy.bucket.items import Noun, Unindexed, Verb, unindexed_reason
from brainy.bucket.records import Spec
from brainy_node.shard import metric
from brainy_node.shard.facts import Facts, facts_of, verb_service

_FIRST_SLOTS = 256
_LARGEST = np.float32(np.finfo(np.float32).max)
_NOTHING = Facts()


class TailNoun(NamedTuple):
    """The latest state of a noun."""

    position: int
    #: None is a tombstone.
    noun: Noun | None
    #: The noun's digest; b"" for a tombstone.
    hash: bytes
    facts: Facts
    #: Why it is not searchable, None if it is.
    unindexed: Unindexed | None
    #: Row of the matrix, -1 if it has none.
    slot: int


class TailVerb(NamedTuple):
    """The latest state of a verb."""

    position: int
    #: None is a tombstone.
    verb: Verb | None
    hash: bytes
    #: Which made it.
    service: str = ""


class Found(NamedTuple):
    """Hits of a tail scan, in no order."""

    #: Number of the query (total).
    query: npt.NDArray[np.int64]
    #: Slot of the matrix (total).
    slots: npt.NDArray[np.int64]
    #: float32 (total).
    distances: npt.NDArray[np.float32]


class Tail:
    """States of ids after the base, and an exact index over their vectors."""

    def __init__(self, spec: Spec) -> None:
        self._metric = spec.metric
        self._dimensions = spec.dimensions
        self.nouns: dict[str, TailNoun] = {}
        self.verbs: dict[str, TailVerb] = {}
        self._by_source: dict[str, set[str]] = {}
        self._by_target: dict[str, set[str]] = {}
        self._matrix = np.zeros((_FIRST_SLOTS, spec.dimensions), np.float32)
        self._lengths = np.ones(_FIRST_SLOTS, np.float32)
        #: bool (slots): the slot holds a searchable vector.
        self._live = np.zeros(_FIRST_SLOTS, np.bool_)
        self._soft_deleted = np.zeros(_FIRST_SLOTS, np.bool_)
        #: Slots whose length is not known yet: many at once cost little more than one.
        self._unmeasured: list[int] = []
        self._owners: list[str] = []
        self._free: list[int] = []

    @property
    def vectors(self) -> int:
        """Number of searchable vectors."""
        return len(self._owners) - len(self._free)

    # -- changes ---------------------------------------------------------------------------------------------

    def put_noun(self, position: int, noun: Noun) -> TailNoun:
        """Set a noun's state; returns what was kept of it."""
        self._release(noun.id)
        reason = unindexed_reason(noun.vector, self._dimensions, self._metric)
        facts = facts_of(noun.metadata)
        slot = -1 if reason else self._store(noun, facts)
        state = TailNoun(position, noun, noun.digest(), facts, reason, slot)
        self.nouns[noun.id] = state
        return state

    def put_nouns(self, first: int, nouns: Sequence[Noun]) -> list[TailNoun]:
        """Set the states of nouns of different ids, at the positions from ``first`` on; as ``put_noun`` for each."""
        facts = [facts_of(noun.metadata) for noun in nouns]
        hashes = [noun.digest() for noun in nouns]
        matrix, reasons = self._measured(nouns)
        known = self.nouns
        for noun in nouns:
            if noun.id in known:
                self._release(noun.id)
        fit = [place for place, reason in enumerate(reasons) if reason is None]
        slots = [-1] * len(nouns)
        if fit:
            taken = self._take([nouns[place].id for place in fit])
            self._matrix[taken] = matrix if len(fit) == len(matrix) else matrix[fit]
            self._soft_deleted[taken] = [facts[place].soft_deleted for place in fit]
            self._live[taken] = True
            self._unmeasured += taken
            for place, slot in zip(fit, taken, strict=True):
                slots[place] = slot
        states = list(map(TailNoun, range(first, first + len(nouns)), nouns, hashes, facts, reasons, slots))
        known.update(zip((noun.id for noun in nouns), states, strict=True))
        return states

    def drop_noun(self, position: int, item_id: str) -> None:
        """Set a noun's state to deleted."""
        self._release(item_id)
        self.nouns[item_id] = TailNoun(position, None, b"", _NOTHING, None, -1)

    def put_verb(self, position: int, verb: Verb) -> TailVerb:
        """Set a verb's state; returns what was kept of it."""
        self._unlink(verb.id)
        state = TailVerb(position, verb, verb.digest(), verb_service(verb.metadata, verb.attributes))
        self.verbs[verb.id] = state
        self._by_source.setdefault(verb.source_id, set()).add(verb.id)
        self._by_target.setdefault(verb.target_id, set()).add(verb.id)
        return state

    def drop_verb(self, position: int, item_id: str) -> None:
        """Set a verb's state to deleted."""
        self._unlink(item_id)
        self.verbs[item_id] = TailVerb(position, None, b"")

    def after(self, position: int, spec: Spec) -> Tail:
        """Return a new tail with only the states that records after ``position`` brought."""
        rest = Tail(spec)
        for item_id, state in self.nouns.items():
            if state.position <= position:
                continue
            if state.noun is None:
                rest.nouns[item_id] = state
                continue
            reason = unindexed_reason(state.noun.vector, spec.dimensions, spec.metric)
            slot = -1 if reason else rest._store(state.noun, state.facts)
            rest.nouns[item_id] = state._replace(unindexed=reason, slot=slot)
        for item_id, verb_state in self.verbs.items():
            if verb_state.position <= position:
                continue
            rest.verbs[item_id] = verb_state
            if verb_state.verb is not None:
                rest._by_source.setdefault(verb_state.verb.source_id, set()).add(item_id)
                rest._by_target.setdefault(verb_state.verb.target_id, set()).add(item_id)
        return rest

    def _measured(self, nouns: Sequence[Noun]) -> tuple[npt.NDArray[np.float32], list[Unindexed | None]]:
        """Return the vectors (n x d; zero where one has another length), and why each is not searchable."""
        width = 4 * self._dimensions
        absent = bytes(width)
        joined = b"".join([noun.vector if len(noun.vector) == width else absent for noun in nouns])
        matrix = np.frombuffer(joined, "<f4").reshape(len(nouns), self._dimensions)
        with np.errstate(all="ignore"):
            squares = np.einsum("ij,ij->i", matrix, matrix)
        # As in unindexed_reason, which judges the few that this leaves open.
        reasons: list[Unindexed | None] = [None] * len(nouns)
        for place in np.flatnonzero(~((squares > 0) & (squares < np.inf))).tolist():
            reasons[place] = unindexed_reason(nouns[place].vector, self._dimensions, self._metric)
        return matrix, reasons

    def _take(self, ids: Sequence[str]) -> list[int]:
        """Return a slot for each of these owners."""
        reused = [self._free.pop() for _ in range(min(len(self._free), len(ids)))]
        for slot, item_id in zip(reused, ids, strict=False):
            self._owners[slot] = item_id
        begin = len(self._owners)
        self._owners += ids[len(reused) :]
        if len(self._owners) > len(self._live):
            self._grow(len(self._owners))
        return [*reused, *range(begin, len(self._owners))]

    def _store(self, noun: Noun, facts: Facts) -> int:
        if self._free:
            slot = self._free.pop()
            self._owners[slot] = noun.id
        else:
            slot = len(self._owners)
            if slot == len(self._live):
                self._grow(slot + 1)
            self._owners.append(noun.id)
        self._matrix[slot] = np.frombuffer(noun.vector, "<f4")
        self._unmeasured.append(slot)
        self._soft_deleted[slot] = facts.soft_deleted
        self._live[slot] = True
        return slot

    def _grow(self, wanted: int) -> None:
        size = max(2 * len(self._live), wanted)
        matrix = np.zeros((size, self._dimensions), np.float32)
        matrix[: len(self._matrix)] = self._matrix
        self._matrix = matrix
        self._lengths = np.concatenate([self._lengths, np.ones(size - len(self._lengths), np.float32)])
        self._live = np.concatenate([self._live, np.zeros(size - len(self._live), np.bool_)])
        self._soft_deleted = np.concatenate([self._soft_deleted, np.zeros(size - len(self._soft_deleted), np.bool_)])

    def _release(self, item_id: str) -> None:
        state = self.nouns.get(item_id)
        if state is not None and state.slot >= 0:
            self._live[state.slot] = False
            self._lengths[state.slot] = 1.0
            self._free.append(state.slot)

    def _unlink(self, item_id: str) -> None:
        state = self.verbs.get(item_id)
        if state is None or state.verb is None:
            return
        for table, end in ((self._by_source, state.verb.source_id), (self._by_target, state.verb.target_id)):
            table[end].discard(item_id)
            if not table[end]:
                del table[end]

    # -- reads -----------------------------------------------------------------------------------------------

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        include_soft_deleted: bool,
        bounds: npt.NDArray[np.float32] | None = None,
    ) -> Found:
        """Scan exactly for up to about ``k`` nearest of each query (n x d, finite).

        ``bounds`` (n) is a distance beyond which a hit is of no use to a query, infinity where any is: with it
        most of the tail drops out in one comparison. More than k hits may come back; the merge cuts them.
        """
        self._measure()
        size = len(self._owners)
        if not self.vectors:
            return Found(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        matrix, lengths, live = self._matrix[:size], self._lengths[:size], self._live[:size]
        allowed = live if include_soft_deleted else live & ~self._soft_deleted[:size]
        rough = metric.approximate(self._metric, matrix, lengths, queries)
        if self._free or not allowed.all():
            rough[:, ~allowed] = np.inf
        slack = np.float32(metric.margin(self._metric, lengths, queries))
        limit = np.full(len(queries), np.inf, np.float32) if bounds is None else bounds + slack
        # float32's maximum, not infinity: an excluded slot must not pass an infinite limit.
        np.minimum(limit, _LARGEST, out=limit)
        near = rough <= limit[:, None]
        if k < size and np.count_nonzero(near) > 2 * k:
            # Queries whose bound lets many through are cut at their own k-th nearest.
            wide = np.flatnonzero(np.count_nonzero(near, axis=1) > 2 * k)
            limit[wide] = np.partition(rough[wide], k - 1, axis=1)[:, k - 1] + slack
            np.minimum(limit, _LARGEST, out=limit)
            near = rough <= limit[:, None]
        query, slots = np.nonzero(near)
        if not len(query):
            return Found(query, slots, np.empty(0, np.float32))
        return Found(query, slots, metric.measure(self._metric, matrix[slots], queries[query]))

    def _measure(self) -> None:
        if self._unmeasured:
            slots = np.array(self._unmeasured)
            self._unmeasured.clear()
            self._lengths[slots] = np.where(self._live[slots], metric.norms(self._matrix[slots]), np.float32(1.0))

    def searchable(self) -> npt.NDArray[np.float32]:
        """Return a copy of the searchable vectors (n x d)."""
        return self._matrix[: len(self._owners)][self._live[: len(self._owners)]]

    def owner(self, slot: int) -> Noun:
        """Return the noun whose vector a slot holds."""
        noun = self.nouns[self._owners[slot]].noun
        if noun is None:
            raise LookupError(f"slot {slot} of the tail holds no vector")
        return noun

    def verbs_matching(self, source_id: str | None, target_id: str | None, kind: str | None) -> Iterator[Verb]:
        """Yield verbs by source, target and type (None matches all)."""
        if source_id is not None:
            names: list[str] = sorted(self._by_source.get(source_id, ()))
        elif target_id is not None:
            names = sorted(self._by_target.get(target_id, ()))
        else:
            names = list(self.verbs)
        for name in names:
            verb = self.verbs[name].verb
            if verb is None or (target_id is not None and verb.target_id != target_id):
                continue
            if kind is None or verb.type == kind:
                yield verb
