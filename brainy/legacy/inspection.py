"""A full account of a bucket as Brainy left it. Read-only.

One listing of all keys, then every item once. Memory does not grow with the size of objects, only by some bytes
for each object, so a bucket of any size can be inspected. Brainy's own statistics are reported beside what was
counted and never believed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from brainy.clock import Clock, SystemClock, iso
from brainy.legacy.inventory import Inventory
from brainy.legacy.keys import Kind
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.reading import TreeReader, Wanted
from brainy.legacy.statistics_lock import expires_at_ms
from brainy.legacy.survey import survey
from brainy.legacy.tally import Tally
from brainy.legacy.trees import open_trees
from brainy.legacy.values import UnreadableError, parse_json
from brainy.legacy.versions import VersionRange, guess_versions
from brainy.store.base import ObjectStore

_MAX_STATISTICS = 10


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)


class PrefixCount(_Report):
    """Objects and bytes below a prefix."""

    objects: int
    bytes: int


class ServiceCount(_Report):
    """Items a service says it created."""

    nouns: int
    verbs: int


class StatisticsFound(_Report):
    """One of Brainy's statistics objects, summed over services. None where it cannot be read."""

    key: str
    nouns: int | None
    verbs: int | None
    last_updated: str | None


class Statistics(_Report):
    """What Brainy believed, newest object first (at most ten), against what is there."""

    found: tuple[StatisticsFound, ...]
    objects: int
    counted_nouns: int
    counted_verbs: int
    #: False when an object was found and the newest differs from what was counted.
    agrees: bool


class LockFound(_Report):
    """One of Brainy's locks."""

    key: str
    holder: str
    #: ISO 8601, or None where the lock does not say: Brainy treats it as free.
    expires_at: str | None
    stale: bool


class ChangeLog(_Report):
    """Brainy's change log: how many entries, from when to when."""

    entries: int
    first: str | None
    last: str | None


class QuarantinedObject(_Report):
    """An object that is not taken over."""

    key: str
    reason: str
    size: int


class Inspection(_Report):
    """The account. Its JSON keys are stable; new ones may be added."""

    format_version: int = 1
    trees: tuple[str, ...]
    #: Trees that are named but cannot be read; their items are not counted. None today.
    unsupported_trees: tuple[str, ...]
    versions: tuple[VersionRange, ...]
    foreign_keys: bool
    nouns: int
    verbs: int
    noun_types: dict[str, int]
    verb_types: dict[str, int]
    #: Vector length -> nouns; 0 stands for an empty vector.
    dimensions: dict[int, int]
    services: dict[str, ServiceCount]
    soft_deleted: int
    placeholders: int
    zero_vectors: int
    non_finite_vectors: int
    nouns_without_metadata: int
    nouns_with_null_metadata: int
    #: Metadata objects that hold null and whose noun is gone: hard deletes.
    tombstones: int
    #: Metadata objects with data whose noun is gone.
    orphan_metadata: int
    #: Verbs of which at least one end is no noun.
    dangling_verbs: int
    orphan_verb_metadata: int
    zombies: int
    #: Objects whose id inside differs from the one in their key.
    id_mismatches: int
    index_entries: int
    statistics: Statistics
    locks: tuple[LockFound, ...]
    change_log: ChangeLog
    #: The first hundred; ``quarantined_count`` counts all.
    quarantined: tuple[QuarantinedObject, ...]
    quarantined_count: int
    quarantined_by_reason: dict[str, int]
    prefixes: dict[str, PrefixCount]
    objects: int
    bytes: int
    #: Kind of call -> number, of this inspection.
    store_calls: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionProgress:
    """How far an inspection is."""

    #: "listing" or "reading".
    phase: str
    objects_listed: int
    items_read: int
    #: 0 while listing.
    items_expected: int


