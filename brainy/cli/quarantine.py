"""``brainy quarantine``: what could not be read is listed, exported, and written again once it is mended."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.bucket.items import Verb
from brainy.bucket.quarantine import Kept, ReplayedObject
from brainy.cli.exits import Exit
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
from brainy.clock import SystemClock, iso
from brainy.dataset.export import Export, beside_of, exported_body, read_export, write_export
from brainy.dataset.mending import Mended, read_again
from brainy.dataset.quarantine import Place, ReplayedBook, find_place, read_rows
from brainy.errors import NotFoundError
from brainy.ids import Ids
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.recovery import Outcome, Recovered, write_back
from brainy.store.base import ObjectStore

app = typer.Typer(help="List, export and replay what could not be read.", no_args_is_help=True)

_AT_ONCE = 64
_SHOWN = 1000

ReasonOption = Annotated[
    list[str] | None, typer.Option("--reason", metavar="REASON", help="Only these reasons; may be repeated.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the list."""

    key: str
    reason: str
    size: int
    #: quarantined, or replayed.
    state: str
    #: When and as what it was replayed.
    replayed: ReplayedObject | None = None


@app.command("list")
def list_all(namespace: NamespaceArgument, reason: ReasonOption = None, json: JsonOption = False) -> None:
    """List what could not be read, and why. Reads only, from the bucket itself."""
    output = current()
    place, rows = run(_list(bucket(namespace), frozenset(reason or ()), output))
    counts = Counter(row.reason for row in rows if row.state == "quarantined")
    found = {
        "namespace": namespace,
        "generation": place.generation,
        "quarantined": counts.total(),
        "by_reason": dict(counts.most_common()),
        "replayed": len(rows) - counts.total(),
        "objects": [{**asdict(row), "replayed": row.replayed} for row in rows],
    }

    def human(console: Console) -> None:
        shown = table(None, "object", "reason", "bytes#", "state")
        for row in rows[:_SHOWN]:
            shown.add_row(escape(row.key), row.reason, f"{row.size:,}", row.state)
        if rows:
            console.print(shown)
        if len(rows) > _SHOWN:
            console.print(f"... and {len(rows) - _SHOWN:,} more; --json lists all")
        by_reason = ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
        console.print(f"{counts.total():,} quarantined{f' ({by_reason})' if by_reason else ''}")

    output.result(found, human)


async def _list(store: ObjectStore, reasons: frozenset[str], output: Output) -> tuple[Place, list[Row]]:
    try:
        place = await find_place(store)
        replayed = await _book(store).objects()
        rows: dict[str, Row] = {}
        with output.progress("reading the quarantine") as show:
            async with aclosing(read_rows(store, place)) as found:
                async for each in found:
                    rows[each.key] = _row(each, replayed)
                    show(len(rows), None)
        for key, note in replayed.items():
            # Mended in place: no reader stumbles over it any more.
            if key not in rows:
                rows[key] = Row(key=key, reason=note.reason, size=note.size, state="replayed", replayed=note)
        return place, sorted(
            (row for row in rows.values() if not reasons or row.reason in reasons), key=lambda row: row.key
        )
    finally:
        await store.close()


def _row(kept: Kept, replayed: Mapping[str, ReplayedObject]) -> Row:
    note = replayed.get(kept.key)
    state = "quarantined" if note is None else "replayed"
    return Row(key=kept.key, reason=kept.reason, size=kept.size, state=state, replayed=note)


@app.command()
def export(
    namespace: NamespaceArgument,
    directory: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="A new or an empty directory.")],
    reason: ReasonOption = None,
    json: JsonOption = False,
) -> None:
    """Write the bytes of what could not be read to files, with a manifest. Reads only."""
    output = current()
    written = run(_export(bucket(namespace), namespace, directory, frozenset(reason or ()), output))
    without = sum(row.file is None for row in written.objects)
    found = {
        "directory": str(directory),
        "objects": len(written.objects),
        "without_bytes": without,
        "bytes": sum(row.size for row in written.objects if row.file is not None),
    }

    def human(console: Console) -> None:
        console.print(f"{len(written.objects):,} objects in {escape(str(directory))}")
        if without:
            console.print(f"{without:,} of them without bytes: too large to keep, see their keys in the source")
        if written.objects:
            console.print(
                f"mend the files below {escape(str(directory / 'objects'))}, then: "
                f"brainy quarantine replay {escape(namespace)} --from {escape(str(directory))}"
            )

    output.result(found, human)


