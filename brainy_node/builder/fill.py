"""Filling a new generation from its source.

Before: the generation's ``spec.json`` names its source; this node owns the shards of the job.

Steps:
  1. A shard that has a manifest was filled already: it is opened, nothing of the source is read for it.
  2. Read the source once for all other shards, noting the source positions it stands for (the cursor). What is read is
     written to the bucket as segments while reading goes on (``parts``), and an earlier run's are taken over first.
  3. For each shard: build the base, publish it at position 0 with that cursor, then move it into place. The manifest
     names the segments that were written in step 2.

After: every shard has a manifest and a local base. Where another owner's manifest came first, the local base is made
from that one, because the two may stand for different source positions, and the shard's log continues from the
cursor of the one that is published.

If it crashes at step 2: the next run, here or on another node, reads what comes after the last part. At step 3: shards
already published are opened by the next run; the others are built from their parts, and the source is not read again.
Cancel safety: as a crash.
"""

from __future__ import annotations

from brainy_node.builder.context import Context
from brainy_node.builder.copying import copy_source
from brainy_node.builder.job import Built
from brainy_node.builder.opening import open_shard
from brainy_node.builder.origin import opened_source
from brainy_node.builder.parts import Parts
from brainy_node.builder.publication import Publication, manifest_register, publish
from brainy_node.builder.reembedding import reembedded
from brainy_node.shard.base import Base


async def fill(context: Context) -> list[Built]:
    """Fill the shards of the job; the protocol is at the top of this module.

    Raises:
        FencedError: a newer owner has published one of the shards.
        BrainyError: the source or the store; shards published so far stay published.
    """
    built: list[Built] = []
    missing: list[int] = []
    for shard in context.job.shards:
        stored = await manifest_register(context, shard).load()
        if stored is None:
            missing.append(shard)
        else:
            built.append(await open_shard(context, shard, stored[0]))
    if not missing:
        return built
    async with opened_source(context) as opened:
        chosen = reembedded(opened, context.job)
        parts = Parts(context, missing)
        for shard, copied in (await copy_source(context, chosen, missing, parts)).items():
            # The writer has just hashed these files.
            base = Base.open(copied.writer.directory, verify=False)
            outcome = await publish(context, base, kept=copied.source.kept, written=parts.written(shard))
            if outcome is Publication.DROPPED:
                built.append(await open_shard(context, shard))
                continue
            place = context.workspace.settle(copied.writer.directory, shard=shard, position=0)
            built.append(Built(shard=shard, directory=str(place), position=0, published=True))
    return built
