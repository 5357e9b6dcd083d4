"""The changes a migration makes to the routing record, as functions from record to record. Pure.

Each returns the record unchanged when its effect is there already, so that repeating it is harmless. Epoch,
nonce and leader epoch are stamped by ``RoutingRegister``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from brainy.bucket.origin import Arrival, Origin
from brainy.bucket.records import GenerationPlacement, Routing, ShardPlacement
from brainy.errors import ConflictError


def _changed(routing: Routing, **changes: Any) -> Routing:
    return routing.model_copy(update=changes)


def _ours(routing: Routing, migration_id: str) -> None:
    if routing.migration not in (None, migration_id):
        raise ConflictError(
            "another migration is in charge of the namespace",
            reason="MIGRATION_RUNNING",
            migration=migration_id,
            other=routing.migration,
        )


def place_target(
    routing: Routing,
    migration_id: str,
    *,
    target: int,
    shards: Mapping[int, ShardPlacement],
    pool: str = "",
    origin: Origin | None = None,
) -> Routing:
    """Add the target in state building, in its pool, following the active generation or what is elsewhere."""
    _ours(routing, migration_id)
    if target in routing.generations:
        return routing
    placed = GenerationPlacement(
        state="building",
        shard_count=len(shards),
        pool=pool,
        follows=routing.active,
        shards=dict(shards),
        origin=origin,
    )
    return _changed(routing, migration=migration_id, generations={**routing.generations, target: placed})


def adopt(routing: Routing, migration_id: str, *, node_id: str, target: int) -> Routing:
    """Let a node's front door read from the target."""
    _ours(routing, migration_id)
    if routing.adopted.get(node_id) == target:
        return routing
    return _changed(routing, adopted={**routing.adopted, node_id: target})


def adopt_all(routing: Routing, migration_id: str, *, nodes: Collection[str], target: int) -> Routing:
    """Let the front doors of several nodes read from the target."""
    _ours(routing, migration_id)
    adopted = {**routing.adopted, **dict.fromkeys(sorted(nodes), target)}
    return routing if adopted == routing.adopted else _changed(routing, adopted=adopted)


def drain(routing: Routing, migration_id: str) -> Routing:
    """Stop writes."""
    _ours(routing, migration_id)
    return routing if routing.phase == "draining" else _changed(routing, phase="draining")


def undrain(routing: Routing, migration_id: str) -> Routing:
    """Let writes go on where they went."""
    if routing.phase == "serving" or routing.migration != migration_id:
        return routing
    return _changed(routing, phase="serving")


def commit(
    routing: Routing,
    migration_id: str,
    *,
    leading: int,
    following: int,
    epoch: int,
    follow_from: Mapping[int, int] | None = None,
    back: bool = False,
    arrived: Arrival | None = None,
) -> Routing:
    """Make the side that followed the truth.

    Args:
        routing: the record in force.
        migration_id: who asks.
        leading: the generation that is active until now.
        following: the one that will be.
        epoch: of the record whose drain was verified.
        follow_from: position of each shard of ``following`` at which both sides were found equal: the other side then
            follows from there. None: it is not kept.
        back: whether this is a rollback. What is left behind is then a target again (``building``), else a way back
            (``following``).
        arrived: where the data came from, if that is elsewhere.

    Raises:
        ConflictError: the record is not the one whose drain was verified, or positions are missing.
    """
    verified = routing.phase == "draining" and routing.migration == migration_id and routing.epoch == epoch
    placed, other = routing.generations.get(following), routing.generations.get(leading)
    if not verified or routing.active != leading or placed is None or other is None:
        raise ConflictError(
            "the namespace is not drained for this migration any more", migration=migration_id, epoch=epoch
        )
    if follow_from is not None:
        if follow_from.keys() != placed.shards.keys():
            raise ConflictError("not every position to follow from is known", migration=migration_id, epoch=epoch)
        role = "building" if back else "following"
        other = other.model_copy(
            update={"state": role, "follows": following, "follow_from": dict(sorted(follow_from.items()))}
        )
    serving = placed.model_copy(update={"state": "serving", "follows": None, "follow_from": {}, "origin": None})
    return _changed(
        routing,
        active=following,
        write=following,
        phase="serving",
        adopted={},
        reads=None,
        generations={**routing.generations, leading: other, following: serving},
        rolled_back_from=max(routing.rolled_back_from, leading) if back else routing.rolled_back_from,
        arrived=arrived or routing.arrived,
    )


def retire_source(routing: Routing, migration_id: str, *, source: int) -> Routing:
    """Take the source out; the migration is no longer in charge."""
    if source not in routing.generations and routing.migration != migration_id:
        return routing
    left = {number: placed for number, placed in routing.generations.items() if number != source}
    return _changed(routing, migration=None, adopted={}, reads=None, generations=left)


def undo(routing: Routing, migration_id: str, *, target: int) -> Routing:
    """Back to what was before the migration: writes flow, reads from the active one, no target.

    Raises:
        ConflictError: the target is active; there is no way back.
    """
    if routing.active == target:
        raise ConflictError("the target is active already", migration=migration_id, generation=target)
    if routing.migration != migration_id:
        return routing
    left = {number: placed for number, placed in routing.generations.items() if number != target}
    return _changed(routing, phase="serving", adopted={}, reads=None, migration=None, generations=left)