async def _export(
    store: ObjectStore, namespace: str, directory: Path, reasons: frozenset[str], output: Output
) -> Export:
    try:
        place = await find_place(store)
        with output.progress("exporting") as show:

            async def chosen() -> AsyncIterator[Kept]:
                done = 0
                async with aclosing(read_rows(store, place, with_bytes=True)) as rows:
                    async for row in rows:
                        if not reasons or row.reason in reasons:
                            done += 1
                            show(done, None)
                            yield row

            return await write_export(directory, chosen(), namespace=namespace, generation=place.generation)
    finally:
        await store.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay did about one object."""

    key: str
    #: replayed, would-replay, unreadable, superseded or refused.
    outcome: str
    detail: str = ""
    kind: str = ""
    id: str = ""


@app.command()
def replay(
    namespace: NamespaceArgument,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Mended files of an export; else the objects as they are now."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="KEY", help="Only this object; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace what was written under the same id since.")
    ] = False,
    revive: Annotated[
        bool,
        typer.Option("--revive", help="Also take items of which only Brainy's change log says that they were deleted."),
    ] = False,
    endpoint: EndpointOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Read mended objects again and write what is readable now, exactly once. Newer data is never replaced unasked.

    Without a running cluster for the namespace one is started for the time of the command. Exit status 1 if an object
    named with --only was not replayed.
    """
    output = current()
    wanted = frozenset(only or ())

    async def work() -> list[Replayed]:
        store = bucket(namespace)
        try:
            mended = _from_export(source) if source is not None else None
            job = _Replay(store, wanted=wanted, dry_run=dry_run, overwrite=overwrite, revive=revive)
            await job.look(with_bytes=mended is None)
            if mended is not None and not job.choose(mended):
                return []
            async with await serving(namespace, endpoint, coordinator, directory) as client:
                if mended is None:
                    mended = await job.as_they_are(client)
                objects = job.choose(mended)
                done: list[Replayed] = []
                with output.progress("replaying") as show:
                    for start in range(0, len(objects), _AT_ONCE):
                        done += await job.replay(client, objects[start : start + _AT_ONCE])
                        show(len(done), len(objects))
                return done
        finally:
            await store.close()

    results = run(work())
    counts = Counter(each.outcome for each in results)
    found = {"namespace": namespace, "outcomes": dict(counts), "objects": [asdict(each) for each in results]}

    def human(console: Console) -> None:
        shown = table(None, "object", "outcome", "id", "detail")
        for each in results[:_SHOWN]:
            shown.add_row(escape(each.key), each.outcome, escape(each.id), escape(each.detail))
        if results:
            console.print(shown)
        facts(console, {name: f"{count:,}" for name, count in counts.items()} or {"replayed": "nothing is quarantined"})

    output.result(found, human)
    if wanted and any(each.outcome not in ("replayed", "would-replay") for each in results):
        raise typer.Exit(int(Exit.FAILED_RESULT))


def _from_export(directory: Path) -> dict[str, Mended]:
    return {
        row.key: Mended(key=row.key, body=exported_body(directory, row), beside=beside_of(row))
        for row in read_export(directory).objects
    }


