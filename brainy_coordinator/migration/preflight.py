"""The named checks that must pass before a migration changes anything. All of them block."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

from brainy.api.node.v1 import control_pb2
from brainy.bucket.follow import FollowChoice
from brainy.bucket.records import Routing
from brainy.errors import BrainyError, PreconditionError
from brainy_coordinator.generations import Generations
from brainy_coordinator.migration.observation import Check, ReplicaSeen, ReplicaState
from brainy_coordinator.migration.quarantine import QuarantineCount
from brainy_coordinator.migration.record import Request
from brainy_coordinator.nodes import NodeCalls
from brainy_coordinator.view import NamespaceView

_TIMEOUT_SECONDS = 3.0

#: What to do about a check that failed, by its name.
REMEDIES: Mapping[str, str] = {
    "store_conditional_writes": "use a store that honours If-None-Match and If-Match",
    "no_other_migration": "wait for the other migration, or abort it",
    "dimensions_known": "write the first item before migrating an empty namespace",
    "nodes_reachable": "start or remove the nodes that do not answer",
    "source_shards_ready": "wait until every shard of the source answers",
    "quarantine_within_limit": (
        "see brainy quarantine list; mend and replay the objects, or raise quarantine_limit to go on without them"
        " (their bytes are kept); nothing was changed"
    ),
    "way_back_possible": (
        "turn following and mirroring of brainy's tree off (brainy follow, brainy mirror), or migrate without a way"
        " back"
    ),
}


class Preflight:
    """Runs the checks for one namespace."""

    def __init__(
        self,
        *,
        store_fitness: Callable[[], Awaitable[str]],
        generations: Generations,
        nodes: NodeCalls,
        view: NamespaceView,
        quarantine: QuarantineCount,
        tree_choice: Callable[[], Awaitable[FollowChoice]],
    ) -> None:
        #: Returns "" when the store keeps its conditions, else what is wrong.
        self._store_fitness = store_fitness
        self._generations = generations
        self._nodes = nodes
        self._view = view
        self._quarantine = quarantine
        self._tree_choice = tree_choice

    async def run(self, request: Request, routing: Routing, *, others: Collection[str]) -> tuple[Check, ...]:
        """Run every check; none changes anything.

        Args:
            request: what is asked for.
            routing: the record in force.
            others: ids of other migrations that have not ended.
        """
        replicas, silent = await self._ask_nodes()
        return (
            await self._store(),
            _no_other(others),
            await self._dimensions(request),
            Check(
                name="nodes_reachable",
                passed=not silent and bool(replicas or self._view.reachable()),
                detail=", ".join(silent) or "every node answers",
                reason="UNAVAILABLE",
            ),
            _shards_ready(request, routing, replicas),
            await self._quarantine.check(
                routing,
                request.source_generation,
                replicas,
                limit=request.quarantine_limit,
                lenient=True,
            ),
            *([await self.way_back()] if request.keep_way_back else []),
        )

    async def way_back(self) -> Check:
        """Whether a way back can be kept: Brainy's tree has one writer and one reader only while nothing follows it."""
        choice = await self._tree_choice()
        used = [name for name, on in (("followed", choice.follow), ("mirrored to", bool(choice.mirror))) if on]
        return Check(
            name="way_back_possible",
            passed=not used,
            detail=f"brainy's own tree is {' and '.join(used)}" if used else "brainy's own tree is left alone",
        )

    async def _store(self) -> Check:
        problem = await self._store_fitness()
        return Check(
            name="store_conditional_writes",
            passed=not problem,
            detail=problem or "the store honours its conditions",
            reason="STORE_UNFIT",
        )

    async def _dimensions(self, request: Request) -> Check:
        spec = await self._generations.spec(request.source_generation)
        dimensions = spec.dimensions if spec else 0
        return Check(name="dimensions_known", passed=dimensions > 0, detail=f"{dimensions} dimensions")

    async def _ask_nodes(self) -> tuple[tuple[ReplicaSeen, ...], list[str]]:
        async def ask(address: str) -> list[control_pb2.ShardReplica] | None:
            try:
                return list(
                    await self._nodes.list_shard_states(address, self._view.namespace, timeout=_TIMEOUT_SECONDS)
                )
            except BrainyError:
                return None

        reachable = self._view.reachable()
        answers = dict(zip(reachable, await asyncio.gather(*map(ask, reachable.values())), strict=True))
        silent = sorted(node for node, answer in answers.items() if answer is None)
        return self._view.replicas({node: answer for node, answer in answers.items() if answer}), silent


def _no_other(others: Collection[str]) -> Check:
    running = ", ".join(sorted(others))
    return Check(
        name="no_other_migration",
        passed=not running,
        detail=f"{running} is running" if running else "none is running",
        reason="MIGRATION_RUNNING",
    )


def _shards_ready(request: Request, routing: Routing, replicas: tuple[ReplicaSeen, ...]) -> Check:
    placed = routing.generations.get(request.source_generation)
    ready = {
        (seen.shard, seen.node_id)
        for seen in replicas
        if seen.generation == request.source_generation and seen.state is ReplicaState.READY
    }
    shards = placed.shards if placed else {}
    missing = [str(shard) for shard, where in sorted(shards.items()) if (shard, where.owner) not in ready]
    return Check(
        name="source_shards_ready",
        passed=bool(shards) and not missing,
        detail=f"not ready: {', '.join(missing)}" if missing else f"{len(shards)} shards answer",
        reason="SHARD_NOT_READY",
    )


def require(checks: tuple[Check, ...]) -> None:
    """Raise the first failure.

    Raises:
        PreconditionError: with the check's reason and the remedy for it.
    """
    for check in checks:
        if not check.passed:
            raise PreconditionError(
                f"preflight check {check.name} failed: {check.detail}",
                reason=check.reason,
                remedy=REMEDIES[check.name],
                check=check.name,
            )
