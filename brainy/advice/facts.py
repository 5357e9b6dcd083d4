"""What is known of a namespace, whoever found it out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from brainy.advice.values import Basis, State
from brainy.bucket.follow import FollowChoice
from brainy.bucket.records import Manifest, Routing, Spec
from brainy.legacy.census import Inspection
from brainy.legacy.hazards import LIVE_SECONDS
from brainy.legacy.inventory import Inventory
from brainy.legacy.keys import TYPED
from brainy.legacy.outlay import Assumptions, MigrationOutlay, predict
from brainy.legacy.survey import Survey
from brainy.legacy.tally import Tally
from brainy.legacy.versions import overlap

#: Instances of Brainy's distributed mode that say so themselves.
_ALIVE = ("active", "online", "running", "healthy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known; None and empty where it is not."""

    namespace: str
    state: State
    basis: Basis
    trees: tuple[str, ...] = ()
    unsupported_trees: tuple[str, ...] = ()
    nouns: int | None = None
    verbs: int | None = None
    dimensions: dict[int, int] = field(default_factory=dict)
    quarantined: int | None = None
    #: Of a noun, of the kind that a Brainy deletes when it starts.
    endangered: int = 0
    #: Seconds since something of Brainy's was written.
    idle_seconds: float | None = None
    live_locks: int = 0
    services: tuple[str, ...] = ()
    foreign_objects: int = 0
    #: There are objects, and none is Brainy's or ours.
    foreign_keys: bool = False
    instances: int = 0
    rescuable: int = 0
    #: Taking the namespace into a generation.
    outlay: MigrationOutlay | None = None
    generation: int | None = None
    migration: str | None = None
    following: bool = False
    mirroring: bool = False

    @property
    def items(self) -> int | None:
        """Nouns and verbs."""
        return None if self.nouns is None or self.verbs is None else self.nouns + self.verbs

    @property
    def without_vectors(self) -> int:
        """Nouns whose vector is empty, as far as they were looked at."""
        return self.dimensions.get(0, 0)

    @property
    def looks_live(self) -> bool:
        """Whether something seems to write now that is not the cluster's own mirror."""
        recent = self.idle_seconds is not None and self.idle_seconds < LIVE_SECONDS
        return not self.mirroring and (recent or self.live_locks > 0)

    @property
    def from_tree(self) -> bool:
        """Whether every object of an item has to be read."""
        return self.state in ("brainy", "served")

    @property
    def mirrorable(self) -> bool:
        """Whether there is a Brainy tree that commits can be written back into."""
        return bool(self.trees) and self.trees[0] != TYPED


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """What a cluster left in the bucket."""

    routing: Routing
    spec: Spec
    choice: FollowChoice
    #: Of every shard; () where the generation has none.
    manifests: tuple[Manifest, ...] = ()

    @property
    def segment_bytes(self) -> int:
        """Of all segments."""
        return sum(file.size for each in self.manifests for file in (*each.nouns, *each.verbs))

    @property
    def files(self) -> int:
        """Segments and indexes."""
        return sum(len(each.nouns) + len(each.verbs) + (each.index is not None) for each in self.manifests)


def of_inspection(namespace: str, found: Inspection, cluster: ClusterFacts | None = None) -> Facts:
    """Facts of a namespace whose objects were read."""
    instances = found.distributed.instances if found.distributed is not None else ()
    facts = Facts(
        namespace=namespace,
        state="brainy" if found.trees or found.unsupported_trees else "empty",
        basis="inspection",
        trees=found.trees,
        unsupported_trees=found.unsupported_trees,
        nouns=found.nouns,
        verbs=found.verbs,
        dimensions=dict(found.dimensions),
        quarantined=found.quarantined_count,
        endangered=max((risk.nouns for risk in found.dimension_risks if overlap(risk, found.versions)), default=0),
        idle_seconds=None if found.last_write is None else found.last_write.seconds_ago,
        live_locks=sum(not lock.stale for lock in found.locks),
        services=tuple(found.services),
        foreign_objects=found.foreign_objects,
        foreign_keys=found.foreign_keys and not (found.trees or found.unsupported_trees or cluster),
        instances=sum((each.status or "").lower() in _ALIVE for each in instances),
        rescuable=(found.rescuable_nouns or 0) + (found.rescuable_doubtful or 0),
        outlay=found.migration,
    )
    return _served(facts, cluster)


def of_survey(namespace: str, seen: Survey, cluster: ClusterFacts | None = None) -> Facts:
    """Facts of a namespace that was only looked at: nothing is counted."""
    facts = Facts(
        namespace=namespace,
        state="brainy" if seen.trees else "empty",
        basis="survey",
        trees=seen.trees,
        dimensions=dict(seen.dimension_counts),
        foreign_keys=seen.foreign_keys and cluster is None,
    )
    return _served(facts, cluster)


def of_manifests(
    namespace: str, cluster: ClusterFacts, assumptions: Assumptions, *, trees: Sequence[str] = ()
) -> Facts:
    """Facts of a namespace that stands on manifests; what its logs added since is not counted.

    ``trees`` are those of Brainy's that are still there.
    """
    nouns = sum(each.noun_count for each in cluster.manifests)
    size = cluster.segment_bytes
    vectors = min(4 * cluster.spec.dimensions * nouns, size)
    tally = Tally(
        nouns=nouns,
        verbs=sum(each.verb_count for each in cluster.manifests),
        dimensions=Counter({cluster.spec.dimensions: nouns} if nouns else {}),
        vector_bytes=vectors,
        # Packed already: what packs it again comes to as much as this.
        document_bytes=int(max(0.0, size - 0.95 * vectors) / 0.35),
        quarantined_count=sum(each.quarantine.rows for each in cluster.manifests if each.quarantine is not None),
    )
    return of_tally(namespace, cluster, tally, assumptions, basis="manifests", gets=cluster.files, trees=trees)


def of_tally(
    namespace: str,
    cluster: ClusterFacts,
    tally: Tally,
    assumptions: Assumptions,
    *,
    basis: Basis,
    gets: int,
    trees: Sequence[str] = (),
) -> Facts:
    """Facts of a namespace of the cluster's own, whose items were counted; ``gets`` reads it once."""
    counted = predict(Inventory(), tally, None, assumptions)
    outlay = counted.model_copy(
        update={
            "get_calls": counted.get_calls + gets,
            "request_cost": round(counted.request_cost + gets * assumptions.price_get / 1000, 6),
            "seconds": round((counted.get_calls + gets) / (assumptions.gets_per_second * assumptions.nodes), 1),
        }
    )
    facts = Facts(
        namespace=namespace,
        state="generation",
        basis=basis,
        trees=tuple(trees),
        nouns=tally.nouns,
        verbs=tally.verbs,
        dimensions=dict(tally.dimensions),
        quarantined=tally.quarantined_count,
        outlay=outlay,
    )
    return _served(facts, cluster)


def _served(facts: Facts, cluster: ClusterFacts | None) -> Facts:
    if cluster is None:
        return facts
    in_place = cluster.spec.source == "brainy" and not cluster.manifests
    return replace(
        facts,
        state="served" if in_place else "generation",
        generation=cluster.routing.active,
        migration=cluster.routing.migration,
        following=cluster.choice.follow,
        mirroring=bool(cluster.choice.mirror),
    )
