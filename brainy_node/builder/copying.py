"""Reading a source once into the bases of many shards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, aclosing
from typing import TypeVar

from brainy.bucket.items import Noun, Verb
from brainy.bucket.partition import shard_of
from brainy.dataset.base import ItemBatch, Quarantined
from brainy.dataset.generation import quarantine_shard
from brainy.errors import BrainyError
from brainy.telemetry.logs import get_logger
from brainy_node.builder.context import Context
from brainy_node.builder.job import Progress
from brainy_node.builder.paced_index import PacedIndex
from brainy_node.builder.source import ChosenSource
from brainy_node.shard.base_record import BaseRecord
from brainy_node.shard.writer import BaseWriter

_log = get_logger(__name__)

_Item = TypeVar("_Item", Noun, Verb)


async def copy_source(context: Context, chosen: ChosenSource, shards: Sequence[int]) -> dict[int, BaseWriter]:
    """Read a source into one staged base per shard, position 0, and build their indexes.

    One pass over the source whatever the number of shards; memory is one batch of rows per shard. Returns the
    finished writers; their directories are complete bases that still have to be settled.

    Raises:
        BrainyError: the source failed. What was staged is removed with the workspace.
    """
    spec = context.job.spec
    with ExitStack() as opened:
        writers = {
            shard: opened.enter_context(BaseWriter(context.workspace.stage(f"s{shard}"), spec=spec, shard=shard))
            for shard in shards
        }
        totals = _Totals(context, writers)
        await _read(context, chosen, writers, totals)
        totals.finished()
        for shard, writer in writers.items():
            record = await asyncio.to_thread(
                writer.finish,
                position=0,
                source_cursor=chosen.cursor_for(shard, spec.shard_count),
                recent_requests=chosen.recent_requests,
                make_index=PacedIndex(context, spec, shard).make,
            )
            log_base(record)
    return writers


async def _read(context: Context, chosen: ChosenSource, writers: Mapping[int, BaseWriter], totals: _Totals) -> None:
    shard_count = context.job.spec.shard_count
    # Counting is a pass of LISTs of its own: it runs beside the copy instead of holding it up.
    counting = asyncio.create_task(totals.learn(chosen))
    try:
        stream = chosen.source.stream(shards=frozenset(writers), shard_count=shard_count)
        async with aclosing(stream) as batches:  # type: ignore[type-var] # sources are generators
            async for batch in batches:
                await context.pace.turn(len(batch.nouns) + len(batch.verbs))
                _distribute(batch, writers, shard_count)
                totals.show("reading")
    finally:
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)


def log_base(record: BaseRecord) -> None:
    """Log what a base came to hold."""
    _log.info(
        "base_built",
        generation=record.generation,
        shard=record.shard,
        position=record.position,
        nouns=record.noun_count,
        verbs=record.verb_count,
        indexed=record.indexed_count,
    )


def _distribute(batch: ItemBatch, writers: Mapping[int, BaseWriter], shard_count: int) -> None:
    if len(writers) == 1:
        (only,) = writers.values()
        only.add_nouns(batch.nouns)
        only.add_verbs(batch.verbs)
    else:
        for shard, nouns in _by_shard(batch.nouns, shard_count).items():
            writers[shard].add_nouns(nouns)
        for shard, verbs in _by_shard(batch.verbs, shard_count).items():
            writers[shard].add_verbs(verbs)
    for quarantined in batch.quarantined:
        writer = writers[_shard_of_key(quarantined, writers, shard_count)]
        writer.add_quarantined(quarantined.key, quarantined.reason, quarantined.size)


def _by_shard(items: Sequence[_Item], shard_count: int) -> dict[int, list[_Item]]:
    parts: dict[int, list[_Item]] = {}
    for item in items:
        parts.setdefault(shard_of(item.id, shard_count), []).append(item)
    return parts


def _shard_of_key(quarantined: Quarantined, writers: Mapping[int, BaseWriter], shard_count: int) -> int:
    """Return the shard that lists an unreadable object: that of the id in its key, or else of the key itself.

    A source yields such an object to the job that has that shard; where the rule finds none of the job's shards
    (an object whose inner id brought it here) the lowest lists it, so that nothing is left out.
    """
    for shard in (quarantine_shard(quarantined.key, shard_count), shard_of(quarantined.key, shard_count)):
        if shard in writers:
            return shard
    return min(writers)


class _Totals:
    """Progress of each shard."""

    def __init__(self, context: Context, writers: Mapping[int, BaseWriter]) -> None:
        self._report = context.report
        self._shard_count = context.job.spec.shard_count
        self._writers = writers
        self._expected = 0
        self._shown: Counter[int] = Counter()

    async def learn(self, chosen: ChosenSource) -> None:
        """Ask the source how many items there are; a share of them belongs to each shard."""
        try:
            self._expected = await chosen.source.total() // self._shard_count
        except BrainyError as error:
            _log.warning("source_not_counted", cause=str(error))

    def finished(self) -> None:
        """Everything was read: what was found is what there is."""
        self._expected = 0
        self.show("reading", final=True)

    def show(self, stage: str, *, final: bool = False) -> None:
        for shard, writer in self._writers.items():
            done = writer.noun_count + writer.verb_count
            if not final and done == self._shown[shard]:
                continue
            self._shown[shard] = done
            total = max(done, self._expected) if self._expected or final else 0
            self._report(Progress(shard=shard, stage=stage, done=done, total=total))
