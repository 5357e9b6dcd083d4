"""``brainy rescue``: nouns that Brainy lost and its change log still has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.output import JsonOption, Output, current, facts, table
from brainy.cli.target import (
    CoordinatorOption,
    DirectoryOption,
    EndpointOption,
    NamespaceArgument,
    bucket,
    run,
    serving,
)
from brainy.clock import iso
from brainy.dataset.generation import read_spec
from brainy.dataset.quarantine import Place, find_place, read_rows
from brainy.dataset.snapshot import open_base, replay, stream_current
from brainy.legacy.batch import Reason
from brainy.legacy.rescue import Found, Rescue, RescueCounts
from brainy.legacy.survey import survey
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.recovery import Outcome, Recovered, write_back
from brainy.store.base import ObjectStore

_SHOWN = 1000
#: Quarantined for another cause than that they cannot be read.
_READABLE = frozenset((Reason.SUSPECTED_ZOMBIE, Reason.VERB_STORED_AS_NOUN, Reason.DUPLICATE_ID, Reason.FOREIGN_OBJECT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescuable:
    """One line of the report."""

    id: str
    #: found, doubtful, rescued, exists, deleted, superseded or refused.
    state: str
    cause: str
    dimensions: int
    #: ISO 8601.
    added_at: str
    entry_key: str
    metadata_key: str
    evidence: str
    detail: str = ""


def rescue(
    namespace: NamespaceArgument,
    apply: Annotated[bool, typer.Option("--apply", help="Write them back; else only show them.")] = False,
    doubtful: Annotated[
        bool, typer.Option("--doubtful", help="Also write those for which only the change log speaks.")
    ] = False,
    endpoint: EndpointOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Find nouns that Brainy deleted for their dimension or damaged, and whose vectors are in its change log.

    An id that exists is never overwritten, and applying twice writes once. Without a running cluster for the namespace
    --apply starts one for the time of the command.
    """
    output = current()

    async def work() -> tuple[Place, RescueCounts, list[Rescuable]]:
        store = bucket(namespace)
        try:
            job = _Rescuing(store, output, doubtful=doubtful)
            if not apply:
                return await job.run(None)
            async with await serving(namespace, endpoint, coordinator, directory) as client:
                return await job.run(client)
        finally:
            await store.close()

    place, counts, rows = run(work())
    states = Counter(row.state for row in rows)
    found = {
        "namespace": namespace,
        "generation": place.generation,
        "applied": apply,
        "counts": {**asdict(counts), "states": dict(states)},
        "nouns": [asdict(row) for row in rows],
    }

    def human(console: Console) -> None:
        shown = table(None, "noun", "state", "length#", "added at", "why it is believed to be alive")
        for row in rows[:_SHOWN]:
            why = f"{row.cause}: {row.evidence}" + (f" ({row.detail})" if row.detail else "")
            shown.add_row(escape(row.id), row.state, str(row.dimensions), row.added_at, escape(why))
        if rows:
            console.print(shown)
            console.print()
        facts(
            console,
            {
                "change-log entries": f"{counts.entries:,} ({counts.entries_unreadable:,} unreadable)",
                "nouns without a readable object": f"{counts.candidates:,}",
                "of these deleted": f"{counts.deleted:,}",
                "without a vector in the log": f"{counts.lost:,}",
                "metadata the log does not name": f"{counts.unnamed:,}",
                **{state: f"{count:,}" for state, count in states.items()},
            },
        )
        if not apply and states["found"]:
            console.print(f"write them back with: brainy rescue {escape(namespace)} --apply")

    output.result(found, human)


class _Rescuing:
    """One run."""

    def __init__(self, store: ObjectStore, output: Output, *, doubtful: bool) -> None:
        self._store = store
        self._states = ("found", "doubtful") if doubtful else ("found",)
        self._output = output

    async def run(self, client: AsyncBrainy | None) -> tuple[Place, RescueCounts, list[Rescuable]]:
        """Find, and write if there is a client."""
        place = await find_place(self._store)
        seen = await survey(self._store)
        with self._output.progress("reading what is unreadable"):
            async with aclosing(read_rows(self._store, place)) as rows:
                unreadable = [row.key async for row in rows if row.reason not in _READABLE]
        with self._output.progress("reading the change log") as show:
            search = Rescue(
                self._store,
                place.trees,
                unreadable=unreadable,
                dimensions=seen.dimensions,
                on_progress=lambda done: show(done, None),
            )
            standing = await self._logged(place)
            found: list[Rescuable] = []
            async with aclosing(search.find()) as batches:
                async for batch in batches:
                    found += await self._settle(batch, standing, client)
        if client is None and place.generation:
            found = await self._marked(found)
        return place, search.counts, sorted(found, key=lambda row: row.id)

    async def _settle(
        self, batch: Sequence[Found], standing: Mapping[str, str], client: AsyncBrainy | None
    ) -> list[Rescuable]:
        rows = [_row(each, standing.get(each.noun.id)) for each in batch]
        if client is None:
            return rows
        chosen = [place for place, row in enumerate(rows) if row.state in self._states]
        results = await write_back(
            client,
            [Recovered(item=batch[place].noun) for place in chosen],
            purpose="rescue",
            dimensions=await self._dimensions(client, batch),
        )
        for place, result in zip(chosen, results, strict=True):
            rows[place] = replace(rows[place], state=_STATES[result.outcome], detail=result.detail)
        return rows

    @staticmethod
    async def _dimensions(client: AsyncBrainy, batch: Sequence[Found]) -> int:
        """Length of the vectors of a namespace that has none yet."""
        if (await client.get_statistics()).dimensions:
            return 0
        return Counter(each.dimensions for each in batch).most_common(1)[0][0]

    async def _logged(self, place: Place) -> dict[str, str]:
        """Return what generation 0's own log says of ids: exists or deleted."""
        if place.generation != 0:
            return {}
        spec = await read_spec(self._store, 0)
        overlay = await replay(self._store, spec, await open_base(self._store, spec))
        return {item_id: "deleted" if noun is None else "exists" for item_id, noun in overlay.nouns.items()}

    async def _marked(self, rows: Sequence[Rescuable]) -> list[Rescuable]:
        """Mark those that exist in a later generation: one pass over it, if anything was found."""
        wanted = {row.id for row in rows}
        existing: set[str] = set()
        if wanted:
            async with aclosing(stream_current(self._store)) as batches:
                async for batch in batches:
                    existing.update(noun.id for noun in batch.nouns if noun.id in wanted)
        return [replace(row, state="exists") if row.id in existing else row for row in rows]


_STATES = {
    Outcome.WRITTEN: "rescued",
    Outcome.WOULD_WRITE: "found",
    Outcome.SUPERSEDED: "superseded",
    Outcome.REFUSED: "refused",
}


def _row(each: Found, standing: str | None) -> Rescuable:
    state = standing or ("doubtful" if each.doubtful else "found")
    return Rescuable(
        id=each.noun.id,
        state=state,
        cause=each.cause,
        dimensions=each.dimensions,
        added_at=_when(each.added_at),
        entry_key=each.entry_key,
        metadata_key=each.metadata_key,
        evidence=each.evidence,
    )


def _when(milliseconds: int) -> str:
    try:
        return iso(milliseconds / 1000)
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms"
