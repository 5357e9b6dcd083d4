"""``brainy advise``: which of the seven strategies, why, how, what it costs; without a cluster."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from brainy.advice.advising import advise as weigh
from brainy.advice.facts import Facts
from brainy.advice.figures import Rates
from brainy.advice.looking import find_out
from brainy.advice.values import Answers
from brainy.bucket.namespace import Namespace
from brainy.cli.advice_view import show
from brainy.cli.exits import Exit
from brainy.cli.output import JsonOption, Output, current
from brainy.cli.target import NamespaceArgument, bucket, run
from brainy.errors import InvalidRequestError, PreconditionError
from brainy.legacy.inspection import InspectionProgress
from brainy.legacy.outlay import Assumptions
from brainy.store.base import ObjectStore

_GIVEN = Assumptions()
_RATES = Rates()
#: As many as ``brainy up`` starts.
_NODES = 3

Decision = bool | None


def advise(
    namespace: NamespaceArgument,
    shared: Annotated[
        Decision, typer.Option("--shared/--exclusive", help="Whether other processes use the bucket and prefix.")
    ] = None,
    downtime: Annotated[
        float | None,
        typer.Option(min=0, metavar="S", help="Seconds nobody may be able to write; inf for as long as it takes."),
    ] = None,
    keep_source: Annotated[
        bool, typer.Option("--keep-source", help="Nothing may be added or changed under NS.")
    ] = False,
    vectors: Annotated[
        Decision, typer.Option("--vectors/--no-vectors", help="Keep the vectors, or make them anew from the texts.")
    ] = None,
    old_writers: Annotated[
        Decision,
        typer.Option("--old-writers/--no-old-writers", help="Whether Brainy processes go on writing meanwhile."),
    ] = None,
    separate_nodes: Annotated[
        Decision,
        typer.Option("--separate-nodes/--same-nodes", help="Whether there are machines for a second side."),
    ] = None,
    rollback: Annotated[
        Decision, typer.Option("--rollback/--no-rollback", help="Whether there must be a way back after the switch.")
    ] = None,
    isolate: Annotated[bool, typer.Option("--isolate", help="A prefix of its own is wanted.")] = False,
    target: Annotated[str | None, typer.Option(metavar="NS", help="Another namespace it shall end up in.")] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Look at a sample only: at most ninety calls, no figures.")
    ] = False,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes the cluster will have.")] = _NODES,
    shards: Annotated[int, typer.Option(min=1, help="Shards of the new generation.")] = _GIVEN.shards,
    rate: Annotated[float, typer.Option(min=1, help="GETs a second of one node.")] = _GIVEN.gets_per_second,
    index_rate: Annotated[float, typer.Option(min=1, help="Nouns a second one node indexes.")] = _RATES.indexed,
    restore_rate: Annotated[float, typer.Option(min=1, help="Items a second a restore writes.")] = _RATES.restored,
    embed_rate: Annotated[float, typer.Option(min=1, help="Texts a second that become vectors.")] = _RATES.embedded,
    price_get: Annotated[float, typer.Option(min=0, help="Price of 1,000 GETs.")] = _GIVEN.price_get,
    price_put: Annotated[float, typer.Option(min=0, help="Price of 1,000 PUTs or LISTs.")] = _GIVEN.price_put,
    price_storage: Annotated[float, typer.Option(min=0, help="Price of a GB for a month.")] = _GIVEN.price_storage,
    json: JsonOption = False,
) -> None:
    """Say which migration strategy fits a bucket, with reasons, steps, figures and risks. Reads only.

    What is not answered by an option is told from the bucket, or taken as the careful answer. Exit status 4 if
    everything is ruled out.
    """
    output = current()
    name = str(Namespace.parse(namespace))
    if downtime is not None and math.isnan(downtime):
        raise InvalidRequestError("not a time", remedy="give seconds, or inf", downtime=downtime)
    said = Answers(
        shared=shared,
        downtime_seconds=downtime,
        keep_source=keep_source,
        vectors=vectors,
        old_writers=old_writers,
        separate_nodes=separate_nodes,
        rollback=rollback,
        isolate=isolate,
        target=None if target is None else str(Namespace.parse(target)),
    )
    if said.target == name:
        raise InvalidRequestError("the target is the source", remedy="leave --target out, or name another", target=name)
    assumptions = Assumptions(
        nodes=nodes,
        shards=shards,
        gets_per_second=rate,
        price_get=price_get,
        price_put=price_put,
        price_storage=price_storage,
    )
    facts = run(_find_out(bucket(namespace), name, output, assumptions, fast=fast))
    rates = Rates(indexed=index_rate, restored=restore_rate, embedded=embed_rate)
    found = weigh(facts, said, assumptions=assumptions, rates=rates)
    output.result(found, lambda console: show(console, found))
    if found.advised is None:
        raise typer.Exit(int(Exit.PRECONDITION))


async def _find_out(
    store: ObjectStore, namespace: str, output: Output, assumptions: Assumptions, *, fast: bool
) -> Facts:
    try:
        with output.progress("reading the bucket") as bar:

            def tell(progress: InspectionProgress) -> None:
                bar(progress.objects_read, progress.objects_expected or None)

            facts = await find_out(store, namespace, assumptions=assumptions, fast=fast, on_progress=tell)
    finally:
        await store.close()
    if facts.foreign_keys:
        raise PreconditionError(
            "the namespace holds objects, but none of Brainy's",
            reason="NOT_A_BRAINY_BUCKET",
            remedy="check bucket and prefix",
            namespace=namespace,
        )
    return facts
