"""What Brainy's change log says about deleted items that are still stored.

The log is incomplete and full of noise, so it is asked one question only: of an item that looks alive, was the
last word "delete"? Delete entries carry no data and are therefore small; only entries small enough to be one
are fetched. If none names a stored item (the normal case) that is all. Otherwise the entries from the first
delete on are read once, to see whether a later one added the item again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from brainy.legacy import keys
from brainy.legacy.keys import Kind
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.values import UnreadableError, dump_json, parse_json
from brainy.store.base import ObjectMeta

#: A delete entry without its entityId: field names, time stamp, types and the instance's process id.
_FRAME_BYTES = 128
_FIRST_BOUND = 256
_BATCH_KEYS = 1000
_BATCH_BYTES = 16 << 20

Name = tuple[Kind, str]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A stored item of which the log may say that it was deleted."""

    kind: Kind
    id: str
    #: Milliseconds at which the item says it was written, where it says so: a later delete is required.
    written_at: int | None = None

    @property
    def name(self) -> Name:
        """Kind and id."""
        return self.kind, self.id


class Deletions:
    """The delete entries of one bucket's change log, read when first asked for."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._lock = asyncio.Lock()
        self._bound = 0
        #: Time of the last delete of an item.
        self._deleted: dict[Name, int] = {}
        #: Time of the last add of an item that was deleted at some time.
        self._added: dict[Name, int] = {}
        self._read_adds = False

    async def last_word_is_delete(self, suspects: Sequence[Suspect]) -> set[Name]:
        """Return those of the suspects whose last entry is a delete."""
        if not suspects:
            return set()
        async with self._lock:
            await self._read_deletes(max(len(dump_json(suspect.id)) for suspect in suspects))
            named = [suspect for suspect in suspects if self._is_deleted(suspect)]
            if named and not self._read_adds:
                await self._read_all_since(min(self._deleted.values()))
                self._read_adds = True
        return {s.name for s in named if self._added.get(s.name, -1) <= self._deleted[s.name]}

    def _is_deleted(self, suspect: Suspect) -> bool:
        deleted = self._deleted.get(suspect.name)
        return deleted is not None and (suspect.written_at is None or suspect.written_at <= deleted)

    async def _read_deletes(self, id_bytes: int) -> None:
        bound = max(_FIRST_BOUND, _FRAME_BYTES + id_bytes)
        if bound <= self._bound:
            return
        low, self._bound = self._bound, bound
        await self._read(lambda meta: low < meta.size <= bound, self._note_delete)

    async def _read_all_since(self, milliseconds: int) -> None:
        await self._read(lambda _: True, self._note_add, start_after=keys.change_log_from(milliseconds - 1))

    def _note_delete(self, time: int, entry: dict[str, object]) -> None:
        if entry.get("operation") == "delete" and (name := _item_named(entry)):
            self._deleted[name] = max(time, self._deleted.get(name, -1))

    def _note_add(self, time: int, entry: dict[str, object]) -> None:
        if entry.get("operation") != "add":
            return
        # Metadata with data brings a noun back; metadata null is part of deleting it.
        names: Iterable[Name] = ()
        if entry.get("entityType") == "metadata" and entry.get("data") is not None:
            names = [(Kind.NOUN, str(entry.get("entityId")))]
        elif name := _item_named(entry):
            names = [name]
        for name in names:
            if name in self._deleted:
                self._added[name] = max(time, self._added.get(name, -1))

    async def _read(
        self,
        chosen: Callable[[ObjectMeta], bool],
        note: Callable[[int, dict[str, object]], None],
        start_after: str = "",
    ) -> None:
        batches = self._batches(chosen, start_after)
        async with aclosing(batches), aclosing(self._fetcher.fetched(batches)) as fetched:
            async for _, objects in fetched:
                for found in objects:
                    entry = None if found is None else _entry(found.body)
                    if found is not None and entry is not None:
                        note(_time(found.key, entry), entry)
                await asyncio.sleep(0)

    async def _batches(
        self, chosen: Callable[[ObjectMeta], bool], start_after: str
    ) -> AsyncGenerator[tuple[None, list[str]]]:
        batch: list[str] = []
        size = 0
        async with aclosing(self._fetcher.pages(keys.CHANGE_LOG, start_after=start_after)) as pages:
            async for page in pages:
                for meta in page:
                    if not chosen(meta):
                        continue
                    batch.append(meta.key)
                    size += meta.size
                    if len(batch) >= _BATCH_KEYS or size >= _BATCH_BYTES:
                        yield None, batch
                        batch, size = [], 0
        if batch:
            yield None, batch


def _entry(body: bytes) -> dict[str, object] | None:
    # What cannot be read says nothing: the log is a hint.
    try:
        value = parse_json(body)
    except UnreadableError:
        return None
    return value if isinstance(value, dict) else None


def _time(key: str, entry: dict[str, object]) -> int:
    stamp = entry.get("timestamp")
    if isinstance(stamp, int) and not isinstance(stamp, bool):
        return stamp
    return keys.change_time(key) or 0


def _item_named(entry: dict[str, object]) -> Name | None:
    item_id = entry.get("entityId")
    if not isinstance(item_id, str):
        return None
    match entry.get("entityType"):
        case "noun":
            return Kind.NOUN, item_id
        case "verb":
            return Kind.VERB, item_id
        case _:
            return None
