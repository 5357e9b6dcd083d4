"""Writing the account of an inspection from what was listed, read and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from brainy.clock import iso
from brainy.legacy.advice import advise
from brainy.legacy.bookkeeping import Counted, read_distributed, read_locks, read_statistics, stamp
from brainy.legacy.census import (
    ChangeLog,
    Duplicate,
    Duplicates,
    Inspection,
    LastWrite,
    PrefixCount,
    QuarantinedObject,
    ServiceCount,
)
from brainy.legacy.changes import Changes
from brainy.legacy.inventory import Inventory
from brainy.legacy.keys import Kind
from brainy.legacy.occurrences import Occurrences, Sighting
from brainy.legacy.outlay import Assumptions, predict
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.presence import Hashes, among
from brainy.legacy.reading import TreeReader
from brainy.legacy.survey import Survey
from brainy.legacy.tally import Tally
from brainy.legacy.versions import dimension_risks, guess_versions, whole_span


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that was read, and what it is judged by."""

    seen: Survey
    fetcher: Fetcher
    reader: TreeReader
    inventory: Inventory
    tally: Tally
    changes: Changes | None
    #: Seconds since 1970.
    now: float
    assumptions: Assumptions


async def account(read: Findings, elapsed: Callable[[], float]) -> Inspection:
    """Write the account; the few objects of Brainy's book-keeping are read here.

    Raises:
        BrainyError: the store failed.
    """
    inventory, tally, changes, seen = read.inventory, read.tally, read.changes, read.seen
    metadata = inventory.null_metadata.hashes, inventory.other_metadata.hashes
    relations = inventory.verb_metadata.hashes
    occurrences = inventory.occurrences
    versions = tuple(guess_versions(seen.trees, inventory, tally))
    counted = Counted(
        nouns=tally.nouns,
        verbs=tally.verbs,
        metadata=tally.nouns - tally.without_metadata - tally.null_metadata,
        noun_services=tally.noun_services,
        verb_services=tally.verb_services,
    )
    statistics = await read_statistics(read.fetcher, inventory.statistics, inventory.kinds[Kind.STATISTICS], counted)
    locks = await read_locks(read.fetcher, inventory.locks, read.now)
    distributed = await read_distributed(read.fetcher, inventory.distributed)
    rescuable = (None, None) if changes is None else _rescuable(changes, inventory, tally)
    duplicates = await _duplicates(read.fetcher, occurrences)
    orphan_relations = relations[~occurrences.anywhere(Kind.VERB, relations)]
    calls = (read.fetcher.calls, read.reader.calls)
    found = Inspection(
        inspected_at=iso(read.now),
        trees=seen.trees,
        unsupported_trees=(),
        versions=versions,
        version_range=whole_span(versions),
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
        deleted_nouns=_missing(metadata[0], tally.noun_ids),
        deleted_verbs=_deleted_verbs(orphan_relations, changes, tally),
        soft_deleted_nouns=tally.soft_deleted,
        placeholders=tally.placeholders,
        zero_vectors=tally.zero_vectors,
        non_finite_vectors=tally.non_finite_vectors,
        nouns_without_metadata=tally.without_metadata,
        nouns_with_null_metadata=tally.null_metadata,
        dangling_verbs=tally.dangling_verbs(),
        one_piece_verbs=_missing(tally.verb_ids.hashes, relations),
        orphan_noun_metadata=_missing(metadata[1], tally.noun_ids),
        orphan_verb_metadata=len(orphan_relations),
        zombie_nouns=tally.zombies[Kind.NOUN],
        zombie_verbs=tally.zombies[Kind.VERB],
        id_mismatches=len(read.reader.strays),
        duplicates=duplicates,
        dimension_risks=dimension_risks(seen.trees, inventory, tally),
        rescuable_nouns=rescuable[0],
        rescuable_doubtful=rescuable[1],
        index_entries=inventory.kinds[Kind.INDEX_ENTRY],
        distributed=distributed,
        statistics=statistics,
        locks=locks,
        change_log=_change_log(inventory, tally, changes),
        last_write=_last_write(inventory, read.now),
        quarantined=tuple(
            QuarantinedObject(key=entry.key, reason=str(entry.reason), size=entry.size) for entry in tally.quarantined
        ),
        quarantined_count=tally.quarantined_count,
        quarantined_by_reason=_by_size(tally.reasons),
        prefixes={
            prefix: PrefixCount(objects=count, bytes=inventory.sizes[prefix])
            for prefix, count in sorted(inventory.objects.items())
        },
        objects=inventory.objects.total(),
        bytes=inventory.sizes.total(),
        foreign_objects=inventory.kinds[Kind.FOREIGN],
        cluster_objects=inventory.kinds[Kind.CLUSTER],
        store_calls={
            "list": sum(each.lists for each in calls) + seen.lists,
            "get": sum(each.gets for each in calls) + seen.gets,
            "partial_get": sum(each.ranged_gets for each in calls),
        },
        seconds=round(elapsed(), 3),
        migration=predict(inventory, tally, changes, read.assumptions),
        advice=(),
    )
    return found.model_copy(update={"advice": advise(found)})


