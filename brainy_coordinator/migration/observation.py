"""What is seen of the cluster at one moment. Values only; pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from brainy.api.node.v1 import control_pb2, copy_pb2
from brainy.bucket.records import GenerationPlacement, Routing
from brainy.traffic.serving import ServingFigures
from brainy_coordinator.migration.quality import Measured


class ReplicaState(enum.Enum):
    """State of one shard replica, as its node reports it."""

    UNKNOWN = control_pb2.SHARD_STATE_UNSPECIFIED
    LOADING = control_pb2.SHARD_STATE_LOADING
    COPYING = control_pb2.SHARD_STATE_COPYING
    REPLAYING = control_pb2.SHARD_STATE_REPLAYING
    READY = control_pb2.SHARD_STATE_READY
    FENCED = control_pb2.SHARD_STATE_FENCED
    FAILED = control_pb2.SHARD_STATE_FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSeen:
    """One replica of one shard on one node."""

    node_id: str
    generation: int
    shard: int
    state: ReplicaState
    #: Ownership epoch the replica acts under.
    epoch: int = 0
    #: Highest position applied.
    applied: int = 0
    #: Shard of the generation it follows or followed last -> position included; None: a node that does not say which.
    source_cursor: Mapping[int, int] = field(default_factory=dict)
    source_generation: int | None = None
    copied: int = 0
    total: int = 0
    quarantined: int = 0
    #: Nouns that cannot be searched.
    unindexed: int = 0
    message: str = ""
    nouns: int = 0
    #: Nouns and verbs.
    items: int = 0
    #: How its copy is doing; None while there is none.
    copying: copy_pb2.Copying | None = None

    def reached(self, generation: int, shard: int) -> int:
        """Position of another generation's shard that is included; 0 while it is not followed."""
        if self.source_generation not in (None, generation):
            return 0
        return self.source_cursor.get(shard, 0)

    @classmethod
    def of(cls, node_id: str, report: control_pb2.ShardReplica) -> ReplicaSeen:
        """Read a node's report."""
        return cls(
            node_id=node_id,
            generation=report.generation,
            shard=report.shard,
            state=ReplicaState(report.state),
            epoch=report.epoch,
            applied=report.applied,
            source_cursor=dict(report.source_cursor),
            source_generation=report.source_generation if report.HasField("source_generation") else None,
            copied=report.copied,
            total=report.total,
            quarantined=report.quarantined,
            unindexed=report.unindexed_count,
            message=report.message,
            nouns=report.noun_count,
            items=report.noun_count + report.verb_count,
            copying=report.copying if report.HasField("copying") else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One preflight check and its result."""

    #: A name: store_conditional_writes, nodes_reachable, ...
    name: str
    passed: bool
    detail: str
    #: ErrorReason a failure is reported with.
    reason: str = "WRONG_PHASE"
    #: False in a dry run for a check that writes to find out; it counts as passed.
    tried: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOver:
    """One attempt to cut over, as far as the leader that began it has come. Never stored."""

    #: Epoch of the routing record that drains; another epoch in force means that the attempt is over.
    epoch: int
    #: Monotonic seconds just before the record was swapped.
    started_at: float
    #: The side that is active.
    leading: int = 0
    #: Its shard -> final position; None until every node has passed the barrier.
    positions: Mapping[int, int] | None = None
    caught_up: bool = False
    #: Shard of the other side -> position at which the digests were compared.
    follow_from: Mapping[int, int] = field(default_factory=dict)
    #: None until compared.
    digest_equal: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Still:
    """Since when the source has taken no record, as far as its owners were asked."""

    #: Source shard -> its end.
    positions: Mapping[int, int]
    #: Monotonic seconds at which they were seen first.
    since: float
    #: Whether that is long enough.
    quiet: bool = False
    #: What moved last, for people; "" when nothing has.
    moved: str = ""

    @property
    def complaint(self) -> str:
        """What keeps the source from counting as still, in words; "" when it does, or nothing moved yet."""
        return f"a writer is not stopped: {self.moved}" if self.moved and not self.quiet else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bake:
    """For how long a wave of nodes has answered healthily, as far as this leader has watched."""

    nodes: frozenset[str]
    #: Monotonic seconds of the last look.
    looked_at: float
    healthy_seconds: float = 0.0
    #: Whether that is long enough.
    done: bool = False
    #: What was not healthy at the last look, in words; "" for nothing.
    complaint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What this leader learnt by acting. A new leader starts with none of it and learns it again."""

    checks: tuple[Check, ...] | None = None
    #: Whether what the target could not read is accepted; None until counted.
    quarantine: Check | None = None
    #: What has been measured of the target's search quality; None until begun.
    quality: Measured | None = None
    cut_over: CutOver | None = None
    #: When the last attempt to cut over was given up, monotonic seconds.
    gave_up_at: float | None = None
    #: Only where the strategy wants the source to be still; None until looked at.
    still: Still | None = None
    #: Nodes that confirmed reading from the target.
    adopted_in_force: frozenset[str] = frozenset()
    #: Nodes that confirmed the record of the commit or a later one.
    released: frozenset[str] = frozenset()
    #: Since when writes have waited in the attempt that committed, until every node has confirmed; monotonic seconds.
    waiting_since: float | None = None
    #: How long they did.
    write_pause_seconds: float | None = None
    #: When this leader first saw the target active with a way back kept, monotonic seconds.
    observing_since: float | None = None
    #: The wave that bakes now; None while none does.
    bake: Bake | None = None
    #: Seconds until a postponed switch may begin, by the countdown that is kept in the bucket; None before it was read.
    postponed_left: float | None = None
    #: Seconds that earlier leaders had watched then, as they wrote down.
    observed_before: float = 0.0
    #: Generation -> how it was served lately, as far as this leader has heard.
    served: Mapping[int, ServingFigures] = field(default_factory=dict)
    #: The side that led when both last said that they can be compared without vectors; None until they have.
    comparable: int | None = None
    #: Only where the data come from elsewhere and nobody writes there: whether their digest is known.
    measured: bool = False
    #: The other namespace waits for an attempt of this migration that is over.
    fenced_elsewhere: bool = False
    #: What keeps the other namespace from being left now; "" when nothing does.
    elsewhere: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything a decision may depend on."""

    routing: Routing
    #: Nodes that can be called: alive, or draining.
    reachable: frozenset[str]
    replicas: tuple[ReplicaSeen, ...]
    facts: Facts = Facts()
    _index: Mapping[tuple[int, int, str], ReplicaSeen] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the replicas: they are looked up once a shard."""
        index = {(seen.generation, seen.shard, seen.node_id): seen for seen in self.replicas}
        object.__setattr__(self, "_index", index)

    def generation(self, number: int) -> GenerationPlacement | None:
        """Where a generation is placed, or None."""
        return self.routing.generations.get(number)

    def replica(self, generation: int, shard: int, node_id: str) -> ReplicaSeen | None:
        """What a node says of its replica, or None."""
        return self._index.get((generation, shard, node_id))

    def owners(self, generation: int) -> dict[int, ReplicaSeen | None]:
        """What the owners of a generation's shards say, by shard."""
        placed = self.generation(generation)
        shards = placed.shards if placed else {}
        return {shard: self.replica(generation, shard, where.owner) for shard, where in shards.items()}

    def ends(self, generation: int) -> dict[int, int]:
        """Highest position each owner of a generation's shards has applied; owners not seen are missing."""
        return {shard: owner.applied for shard, owner in self.owners(generation).items() if owner is not None}

    def is_draining(self) -> bool:
        """Whether writes are stopped."""
        return self.routing.phase == "draining"


def count_quarantined(routing: Routing, generation: int, replicas: Iterable[ReplicaSeen]) -> int:
    """Objects that the owners of a generation's shards report as unreadable."""
    placed = routing.generations.get(generation)
    owners = {shard: where.owner for shard, where in (placed.shards if placed else {}).items()}
    return sum(
        seen.quarantined
        for seen in replicas
        if seen.generation == generation and owners.get(seen.shard) == seen.node_id
    )


def followed_shards(target_shard: int, *, source_count: int, target_count: int) -> Iterable[int]:
    """Source shards whose log a target shard follows: its namesake, or all when the counts differ."""
    return (target_shard,) if source_count == target_count else range(source_count)


def lag_of_shard(seen: Observation, source: int, target: int, target_shard: int) -> int | None:
    """Records that one target shard is behind; None while an owner it depends on is not seen."""
    placed_source, placed_target = seen.generation(source), seen.generation(target)
    if placed_source is None or placed_target is None:
        return None
    follower = seen.owners(target).get(target_shard)
    leaders = seen.owners(source)
    lag = 0
    for shard in followed_shards(
        target_shard, source_count=placed_source.shard_count, target_count=placed_target.shard_count
    ):
        leader = leaders.get(shard)
        if leader is None or follower is None:
            return None
        lag += max(0, leader.applied - follower.reached(source, shard))
    return lag


def total_lag(seen: Observation, source: int, target: int) -> int:
    """Records that some target shard still misses, each counted once; owners not seen count nothing."""
    placed_source, placed_target = seen.generation(source), seen.generation(target)
    if placed_source is None or placed_target is None:
        return 0
    followers = seen.owners(target)
    behind = 0
    for shard, leader in seen.owners(source).items():
        cursors = [
            follower.reached(source, shard)
            for target_shard, follower in followers.items()
            if follower is not None
            and shard
            in followed_shards(
                target_shard, source_count=placed_source.shard_count, target_count=placed_target.shard_count
            )
        ]
        if leader is not None and cursors:
            behind += max(0, leader.applied - min(cursors))
    return behind
