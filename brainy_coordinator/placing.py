"""Keeps the routing record's placements in step with the nodes that are there.

Before: this process is the leader; a routing record is in force (or about to be created).
Steps: 1. compute every generation's placement from who is usable, in its pool, and which replicas answer; 2. take
a fresh fencing token for each shard that gets another owner; 3. swap the record, with the addresses of all nodes.
After: new owners fence their shards' logs, old ones are refused; nodes load what they were given.
If it crashes at step 2: tokens were taken and not used; the next ones are higher. At step 3: as ``routing``.
Cancel safety: as a crash.

While writes are stopped for a cut-over, nothing but the loss of an owner is worth a swap; that one also lets
the writes go on, for the final positions may no longer be final. The migration then tries again.
"""

from __future__ import annotations

from collections.abc import Mapping

from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement
from brainy.clock import Clock
from brainy.locks.base import LockProvider
from brainy.telemetry.logs import get_logger
from brainy_coordinator.generations import Generations
from brainy_coordinator.ownership import with_epochs
from brainy_coordinator.placement import Assignment, place
from brainy_coordinator.pools import eligible_for
from brainy_coordinator.routing import RoutingRegister
from brainy_coordinator.view import NamespaceView

_log = get_logger(__name__)

_Members = tuple[frozenset[str], frozenset[str], Mapping[str, NodeAddress]]
#: How often to look for moves that replicas becoming ready make possible. A change of members is seen at once.
_LOOK_SECONDS = 0.5


class Placing:
    """Repairs and balances one namespace's placements."""

    def __init__(
        self,
        *,
        register: RoutingRegister,
        view: NamespaceView,
        locks: LockProvider,
        generations: Generations,
        clock: Clock,
    ) -> None:
        self._clock = clock
        #: The members the last look was at, and when the next one is due without a change of them.
        self._looked_at: _Members | None = None
        self._due = 0.0
        self._register = register
        self._view = view
        self._locks = locks
        self._generations = generations

    async def create(self, first: Routing) -> Routing:
        """Place every shard of a namespace's first record and create it."""
        return await self._register.swap(None, await self._placed(first, repair_only=False))

    async def repair(self, routing: Routing) -> Routing | None:
        """Swap the record if the nodes call for it. Returns the new one, None when nothing had to change."""
        if routing.moving is not None:
            # Whether it serves on is decided over there (``move_away``); until then nothing may let writes go on here.
            return None
        if routing.phase == "draining" and not self._owner_lost(routing):
            return None
        members = (self._view.usable(), self._view.leaving(), self._view.addresses())
        now = self._clock.monotonic()
        if members == self._looked_at and now < self._due:
            return None
        after = await self._repaired(routing)
        # Only now: a look that failed is repeated at once.
        self._looked_at, self._due = members, now + _LOOK_SECONDS
        return after

    async def _repaired(self, routing: Routing) -> Routing | None:
        after = await self._placed(routing, repair_only=routing.migration is not None)
        if after.generations == routing.generations and after.nodes == routing.nodes:
            return None
        if routing.phase == "draining":
            _log.warning("drain_given_up", namespace=routing.namespace, migration=routing.migration)
            after = after.model_copy(update={"phase": "serving"})
        return await self._register.swap(routing, after)

    def _owner_lost(self, routing: Routing) -> bool:
        speaking = self._view.reachable().keys()
        owners = {s.owner for g in routing.generations.values() for s in g.shards.values()}
        return bool(self._view.usable()) and not owners <= speaking

    async def _placed(self, routing: Routing, *, repair_only: bool) -> Routing:
        labels = self._view.labels()
        usable = labels.keys()
        nodes = self._nodes(routing)
        generations: dict[int, GenerationPlacement] = {}
        for number, placed in routing.generations.items():
            spec = await self._generations.spec(number)
            members = eligible_for(routing, number, labels)
            assignments = place(
                nodes=members,
                current={shard: Assignment.of(where) for shard, where in placed.shards.items()},
                shard_count=placed.shard_count,
                replication=spec.replication if spec else 1,
                ready=self._view.ready(number),
                leaving=self._view.leaving() | (usable - members),
                rebalance=not repair_only,
            )
            shards = await with_epochs(
                self._locks, generation=number, assignments=assignments, current=placed.shards, nodes=nodes
            )
            generations[number] = placed.model_copy(update={"shards": shards})
        named = _named(generations) | usable
        return routing.model_copy(
            update={
                "generations": generations,
                "nodes": {node: address for node, address in sorted(nodes.items()) if node in named},
                "adopted": {node: number for node, number in routing.adopted.items() if node in named},
            }
        )

    def _nodes(self, routing: Routing) -> dict[str, NodeAddress]:
        """Addresses as reported, else as they were."""
        return {**routing.nodes, **self._view.addresses()}


def _named(generations: Mapping[int, GenerationPlacement]) -> set[str]:
    shards: list[ShardPlacement] = [where for placed in generations.values() for where in placed.shards.values()]
    return {node for where in shards for node in (where.owner, *where.replicas)}
