"""Which versions of Brainy can have written a bucket, told from what only some of them write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from brainy.legacy.inventory import Inventory
from brainy.legacy.keys import ENTITY, FLAT, TYPED, Kind
from brainy.legacy.tally import Tally

Version = tuple[int, int, int]

#: Which Brainy deletes nouns of another length when it starts: tree, first, last, the length it keeps.
_DELETERS = (
    (ENTITY, "0.48.1", "1.1.1", 384),
    (FLAT, "0.47.0", "0.48.0", 384),
    (FLAT, "0.25.0", "0.46.0", 512),
)


class VersionRange(BaseModel):
    """A guess. Several versions may have written into one tree; then this is the span of their traces."""

    model_config = ConfigDict(frozen=True)

    tree: str
    oldest: str
    newest: str
    #: What was seen.
    evidence: tuple[str, ...]


class VersionSpan(BaseModel):
    """From the oldest to the newest version that can have written a bucket."""

    model_config = ConfigDict(frozen=True)

    oldest: str
    newest: str


class DimensionRisk(BaseModel):
    """What a version of Brainy would delete on its start, up to a page of nouns at a time."""

    model_config = ConfigDict(frozen=True)

    tree: str
    oldest: str
    newest: str
    #: Vector length it keeps.
    expects: int
    #: Nouns of the tree that have another.
    nouns: int


class _Span:
    def __init__(self, tree: str, oldest: Version, newest: Version) -> None:
        self._tree, self._oldest, self._newest = tree, oldest, newest
        self._evidence: list[str] = []

    def at_least(self, seen: object, version: Version, evidence: str) -> None:
        if seen:
            self._oldest = max(self._oldest, version)
            self._evidence.append(evidence)

    def at_most(self, seen: object, version: Version, evidence: str) -> None:
        if seen:
            self._newest = min(self._newest, version)
            self._evidence.append(evidence)

    def result(self) -> VersionRange:
        # Traces of two versions contradict each other: the span covers both.
        oldest, newest = sorted((self._oldest, self._newest))
        return VersionRange(
            tree=self._tree,
            oldest=".".join(map(str, oldest)),
            newest=".".join(map(str, newest)),
            evidence=tuple(self._evidence),
        )


def guess_versions(trees: tuple[str, ...], inventory: Inventory, tally: Tally) -> list[VersionRange]:
    """Guess for each tree. Traces of book-keeping cannot be told apart when two trees share the bucket."""
    guesses = []
    alone = len(trees) == 1
    for tree in trees:
        if tree == TYPED:
            guesses.append(_typed(inventory))
        elif tree == FLAT:
            guesses.append(_flat(inventory, tally, alone=alone))
        elif tree == ENTITY:
            guesses.append(_entity(inventory, tally, alone=alone))
    return guesses


def whole_span(guesses: Sequence[VersionRange]) -> VersionSpan | None:
    """Return the span of several guesses."""
    if not guesses:
        return None
    return VersionSpan(
        oldest=min((guess.oldest for guess in guesses), key=_number),
        newest=max((guess.newest for guess in guesses), key=_number),
    )


def overlap(risk: DimensionRisk, guesses: Sequence[VersionRange]) -> bool:
    """Whether a version that would delete nouns may be one of those that wrote the tree."""
    return any(
        guess.tree == risk.tree
        and _number(guess.oldest) <= _number(risk.newest)
        and _number(risk.oldest) <= _number(guess.newest)
        for guess in guesses
    )


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def dimension_risks(trees: Sequence[str], inventory: Inventory, tally: Tally) -> tuple[DimensionRisk, ...]:
    """Say what each Brainy that reads one of the trees would delete. The items of a tree are those taken from it."""
    hashes, lengths = tally.lengths_of_nouns
    found = []
    taken: dict[str, Any] = {}
    rest = np.ones(len(hashes), dtype=np.bool_)
    for tree in trees:
        taken[tree] = rest & inventory.occurrences.within(Kind.NOUN, tree, hashes) if len(trees) > 1 else rest
        rest = rest & ~taken[tree]
    for tree, oldest, newest, expects in _DELETERS:
        if tree in taken:
            nouns = int((taken[tree] & (lengths != expects)).sum())
            found.append(DimensionRisk(tree=tree, oldest=oldest, newest=newest, expects=expects, nouns=nouns))
    return tuple(found)


def _typed(inventory: Inventory) -> VersionRange:
    span = _Span(TYPED, (0, 6, 0), (0, 14, 0))
    old = inventory.objects["edges/"] + inventory.objects["nodes/"] + inventory.objects["nodes/person/"]
    span.at_most(old, (0, 8, 0), "objects under nodes/ or edges/")
    span.at_least(inventory.tree_kinds[FLAT, Kind.VERB] and not old, (0, 9, 0), "objects under verbs/")
    return span.result()


def _flat(inventory: Inventory, tally: Tally, *, alone: bool) -> VersionRange:
    span = _Span(FLAT, (0, 15, 0), (0, 48, 0))
    split = inventory.tree_kinds[FLAT, Kind.VERB_METADATA]
    verbs = inventory.tree_kinds[FLAT, Kind.VERB]
    if alone:
        logged = inventory.kinds[Kind.CHANGE]
        span.at_least(inventory.kinds[Kind.STATISTICS], (0, 20, 0), "statistics objects")
        span.at_least(inventory.daily_under_index, (0, 21, 0), "statistics by day")
        span.at_least(logged, (0, 26, 0), "a change log")
        span.at_most(not logged, (0, 25, 0), "no change log")
    span.at_least(split, (0, 36, 0), "verbs in two objects")
    span.at_most(verbs and not split, (0, 35, 0), "verbs in one object")
    span.at_least(inventory.kinds[Kind.DISTRIBUTED_CONFIG], (0, 38, 0), "a distributed configuration")
    if alone:
        span.at_least(tally.with_level, (0, 40, 0), "nouns with a level")
        span.at_most(tally.nouns and not tally.with_level, (0, 39, 0), "nouns without a level")
        span.at_least(tally.created_by_041, (0, 41, 0), 'createdBy version "0.41.0"')
    return span.result()


def _entity(inventory: Inventory, tally: Tally, *, alone: bool) -> VersionRange:
    span = _Span(ENTITY, (0, 48, 1), (1, 1, 1))
    span.at_least(inventory.chunked_index_entries, (0, 49, 0), "index entries in chunks")
    span.at_most(
        inventory.old_index_entries and not inventory.chunked_index_entries,
        (0, 48, 1),
        "index entries without chunks",
    )
    span.at_least(inventory.under_system, (0, 54, 3), "statistics under _system/")
    span.at_most(
        alone and inventory.daily_under_index and not inventory.under_system,
        (0, 54, 2),
        "statistics by day under index/",
    )
    span.at_least(tally.soft_deleted, (1, 0, 0), "soft deletes")
    return span.result()
