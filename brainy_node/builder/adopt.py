"""Adopting generation 0: the Brainy tree, or nothing at all, becomes local bases at position 0."""

from __future__ import annotations

from brainy_node.builder.context import Context
from brainy_node.builder.copying import copy_source
from brainy_node.builder.job import Built
from brainy_node.builder.source import choose_source


async def adopt(context: Context) -> list[Built]:
    """Read the tree once for all shards of the job. Nothing is written to the bucket.

    Raises:
        BrainyError: the store or the tree; no base was left behind.
    """
    chosen = await choose_source(context.store, context.job.spec)
    copied = await copy_source(context, chosen, context.job.shards)
    return [
        Built(
            shard=shard,
            directory=str(context.workspace.settle(each.writer.directory, shard=shard, position=0)),
            position=0,
        )
        for shard, each in copied.items()
    ]