class _Replay:
    """One run of ``brainy quarantine replay``."""

    def __init__(
        self, store: ObjectStore, *, wanted: frozenset[str], dry_run: bool, overwrite: bool, revive: bool
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._dry_run = dry_run
        self._overwrite = overwrite
        self._revive = revive
        self._rows: dict[str, Kept] = {}
        self._place: Place | None = None
        self._replayed: Mapping[str, ReplayedObject] = {}

    async def look(self, *, with_bytes: bool) -> None:
        """Read what is quarantined, and what of it was replayed before."""
        self._place = await find_place(self._store)
        self._replayed = await _book(self._store).objects()
        async with aclosing(read_rows(self._store, self._place, with_bytes=with_bytes)) as rows:
            async for row in rows:
                if self._due(row.key):
                    # What belongs to it may be needed; its own bytes are the damaged ones.
                    self._rows[row.key] = replace(row, body=None)

    def choose(self, mended: Mapping[str, Mended]) -> list[Mended]:
        """Return the objects to read again.

        Raises:
            NotFoundError: an object that was named is not among them.
        """
        if missing := sorted(self._wanted.difference(mended)):
            raise NotFoundError(
                "not among what is quarantined",
                remedy="see brainy quarantine list; nothing was written",
                keys=" ".join(missing[:5]),
            )
        return [each for key, each in sorted(mended.items()) if self._due(key)]

    def _due(self, key: str) -> bool:
        if self._wanted:
            return key in self._wanted
        return key not in self._replayed or self._overwrite

    async def as_they_are(self, client: AsyncBrainy) -> dict[str, Mended]:
        """Return the quarantined objects as they lie in the source now.

        A live tree no longer stumbles over what was mended in place; the nodes that read it before do.
        """
        assert self._place is not None
        keys = set(self._rows)
        if self._place.live:
            async for entry in client.quarantined():
                if self._due(entry.key):
                    row = Kept(key=entry.key, reason=entry.reason, size=entry.size)
                    keys.add(self._rows.setdefault(entry.key, row).key)
            keys |= self._wanted
        return await self._fetch(sorted(keys))

    async def _fetch(self, keys: Sequence[str]) -> dict[str, Mended]:
        mended: dict[str, Mended] = {}
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            for key, found in zip(part, await self._store.get_many(part), strict=True):
                if isinstance(found, Exception):
                    raise found
                row = self._rows.get(key)
                if found is None and row is None:
                    continue
                beside = {} if row is None or row.beside is None else {row.beside_key or "": row.beside}
                mended[key] = Mended(key=key, body=None if found is None else found.body, beside=beside)
        return mended

    async def replay(self, client: AsyncBrainy, objects: Sequence[Mended]) -> list[Replayed]:
        """Read some objects again and write what is readable."""
        assert self._place is not None
        readings = await read_again(self._store, self._place.trees, objects, believe_deletes=not self._revive)
        readable = [(reading, reading.item) for reading in readings if reading.item is not None]
        written = await write_back(
            client,
            [Recovered(item=item, before=reading.before) for reading, item in readable],
            purpose="replay",
            overwrite=self._overwrite,
            dry_run=self._dry_run,
        )
        results = {reading.key: result for (reading, _), result in zip(readable, written, strict=True)}
        bodies = {each.key: each.body or b"" for each in objects}
        done: list[Replayed] = []
        notes: list[ReplayedObject] = []
        for reading in readings:
            if reading.item is None:
                done.append(Replayed(key=reading.key, outcome="unreadable", detail=reading.reason))
                continue
            result = results[reading.key]
            kind = "verb" if isinstance(reading.item, Verb) else "noun"
            done.append(
                Replayed(
                    key=reading.key,
                    outcome=_WORDS[result.outcome],
                    detail=result.detail,
                    kind=kind,
                    id=reading.item.id,
                )
            )
            if result.outcome is Outcome.WRITTEN:
                row = self._rows.get(reading.key)
                body = bodies[reading.key]
                notes.append(
                    ReplayedObject(
                        key=reading.key,
                        reason="mended" if row is None else row.reason,
                        size=len(body) if row is None else row.size,
                        kind=kind,
                        id=reading.item.id,
                        sha256=hashlib.sha256(body).hexdigest(),
                        generation=self._place.generation or 0,
                        at=iso(SystemClock().wall()),
                    )
                )
        if not self._dry_run:
            await _book(self._store).add(notes)
        return done


_WORDS: Mapping[Outcome, str] = {
    Outcome.WRITTEN: "replayed",
    Outcome.WOULD_WRITE: "would-replay",
    Outcome.SUPERSEDED: "superseded",
    Outcome.REFUSED: "refused",
}


def _book(store: ObjectStore) -> ReplayedBook:
    return ReplayedBook(store, clock=SystemClock(), ids=Ids())
