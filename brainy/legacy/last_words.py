"""What Brainy's change log has to say about deletions, kept up with from one question to the next.

``brainy.legacy.deletions`` asks the log of one reading: of an item that looks alive, was the last word "delete"?
Here the same facts are held for as long as a bucket is followed, so that each entry is read once: the delete entries
of the whole log when the question is put for the first time, later only entries that were not there before. Adds
matter for ids with a delete only and are looked up when such an id turns up alive.

Entries are stamped by their writers' clocks, so a new one may stand before older ones: ``sweep`` lists the last
hours of the log (``WINDOW_SECONDS``) and reads what it has not seen. One that is stamped earlier still is found by
the next process that asks.

Memory: some ten bytes for each entry of the window, some hundred for each id ever deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from brainy.clock import Clock
from brainy.legacy import keys
from brainy.legacy.change_entries import ChangeEntry, read_entry
from brainy.legacy.keys import CHANGE_LOG, Kind
from brainy.legacy.presence import Hashes, hashes_of
from brainy.legacy.values import dump_json
from brainy.store.base import ObjectStore, StoredObject

#: How far the clocks of two writers may be apart for their entries to be seen by every sweep.
WINDOW_SECONDS = 3 * 3600.0
#: A delete entry without its id.
_FRAME_BYTES = 128
_FIRST_BOUND = 256
_BATCH_KEYS = 500
_CONCURRENCY = 64

_Name = tuple[Kind, str]
_ENTITY = {Kind.NOUN: "noun", Kind.VERB: "verb"}


class LastWords:
    """Deletions and the adds after them, by kind and id."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._deleted: dict[_Name, int] = {}
        self._added: dict[_Name, int] = {}
        #: Size up to which the delete entries of the whole log are known; 0 before the first question.
        self._bound = 0
        #: Newest stamp in the log, or the present if that is later.
        self._newest = int(1000 * clock.wall())
        self._swept = np.empty(0, np.uint64)

    async def sweep(self) -> list[ChangeEntry]:
        """Read the delete entries that are new in the last hours of the log; returns them.

        Only LIST calls where nothing is new.

        Raises:
            BrainyError: what the store said.
        """
        return await self._read_deletes(keys.change_log_from(self._window_start), max(self._bound, _FIRST_BOUND))

    @property
    def _window_start(self) -> int:
        return max(0, self._newest - int(1000 * WINDOW_SECONDS))

    async def _read_deletes(self, start_after: str, bound: int, above: int = -1) -> list[ChangeEntry]:
        found: list[ChangeEntry] = []
        waiting: list[str] = []
        swept: list[Hashes] = []
        async for page in self._store.list(CHANGE_LOG, start_after=start_after):
            times = [keys.change_time(meta.key) for meta in page]
            self._newest = max(self._newest, max((time for time in times if time is not None), default=0))
            marks = hashes_of([meta.key for meta in page])
            # Without a bound below: the whole log for the first time. With one: what was too large then.
            seen = np.isin(marks, self._swept) if above < 0 else np.zeros(len(marks), np.bool_)
            waiting += [
                meta.key
                for meta, time, known in zip(page, times, seen.tolist(), strict=True)
                if time is not None and above < meta.size <= bound and not known
            ]
            swept.append(marks[[time is not None and time >= self._window_start for time in times]])
            if len(waiting) >= _BATCH_KEYS:
                found += await self._note(waiting)
                waiting = []
        found += await self._note(waiting)
        self._swept = np.concatenate([np.empty(0, np.uint64), *swept])
        return found

    async def _note(self, names: Sequence[str]) -> list[ChangeEntry]:
        noted = []
        for entry in await self._entries(names):
            if entry.deletes and entry.kind in _ENTITY:
                self.note(entry)
                noted.append(entry)
        return noted

    async def _entries(self, names: Sequence[str]) -> list[ChangeEntry]:
        entries = []
        for found in await self._store.get_many(names, concurrency=_CONCURRENCY) if names else ():
            if isinstance(found, Exception):
                raise found
            if found is not None and (entry := read_entry(found)) is not None:
                entries.append(entry)
        return entries

    def note(self, entry: ChangeEntry) -> None:
        """Take in an entry somebody has read."""
        if entry.deletes and entry.kind in _ENTITY:
            name = entry.kind, entry.id
            self._deleted[name] = max(entry.time, self._deleted.get(name, -1))
        elif not entry.deletes:
            self._note_add(entry)

    def _note_add(self, entry: ChangeEntry) -> None:
        # Metadata with data brings a noun back; metadata null is part of deleting it.
        if entry.kind is Kind.NOUN_METADATA and entry.null:
            return
        name = (Kind.NOUN if entry.kind is Kind.NOUN_METADATA else entry.kind), entry.id
        if name in self._deleted:
            self._added[name] = max(entry.time, self._added.get(name, -1))

    async def about(self, ids: Collection[str]) -> list[StoredObject]:
        """Return entries that say of some ids what the log says of them: the last delete, the last add after one.

        They are made up, for ``brainy.legacy.deletions`` to read; names that were never deleted have none.

        Raises:
            BrainyError: what the store said.
        """
        longest = max((len(dump_json(item_id)) for item_id in ids), default=0)
        bound = max(_FIRST_BOUND, _FRAME_BYTES + longest)
        if bound > self._bound:
            above, self._bound = self._bound, bound
            await self._read_deletes("", bound, above)
        named = [(kind, item_id) for item_id in ids for kind in _ENTITY if (kind, item_id) in self._deleted]
        await self._look_for_adds([name for name in named if self._added.get(name, -1) <= self._deleted[name]])
        made = []
        for number, name in enumerate(named):
            made.append(_made_up(name, self._deleted[name], "delete", f"d{number}"))
            if name in self._added:
                made.append(_made_up(name, self._added[name], "add", f"a{number}"))
        return made

    async def _look_for_adds(self, names: Collection[_Name]) -> None:
        if not names:
            return
        since = min(self._deleted[name] for name in names)
        async for page in self._store.list(CHANGE_LOG, start_after=keys.change_log_from(max(0, since - 1))):
            for entry in await self._entries([meta.key for meta in page]):
                if not entry.deletes:
                    self._note_add(entry)


def _made_up(name: _Name, time: int, operation: str, suffix: str) -> StoredObject:
    body = dump_json({"timestamp": time, "operation": operation, "entityType": _ENTITY[name[0]], "entityId": name[1]})
    key = f"{CHANGE_LOG}{time:013d}-{suffix}.json"
    return StoredObject(key=key, body=body, etag="")
