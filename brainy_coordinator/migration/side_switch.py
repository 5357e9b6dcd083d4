"""The swaps of the routing record that change the sides, and what lies between them (docs/protocols/switch.md).

Before: the side that follows is near. Steps: drain (one swap), final positions (a barrier), catch up, compare, commit
(one swap), release (a barrier). After: the other side is active, or, by ``_undrain``, nothing has changed but epochs.
A leader that dies between any two of them is followed by one that finds in the routing record how far it came.
Cancel safety: as death.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from brainy.bucket.origin import Arrival
from brainy.bucket.projection import Projection
from brainy.bucket.records import Routing
from brainy.clock import Clock
from brainy.errors import PreconditionError
from brainy.telemetry.logs import get_logger
from brainy_coordinator.announcer import Announcer
from brainy_coordinator.generations import Generations
from brainy_coordinator.migration import edits
from brainy_coordinator.migration.barrier import Barrier
from brainy_coordinator.migration.observation import CutOver, Facts, Observation, ReplicaSeen, followed_shards
from brainy_coordinator.migration.preflight.preflight import Preflight, require
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.reembedding import projections
from brainy_coordinator.migration.state import State
from brainy_coordinator.nodes import DigestSeen
from brainy_coordinator.retirement.retirements import Retirements
from brainy_coordinator.routing import RoutingRegister
from brainy_coordinator.view import NamespaceView

_log = get_logger(__name__)

#: Longest to wait for an answer while nothing waits for it.
CALL_SECONDS: Final = 2.0
#: How long to wait before a barrier that not everybody passed is tried again.
RETRY_SECONDS: Final = 0.05
#: How long to wait before the target's progress is asked for again while writes wait.
_POLL_SECONDS = 0.01
#: Longest an action waits while writes do, before others get a turn: a dead owner must be replaced meanwhile.
_SLICE_SECONDS = 0.5


class SideSwitch:
    """What an executor does to change the sides; ``facts`` hold how far the attempt under way has come."""

    def __init__(
        self,
        *,
        register: RoutingRegister,
        announcer: Announcer,
        view: NamespaceView,
        barrier: Barrier,
        generations: Generations,
        preflight: Preflight,
        retirements: Retirements,
        clock: Clock,
    ) -> None:
        self._register = register
        self._announcer = announcer
        self._view = view
        self._barrier = barrier
        self._generations = generations
        self._preflight = preflight
        self._retirements = retirements
        self._clock = clock
        self.facts = Facts()

    async def _routing(self) -> Routing:
        routing = await self._register.current()
        if routing is None:
            raise PreconditionError(
                "the namespace has no routing record",
                remedy="wait until the coordinator has adopted it",
                namespace=self._view.namespace,
            )
        return routing

    async def _leaving(self, record: MigrationRecord, generation: int) -> Routing:
        """Put on record what is to become of a generation before it leaves the routing record."""
        if generation in (await self._routing()).generations:
            await self._retirements.begin(generation, migration=record.id)
        return await self._routing()

    async def _swap(self, before: Routing, after: Routing, *, tell: bool = True) -> Routing:
        """Swap unless nothing would change, and tell the nodes."""
        if after is before:
            return before
        swapped = await self._register.swap(before, after)
        if tell:
            self._announcer.tell(swapped, self._view.reachable())
        return swapped

    async def _retire_source(self, record: MigrationRecord) -> None:
        routing = await self._leaving(record, record.source)
        await self._swap(routing, edits.retire_source(routing, record.id, source=record.source))

    async def _undo(self, record: MigrationRecord) -> None:
        routing = await self._leaving(record, record.target)
        await self._swap(routing, edits.undo(routing, record.id, target=record.target))

    async def _drain(self, record: MigrationRecord) -> None:
        if record.request.keep_way_back:
            # Somebody may have turned following or mirroring of the tree on since preflight.
            require((await self._preflight.way_back(),))
        if record.state is State.ROLLING_BACK:
            await self._generations.carry_embedding(record.leading, record.following)
        started_at = self._clock.monotonic()
        routing = await self._routing()
        drained = await self._swap(routing, edits.drain(routing, record.id), tell=False)
        attempt = CutOver(epoch=drained.epoch, started_at=started_at, leading=record.leading)
        self.facts = replace(self.facts, cut_over=attempt)

    def _remaining(self, record: MigrationRecord, attempt: CutOver) -> float:
        """Seconds to wait for at most: a slice, or what is left of the pause cap."""
        left = attempt.started_at + record.request.pause_cap_seconds - self._clock.monotonic()
        return min(_SLICE_SECONDS, max(0.0, left))

    async def _take_positions(self, record: MigrationRecord) -> None:
        attempt, routing = self._attempt(), await self._routing()
        leading = record.leading
        source = routing.generations[leading]
        # Silent nodes that own nothing are left out; an owner is waited for, whatever is thought of it.
        required = self._owner_addresses(routing, leading) | self._view.reachable()
        acks = await self._barrier.pass_epoch(required, epoch=attempt.epoch, timeout=self._remaining(record, attempt))
        positions = {
            shard: acks[where.owner].positions[leading, shard]
            for shard, where in source.shards.items()
            if where.owner in acks and (leading, shard) in acks[where.owner].positions
        }
        in_force = len(acks) == len(required) and all(ack.epoch == attempt.epoch for ack in acks.values())
        if in_force and positions.keys() == source.shards.keys():
            self.facts = replace(self.facts, cut_over=replace(attempt, positions=positions))
            _log.info("cut_over_drained", migration=record.id, positions=positions)
        elif any(ack.epoch > attempt.epoch for ack in acks.values()):
            self._register.forget()
        else:
            await self._clock.sleep(min(RETRY_SECONDS, self._remaining(record, attempt)))

    async def _await_catch_up(self, record: MigrationRecord) -> None:
        attempt, routing = self._attempt(), await self._routing()
        owners = self._owner_addresses(routing, record.following)
        until = self._clock.monotonic() + self._remaining(record, attempt)
        while (remaining := until - self._clock.monotonic()) > 0:
            answers = await self._barrier.shard_states(owners, timeout=remaining)
            replicas = tuple(ReplicaSeen.of(node, r) for node, reports in answers.items() for r in reports)
            seen = Observation(routing=routing, reachable=frozenset(answers), replicas=replicas)
            if self._has_reached(record, seen, attempt.positions or {}):
                self.facts = replace(self.facts, cut_over=replace(attempt, caught_up=True))
                return
            await self._clock.sleep(min(_POLL_SECONDS, remaining))

    async def _digests(
        self, record: MigrationRecord, routing: Routing, *, timeout: float
    ) -> tuple[DigestSeen | None, DigestSeen | None]:
        of_leading, of_following = projections(record)
        leading, following = await asyncio.gather(
            self._digest_of_leading(record, routing, timeout, of_leading),
            self._digest(routing, record.following, timeout, of_following),
        )
        return leading, following

    async def _prepare_comparison(self, record: MigrationRecord) -> None:
        # Asked until both are counted: the nodes go on with it though the call has given up.
        sides = await self._digests(record, await self._routing(), timeout=CALL_SECONDS)
        if None in sides:
            await self._clock.sleep(RETRY_SECONDS)
        else:
            self.facts = replace(self.facts, comparable=record.leading)

    def _has_reached(self, record: MigrationRecord, seen: Observation, positions: Mapping[int, int]) -> bool:
        """Whether the side that follows includes the final positions."""
        return _includes(seen, record.leading, record.following, positions)

    async def _digest(
        self, routing: Routing, number: int, timeout: float, projection: Projection | None
    ) -> DigestSeen | None:
        """Sum a generation's digest over the owners of its shards; None when one does not answer."""
        owners = self._owner_addresses(routing, number)
        placement = routing.generations[number]
        return await self._barrier.digest(placement, number, owners, timeout=timeout, projection=projection)

    async def _digest_of_leading(
        self, record: MigrationRecord, routing: Routing, timeout: float, projection: Projection | None
    ) -> DigestSeen | None:
        """Return the digest that the other side must have, with positions of the generation that leads."""
        return await self._digest(routing, record.leading, timeout, projection)

    async def _compare_digests(self, record: MigrationRecord) -> None:
        attempt, routing = self._attempt(), await self._routing()
        timeout = self._remaining(record, attempt)
        source, target = await self._digests(record, routing, timeout=timeout)
        if source is None or target is None:
            await self._clock.sleep(min(_POLL_SECONDS, self._remaining(record, attempt)))
            return
        final = {(record.leading, shard): position for shard, position in (attempt.positions or {}).items()}
        if any(source.positions.get(key, position) != position for key, position in final.items()):
            # Somebody wrote after the barrier: what was compared is not what would be switched.
            _log.error("write_after_barrier", migration=record.id, final=final, seen=source.positions)
            self.facts = replace(self.facts, cut_over=None)
            return
        equal = source.digest == target.digest
        if not equal:
            _log.error(
                "digests_differ",
                migration=record.id,
                buckets=source.digest.differing(target.digest)[:16],
                source_items=(source.nouns, source.verbs),
                target_items=(target.nouns, target.verbs),
            )
        # Both were equal with the other side at these positions, and nobody but the followers writes there.
        follow_from = {shard: position for (_, shard), position in target.positions.items()}
        self.facts = replace(self.facts, cut_over=replace(attempt, digest_equal=equal, follow_from=follow_from))

    async def _commit(self, record: MigrationRecord) -> None:
        attempt, routing = self._attempt(), await self._routing()
        committed = edits.commit(
            routing,
            record.id,
            leading=record.leading,
            following=record.following,
            epoch=attempt.epoch,
            follow_from=attempt.follow_from if record.request.keep_way_back else None,
            back=record.state is State.ROLLING_BACK,
            arrived=self._arrival(record),
        )
        await self._swap(routing, committed)
        self._turned(attempt)

    def _arrival(self, record: MigrationRecord) -> Arrival | None:
        """Return what the commit notes of where the data came from; nothing where that is this namespace."""
        return None

    def _turned(self, attempt: CutOver) -> None:
        """The sides have changed: everything that was learnt of the nodes is of before."""
        self.facts = replace(
            self.facts,
            cut_over=None,
            gave_up_at=None,
            waiting_since=attempt.started_at,
            write_pause_seconds=self._clock.monotonic() - attempt.started_at,
            adopted_in_force=frozenset(),
            still=None,
            bake=None,
            quality=None,
            comparable=None,
            released=frozenset(),
        )

    async def _release(self) -> None:
        routing = await self._routing()
        waiting = {n: a for n, a in self._view.reachable().items() if n not in self.facts.released}
        acks = await self._barrier.pass_epoch(waiting, epoch=routing.epoch, timeout=CALL_SECONDS)
        self.facts = replace(self.facts, released=self.facts.released | acks.keys())
        if len(acks) < len(waiting):
            await self._clock.sleep(RETRY_SECONDS)
        elif self.facts.waiting_since is not None:
            pause = self._clock.monotonic() - self.facts.waiting_since
            self.facts = replace(self.facts, write_pause_seconds=pause, waiting_since=None)

    async def _undrain(self, record: MigrationRecord, generation: int) -> None:
        # Whatever was thought before, look again: the swap that ends the draining must not be missed.
        self._register.forget()
        routing = await self._routing()
        if routing.active != generation:
            return
        self.facts = replace(self.facts, cut_over=None, comparable=None, gave_up_at=self._clock.monotonic())
        await self._swap(routing, edits.undrain(routing, record.id))

    def _attempt(self) -> CutOver:
        if self.facts.cut_over is None:
            raise PreconditionError("no attempt to cut over is under way")
        return self.facts.cut_over

    def _owner_addresses(self, routing: Routing, generation: int) -> dict[str, str]:
        reachable = self._view.reachable()
        owners = {where.owner for where in routing.generations[generation].shards.values()}
        return {owner: reachable.get(owner) or routing.nodes[owner].address for owner in owners}


def _includes(seen: Observation, leading: int, following: int, positions: Mapping[int, int]) -> bool:
    """Whether every shard that follows includes the final positions of the shards it follows."""
    source, target = seen.generation(leading), seen.generation(following)
    if source is None or target is None:
        return False
    owners = seen.owners(following)
    return all(
        (owner := owners.get(shard)) is not None and owner.reached(leading, followed) >= positions[followed]
        for shard in target.shards
        for followed in followed_shards(shard, source_count=source.shard_count, target_count=target.shard_count)
    )
