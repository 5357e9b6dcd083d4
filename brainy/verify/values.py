"""What a comparison finds."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from brainy.bucket.items import Noun, Verb

NOUN: Final = "noun"
VERB: Final = "verb"

Item: TypeAlias = Noun | Verb
#: Kind and id: nouns and verbs have id spaces of their own.
Name: TypeAlias = tuple[str, str]
#: What a side holds of some names; None for nothing.
Holding: TypeAlias = dict[Name, Item | None]
#: Called with (items read, items expected or None).
Progress: TypeAlias = Callable[[int, int | None], None]
#: Called with one sentence for people.
Remark: TypeAlias = Callable[[str], None]


def nobody(*_: object) -> None:
    """Tell nobody."""


class Verdict(enum.StrEnum):
    """What is to be believed."""

    EQUAL = "equal"
    DIFFERENT = "different"
    #: Nothing differs that held still, but some items changed at every look: neither can be said of them.
    UNSETTLED = "unsettled"


class What(enum.StrEnum):
    """How an item differs."""

    #: A has it, B has not.
    MISSING = "missing"
    #: B has it, A has not.
    EXTRA = "extra"
    #: Both have it, not the same.
    MISMATCHED = "mismatched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One item that differs and went on differing."""

    kind: str
    id: str
    what: What
    #: Of mismatched items: vector, raw_vector, metadata, attributes, source_id, target_id, type, weight.
    fields: tuple[str, ...] = ()
    #: More about some of these fields.
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dangling:
    """A verb of which an end is no noun on one side, and is one on the other."""

    id: str
    #: Ends (source_id, target_id) that are no nouns, on each side.
    a: tuple[str, ...]
    b: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """What the relation check found."""

    #: Ends of verbs that are no noun of the same side, as they were read.
    dangling_a: int
    dangling_b: int
    #: Verbs of which that differs between the sides, and went on differing.
    different: int
    examples: tuple[Dangling, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in its history a side was read."""

    #: tree, generation or backup.
    kind: str
    generation: int | None = None
    #: Shard -> log position included.
    positions: dict[int, int] = field(default_factory=dict)
    #: ISO 8601, for people: when it was looked at.
    at: str = ""

    def __str__(self) -> str:
        if self.kind == "backup":
            return f"backup sealed {self.at}" if self.at else "backup"
        where = "the tree" if self.generation is None else f"generation {self.generation}"
        if not self.positions:
            return f"{where}, read from {self.at}"
        return f"{where} at " + " ".join(f"{shard}:{position}" for shard, position in sorted(self.positions.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class SideReport:
    """One side of a comparison."""

    name: str
    #: Where the scan read it.
    read_at: Place
    nouns: int
    verbs: int
    #: Objects that are no items because they cannot be read; they are not compared.
    quarantined: int
    #: Multiset digest of what was read, folded.
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One part out of ``of`` was compared: the ids whose hash modulo ``of`` is ``part``."""

    of: int
    part: int


@dataclass(slots=True, kw_only=True)
class Findings:
    """What the rechecks of some suspected items left."""

    suspected: int = 0
    missing: int = 0
    extra: int = 0
    mismatched: int = 0
    #: Still changing at the last look.
    unsettled: int = 0
    differences: list[Difference] = field(default_factory=list)
    unsettled_items: list[Name] = field(default_factory=list)

    @property
    def different(self) -> int:
        """Items that differ."""
        return self.missing + self.extra + self.mismatched


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The result. Its JSON is described in docs/guide/verify.md."""

    verdict: Verdict
    a: SideReport
    b: SideReport
    buckets: int
    #: Of them, those in which the sides differed as they were read.
    unequal_buckets: int
    #: Items of these buckets that differed as they were read: most are writes under way.
    suspected: int
    missing: int
    extra: int
    mismatched: int
    unsettled: int
    #: Suspected items that were not looked at again, because so many others differ.
    unexamined: int
    #: At most ``LISTED`` of them.
    differences: tuple[Difference, ...]
    unsettled_items: tuple[Name, ...]
    #: Where the sides were when the suspected items were last read; None where nothing was suspected.
    settled_a: Place | None
    settled_b: Place | None
    rechecks: int
    sample: Sample | None
    relations: Relations | None
    #: Went on with a run that was killed.
    resumed: bool = False
