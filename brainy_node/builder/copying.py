"""Reading a source once into the bases of many shards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
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
from brainy_node.builder.parts import Parts
from brainy_node.builder.source import ChosenSource
from brainy_node.shard.base_record import BaseRecord
from brainy_node.shard.writer import BaseWriter

_log = get_logger(__name__)

_Item = TypeVar("_Item", Noun, Verb)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A shard that was read to the end: a staged base, complete but not settled, and where its rows came from."""

    writer: BaseWriter
    source: ChosenSource


async def copy_source(
    context: Context, chosen: ChosenSource, shards: Sequence[int], parts: Parts | None = None
) -> dict[int, Copied]:
    """Read a source into one staged base per shard, position 0, and build their indexes.

    One pass over the source whatever the number of shards, or, with ``parts``, one for each place that earlier runs
    have come to; memory is one batch of rows per shard. Their directories still have to be settled.

    Raises:
        BrainyError: the source failed. What was staged is removed with the workspace; parts stay.
    """
    spec = context.job.spec
    with ExitStack() as opened:
        writers = {
            shard: opened.enter_context(BaseWriter(context.workspace.stage(f"s{shard}"), spec=spec, shard=shard))
            for shard in shards
        }
        sources = dict.fromkeys(shards, chosen)
        if parts is not None:
            opened.callback(parts.close)
            sources = await parts.resume(chosen, writers)
        totals = _Totals(context, writers, parts)
        for source, place, members in _passes(sources, parts):
            reading = {shard: writers[shard] for shard in members}
            await _read(context, source, reading, totals, parts, place)
        totals.finished()
        for shard, writer in writers.items():
            # One after the other; how much there is shows from the beginning.
            context.report(Progress(shard=shard, stage="indexing", done=0, total=writer.noun_count))
        for shard, writer in writers.items():
            record = await asyncio.to_thread(
                writer.finish,
                position=0,
                source_cursor=sources[shard].cursor_for(shard, spec.shard_count),
                recent_requests=sources[shard].recent_requests,
                make_index=PacedIndex(context, spec, shard).make,
            )
            log_base(record)
    return {shard: Copied(writer=writer, source=sources[shard]) for shard, writer in writers.items()}


def _passes(sources: Mapping[int, ChosenSource], parts: Parts | None) -> Iterator[tuple[ChosenSource, int, list[int]]]:
    """Yield source, place to begin from, and shards, of each pass."""
    passes: dict[tuple[int, int], list[int]] = {}
    for shard, source in sources.items():
        place = parts.shards[shard].place if parts is not None else 0
        passes.setdefault((id(source), place), []).append(shard)
    for (_, place), members in passes.items():
        yield sources[members[0]], place, members


async def _read(
    context: Context,
    source: ChosenSource,
    writers: Mapping[int, BaseWriter],
    totals: _Totals,
    parts: Parts | None,
    place: int,
) -> None:
    shard_count = context.job.spec.shard_count
    held = None
    if parts is not None:
        await parts.begin(source, writers)
        held = parts.held(writers)
    # Counting is a pass of LISTs of its own: it runs beside the copy instead of holding it up.
    counting = asyncio.create_task(totals.learn(source))
    try:
        stream = source.stream(shards=frozenset(writers), shard_count=shard_count, place=place, held=held)
        async with aclosing(stream) as batches:  # type: ignore[type-var] # sources are generators
            async for batch in batches:
                await context.pace.turn(len(batch.nouns) + len(batch.verbs))
                _distribute(batch, writers, shard_count, parts)
                place = batch.place
                if parts is not None and parts.due:
                    await parts.cut(place)
                totals.show("reading")
        if parts is not None:
            await parts.cut(place)
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


def _distribute(batch: ItemBatch, writers: Mapping[int, BaseWriter], shard_count: int, parts: Parts | None) -> None:
    if len(writers) == 1:
        (only,) = writers
        nouns, verbs = {only: batch.nouns}, {only: batch.verbs}
    else:
        nouns, verbs = _by_shard(batch.nouns, shard_count), _by_shard(batch.verbs, shard_count)
    for shard in nouns.keys() | verbs.keys():
        some, more = nouns.get(shard, []), verbs.get(shard, [])
        writers[shard].add_nouns(some)
        writers[shard].add_verbs(more)
        if parts is not None:
            parts.add(shard, some, more)
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

    def __init__(self, context: Context, writers: Mapping[int, BaseWriter], parts: Parts | None) -> None:
        self._report = context.report
        self._resumed = {} if parts is None else {shard: part.resumed for shard, part in parts.shards.items()}
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
            resumed = self._resumed.get(shard, 0)
            self._report(Progress(shard=shard, stage=stage, done=done, total=total, resumed=resumed))
