"""The newest entries of Brainy's change log, as hints of what to read again.

Nothing rests on them: entries are lost, doubled, late and stamped by clocks that disagree. They make a change visible
about a second after its entry; the reconcile pass makes the rest visible.

One LIST a poll, from a moment before the present. A writer whose clock is ahead stamps entries beyond the present;
they are listed from the last of them on, so that they neither hide the others' entries nor are listed again and
again (a second LIST, only where there are any). A writer whose clock is behind is heard by the reconcile pass alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from brainy.clock import Clock
from brainy.legacy import keys
from brainy.legacy.change_entries import ChangeEntry, read_entry
from brainy.legacy.keys import CHANGE_LOG
from brainy.store.base import ObjectMeta, ObjectStore

#: Entries may arrive so much later than they say.
_LATE_MILLISECONDS = 5_000
#: One stamped further ahead than this is of a clock that is ahead.
_AHEAD_MILLISECONDS = 5_000
#: More entries than this in one poll are left to the reconcile pass.
MAX_ENTRIES = 2_000
_CONCURRENCY = 64


class Hints:
    """Polls the end of the log."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        #: Keys seen among those that may still be listed again.
        self._recent: set[str] = set()
        self._ahead = ""

    async def poll(self) -> list[ChangeEntry]:
        """Return the entries that are new since the last poll, as far as they can be read.

        Raises:
            BrainyError: what the store said; the same entries are found by the next poll.
        """
        present = int(1000 * self._clock.wall())
        start = keys.change_log_from(max(0, present - _LATE_MILLISECONDS))
        horizon = keys.change_log_from(present + _AHEAD_MILLISECONDS)
        near, more = await self._listed(start, horizon)
        beyond = await self._listed(max(self._ahead, horizon), "") if more else ([], False)
        new = [key for key in near if key not in self._recent] + beyond[0]
        entries = []
        for found in await self._store.get_many(new[:MAX_ENTRIES], concurrency=_CONCURRENCY) if new else ():
            if isinstance(found, Exception):
                raise found
            if found is not None and (entry := read_entry(found)) is not None:
                entries.append(entry)
        self._recent = set(near)
        self._ahead = max([self._ahead, *beyond[0]])
        return entries

    async def _listed(self, start_after: str, horizon: str) -> tuple[list[str], bool]:
        """Return the keys up to a horizon ("" is none), and whether there are any beyond it."""
        listed: list[str] = []
        async for page in self._store.list(CHANGE_LOG, start_after=start_after):
            names = _names(page)
            if horizon and names and names[-1] >= horizon:
                return listed + [name for name in names if name < horizon], True
            listed += names
            if len(listed) >= MAX_ENTRIES:
                break
        return listed, False


def _names(page: Sequence[ObjectMeta]) -> list[str]:
    return [meta.key for meta in page if keys.change_time(meta.key) is not None]
