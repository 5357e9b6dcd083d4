"""What an inspection reports: every key of ``brainy inspect --json``.

The keys are stable: new ones may be added, none changes its meaning. ``docs/guide/inspect.md`` describes each.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from brainy.legacy.bookkeeping import Distributed, LockFound, Statistics
from brainy.legacy.outlay import MigrationOutlay
from brainy.legacy.versions import DimensionRisk, VersionRange, VersionSpan


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)


Severity = Literal["critical", "warning", "info"]


class PrefixCount(_Report):
    """Objects and bytes below a prefix."""

    objects: int
    bytes: int


class ServiceCount(_Report):
    """Items that name a service as their author."""

    nouns: int
    verbs: int


class Duplicate(_Report):
    """An id that lies under several keys."""

    id: str
    kind: str
    #: The one that is read first; the others are hidden by it.
    keys: tuple[str, ...]
    #: Tree whose copy is the item.
    tree: str


class Duplicates(_Report):
    """Ids that lie under several keys, in one tree or in several."""

    nouns: int
    verbs: int
    #: Objects that are not read because of a stronger copy.
    hidden_objects: int
    #: Tree -> ids of which its copy wins.
    won_by: dict[str, int]
    #: The first ten.
    sample: tuple[Duplicate, ...]


class ChangeLog(_Report):
    """Brainy's change log. What needs the entries themselves is None where they were not read."""

    entries: int
    first: str | None
    last: str | None
    by_operation: dict[str, int] | None = None
    #: noun, verb, metadata.
    by_entity: dict[str, int] | None = None
    by_instance: dict[str, int] | None = None
    #: Entries about Brainy's own index entries.
    index_noise: int | None = None
    unreadable: int | None = None
    #: Nouns and verbs there are of which no ``add`` entry tells: what is lost to those who trust the log.
    nouns_without_add: int | None = None
    verbs_without_add: int | None = None


class LastWrite(_Report):
    """The newest sign that something wrote, by the clocks of the store and of the writers."""

    #: ISO 8601.
    at: str
    seconds_ago: float
    #: The object, or the change-log entry.
    key: str


class QuarantinedObject(_Report):
    """An object that is not taken over."""

    key: str
    reason: str
    size: int


class Advice(_Report):
    """One piece of advice."""

    #: A stable name.
    code: str
    severity: Severity
    message: str
    remedy: str
    #: How many things it is about.
    count: int


class Inspection(_Report):
    """The account."""

    format_version: int = 1
    #: ISO 8601, by the inspector's clock.
    inspected_at: str
    trees: tuple[str, ...]
    #: Trees that are named but cannot be read; their items are not counted.
    unsupported_trees: tuple[str, ...]
    versions: tuple[VersionRange, ...]
    #: Over all trees; None without one.
    version_range: VersionSpan | None
    foreign_keys: bool
    nouns: int
    verbs: int
    noun_types: dict[str, int]
    verb_types: dict[str, int]
    #: Vector length -> nouns; 0 stands for an empty vector.
    dimensions: dict[int, int]
    services: dict[str, ServiceCount]
    #: Metadata objects that hold null and whose noun is gone: hard deletes.
    deleted_nouns: int
    #: Verbs of whose deletion a trace is left: metadata without the verb, or the last word of the change log.
    deleted_verbs: int
    soft_deleted_nouns: int
    placeholders: int
    zero_vectors: int
    non_finite_vectors: int
    nouns_without_metadata: int
    nouns_with_null_metadata: int
    #: Verbs of which at least one end is no noun.
    dangling_verbs: int
    #: Verbs in one object, as 0.35 and older wrote them.
    one_piece_verbs: int
    #: Metadata objects with data whose noun is gone.
    orphan_noun_metadata: int
    #: Metadata objects whose verb is gone.
    orphan_verb_metadata: int
    #: Stored again by a late flush after they had been deleted.
    zombie_nouns: int
    zombie_verbs: int
    #: Objects whose id inside differs from the one in their key.
    id_mismatches: int
    duplicates: Duplicates
    dimension_risks: tuple[DimensionRisk, ...]
    #: Nouns whose object is gone although their metadata is there, or is unreadable, and whose vectors the change log
    #: still has; None where it was not read.
    rescuable_nouns: int | None
    #: The same, where nothing but the log speaks for the noun.
    rescuable_doubtful: int | None
    index_entries: int
    distributed: Distributed | None
    statistics: Statistics
    locks: tuple[LockFound, ...]
    change_log: ChangeLog
    last_write: LastWrite | None
    #: The first hundred; ``quarantined_count`` counts all.
    quarantined: tuple[QuarantinedObject, ...]
    quarantined_count: int
    quarantined_by_reason: dict[str, int]
    prefixes: dict[str, PrefixCount]
    objects: int
    bytes: int
    #: Objects that are neither Brainy's nor this product's.
    foreign_objects: int
    #: This product's own objects, under cluster/.
    cluster_objects: int
    #: Kind of call -> number, of this inspection.
    store_calls: dict[str, int]
    #: How long it took.
    seconds: float
    migration: MigrationOutlay
    #: Most severe first.
    advice: tuple[Advice, ...]
