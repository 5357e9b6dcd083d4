"""``brainy inspect``: what is in a bucket, what is wrong with it, what to do about it; without a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from brainy.cli.census_view import show
from brainy.cli.output import JsonOption, Output, current
from brainy.cli.target import NamespaceArgument, bucket, run
from brainy.errors import PreconditionError
from brainy.legacy.census import Inspection
from brainy.legacy.inspection import InspectionProgress
from brainy.legacy.inspection import inspect as inspect_store
from brainy.legacy.outlay import Assumptions
from brainy.store.base import ObjectStore

_GIVEN = Assumptions()
_PREFIXES = 10


def inspect(
    namespace: NamespaceArgument,
    skip_change_log: Annotated[
        bool,
        typer.Option("--skip-change-log", help="List the change log without reading its entries: fewer GETs."),
    ] = False,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes a migration is predicted for.")] = _GIVEN.nodes,
    shards: Annotated[int, typer.Option(min=1, help="Shards of the new generation.")] = _GIVEN.shards,
    rate: Annotated[float, typer.Option(min=1, help="GETs a second of one node.")] = _GIVEN.gets_per_second,
    price_get: Annotated[float, typer.Option(min=0, help="Price of 1,000 GETs.")] = _GIVEN.price_get,
    price_put: Annotated[float, typer.Option(min=0, help="Price of 1,000 PUTs or LISTs.")] = _GIVEN.price_put,
    price_storage: Annotated[float, typer.Option(min=0, help="Price of a GB for a month.")] = _GIVEN.price_storage,
    json: JsonOption = False,
) -> None:
    """Say what Brainy left in a bucket: versions, items, faults, what a migration will cost, advice. Reads only."""
    output = current()
    assumptions = Assumptions(
        nodes=nodes,
        shards=shards,
        gets_per_second=rate,
        price_get=price_get,
        price_put=price_put,
        price_storage=price_storage,
    )
    found = run(_inspect(bucket(namespace), output, assumptions, read_change_log=not skip_change_log))
    output.result(found, lambda console: show(console, namespace, found))


async def _inspect(
    store: ObjectStore, output: Output, assumptions: Assumptions, *, read_change_log: bool
) -> Inspection:
    try:
        with output.progress("reading the bucket") as bar:

            def tell(progress: InspectionProgress) -> None:
                bar(progress.objects_read, progress.objects_expected or None)

            found = await inspect_store(store, tell, assumptions=assumptions, read_change_log=read_change_log)
    finally:
        await store.close()
    if found.foreign_keys and not found.trees and not found.unsupported_trees:
        raise PreconditionError(
            "the namespace holds objects, but none of Brainy's",
            reason="NOT_A_BRAINY_BUCKET",
            remedy="check bucket and prefix",
            objects=found.objects,
            prefixes=" ".join(list(found.prefixes)[:_PREFIXES]).strip() or "none",
        )
    return found
