"""An inspection as people read it: what is there, what is odd, what to do."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from brainy.cli.output import table
from brainy.legacy.census import Inspection
from brainy.legacy.keys import object_key
from brainy.legacy.wording import many, span

_SHOWN = 10
_NAMES = 5
_COLOURS = {"critical": "bold red", "warning": "yellow", "info": "dim"}


def show(console: Console, namespace: str, found: Inspection) -> None:
    """Print an inspection."""
    console.print(f"[bold]{escape(namespace)}[/]", soft_wrap=True)
    if not found.trees:
        console.print(f"nothing of Brainy's here ({many(found.objects, 'object')})")
    else:
        console.print(_written_by(found), soft_wrap=True)
    calls = f"{found.store_calls['get'] + found.store_calls['partial_get']:,} GET, {found.store_calls['list']:,} LIST"
    console.print(
        f"[dim]{many(found.objects, 'object')}, {size_text(found.bytes)}; "
        f"read with {calls} in {found.seconds:,.1f} s; nothing was written[/]"
    )
    _section(console, "Items", _items(found))
    _section(console, "Deleted, lost, odd", _oddities(found))
    _section(console, "Brainy's own book-keeping", _bookkeeping(found))
    _drift(console, found)
    if found.trees:
        _section(console, f"A migration ({_assumed(found)})", _migration(found))
    _duplicates(console, found)
    _quarantined(console, found)
    _advice(console, found)


def _written_by(found: Inspection) -> str:
    trees = [f"Brainy {each.oldest} to {each.newest} ({each.tree} tree)" for each in found.versions]
    return "written by " + escape(" and ".join(trees) or "an unknown version")


def _items(found: Inspection) -> dict[str, str]:
    lengths = ", ".join(
        f"{length or 'no vector'}" if len(found.dimensions) == 1 else f"{length or 'no vector'} x {count:,}"
        for length, count in list(found.dimensions.items())[:_NAMES]
    )
    services = [
        f"{name} ({many(count.nouns, 'noun')}, {many(count.verbs, 'verb')})" for name, count in found.services.items()
    ]
    rows = {
        "nouns": f"{found.nouns:,}" + (f"; vector length {lengths}" if lengths else ""),
        "noun types": _names(found.noun_types),
        "verbs": f"{found.verbs:,}",
        "verb types": _names(found.verb_types),
        "services": "; ".join(services[:_NAMES]) + _more(len(services)),
    }
    return {name: text for name, text in rows.items() if text}


def _oddities(found: Inspection) -> dict[str, str]:
    rows = {
        "deleted": _both(found.deleted_nouns, found.deleted_verbs),
        "soft deleted": _some(found.soft_deleted_nouns, "noun"),
        "zombies": _both(found.zombie_nouns, found.zombie_verbs),
        "dangling": _some(found.dangling_verbs, "verb"),
        "orphans": _join(
            _some(found.orphan_noun_metadata, "noun metadata", same=True),
            _some(found.orphan_verb_metadata, "verb metadata", same=True),
        ),
        "duplicates": _both(found.duplicates.nouns, found.duplicates.verbs),
        "not indexable": _join(
            _some(found.zero_vectors, "zero vector"),
            _some(found.non_finite_vectors, "vector with null or infinite components", same=True),
            _some(found.dimensions.get(0, 0), "empty vector"),
        ),
        "placeholders": _some(found.placeholders, "noun"),
        "without metadata": _join(
            _some(found.nouns_without_metadata, "noun"), _some(found.nouns_with_null_metadata, "with null", same=True)
        ),
        "rescuable": _join(
            _some(found.rescuable_nouns or 0, "noun"),
            _some(found.rescuable_doubtful or 0, "doubtful", same=True),
        ),
        "set aside": _join(*(f"{count:,} {reason}" for reason, count in found.quarantined_by_reason.items())),
        "index entries": _some(found.index_entries, "object"),
        "not Brainy's": _some(found.foreign_objects, "object"),
    }
    return {name: text for name, text in rows.items() if text}


def _bookkeeping(found: Inspection) -> dict[str, str]:
    rows = {}
    log = found.change_log
    if log.entries:
        text = f"{log.entries:,} entries from {_minute(log.first)} to {_minute(log.last)}"
        if log.by_operation is not None and log.by_instance is not None:
            text += f"; {_names(log.by_operation)}; {many(len(log.by_instance), 'instance')}"
            text += f"; {log.index_noise or 0:,} about index entries" if log.index_noise else ""
            text += f"; {_both(log.nouns_without_add or 0, log.verbs_without_add or 0) or 'nothing'} without an add"
        rows["change log"] = text
    for lock in found.locks[:_NAMES]:
        if lock.stale:
            state = "free" if lock.expired_seconds is None else f"stale, over by {span(lock.expired_seconds)}"
        else:
            state = f"held, {span(-(lock.expired_seconds or 0.0))} left"
        rows[lock.key] = f"{state} ({lock.holder})"
    if found.distributed is not None:
        names = [f"{each.id} ({each.role}, {each.status})" for each in found.distributed.instances]
        rows["distributed"] = ", ".join(names[:_NAMES]) + _more(len(names)) or "no instances"
    if found.statistics.found:
        newest = found.statistics.found[0]
        state = "agree with what is there" if found.statistics.agrees else "differ from what is there"
        rows["statistics"] = f"{newest.key}: {state}"
    return rows


def _drift(console: Console, found: Inspection) -> None:
    services = [row.service for row in found.statistics.drift]
    if found.statistics.agrees or not services:
        return
    by_name = {(row.service, row.kind): row for row in found.statistics.drift}
    shown = table(None, "  service", "nouns said#", "counted#", "drift#", "verbs said#", "counted#", "drift#")
    for service in list(dict.fromkeys(services))[: _SHOWN + 1]:
        cells = []
        for kind in ("nouns", "verbs"):
            row = by_name.get((service, kind))
            cells += (
                ["", "", ""]
                if row is None
                else ["-" if row.claimed is None else f"{row.claimed:,}", f"{row.counted:,}", f"{row.difference:+,}"]
            )
        shown.add_row("  all" if service is None else f"  {escape(service)}", *cells)
    console.print(shown)


def _assumed(found: Inspection) -> str:
    given = found.migration
    return f"{many(given.nodes, 'node')}, {many(given.shards, 'shard')}"


def _migration(found: Inspection) -> dict[str, str]:
    cost = found.migration
    partial = f", {cost.partial_get_calls:,} of a part" if cost.partial_get_calls else ""
    return {
        "calls": f"{cost.get_calls:,} GET{partial}, {cost.list_calls:,} LIST, {cost.put_calls:,} PUT",
        "time": f"about {span(max(1.0, cost.seconds))} at {cost.gets_per_second:,.0f} GET/s a node",
        "space": f"{size_text(cost.bucket_bytes)} in the bucket beside what is there; "
        f"{size_text(cost.disk_bytes)} of disk",
        "money": f"{money_text(cost.request_cost)} {cost.currency} for calls, "
        f"{money_text(cost.storage_cost_per_month)} a month while both are kept",
    }


def _duplicates(console: Console, found: Inspection) -> None:
    if not found.duplicates.sample:
        return
    console.print()
    shown = table(None, "id under several keys", "read from", "not from")
    for each in found.duplicates.sample[:_NAMES]:
        folders = [key.removesuffix(object_key("", each.id)) for key in each.keys]
        shown.add_row(escape(each.id), escape(folders[0]), escape(", ".join(folders[1:])))
    console.print(shown)
    total = found.duplicates.nouns + found.duplicates.verbs
    if total > _NAMES:
        console.print(f"[dim]and {total - _NAMES:,} more (--json lists ten)[/]")


def _quarantined(console: Console, found: Inspection) -> None:
    if not found.quarantined:
        return
    console.print()
    shown = table(None, "set aside", "reason", "bytes#")
    for entry in found.quarantined[:_NAMES]:
        shown.add_row(escape(entry.key), escape(entry.reason), f"{entry.size:,}")
    console.print(shown)
    if found.quarantined_count > _NAMES:
        console.print(f"[dim]and {found.quarantined_count - _NAMES:,} more (--json lists a hundred)[/]")


def _advice(console: Console, found: Inspection) -> None:
    console.print()
    if not found.advice:
        console.print("[green]no advice: nothing odd was found[/]")
        return
    console.print("[bold]Advice[/]")
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for each in found.advice:
        colour = _COLOURS[each.severity]
        # What is only to be known takes one line, what is to be done about the rest one of its own.
        between = " " if each.severity == "info" else "\n"
        grid.add_row(
            f"  [{colour}]{each.severity}[/]",
            f"[bold]{each.code}[/] {escape(each.message)}{between}[green]→[/] {escape(each.remedy)}",
        )
    console.print(grid)


def _section(console: Console, title: str, rows: Mapping[str, str]) -> None:
    if not rows:
        return
    console.print()
    console.print(f"[bold]{escape(title)}[/]")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows.items():
        grid.add_row(f"  {escape(name)}", escape(text))
    console.print(grid)


def _names(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name or '(empty)'} {count:,}" for name, count in list(counts.items())[:_NAMES])
    return shown + _more(len(counts))


def _more(count: int) -> str:
    return f" and {count - _NAMES:,} more" if count > _NAMES else ""


def _some(count: int, noun: str, *, same: bool = False) -> str:
    if not count:
        return ""
    return f"{count:,} {noun}" if same else many(count, noun)


def _both(nouns: int, verbs: int) -> str:
    return _join(_some(nouns, "noun"), _some(verbs, "verb"))


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def money_text(amount: float) -> str:
    """Return an amount as people read it."""
    return "less than 0.01" if 0 < amount < 0.01 else f"{amount:,.2f}"


def size_text(count: float) -> str:
    """Return bytes in a unit that people read."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _minute(stamp: str | None) -> str:
    return "?" if stamp is None else stamp[:16].replace("T", " ")