async def inspect(
    store: ObjectStore,
    on_progress: Callable[[InspectionProgress], None] | None = None,
    *,
    clock: Clock | None = None,
) -> Inspection:
    """Read a whole namespace and say what is in it; ``on_progress`` is called once a page and a batch.

    ``clock`` tells whether a lock has expired, for display.

    Raises:
        BrainyError: the store failed. Unreadable objects are reported, not raised.
    """
    tell = on_progress or (lambda _: None)
    seen = await survey(store)
    fetcher = Fetcher(store)
    inventory = Inventory()
    async with aclosing(fetcher.pages("")) as pages:
        async for page in pages:
            inventory.take(page)
            listed = inventory.objects.total()
            tell(InspectionProgress(phase="listing", objects_listed=listed, items_read=0, items_expected=0))
    inventory.finish()

    listed = inventory.objects.total()
    readable = open_trees(seen.trees)
    names = {tree.name for tree in readable}
    expected = sum(inventory.tree_kinds[name, kind] for name in names for kind in (Kind.NOUN, Kind.VERB))
    reader = TreeReader(store, readable)
    tally = Tally()
    async with aclosing(reader.stream(Wanted(frozenset({0}), 1))) as batches:
        async for batch in batches:
            tally.take(batch)
            read = tally.nouns + tally.verbs
            tell(InspectionProgress(phase="reading", objects_listed=listed, items_read=read, items_expected=expected))
    dangling = tally.dangling_verbs()
    statistics = await _statistics(fetcher, inventory, tally)
    locks = await _locks(fetcher, inventory, clock or SystemClock())
    calls = (fetcher.calls, reader.calls)
    return Inspection(
        trees=seen.trees,
        unsupported_trees=(),
        versions=tuple(guess_versions(seen.trees, inventory, tally)),
        foreign_keys=seen.foreign_keys,
        nouns=tally.nouns,
        verbs=tally.verbs,
        noun_types=_by_size(tally.noun_types),
        verb_types=_by_size(tally.verb_types),
        dimensions=dict(sorted(tally.dimensions.items())),
        services={
            name: ServiceCount(nouns=tally.noun_services[name], verbs=tally.verb_services[name])
            for name in sorted(tally.noun_services.keys() | tally.verb_services.keys())
        },
        soft_deleted=tally.soft_deleted,
        placeholders=tally.placeholders,
        zero_vectors=tally.zero_vectors,
        non_finite_vectors=tally.non_finite_vectors,
        nouns_without_metadata=tally.without_metadata,
        nouns_with_null_metadata=tally.null_metadata,
        tombstones=_missing(inventory.null_metadata.hashes, tally.noun_ids.hashes),
        orphan_metadata=_missing(inventory.other_metadata.hashes, tally.noun_ids.hashes),
        dangling_verbs=dangling,
        orphan_verb_metadata=_missing(inventory.verb_metadata.hashes, inventory.verbs.hashes),
        zombies=tally.zombies,
        id_mismatches=len(reader.strays),
        index_entries=inventory.kinds[Kind.INDEX_ENTRY],
        statistics=statistics,
        locks=locks,
        change_log=ChangeLog(
            entries=inventory.kinds[Kind.CHANGE],
            first=_stamp(inventory.change_first),
            last=_stamp(inventory.change_last),
        ),
        quarantined=tuple(
            QuarantinedObject(key=entry.key, reason=str(entry.reason), size=entry.size) for entry in tally.quarantined
        ),
        quarantined_count=tally.quarantined_count,
        quarantined_by_reason=_by_size(tally.reasons),
        prefixes={
            prefix: PrefixCount(objects=count, bytes=inventory.sizes[prefix])
            for prefix, count in sorted(inventory.objects.items())
        },
        objects=listed,
        bytes=inventory.sizes.total(),
        store_calls={
            "list": sum(each.lists for each in calls) + seen.lists,
            "get": sum(each.gets for each in calls) + seen.gets,
        },
    )


def _by_size(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _missing(named: Any, known: Any) -> int:
    return len(np.setdiff1d(named, known, assume_unique=True))


def _stamp(milliseconds: float | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        return iso(milliseconds / 1000)
    except (OverflowError, ValueError, OSError):
        return None


async def _statistics(fetcher: Fetcher, inventory: Inventory, tally: Tally) -> Statistics:
    # By day, newest first; the copy without a date last, since it lags.
    names = sorted(inventory.statistics, key=lambda key: key.rpartition("_")[2], reverse=True)
    dated = [key for key in names if key.removesuffix(".json")[-8:].isdigit()]
    names = (dated + [key for key in names if key not in dated])[:_MAX_STATISTICS]
    found = []
    for key, stored in zip(names, await fetcher.get_all(names), strict=True):
        fields: dict[str, Any] = {}
        if stored is not None:
            try:
                value = parse_json(stored.body)
                fields = value if isinstance(value, dict) else {}
            except UnreadableError:
                pass
        updated = fields.get("lastUpdated")
        found.append(
            StatisticsFound(
                key=key,
                nouns=_sum(fields.get("nounCount")),
                verbs=_sum(fields.get("verbCount")),
                last_updated=updated if isinstance(updated, str) else None,
            )
        )
    agrees = not found or (found[0].nouns, found[0].verbs) == (tally.nouns, tally.verbs)
    return Statistics(
        found=tuple(found),
        objects=inventory.kinds[Kind.STATISTICS],
        counted_nouns=tally.nouns,
        counted_verbs=tally.verbs,
        agrees=agrees,
    )


def _sum(counts: object) -> int | None:
    if not isinstance(counts, dict):
        return None
    try:
        return int(sum(value for value in counts.values() if isinstance(value, (int, float))))
    except (OverflowError, ValueError):
        return None  # 1e999 and the like


async def _locks(fetcher: Fetcher, inventory: Inventory, clock: Clock) -> tuple[LockFound, ...]:
    found = []
    for stored in await fetcher.get_all(inventory.locks):
        if stored is None:
            continue
        expires = expires_at_ms(stored)
        found.append(
            LockFound(
                key=stored.key,
                holder=stored.body[:200].decode("utf-8", "replace"),
                expires_at=_stamp(expires),
                stale=expires is None or expires <= clock.wall() * 1000,
            )
        )
    return tuple(found)
