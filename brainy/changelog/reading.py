"""Reading a shard's change log from the bucket.

The keys of a log are its positions, so a LIST that starts after the last known key finds exactly what is new.
What comes back is checked to be dense (each object begins where the one before it ended) and never to fall in
epoch; a hole is an error, not the end of the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from brainy.bucket import invariants, layout
from brainy.changelog.batch import MAX_SLOT_RECORDS, Slot, decode_slot
from brainy.changelog.collection import collected_error, collected_position
from brainy.errors import CorruptDataError
from brainy.store.base import ObjectMeta, ObjectStore

#: Objects fetched in one round trip, and the bytes they may have together.
FETCH_OBJECTS: Final = 64
FETCH_BYTES: Final = 32 << 20


async def read_log(store: ObjectStore, generation: int, shard: int, *, from_position: int) -> AsyncIterator[Slot]:
    """Yield the slots that hold ``from_position`` and everything after it, in order.

    ``from_position`` is 1 or one past the end of a slot: followers apply whole slots. One that lies inside a
    slot is served too (the first slot then begins before it) as long as a later slot exists. Ends at the last
    object a LIST shows; it does not wait for more.

    The position given up by collection is read after each run of slots and before it is yielded: a slot above it
    was never deleted, so what its key holds is what its owner wrote.

    Raises:
        LogCollectedError: ``from_position`` has been collected; open the newest checkpoint and read from there.
        CorruptDataError: a hole, an object that vanished, an epoch that falls, or a damaged object.
        UnavailableError: the store cannot be read now.
    """
    previous: Slot | None = None
    start_after = layout.log_slot(generation, shard, max(0, from_position - 1))
    async for page in store.list(layout.log(generation, shard), start_after=start_after):
        for run in _runs([meta for meta in page if layout.parse_log_slot(meta.key) is not None]):
            position = from_position if previous is None else previous.last + 1
            try:
                slots = await _fetch(store, [meta.key for meta in run])
            except CorruptDataError:
                await _check_kept(store, generation, shard, position)
                raise
            await _check_kept(store, generation, shard, position)
            for slot in slots:
                if previous is None and slot.first > from_position:
                    # Either from_position lies inside an older slot, or that slot is missing.
                    previous = await slot_holding(store, generation, shard, from_position)
                    if previous is not None:
                        yield previous
                _check_next(previous, slot, expected=from_position)
                yield slot
                previous = slot
    if previous is None:
        await _check_kept(store, generation, shard, from_position)


async def _check_kept(store: ObjectStore, generation: int, shard: int, position: int) -> None:
    collected = await collected_position(store, generation, shard)
    if position <= collected:
        raise collected_error(generation, shard, position=position, collected=collected)


async def slot_holding(store: ObjectStore, generation: int, shard: int, position: int) -> Slot | None:
    """Return the slot that holds a position, or None if the log has none.

    A store lists forward only, so this looks back in growing windows of positions: one LIST and one GET for
    any log whose objects hold fewer than a thousand records.

    Raises:
        CorruptDataError: the object is damaged.
        UnavailableError: the store cannot be read now.
    """
    window = 1000
    while position >= 1:
        low = max(0, position - window)
        last: str | None = None
        beyond = layout.log_slot(generation, shard, position)
        async for page in store.list(
            layout.log(generation, shard), start_after=layout.log_slot(generation, shard, low)
        ):
            keys = [meta.key for meta in page if layout.parse_log_slot(meta.key) is not None]
            last = max((key for key in keys if key <= beyond), default=last)
            if keys and keys[-1] > beyond:
                break
        if last is not None:
            (slot,) = await _fetch(store, [last])
            return slot if slot.last >= position else None
        if low == 0 or window >= MAX_SLOT_RECORDS:
            return None
        window *= 8
    return None


def _runs(metas: Sequence[ObjectMeta]) -> list[list[ObjectMeta]]:
    # Bounded by count and by bytes, so that reading a log of large batches does not fill the memory.
    runs: list[list[ObjectMeta]] = []
    size = 0
    for meta in metas:
        if not runs or len(runs[-1]) >= FETCH_OBJECTS or size + meta.size > FETCH_BYTES:
            runs.append([])
            size = 0
        runs[-1].append(meta)
        size += meta.size
    return runs


async def _fetch(store: ObjectStore, keys: Sequence[str]) -> list[Slot]:
    slots = []
    for key, found in zip(keys, await store.get_many(keys), strict=True):
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise CorruptDataError(
                "a change-log object vanished while the log was read",
                remedy="find out who deletes under cluster/ and restore the object",
                data_safe=False,
                key=key,
            )
        slots.append(decode_slot(found.body, key=key))
    return slots


def _check_next(previous: Slot | None, slot: Slot, *, expected: int) -> None:
    key = layout.log_slot(slot.batch.generation, slot.batch.shard, slot.first)
    if previous is not None:
        invariants.check_batch_follows(previous.batch, slot.batch, key=key)
    elif slot.first != expected:
        raise CorruptDataError(
            invariants.LOG_IS_DENSE.sentence,
            remedy="restore the missing object from a copy",
            data_safe=False,
            key=key,
            expected=expected,
            found=slot.first,
        )
