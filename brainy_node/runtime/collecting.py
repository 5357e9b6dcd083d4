"""Collecting the log of an owned shard: the collector, and what its followers and its mirror still need."""

from __future__ import annotations

from collections.abc import Mapping

from brainy.bucket import layout
from brainy.bucket.mirroring import MirrorCursor
from brainy.bucket.records import GenerationPlacement, Manifest
from brainy.changelog.collection import LogCollector
from brainy.legacy.mirror_choice import chosen_dialect
from brainy_node.runtime.assignment import Assignment, followed_shards
from brainy_node.runtime.host import Host


def log_collector(host: Host, duty: Assignment) -> LogCollector | None:
    """Return a collector of a shard's log, None for generation 0, whose log is kept."""
    if duty.generation == 0:
        return None
    return LogCollector(
        host.store,
        generation=duty.generation,
        shard=duty.shard,
        epoch=duty.epoch,
        retention_seconds=host.settings.log_retention_seconds,
        clock=host.clock,
        ids=host.ids,
    )


def _cursor(manifest: Manifest, placement: GenerationPlacement) -> Mapping[int, int]:
    """The manifest's cursor if it is of the generation followed now."""
    tagged = manifest.source_generation
    # A manifest that says nothing means the generation it was made of; a target still follows that one.
    same = placement.state == "building" if tagged is None else tagged == placement.follows
    return manifest.source_cursor if same else {}


async def held_by_followers(host: Host, duty: Assignment) -> int | None:
    """Return the highest position that no follower or mirror of a shard needs any more; None where there is none.

    A target that restarts begins at its manifest and finds later cursors in its own log, so the cursor of the
    manifest is what it may need. A target without a manifest is still being filled: it may need everything. One that
    was active before needs nothing up to where the swap says that it begins.

    Raises:
        CorruptDataError: a manifest is damaged.
        UnavailableError: the store cannot be read now.
    """
    await host.view.refresh()
    routing = host.routing
    positions: list[int] = []
    for number, placement in routing.generations.items():
        if placement.follows != duty.generation:
            continue
        for target in range(placement.shard_count):
            if duty.shard not in followed_shards(routing, number, target):
                continue
            key = layout.manifest(number, target)
            found = await host.store.get(key)
            cursor = {} if found is None else _cursor(Manifest.decode(found.body, key=key), placement)
            positions.append(max(cursor.get(duty.shard, 0), placement.follow_from.get(duty.shard, 0)))
    if await chosen_dialect(host.store) is not None:
        # What is not in Brainy's tree yet is nowhere else in order.
        key = layout.mirror_cursor(duty.generation, duty.shard)
        found = await host.store.get(key)
        positions.append(0 if found is None else MirrorCursor.decode(found.body, key=key).position)
    return min(positions, default=None)
