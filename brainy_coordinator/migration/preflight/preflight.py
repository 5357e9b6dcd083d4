"""The named checks that must pass before a migration changes anything. All of them block."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from brainy.api.node.v1 import control_pb2
from brainy.bucket.follow import FollowChoice
from brainy.bucket.records import Routing, Spec
from brainy.clock import Clock
from brainy.errors import BrainyError, PreconditionError
from brainy.ids import Ids
from brainy.legacy.writers import signs_of_writers
from brainy.store.base import ObjectStore
from brainy_coordinator.generations import Generations
from brainy_coordinator.migration.arrival.checks import ARRIVAL_REMEDIES, arrival_checks
from brainy_coordinator.migration.arrival.origins import Origins, OriginSeen
from brainy_coordinator.migration.observation import Check, ReplicaSeen, ReplicaState
from brainy_coordinator.migration.preflight.checks import (
    disk_needed,
    no_foreign_writers,
    space,
    spec_holds_data,
    target_differs,
    target_spec,
    versions,
)
from brainy_coordinator.migration.preflight.counts import counted_items
from brainy_coordinator.migration.preflight.probes import BackupChecks, permissions, untried
from brainy_coordinator.migration.preflight.vectors import VECTOR_REMEDIES, VectorChecks
from brainy_coordinator.migration.quarantine import QuarantineCount
from brainy_coordinator.migration.record import Request
from brainy_coordinator.migration.strategies.checks import STRATEGY_REMEDIES, strategy_checks
from brainy_coordinator.nodes import NodeCalls
from brainy_coordinator.pools import eligible
from brainy_coordinator.view import NamespaceView

_TIMEOUT_SECONDS = 3.0

#: What to do about a check that failed, by its name.
REMEDIES: Mapping[str, str] = {
    "store_conditional_writes": "use a store that honours If-None-Match and If-Match",
    "no_other_migration": "wait for the other migration, or abort it",
    "dimensions_known": "write the first item before migrating an empty namespace",
    "nodes_reachable": "start or remove the nodes that do not answer",
    "source_shards_ready": "wait until every shard of the source answers",
    "permissions": "let the coordinator's identity get, put, list and delete under cluster/",
    "versions": "bring all nodes to the same version of the software, one after the other",
    "target_differs": "look at brainy status, then plan again",
    "spec_holds_data": "correct the target; nothing was changed",
    "space": "free disk on the nodes named, or add a node",
    "no_foreign_writers": (
        "stop the Brainy processes and wait five minutes, or let the cluster follow them (brainy follow --on)"
    ),
    "backup_present": "name a backup that brainy verify-backup finds whole, by its path as the coordinator sees it",
    **STRATEGY_REMEDIES,
    **VECTOR_REMEDIES,
    **ARRIVAL_REMEDIES,
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
        store: ObjectStore,
        clock: Clock,
        ids: Ids,
        tree_choice: Callable[[], Awaitable[FollowChoice]],
        origins: Origins,
    ) -> None:
        #: Returns "" when the store keeps its conditions, else what is wrong.
        self._store_fitness = store_fitness
        self._generations = generations
        self._nodes = nodes
        self._view = view
        self._quarantine = quarantine
        self._store_itself = store
        self._clock = clock
        self._ids = ids
        self._backups = BackupChecks()
        self.vectors = VectorChecks(nodes, namespace=view.namespace)
        self._tree_choice = tree_choice
        #: Finds out about data that are to come from elsewhere.
        self.origins = origins

    async def run(
        self, request: Request, routing: Routing, *, others: Collection[str], dry_run: bool = False
    ) -> tuple[Check, ...]:
        """Run every check; none changes anything.

        Args:
            request: what is asked for.
            routing: the record in force.
            others: ids of other migrations that have not ended.
            dry_run: leave out what can only be found out by writing (a probe object).
        """
        answers, silent = await self._ask_nodes()
        replicas = self._view.replicas(answers)
        source = await self._generations.spec(request.source_generation)
        arriving, arrival = await self._arrival(request, routing, source, answers)
        source = arriving.spec if arriving is not None else source
        return (
            untried("store_conditional_writes") if dry_run else await self._store(),
            untried("permissions") if dry_run else await permissions(self._store_itself, self._ids),
            _no_other(others),
            target_differs(request, routing),
            *arrival,
            _dimensions(source),
            Check(
                name="nodes_reachable",
                passed=not silent and bool(replicas or self._view.reachable()),
                detail=", ".join(silent) or "every node answers",
                reason="UNAVAILABLE",
            ),
            versions(self._view.reports()),
            *(await self._about_the_source(request, routing, source, answers, arriving) if source is not None else ()),
            await self._backups.check(request.require_backup),
            _shards_ready(request, routing, replicas),
            *strategy_checks(request, routing, self._view.labels()),
            await self._quarantine.check(
                routing,
                request.source_generation,
                replicas,
                limit=request.quarantine_limit,
                lenient=True,
            ),
            *([await self.way_back()] if request.keep_way_back and request.source is None else []),
        )

    async def _arrival(
        self,
        request: Request,
        routing: Routing,
        own: Spec | None,
        answers: Mapping[str, Sequence[control_pb2.ShardReplica]],
    ) -> tuple[OriginSeen | None, tuple[Check, ...]]:
        """Look at what shall come from elsewhere, and judge it; nothing where nothing shall."""
        if request.source is None or own is None:
            return None, ()
        seen: OriginSeen | None = None
        problem: BrainyError | None = None
        try:
            seen = await self.origins.look(request.source, own)
        except BrainyError as error:
            problem = error
        items = counted_items(routing, request.source_generation, answers)
        return seen, arrival_checks(request, own, seen, problem, items=sum(items))

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

    async def _about_the_source(
        self,
        request: Request,
        routing: Routing,
        source: Spec,
        answers: Mapping[str, Sequence[control_pb2.ShardReplica]],
        arriving: OriginSeen | None,
    ) -> tuple[Check, ...]:
        fit = spec_holds_data(request, source)
        if fit.passed:
            fit = await self.vectors.fit(request, source, routing, self._view.reachable()) or fit
        choice = await self._tree_choice()
        signs = arriving.signs if arriving is not None else ()
        if source.source == "brainy" and not choice.follow:
            mirrored = bool(choice.mirror)
            signs = await signs_of_writers(self._store_itself, self._clock.wall(), mirrored=mirrored)
        writers = no_foreign_writers(signs)
        if not fit.passed:
            return fit, writers
        target = target_spec(source, request, created_at="")
        nouns, verbs = (
            (arriving.nouns, arriving.verbs)
            if arriving is not None
            else counted_items(routing, request.source_generation, answers)
        )
        held = routing.generations.get(request.source_generation)
        pool = request.target.pool or (held.pool if held else "")
        holders = eligible(pool, self._view.labels())
        reports = {node: report for node, report in self._view.reports().items() if node in holders}
        room = space(reports, needed=disk_needed(nouns, verbs, target), replication=target.replication)
        reachable = self._view.reachable()
        embedding = await self.vectors.reembedding(
            request,
            source,
            routing,
            choice=choice,
            addresses=reachable,
            holders={node: address for node, address in reachable.items() if node in holders},
            without_text=arriving.without_text if arriving is not None else None,
        )
        return fit, room, writers, *embedding

    async def ask_nodes(self) -> dict[str, list[control_pb2.ShardReplica]]:
        """Return what the nodes that answer say of their replicas now."""
        return (await self._ask_nodes())[0]

    async def _ask_nodes(self) -> tuple[dict[str, list[control_pb2.ShardReplica]], list[str]]:
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
        return {node: answer for node, answer in answers.items() if answer}, silent


def _dimensions(spec: Spec | None) -> Check:
    dimensions = spec.dimensions if spec else 0
    return Check(name="dimensions_known", passed=dimensions > 0, detail=f"{dimensions} dimensions")


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
