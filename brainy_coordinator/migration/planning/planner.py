"""Makes plans: asks nodes and bucket, plays the migration, weighs the strategies. Reads only, but for probes.

Nothing of a plan is remembered here; ``Plans`` keeps it. With ``dry_run`` not even a probe object is written.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from brainy.advice.facts import ClusterFacts
from brainy.advice.looking import read_cluster
from brainy.advice.sampling import TreeSizes, sample_sizes
from brainy.advice.values import Advice, Answers, Proposal
from brainy.bucket.follow import read_choice
from brainy.bucket.records import Routing, Spec
from brainy.clock import Clock
from brainy.errors import CorruptDataError, PreconditionError
from brainy.legacy.outlay import Assumptions
from brainy.legacy.survey import Survey, survey
from brainy.store.base import ObjectStore
from brainy_coordinator.generations import Generations
from brainy_coordinator.migration.actions import AwaitBake
from brainy_coordinator.migration.arrival.facts import arriving_answers, arriving_facts
from brainy_coordinator.migration.arrival.origins import OriginSeen
from brainy_coordinator.migration.dry_run import DryRunExecutor, plan
from brainy_coordinator.migration.observation import Check, count_quarantined
from brainy_coordinator.migration.planning.confirmations import confirmations
from brainy_coordinator.migration.planning.embedding import embedding_risks, with_embedding
from brainy_coordinator.migration.planning.outcome import transitions_of
from brainy_coordinator.migration.planning.plan import (
    PLAN_SECONDS,
    Plan,
    PlanBasis,
    PlannedCheck,
    PlannedStep,
    Prediction,
    Why,
    digest_of_spec,
    plan_id_for,
    tolerated,
)
from brainy_coordinator.migration.planning.prediction import Counted, choices, facts_of, figures_of, weigh
from brainy_coordinator.migration.preflight.checks import target_spec
from brainy_coordinator.migration.preflight.counts import counted_items
from brainy_coordinator.migration.preflight.preflight import REMEDIES, Preflight
from brainy_coordinator.migration.record import Request
from brainy_coordinator.pools import eligible
from brainy_coordinator.view import NamespaceView


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a plan is asked for, beside the migration itself."""

    answers: Answers = field(default_factory=Answers)
    #: The strategy is chosen by the decision graph instead of taken from the request.
    choose: bool = False
    tolerance: float = 0.0
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    routing: Routing
    source: Spec
    cluster: ClusterFacts
    counted: Counted
    trees: Survey | None
    #: What comes from elsewhere; None where nothing does.
    arriving: OriginSeen | None = None


