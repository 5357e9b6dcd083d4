"""From assignments to placements: every new owner of a shard gets a fresh fencing token."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from brainy.bucket.records import NodeAddress, ShardPlacement
from brainy.errors import CorruptDataError
from brainy.locks.base import LockProvider
from brainy_coordinator.placement import Assignment

#: Ownership does not expire; the record needs some life, for people who read it.
_TTL_SECONDS = 30.0


def lock_name(generation: int, shard: int) -> str:
    """Name of the lock whose tokens are a shard's epochs."""
    return f"shards/{generation}/{shard}"


async def with_epochs(
    locks: LockProvider,
    *,
    generation: int,
    assignments: Mapping[int, Assignment],
    current: Mapping[int, ShardPlacement],
    nodes: Mapping[str, NodeAddress],
) -> dict[int, ShardPlacement]:
    """Return placements for the assignments.

    A shard that keeps its owner keeps its epoch. A new owner gets the next token of the shard's lock, taken
    by force: whoever held it before is fenced by the higher epoch in the log, whether it noticed or not. A
    token that is then not used (the routing swap was lost) is merely skipped.

    Raises:
        CorruptDataError: a token did not rise; somebody has deleted or restored the lock's object.
    """

    async def place(shard: int, assignment: Assignment) -> tuple[int, ShardPlacement]:
        held = current.get(shard)
        if held is not None and held.owner == assignment.owner:
            return shard, held.model_copy(update={"replicas": assignment.replicas})
        name = lock_name(generation, shard)
        address = nodes.get(assignment.owner)
        grant = await locks.grant(
            name,
            owner=assignment.owner,
            incarnation=address.incarnation if address else "",
            ttl_seconds=_TTL_SECONDS,
            force=True,
        )
        if held is not None and grant.token <= held.epoch:
            raise CorruptDataError(
                "a fencing token did not rise",
                remedy="restore the lock's object, or raise its token above the epoch in routing.json",
                lock=name,
                token=grant.token,
                epoch=held.epoch,
            )
        return shard, ShardPlacement(owner=assignment.owner, epoch=grant.token, replicas=assignment.replicas)

    return dict(await asyncio.gather(*(place(s, a) for s, a in sorted(assignments.items()))))
