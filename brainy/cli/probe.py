"""``brainy probe``: what a store is fit for."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.exits import Exit
from brainy.cli.output import JsonOption, current, table
from brainy.cli.target import NamespaceArgument, bucket, run
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.capability import Capabilities, examine


def probe(namespace: NamespaceArgument, json: JsonOption = False) -> None:
    """Try whether a store keeps its conditions, also under race and after a delete. Exit status 4 if it is unfit.

    Writes small objects under cluster/probe/ and removes them again.
    """
    found = run(_probe(bucket(namespace)))
    failed = found.first_failure()
    value = {
        "namespace": namespace,
        "fit": found.fit,
        "failed": failed.name if failed else None,
        "locks": {"s3": found.store_locks_safe, "redis": found.redis_locks_safe},
        "checks": [asdict(check) for check in found.checks],
    }
    current().result(value, lambda console: _show(console, namespace, found))
    if not found.fit:
        raise typer.Exit(int(Exit.PRECONDITION))


async def _probe(store: ObjectStore) -> Capabilities:
    try:
        return await examine(store, Ids())
    finally:
        await store.close()


def _show(console: Console, namespace: str, found: Capabilities) -> None:
    shown = table(None, "check", "result", "detail")
    for check in found.checks:
        shown.add_row(check.name, "[green]ok[/]" if check.passed else "[red]FAILED[/]", escape(check.detail))
    console.print(shown)
    console.print()
    console.print(f"locks kept in the store: {'safe' if found.store_locks_safe else 'NOT safe'}")
    if found.fit:
        console.print("locks kept in Redis: safe")
    elif found.redis_locks_safe:
        console.print("locks kept in Redis: safe for jobs that guard something else; this store's data stays unsafe")
    else:
        console.print("locks kept in Redis: NOT safe beside a store that does not read back what was written")
    console.print(f"{escape(namespace)}: {'fit' if found.fit else '[bold red]unfit[/]: no cluster may serve from it'}")
