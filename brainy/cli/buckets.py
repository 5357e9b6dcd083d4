"""``brainy inspect``: on the bucket itself, without a cluster."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from brainy.cli.output import JsonOption, Output, current, facts, table
from brainy.cli.target import NamespaceArgument, bucket, run
from brainy.errors import PreconditionError
from brainy.legacy.inspection import Inspection, InspectionProgress
from brainy.legacy.inspection import inspect as inspect_store
from brainy.legacy.versions import VersionRange
from brainy.store.base import ObjectStore

_SHOWN = 10


def inspect(namespace: NamespaceArgument, json: JsonOption = False) -> None:
    """Say what Brainy left in a bucket: versions, items, faults. Reads only."""
    output = current()
    found = run(_inspect(bucket(namespace), output))
    output.result(found, lambda console: _show(console, namespace, found))


async def _inspect(store: ObjectStore, output: Output) -> Inspection:
    try:
        with output.progress("reading the bucket") as show:

            def tell(progress: InspectionProgress) -> None:
                if progress.items_expected:
                    show(progress.items_read, progress.items_expected)
                else:
                    show(progress.objects_listed, None)

            found = await inspect_store(store, tell)
    finally:
        await store.close()
    if found.foreign_keys and not found.trees and not found.unsupported_trees:
        raise PreconditionError(
            "the namespace holds objects, but none of Brainy's",
            reason="NOT_A_BRAINY_BUCKET",
            remedy="check bucket and prefix",
            objects=found.objects,
            prefixes=" ".join(list(found.prefixes)[:_SHOWN]).strip() or "none",
        )
    return found


def _show(console: Console, namespace: str, found: Inspection) -> None:
    if not found.trees:
        console.print(f"{escape(namespace)}: nothing of Brainy's here ({found.objects:,} objects)")
    facts(
        console,
        {
            "trees": ", ".join(found.trees) or "none",
            "written by": "; ".join(_version(version) for version in found.versions) or "unknown",
            "objects": f"{found.objects:,} ({found.bytes / 1e6:,.1f} MB)",
            "nouns": f"{found.nouns:,}",
            "verbs": f"{found.verbs:,} ({found.dangling_verbs:,} with an end that is no noun)",
            "dimensions": ", ".join(f"{size} x {count:,}" for size, count in found.dimensions.items()),
            "soft deleted": f"{found.soft_deleted:,}",
            "tombstones": f"{found.tombstones:,}",
            "not indexable": f"{found.zero_vectors + found.non_finite_vectors + found.placeholders:,}",
            "change log": f"{found.change_log.entries:,} entries",
            "locks": f"{len(found.locks):,} ({sum(lock.stale for lock in found.locks):,} stale)",
            "Brainy's statistics": "agree" if found.statistics.agrees else "differ from what is there",
            "quarantined": f"{found.quarantined_count:,}",
            "store calls": ", ".join(f"{kind} {count:,}" for kind, count in found.store_calls.items()),
        },
    )
    for title, counts in (("noun type", found.noun_types), ("verb type", found.verb_types)):
        if counts:
            console.print()
            shown = table(None, title, "count#")
            for name, count in list(counts.items())[:_SHOWN]:
                shown.add_row(escape(name) or "-", f"{count:,}")
            console.print(shown)
    if found.quarantined:
        console.print()
        shown = table(None, "quarantined object", "reason", "bytes#")
        for entry in found.quarantined[:_SHOWN]:
            shown.add_row(escape(entry.key), escape(entry.reason), f"{entry.size:,}")
        console.print(shown)


def _version(found: VersionRange) -> str:
    return f"Brainy {found.oldest} to {found.newest} ({found.tree} tree)"
