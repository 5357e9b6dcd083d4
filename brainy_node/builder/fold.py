"""Folding: a base and the log after it become a new base without dead rows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from brainy.changelog.reading import read_log
from brainy.errors import InvalidRequestError
from brainy_node.builder.context import Context
from brainy_node.builder.copying import log_base
from brainy_node.builder.job import Built, Progress
from brainy_node.builder.publication import Publication, publish
from brainy_node.shard import base_record, index
from brainy_node.shard.base import Base
from brainy_node.shard.contents import Contents
from brainy_node.shard.shard import Shard
from brainy_node.shard.writer import BaseWriter

_BLOCK_ROWS = 1000


async def fold(context: Context) -> Built:
    """Build the base of the job's one shard as of ``up_to_position``.

    Whole log objects only: the new base ends at the last one that ends at or below ``up_to_position``, since a
    source cursor holds for an object as a whole. The new base is a function of base and log alone, so two nodes that
    fold the same shard build the same items. Item hashes and the old index are carried over; the index is built anew
    once more than ``index.REBUILD_SHARE`` of it is gone.

    With ``publish`` the base is offered to the bucket before it is moved into place.

    Raises:
        CorruptDataError: the base was altered, or the log has a hole. No base was left behind.
        FencedError: a newer owner has published the shard.
        InvalidRequestError: not exactly one shard, or no base.
    """
    job = context.job
    if len(job.shards) != 1 or not job.base_directory:
        raise InvalidRequestError("a fold needs one shard and its base", shards=job.shards)
    (number,) = job.shards
    base = await asyncio.to_thread(Base.open, Path(job.base_directory))
    shard = Shard.open(base, job.spec)
    async for slot in read_log(context.store, job.spec.generation, number, from_position=base.position + 1):
        if job.up_to_position is not None and slot.last > job.up_to_position:
            break
        shard.apply(slot.batch)
        context.report(Progress(shard=number, stage="reading", done=shard.applied, total=job.up_to_position or 0))
    staged = context.workspace.stage(f"s{number}")
    context.report(Progress(shard=number, stage="indexing", done=shard.applied, total=shard.applied))
    record = await asyncio.to_thread(_write, shard.contents(), shard, staged, job.threads)
    log_base(record)
    published = False
    if job.publish:
        outcome = await publish(context, Base.open(staged, verify=False))
        published = outcome is Publication.PUBLISHED
    place = context.workspace.settle(staged, shard=number, position=record.position)
    return Built(shard=number, directory=str(place), position=record.position, published=published)


def _write(contents: Contents, shard: Shard, directory: Path, threads: int) -> base_record.BaseRecord:
    base = contents.base
    with BaseWriter(directory, spec=shard.spec, shard=shard.number) as writer:
        for rows in _blocks(contents.rows):
            writer.add_nouns([base.noun(row) for row in rows], [base.noun_hash(row) for row in rows])
        writer.add_nouns([noun for noun, _ in contents.nouns], [item_hash for _, item_hash in contents.nouns])
        for rows in _blocks(contents.verb_rows):
            writer.add_verbs([base.verb(row) for row in rows], [base.verb_hash(row) for row in rows])
        writer.add_verbs([verb for verb, _ in contents.verbs], [item_hash for _, item_hash in contents.verbs])
        for entry in base.quarantined():
            writer.add_quarantined(entry.key, entry.reason, entry.size)
        return writer.finish(
            position=shard.applied,
            source_cursor=shard.source_cursor,
            # Left out where it says nothing new, so that software from before the field reads the manifest.
            source_generation=None if shard.source_generation == shard.spec.made_of else shard.source_generation,
            recent_requests=shard.recent_requests(),
            threads=threads,
            make_index=_FoldedIndex(contents, shard, threads).make,
        )


def _blocks(rows: list[int]) -> list[list[int]]:
    return [rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS)]


class _FoldedIndex:
    """Extends the old index while that is worth it, builds a new one otherwise."""

    def __init__(self, contents: Contents, shard: Shard, threads: int) -> None:
        self._contents = contents
        self._spec = shard.spec
        self._threads = threads

    def make(self, target: Path, matrix: index.Matrix, keys: index.Keys) -> int:
        """Write the index over ``matrix[keys]`` to ``target``; returns the removed slots it carries."""
        base = self._contents.base
        kept = np.asarray(self._contents.rows, dtype=np.uint64)
        # Living rows keep their order, so row kept[i] of the old base is row i of the new one.
        survives = base.indexed[kept.astype(np.int64)]
        before, after = kept[survives], np.flatnonzero(survives).astype(np.uint64)
        gone = (0 if base.index is None else base.index.size) - len(before)
        removed = base.record.index_removed + gone
        if base.index is None or removed > index.REBUILD_SHARE * base.index.size:
            index.build(target, matrix, keys, self._spec, self._threads)
            return 0
        dead = np.setdiff1d(np.flatnonzero(base.indexed).astype(np.uint64), before)
        index.extend(
            target,
            base.directory / base_record.INDEX,
            removed=dead,
            renamed=(before, after),
            matrix=matrix,
            added=np.setdiff1d(keys, after),
            spec=self._spec,
            threads=self._threads,
        )
        return removed
