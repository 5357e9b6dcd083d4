"""The namespace that is left, as the coordinator of the one that receives it deals with it.

Its own cluster goes on serving it, with a coordinator of its own. What this one changes there is one field of its
routing record, ``moving``, by compare-and-swap, in the three steps of docs/protocols/move.md: ``fence``, then ``leave``
or ``unfence``. Whoever swaps checks the record's invariants; epochs and nonces are as of any swap, and the leader
epoch stays what its own leader wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from brainy.api.node.v1 import control_pb2
from brainy.bucket import invariants
from brainy.bucket.origin import Moving, Origin
from brainy.bucket.records import Routing
from brainy.dataset.elsewhere import Elsewhere
from brainy.errors import ConflictError, PreconditionError
from brainy.telemetry.logs import get_logger
from brainy_coordinator.migration.barrier import Barrier
from brainy_coordinator.migration.observation import ReplicaSeen, ReplicaState
from brainy_coordinator.nodes import DigestSeen, NodeCalls
from brainy_coordinator.routing import open_register

_log = get_logger(__name__)

#: Swaps of the record that may be lost to its own coordinator before the action is decided anew.
_ATTEMPTS: Final = 5
_CALL_SECONDS: Final = 2.0

Edit = Callable[[Routing], Routing]
States = Mapping[str, Sequence[control_pb2.ShardReplica]]


class SourceCluster:
    """One namespace elsewhere that a cluster serves."""

    def __init__(self, origin: Origin, elsewhere: Elsewhere, nodes: NodeCalls) -> None:
        self.origin = origin
        self._ids = elsewhere.ids
        self._register = open_register(elsewhere.store(origin.namespace), clock=elsewhere.clock, ids=elsewhere.ids)
        self._nodes = nodes

    async def routing(self) -> Routing:
        """Read its routing record.

        Raises:
            PreconditionError: there is none any more.
            UnavailableError: the store cannot be read now.
        """
        return (await self._load())[0]

    async def states(self, routing: Routing) -> dict[str, Sequence[control_pb2.ShardReplica]]:
        """Ask its nodes what they hold; those that do not answer are missing."""
        addresses = {node: known.address for node, known in routing.nodes.items()}
        return await self._barrier(routing).shard_states(addresses, timeout=_CALL_SECONDS)

    def problem(self, routing: Routing, answers: States, *, ours: str = "") -> str:
        """Return why its data cannot be taken over now by the migration ``ours``, or ""."""
        moving = routing.moving
        if moving is not None and moving.done:
            return f"it has moved to {moving.to}"
        if routing.active != self.origin.generation:
            return f"it has gone on to generation {routing.active}: abort this migration and start it again"
        if moving is not None:
            return "" if moving.migration == ours else f"it is being moved to {moving.to}"
        if routing.migration is not None:
            return f"a migration runs there: {routing.migration}"
        placed = routing.generations[routing.active]
        replicas = {(seen.node_id, seen.shard): seen for seen in _seen(answers, routing.active)}
        for shard, where in sorted(placed.shards.items()):
            found = replicas.get((where.owner, shard))
            if found is None or found.state is not ReplicaState.READY:
                return f"the owner of its shard {shard}, {where.owner}, does not answer this coordinator"
        return ""

    def ends(self, routing: Routing, answers: States) -> dict[int, int]:
        """Highest position applied by the owner of each of its shards; owners that do not answer are missing."""
        placed = routing.generations.get(routing.active)
        owners = {shard: where.owner for shard, where in (placed.shards if placed else {}).items()}
        return {
            seen.shard: seen.applied
            for seen in _seen(answers, routing.active)
            if owners.get(seen.shard) == seen.node_id
        }

    async def fence(self, moving: Moving) -> Routing:
        """Stop its writes for an attempt; does nothing if that is so already.

        Raises:
            PreconditionError: it is not as it was when the move began (WRONG_PHASE); nothing was changed.
            ConflictError: its own coordinator changed the record again and again.
        """

        def fenced(routing: Routing) -> Routing:
            if routing.moving == moving:
                return routing
            ours = routing.moving is not None and routing.moving.migration == moving.migration
            if (routing.moving is not None and (not ours or routing.moving.done)) or (
                routing.moving is None and (routing.migration is not None or routing.phase != "serving")
            ):
                raise self._refused(routing)
            if routing.active != self.origin.generation:
                raise self._refused(routing)
            return routing.model_copy(update={"phase": "draining", "migration": moving.migration, "moving": moving})

        return await self._change(fenced)

    async def unfence(self, migration_id: str) -> Routing:
        """Let its writes go on, where this migration stopped them. Errors as ``fence``."""

        def released(routing: Routing) -> Routing:
            moving = routing.moving
            if moving is None or moving.migration != migration_id or moving.done:
                return routing
            return routing.model_copy(update={"phase": "serving", "migration": None, "moving": None})

        routing = await self._change(released)
        await self._tell(routing)
        return routing

    async def leave(self, migration_id: str) -> Routing:
        """Say for good where it went. Errors as ``fence``."""

        def left(routing: Routing) -> Routing:
            moving = routing.moving
            if moving is None or moving.migration != migration_id:
                # A commit needs the fence, and nobody takes that away afterwards.
                raise self._refused(routing)
            if moving.done:
                return routing
            return routing.model_copy(update={"moving": moving.model_copy(update={"done": True})})

        routing = await self._change(left)
        await self._tell(routing)
        return routing

    async def positions(self, routing: Routing, *, timeout: float) -> dict[int, int] | None:
        """Pass the barrier of a record that drains: shard -> final position; None while an owner has not answered."""
        placed = routing.generations[routing.active]
        owners = {where.owner for where in placed.shards.values()}
        addresses = {owner: routing.nodes[owner].address for owner in owners}
        acks = await self._barrier(routing).pass_epoch(addresses, epoch=routing.epoch, timeout=timeout)
        if acks.keys() != owners or any(ack.epoch != routing.epoch for ack in acks.values()):
            return None
        found = {
            shard: acks[where.owner].positions[routing.active, shard]
            for shard, where in placed.shards.items()
            if (routing.active, shard) in acks[where.owner].positions
        }
        return found if found.keys() == placed.shards.keys() else None

    async def digest(self, routing: Routing, *, timeout: float) -> DigestSeen | None:
        """Sum its digest over the owners of its shards; None when one does not answer."""
        placed = routing.generations[routing.active]
        addresses = {where.owner: routing.nodes[where.owner].address for where in placed.shards.values()}
        return await self._barrier(routing).digest(placed, routing.active, addresses, timeout=timeout)

    def _barrier(self, routing: Routing) -> Barrier:
        # Its nodes know it by the name it has over there.
        return Barrier(self._nodes, namespace=routing.namespace)

    async def _tell(self, routing: Routing) -> None:
        """Bring the record in force at its nodes; one that does not hear it now reads it by itself."""
        addresses = {node: known.address for node, known in routing.nodes.items()}
        await self._barrier(routing).pass_epoch(addresses, epoch=routing.epoch, timeout=_CALL_SECONDS)

    async def _load(self) -> tuple[Routing, str]:
        found = await self._register.load()
        if found is None:
            raise PreconditionError(
                "the namespace that is moved has no routing record any more",
                remedy="abort the migration",
                namespace=self.origin.namespace,
            )
        return found

    async def _change(self, edit: Edit) -> Routing:
        for _ in range(_ATTEMPTS):
            before, etag = await self._load()
            after = edit(before)
            if after is before:
                return before
            stamped = after.model_copy(update={"epoch": before.epoch + 1, "nonce": self._ids.uuid()})
            stamped = Routing.decode(stamped.encode(), key="routing")
            invariants.check_routing_swap(before, stamped)
            if await self._register.swap(stamped, etag):
                _log.info(
                    "source_routing_swapped",
                    namespace=stamped.namespace,
                    epoch=stamped.epoch,
                    phase=stamped.phase,
                    moving=None if stamped.moving is None else stamped.moving.model_dump(),
                )
                return stamped
        raise ConflictError(
            "the other namespace's routing record changes all the time", namespace=self.origin.namespace
        )

    def _refused(self, routing: Routing) -> PreconditionError:
        return PreconditionError(
            "the namespace that is moved is not as it was when the move began",
            remedy="see brainy status there; the move is tried again, or abort it",
            namespace=self.origin.namespace,
            generation=routing.active,
            phase=routing.phase,
            migration=routing.migration,
        )


def _seen(answers: States, generation: int) -> list[ReplicaSeen]:
    return [
        ReplicaSeen.of(node, report)
        for node, reports in answers.items()
        for report in reports
        if report.generation == generation
    ]
