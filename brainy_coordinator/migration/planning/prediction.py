"""What a migration of a served namespace will take, from what its nodes serve. Pure.

Items are not read for it: the owners say how many there are, manifests how large they are, and of a tree that is
served in place a page of each listing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from brainy.advice.advising import advise
from brainy.advice.facts import ClusterFacts, Facts, of_manifests
from brainy.advice.figures import Predictor, Rates
from brainy.advice.sampling import TreeSizes
from brainy.advice.situation import settle
from brainy.advice.values import Advice, Answers, Figures, Proposal, Way
from brainy.legacy.inventory import Inventory
from brainy.legacy.keys import TYPED, Kind
from brainy.legacy.outlay import Assumptions, predict
from brainy.legacy.survey import Survey
from brainy.legacy.tally import Tally
from brainy_coordinator.migration.planning.plan import Prediction
from brainy_coordinator.migration.record import Request, Strategy
from brainy_coordinator.migration.strategies.coordinated import QUIET_SECONDS

#: Strategies of the migration engine, as the advice names them.
ENGINE: dict[Way, Strategy] = {
    Way.IN_PLACE: "in_place_upgrade",
    Way.ROLLING: "rolling",
    Way.BLUE_GREEN: "blue_green",
    Way.COORDINATED: "coordinated",
    Way.BACKUP_RESTORE: "backup_restore",
    Way.SPARSE_IMPORT: "sparse_import",
    Way.DEDICATED: "dedicated_namespace",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What the owners of the source's shards report."""

    nouns: int
    verbs: int
    quarantined: int


def facts_of(
    namespace: str,
    cluster: ClusterFacts,
    counted: Counted,
    assumptions: Assumptions,
    *,
    seen: Survey | None,
    sizes: TreeSizes,
) -> Facts:
    """Return what is known of a served namespace; ``seen`` is None where no tree is read from."""
    spec = cluster.spec
    trees = seen.trees if seen is not None else ()
    if cluster.manifests:
        facts = of_manifests(namespace, cluster, assumptions, trees=trees)
        return replace(facts, nouns=counted.nouns, verbs=counted.verbs, quarantined=counted.quarantined)
    in_verbs = trees and sizes.verb > 4 * spec.dimensions
    tally = Tally(
        nouns=counted.nouns,
        verbs=counted.verbs,
        dimensions=Counter({spec.dimensions: counted.nouns} if counted.nouns else {}),
        vector_bytes=4 * spec.dimensions * (counted.nouns + (counted.verbs if in_verbs else 0)),
        document_bytes=int(sizes.noun_metadata * counted.nouns + sizes.verb_metadata * counted.verbs),
        quarantined_count=counted.quarantined,
    )
    in_place = spec.source == "brainy"
    return Facts(
        namespace=namespace,
        state="served" if in_place else "generation",
        basis="nodes",
        trees=trees,
        nouns=counted.nouns,
        verbs=counted.verbs,
        dimensions=dict(seen.dimension_counts if seen is not None and seen.dimension_counts else tally.dimensions),
        quarantined=counted.quarantined,
        outlay=predict(_inventory(trees, counted), tally, None, assumptions),
        generation=cluster.routing.active,
        migration=cluster.routing.migration,
        following=cluster.choice.follow,
        mirroring=bool(cluster.choice.mirror),
    )


def _inventory(trees: Sequence[str], counted: Counted) -> Inventory:
    """Objects as they must be: all items in the strongest tree, each with what lies beside it."""
    found = Inventory()
    for rank, tree in enumerate(trees):
        nouns, verbs = (counted.nouns, counted.verbs) if rank == 0 else (0, 0)
        found.tree_kinds[tree, Kind.NOUN] = nouns
        found.tree_kinds[tree, Kind.VERB] = verbs
        if tree != TYPED:
            found.tree_kinds[tree, Kind.NOUN_METADATA] = nouns
            found.tree_kinds[tree, Kind.VERB_METADATA] = verbs
    return found


def choices(request: Request) -> tuple[Strategy, ...]:
    """Return the strategies that can be chosen for a request: some need what only the operator can give."""
    return (
        "in_place_upgrade",
        "rolling",
        *(("blue_green",) if request.target.pool else ()),
        *(("coordinated",) if request.writers_stopped else ()),
    )


def weigh(
    facts: Facts, said: Answers, strategies: Collection[Strategy], assumptions: Assumptions
) -> tuple[Strategy, Advice, Proposal]:
    """Return the best of the strategies that can be taken, and all that was weighed."""
    advice = advise(replace(facts, migration=None), said, assumptions=assumptions)
    for proposal in advice.strategies:
        name = ENGINE.get(proposal.strategy)
        if name is not None and name in strategies:
            return name, advice, proposal
    raise AssertionError(f"no such strategy: {strategies}")


def figures_of(
    facts: Facts,
    strategy: Strategy,
    assumptions: Assumptions,
    *,
    replication: int,
    pause_cap_seconds: float,
    rates: Rates | None = None,
) -> Prediction:
    """Predict the migration alone."""
    # Without a backup first, and nobody to be followed who is not followed already.
    at = settle(facts, Answers(rollback=False, old_writers=facts.following))
    predictor = Predictor(at, assumptions, rates or Rates())
    found: Figures = predictor.rolling() if strategy == "rolling" else predictor.in_place()
    calls = found.calls
    # How long its operator has stopped writers is not told here, only what the migration itself takes.
    still = QUIET_SECONDS if strategy == "coordinated" else 0.0
    return Prediction(
        duration_seconds=(found.duration_seconds or 0.0) + still,
        write_pause_seconds=min(found.write_pause_seconds or 0.0, pause_cap_seconds),
        write_pause_cap_seconds=pause_cap_seconds,
        bucket_bytes=found.bucket_bytes or 0,
        disk_bytes=(found.disk_bytes or 0) * replication,
        calls={"list": calls.list, "get": calls.get, "get_range": calls.partial_get, "put": calls.put} if calls else {},
        request_cost=found.request_cost or 0.0,
        storage_cost_per_month=found.storage_cost_per_month or 0.0,
    )
