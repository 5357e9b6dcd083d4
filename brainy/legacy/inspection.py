"""A full account of a bucket as Brainy left it. Read-only.

Every object of an item and every entry of the change log is read once; the listing of all keys goes on beside that.
Memory does not grow with the size of objects, only by some bytes for each object, so a bucket of any size can be
inspected. Brainy's own statistics are reported beside what was counted and never believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from brainy.clock import Clock, SystemClock
from brainy.legacy.account import Findings, account
from brainy.legacy.census import Inspection
from brainy.legacy.changes import Changes, read_changes
from brainy.legacy.inventory import Inventory
from brainy.legacy.keys import TYPED, Kind
from brainy.legacy.outlay import Assumptions
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.reading import TreeReader, Wanted
from brainy.legacy.survey import survey
from brainy.legacy.tally import Tally
from brainy.legacy.trees import open_trees
from brainy.store.base import ObjectStore

__all__ = ["Assumptions", "Inspection", "InspectionProgress", "inspect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionProgress:
    """How far an inspection is."""

    #: "items" or "change log"; the listing goes on beside both.
    phase: str
    objects_listed: int
    objects_read: int
    #: About how many objects will have been read; 0 while the listing goes on.
    objects_expected: int


class _Course:
    """Tells the caller how far it is."""

    def __init__(self, tell: Callable[[InspectionProgress], None]) -> None:
        self._tell = tell
        self.phase = "items"
        self.listed = 0
        self.read = 0
        self.expected = 0

    def advance(self, read: int = 0) -> None:
        self.read += read
        self._tell(
            InspectionProgress(
                phase=self.phase,
                objects_listed=self.listed,
                objects_read=self.read,
                objects_expected=max(self.expected, self.read) if self.expected else 0,
            )
        )


async def inspect(
    store: ObjectStore,
    on_progress: Callable[[InspectionProgress], None] | None = None,
    *,
    clock: Clock | None = None,
    assumptions: Assumptions | None = None,
    read_change_log: bool = True,
) -> Inspection:
    """Read a whole namespace and say what is in it; ``on_progress`` is called once a page and a batch.

    ``clock`` tells how old things are, for display. ``assumptions`` are what the cost of a migration is predicted
    from. Without ``read_change_log`` the log is only listed, and what needs its entries is None.

    Raises:
        BrainyError: the store failed. Unreadable objects are reported, not raised.
    """
    clock = clock or SystemClock()
    began = clock.monotonic()
    seen = await survey(store)
    fetcher = Fetcher(store)
    inventory = Inventory()
    if TYPED in seen.trees:
        await inventory.persons.find(fetcher)
    course = _Course(on_progress or (lambda _: None))
    readable = open_trees(seen.trees)
    reader = TreeReader(store, readable)
    tally = Tally()
    changes: Changes | None = None

    async def list_all() -> None:
        async with aclosing(fetcher.pages("")) as pages:
            async for page in pages:
                inventory.take(page)
                course.listed += len(page)
                course.advance()
                await asyncio.sleep(0)
        inventory.finish()
        course.expected = inventory.objects_of_items({tree.name for tree in readable})
        course.expected += inventory.kinds[Kind.CHANGE] if read_change_log else 0

    listing = asyncio.create_task(list_all())
    try:
        async with aclosing(reader.stream(Wanted(frozenset({0}), 1))) as batches:
            async for batch in batches:
                tally.take(batch)
                course.advance(batch.objects_read)
        tally.finish()
        course.phase = "change log"
        if read_change_log:
            changes = await read_changes(fetcher, course.advance)
        await listing
    finally:
        listing.cancel()
        await asyncio.gather(listing, return_exceptions=True)
    return await account(
        Findings(
            seen=seen,
            fetcher=fetcher,
            reader=reader,
            inventory=inventory,
            tally=tally,
            changes=changes,
            now=clock.wall(),
            assumptions=assumptions or Assumptions(),
        ),
        lambda: clock.monotonic() - began,
    )