class Planner:
    """Plans of one namespace."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        generations: Generations,
        preflight: Preflight,
        view: NamespaceView,
        clock: Clock,
    ) -> None:
        self._store = store
        self._generations = generations
        self._preflight = preflight
        self._view = view
        self._clock = clock

    async def make(
        self, request: Request, routing: Routing, wish: Wish, *, others: Collection[str]
    ) -> tuple[Plan, tuple[Check, ...]]:
        """Make a plan for a request, and say what its preflight found.

        Raises:
            PreconditionError: the source generation has no description.
            BrainyError: the store failed.
        """
        seen = await self._look(request, routing)
        nodes = self._view.reachable()
        pool = request.target.pool or routing.generations[request.source_generation].pool
        holders = eligible(pool, self._view.labels())
        assumptions = Assumptions(nodes=max(1, len(holders)), shards=target_shards(request, seen.source))
        sizes = await sample_sizes(self._store, seen.trees.trees) if seen.trees is not None else TreeSizes()
        facts = facts_of(request.namespace, seen.cluster, seen.counted, assumptions, seen=seen.trees, sizes=sizes)
        answers = wish.answers
        if request.source is not None and seen.arriving is not None:
            facts, answers = arriving_facts(facts, request.source, seen.arriving), arriving_answers(answers, request)
        strategy, advice, proposal = weigh(
            facts, answers, choices(request) if wish.choose else (request.strategy,), assumptions
        )
        plan_id = plan_id_for(request.namespace, request.request_id)
        request = request.model_copy(update={"strategy": strategy, "plan_id": plan_id})
        checks = await self._preflight.run(request, routing, others=others, dry_run=wish.dry_run)
        target = target_spec(seen.source, request, created_at="")
        executor = DryRunExecutor(
            routing,
            reachable=frozenset(nodes),
            shard_count=target.shard_count,
            replication=target.replication,
            checks=checks,
            pool=pool,
            holders=holders,
            followed=seen.arriving is not None and seen.arriving.origin.is_followed,
        )
        steps = await plan(executor, "plan", request)
        basis = self._basis(seen, request.target_generation, wish.tolerance)
        now = self._clock.wall()
        replication = min(target.replication, max(1, len(holders)))
        made = Plan(
            id=plan_id,
            created_at=now,
            expires_at=now + PLAN_SECONDS,
            created_by=request.requested_by,
            request=request,
            why=_why(advice, proposal),
            basis=basis,
            steps=tuple(PlannedStep(action=step.action, detail=step.detail) for step in steps),
            transitions=transitions_of(executor.story),
            checks=tuple(_checked(check) for check in checks),
            prediction=_with_bakes(
                with_embedding(
                    figures_of(
                        facts,
                        strategy,
                        assumptions,
                        replication=replication,
                        pause_cap_seconds=request.pause_cap_seconds,
                    ),
                    request,
                    nouns=seen.counted.nouns,
                    texts_per_second=self._preflight.vectors.texts_per_second,
                ),
                request.bake_seconds * sum(step.action == AwaitBake.__name__ for step in steps),
            ),
            risks=(
                *proposal.risks,
                *embedding_risks(request),
                *(risk for risk in advice.warnings if risk.code != "NOT_COUNTED"),
            ),
            confirmations=confirmations(request, basis, facts.dimensions),
            way_back=proposal.way_back,
            runbook=proposal.runbook,
        )
        return made, checks

    async def basis(self, request: Request, routing: Routing, *, target_generation: int) -> PlanBasis:
        """Return what a plan for a request would rest on now; ``target_generation`` is the next free number.

        Raises:
            PreconditionError: the source generation has no description.
            BrainyError: the store failed.
        """
        return self._basis(await self._look(request, routing), target_generation, 0.0)

    def _basis(self, seen: _Seen, target_generation: int, tolerance: float) -> PlanBasis:
        fewest, most = tolerated(seen.counted.nouns + seen.counted.verbs, tolerance)
        return PlanBasis(
            source_generation=seen.routing.active,
            target_generation=target_generation,
            spec_digest=digest_of_spec(seen.source.encode()),
            trees=seen.trees.trees if seen.trees is not None else (),
            dimensions=seen.source.dimensions,
            nouns=seen.counted.nouns,
            verbs=seen.counted.verbs,
            items_at_least=fewest,
            items_at_most=most,
            nodes={node: report.version for node, report in self._view.reports().items()},
            quarantined=seen.counted.quarantined,
            following=seen.cluster.choice.follow,
            mirror=seen.cluster.choice.mirror,
        )

    async def _look(self, request: Request, routing: Routing) -> _Seen:
        number = request.source_generation
        # Not a remembered one: its embedding may have been decided since.
        source = await self._generations.latest(number)
        if source is None:
            raise PreconditionError(
                "the source generation has no description",
                remedy="restore its spec.json from a copy",
                generation=number,
            )
        answers = await self._preflight.ask_nodes()
        if request.source is not None:
            arriving = await self._preflight.origins.look(request.source, source)
            return _Seen(
                routing=routing,
                source=arriving.spec,
                cluster=ClusterFacts(routing=routing, spec=arriving.spec, choice=await read_choice(self._store)),
                counted=Counted(nouns=arriving.nouns, verbs=arriving.verbs, quarantined=arriving.skipped),
                trees=None,
                arriving=arriving,
            )
        nouns, verbs = counted_items(routing, number, answers)
        quarantined = count_quarantined(routing, number, self._view.replicas(answers))
        return _Seen(
            routing=routing,
            source=source,
            cluster=await self._cluster(routing, source),
            counted=Counted(nouns=nouns, verbs=verbs, quarantined=quarantined),
            trees=await survey(self._store) if source.source == "brainy" else None,
        )

    async def _cluster(self, routing: Routing, source: Spec) -> ClusterFacts:
        try:
            found = await read_cluster(self._store)
        except CorruptDataError:
            # A damaged manifest is for the fill to report; sizes are then not known, and nothing else is missing.
            found = None
        if found is not None and found.spec.generation == source.generation:
            return found
        return ClusterFacts(routing=routing, spec=source, choice=await read_choice(self._store))


def _with_bakes(found: Prediction, seconds: float) -> Prediction:
    return found.model_copy(update={"duration_seconds": found.duration_seconds + seconds})


def target_shards(request: Request, source: Spec) -> int:
    """Return how many shards the target will have."""
    return request.target.shard_count or source.shard_count


def _checked(check: Check) -> PlannedCheck:
    return PlannedCheck(
        name=check.name,
        passed=check.passed,
        detail=check.detail,
        remedy="" if check.passed else REMEDIES[check.name],
        tried=check.tried,
    )


def _why(advice: Advice, proposal: Proposal) -> Why:
    planned = proposal.strategy
    text = f"{planned}: {advice.reason}"
    if advice.advised is not planned:
        text = (
            f"{planned}, of those that the migration engine drives; of all seven "
            f"{advice.advised or 'none'} is advised: {advice.reason}"
        )
    return Why(
        text=text,
        path=advice.path,
        guide=str(advice.guide or ""),
        advised=str(advice.advised or ""),
        why=proposal.why,
        why_not=proposal.why_not,
    )
