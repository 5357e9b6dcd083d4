"""Writing back what was thought to be lost: replayed from the quarantine, or rescued from Brainy's change log.

Before: an item, and the digest of what the namespace holds of it if nobody has touched it ("" for nothing).
Steps, for each item: (1) read what is in place; (2) equal to the item: done before, nothing to do; untouched, or
overwriting was asked for: write it on the condition that just this is in place; anything else is newer and stays;
(3) read back.
After: the item is in place and in the log, or it is said what is there instead. The condition is checked by the owner
of the shard, so no write that comes between 1 and 3 is lost.
If it crashes between: running it again finds what was written, and does the rest. The request id is made of the item
and the condition, so a repeat whose answer was lost has no second effect.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from brainy.bucket.items import Noun, Verb
from brainy.errors import InvalidRequestError
from brainy.ids import Ids
from brainy.sdk.client import AsyncBrainy

_AT_ONCE: Final = 16


class Outcome(enum.StrEnum):
    """What became of an item."""

    #: It is in place, by this call or by an earlier one.
    WRITTEN = "written"
    #: It would be written; nothing was.
    WOULD_WRITE = "would-write"
    #: Something newer is in place, or it was deleted since; that stays.
    SUPERSEDED = "superseded"
    #: It cannot be stored.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """An item to write back."""

    item: Noun | Verb
    #: Digest of what is in place if nobody has touched it; b"" for nothing.
    before: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of it, and why."""

    outcome: Outcome
    detail: str = ""


async def write_back(
    client: AsyncBrainy,
    items: Sequence[Recovered],
    *,
    purpose: str,
    overwrite: bool = False,
    dry_run: bool = False,
    dimensions: int = 0,
    ids: Ids | None = None,
) -> list[Result]:
    """Write items back; one result for each, in order. The protocol is at the top of this module.

    Args:
        client: of the namespace.
        items: at most a few hundred at a time.
        purpose: part of the request ids, so that different recoveries are told apart.
        overwrite: also replace what is newer.
        dry_run: only say what would be done.
        dimensions: length of the vectors of a namespace that has none yet.
        ids: source of randomness, for tests.

    Raises:
        UnavailableError, OutcomeUnknownError: the cluster; running it again completes what was begun.
    """
    held = await _in_place(client, items)
    results: list[Result | None] = [None] * len(items)
    chosen: list[int] = []
    for place, (wanted, now) in enumerate(zip(items, held, strict=True)):
        results[place] = _decide(wanted, now, overwrite=overwrite, dry_run=dry_run)
        if results[place] is None:
            chosen.append(place)
    gate = asyncio.Semaphore(_AT_ONCE)
    # Overwriting is a new wish each time it is asked for.
    salt = (ids or Ids()).uuid() if overwrite else ""

    async def write(place: int) -> Result | None:
        item = items[place].item
        request_id = _request_id(purpose, item, held[place], salt)
        async with gate:
            try:
                await client.write_stored([item], request_id=request_id, expected=[held[place]], dimensions=dimensions)
            except InvalidRequestError as error:
                return Result(outcome=Outcome.REFUSED, detail=str(error))
        return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(write(place)) for place in chosen]
    for place, task in zip(chosen, tasks, strict=True):
        results[place] = task.result()
    unsure = [place for place in chosen if results[place] is None]
    for place, now in zip(unsure, await _in_place(client, [items[place] for place in unsure]), strict=True):
        results[place] = _confirm(items[place], now)
    return [result for result in results if result is not None]


def _decide(wanted: Recovered, now: bytes, *, overwrite: bool, dry_run: bool) -> Result | None:
    """Return the result that is clear without writing, or None."""
    if now == wanted.item.digest():
        return Result(outcome=Outcome.WRITTEN, detail="in place already")
    if now != wanted.before and not overwrite:
        return Result(outcome=Outcome.SUPERSEDED, detail="newer data is in place" if now else "deleted since")
    return Result(outcome=Outcome.WOULD_WRITE, detail="replaces what is in place" if now else "") if dry_run else None


def _confirm(wanted: Recovered, now: bytes) -> Result:
    if now == wanted.item.digest():
        return Result(outcome=Outcome.WRITTEN)
    detail = "newer data came in meanwhile" if now else "was written by an earlier run, and deleted since"
    return Result(outcome=Outcome.SUPERSEDED, detail=detail)


async def _in_place(client: AsyncBrainy, items: Sequence[Recovered]) -> list[bytes]:
    nouns = await client.stored_nouns(each.item.id for each in items if isinstance(each.item, Noun))
    verbs = await client.stored_verbs(each.item.id for each in items if isinstance(each.item, Verb))
    found = [(nouns if isinstance(each.item, Noun) else verbs).get(each.item.id) for each in items]
    return [b"" if item is None else item.digest() for item in found]


def _request_id(purpose: str, item: Noun | Verb, held: bytes, salt: str) -> str:
    parts = (purpose, type(item).__name__, item.digest().hex(), held.hex(), salt)
    return f"{purpose}-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:32]}"