def _by_size(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _missing(named: Hashes, known: Hashes) -> int:
    return int((~among(known, named)).sum())


def _deleted_verbs(orphans: Hashes, changes: Changes | None, tally: Tally) -> int:
    gone = orphans
    if changes is not None:
        gone = np.union1d(gone, changes.deleted_verbs())
    return _missing(gone, tally.verb_ids.hashes)


def _rescuable(changes: Changes, inventory: Inventory, tally: Tally) -> tuple[int, int]:
    """Return how many nouns can be had back, and how many for which only the log speaks."""
    lost = changes.nouns_kept()
    lost = lost[~among(tally.noun_ids, lost)]
    has_data = among(inventory.other_metadata.hashes, lost)
    # The disk-based index of Brainy logs verbs as nouns.
    verbs = among(tally.verb_ids.hashes, lost) | among(inventory.verb_metadata.hashes, lost)
    lost, has_data = lost[has_data | ~verbs], has_data[has_data | ~verbs]
    sure = has_data | inventory.occurrences.anywhere(Kind.NOUN, lost)
    return int(sure.sum()), int((~sure).sum())


async def _duplicates(fetcher: Fetcher, occurrences: Occurrences) -> Duplicates:
    return Duplicates(
        nouns=occurrences.ids[Kind.NOUN],
        verbs=occurrences.ids[Kind.VERB],
        hidden_objects=occurrences.hidden,
        won_by={tree: count for tree, count in sorted(occurrences.won_by.items()) if count},
        sample=tuple([await _duplicate(fetcher, sighting) for sighting in occurrences.sample.values()]),
    )


async def _duplicate(fetcher: Fetcher, sighting: Sighting) -> Duplicate:
    copies = sighting.by_rank
    if copies[0][0].rank == copies[1][0].rank:
        # Of equal folders the one modified later wins.
        found = await fetcher.get_all([key for _, key in copies])
        times = {one.key: one.last_modified for one in found if one is not None}
        copies.sort(key=lambda copy: (copy[0].rank, -times.get(copy[1], 0.0)))
    return Duplicate(
        id=sighting.id,
        kind=sighting.kind.value,
        keys=tuple(key for _, key in copies),
        tree=copies[0][0].tree,
    )


def _change_log(inventory: Inventory, tally: Tally, changes: Changes | None) -> ChangeLog:
    entries, first, last = inventory.kinds[Kind.CHANGE], stamp(inventory.change_first), stamp(inventory.change_last)
    if changes is None:
        return ChangeLog(entries=entries, first=first, last=last)
    nouns, verbs = changes.without_add(tally.noun_ids, tally.verb_ids.hashes)
    return ChangeLog(
        entries=entries,
        first=first,
        last=last,
        by_operation=_by_size(changes.by_operation),
        by_entity=_by_size(changes.by_entity),
        by_instance=_by_size(changes.by_instance),
        index_noise=changes.index_noise,
        unreadable=changes.unreadable,
        nouns_without_add=nouns,
        verbs_without_add=verbs,
    )


def _last_write(inventory: Inventory, now: float) -> LastWrite | None:
    at, key = inventory.newest
    if inventory.change_last is not None and inventory.change_last / 1000 > at:
        at, key = inventory.change_last / 1000, inventory.change_last_key
    text = stamp(at * 1000)
    return LastWrite(at=text, seconds_ago=round(now - at, 3), key=key) if text and key else None
