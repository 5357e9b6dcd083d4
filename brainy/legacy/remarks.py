"""What is odd about a bucket and what its owners may not know: advice to read. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from brainy.legacy.census import Advice, Inspection
from brainy.legacy.keys import ENTITY, FLAT, TYPED
from brainy.legacy.wording import advice, claimed, many

#: Brainy reads one page of nouns on its start, and loses its way on the second page from 0.49 on.
_VISIBLE = 1000
_HANGS_ABOVE = 100
#: Brainy's reader of the log looks at the first page, so what comes later is never seen by other instances.
_LOG_VISIBLE = 1000


def visibility(found: Inspection) -> Iterator[Advice]:
    """What Brainy itself does not see."""
    newest = found.trees[0] if found.trees else ""
    if (newest == FLAT and found.nouns > _VISIBLE) or (newest == ENTITY and found.nouns > _HANGS_ABOVE):
        what = (
            f"Brainy loads the first {_VISIBLE:,} of {found.nouns:,} nouns"
            if newest == FLAT
            else f"Brainy from 0.49 on never finishes starting on more than {_HANGS_ABOVE} nouns; there are"
            f" {found.nouns:,}"
        )
        yield advice(
            "BIG_BUCKET_NOT_VISIBLE",
            "warning",
            what,
            "trust these counts, not Brainy's; after the migration all of them are searched",
            found.nouns,
        )
    if len(found.trees) > 1:
        yield advice(
            "OLDER_TREES_INVISIBLE",
            "warning",
            f"several trees in one bucket ({', '.join(found.trees)}): no Brainy reads more than one",
            "they are read together here, the newer tree first; check what the owners believe to be lost",
            len(found.trees) - 1,
        )
    if newest == TYPED:
        yield advice(
            "BUCKET_NOT_RELOADED",
            "warning",
            "Brainy up to 0.14 finds nothing when it starts on its own bucket",
            "its owners may believe it to be empty; everything counted here can be migrated",
            found.nouns,
        )
    if found.one_piece_verbs and found.trees and newest != TYPED:
        yield advice(
            "OLD_VERBS_INVISIBLE",
            "info",
            f"{many(found.one_piece_verbs, 'verb')} in one object, which Brainy from 0.36 on does not see",
            "nothing to do: they are read here",
            found.one_piece_verbs,
        )
    if found.change_log.entries > _LOG_VISIBLE:
        yield advice(
            "CHANGE_LOG_OVERFLOWS",
            "info",
            f"Brainy reads the first {_LOG_VISIBLE:,} of {found.change_log.entries:,} change-log entries: its "
            "instances see nothing newer of each other",
            "nothing to do: following does not rest on it",
            found.change_log.entries,
        )


def oddities(found: Inspection) -> Iterator[Advice]:
    """What is stored and unusual."""
    doubles = found.duplicates.nouns + found.duplicates.verbs
    unindexed = found.zero_vectors + found.non_finite_vectors + found.dimensions.get(0, 0)
    for code, count, message, remedy in (
        (
            "DUPLICATE_IDS",
            doubles,
            f"{many(doubles, 'id')} under several keys",
            "nothing to do: the newest tree wins, and its copy alone is counted",
        ),
        (
            "DANGLING_VERBS",
            found.dangling_verbs,
            f"{many(found.dangling_verbs, 'verb')} with an end that is no noun",
            "they are kept; Brainy does not remove verbs with their nouns",
        ),
        (
            "ORPHAN_VERB_METADATA",
            found.orphan_verb_metadata,
            f"{many(found.orphan_verb_metadata, 'verb-metadata object')} without a verb, as deleteVerb leaves them",
            "nothing to do: they are never revived",
        ),
        (
            "SOFT_DELETED",
            found.soft_deleted_nouns,
            f"{many(found.soft_deleted_nouns, 'noun')} deleted softly: the vector is there, the metadata is lost",
            "they are kept and marked; searches leave them out",
        ),
        (
            "NOT_INDEXABLE",
            unindexed,
            f"{many(unindexed, 'noun')} whose vector is zero, empty or not finite",
            "they are kept and not indexed; give them vectors to have them found",
        ),
        (
            "PLACEHOLDERS",
            found.placeholders,
            f"{many(found.placeholders, 'noun')} that Brainy made up, for the end of a verb or in write-only mode; "
            "a real noun may have been overwritten",
            "they are kept and marked; write the real nouns over them where you have them",
        ),
        (
            "ID_MISMATCHES",
            found.id_mismatches,
            f"{many(found.id_mismatches, 'object')} whose id inside differs from the key",
            "the id inside is believed; look at the keys if something was copied by hand",
        ),
    ):
        if count:
            yield advice(code, "info", message, remedy, count)


def bookkeeping(found: Inspection) -> Iterator[Advice]:
    """Brainy's own accounts, and things beside them."""
    if found.statistics.found and not found.statistics.agrees:
        newest = found.statistics.found[0]
        yield advice(
            "STATISTICS_DRIFT",
            "info",
            f"Brainy's statistics say {claimed(newest.nouns)} nouns and {claimed(newest.verbs)} verbs; there are "
            f"{found.nouns:,} and {found.verbs:,}",
            "trust what was counted; the cluster counts too",
            abs((newest.nouns or 0) - found.nouns) + abs((newest.verbs or 0) - found.verbs),
        )
    elif not found.statistics.objects and found.nouns and found.trees[:1] != (TYPED,):
        yield advice(
            "STATISTICS_MISSING",
            "info",
            "there are no statistics (0.26.0 to 0.27.0 never wrote any)",
            "nothing to do: the cluster counts",
            0,
        )
    if found.distributed is not None:
        active = sum(instance.status == "active" for instance in found.distributed.instances)
        yield advice(
            "DISTRIBUTED_MODE",
            "info",
            f"Brainy ran in distributed mode: {many(len(found.distributed.instances), 'instance')}, {active} active",
            "make sure that none still runs, or follow the bucket",
            len(found.distributed.instances),
        )
    if found.foreign_objects:
        yield advice(
            "FOREIGN_OBJECTS",
            "info",
            f"{many(found.foreign_objects, 'object')} that no Brainy writes",
            "they are left alone; give Brainy's data a prefix of its own",
            found.foreign_objects,
        )
    if found.cluster_objects:
        yield advice(
            "CLUSTER_PRESENT",
            "info",
            f"this namespace is served by a cluster already ({many(found.cluster_objects, 'object')} under cluster/)",
            "this is the account of what Brainy left; brainy status tells what the cluster holds",
            found.cluster_objects,
        )
