"""Which node serves which shard. Pure: a function from what is to what should be.

Rules, in order:

1. A shard whose owner can serve keeps it, and one whose owner is leaving until a replica is ready. A dead
   owner's shard goes to a ready replica, the one that has applied most; failing that to any replica; failing
   that to the node with the least work.
2. Each shard has ``replication`` copies (owner included) on distinct nodes, as far as there are nodes. Missing
   copies are added on the nodes with the fewest.
3. A copy is added beyond that only to make a move possible, never more than one a shard, and the surplus one is
   dropped when every copy of the shard is ready.
4. An owner that can serve is only replaced when some node owns at least two shards less *and* already has a
   ready replica of the shard. The old owner stays as a replica.

Applied again and again while replicas become ready it comes to rest: each move lowers the sum of squared loads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from brainy.bucket.records import ShardPlacement


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Who shall serve a shard; its epoch is not decided here."""

    owner: str
    replicas: tuple[str, ...] = ()

    @classmethod
    def of(cls, placement: ShardPlacement) -> Assignment:
        """Return the nodes of a placement in force."""
        return cls(owner=placement.owner, replicas=placement.replicas)

    @property
    def holders(self) -> tuple[str, ...]:
        """Every node with a copy, the owner first."""
        return (self.owner, *self.replicas)


#: Shard -> node -> highest position applied, of the replicas that are ready to answer.
Ready = Mapping[int, Mapping[str, int]]


def place(
    *,
    nodes: Collection[str],
    current: Mapping[int, Assignment],
    shard_count: int,
    replication: int,
    ready: Ready,
    leaving: Collection[str] = (),
    rebalance: bool = True,
) -> dict[int, Assignment]:
    """Return the placement that should be in force.

    Args:
        nodes: nodes that can serve and may hold the shards (``pools``); draining and silent ones are not among them.
        current: the placement in force; shards may be missing from it.
        shard_count: shards 0 to ``shard_count`` - 1 are placed.
        replication: copies of each shard, owner included.
        ready: which replicas answer, and how far they are.
        leaving: nodes that drain, or may not hold the shards any more: they keep a shard until a ready replica can
            take it, and get nothing new.
        rebalance: False keeps owners that can serve, whatever their load (rules 3 and 4 are skipped).

    Returns:
        One assignment a shard. Without any node: ``current`` as it is, for there is nobody better.
    """
    if not nodes:
        return dict(current)
    plan = _Plan(nodes=frozenset(nodes), ready=ready, leaving=frozenset(leaving))
    plan.keep(current, shard_count)
    for shard in range(shard_count):
        plan.top_up(shard, replication)
    plan.spread_added()
    if rebalance:
        plan.move_owners()
        plan.prepare_moves(replication)
    for shard in range(shard_count):
        plan.drop_surplus(shard, replication)
    return dict(sorted(plan.shards.items()))


@dataclass(slots=True)
class _Plan:
    """A placement in the making."""

    nodes: frozenset[str]
    ready: Ready
    leaving: frozenset[str] = frozenset()
    shards: dict[int, Assignment] = field(default_factory=dict)
    #: Replicas that this plan adds: nothing was loaded for them yet, so they can be put anywhere.
    added: set[tuple[int, str]] = field(default_factory=set)
    _owned: Counter[str] = field(default_factory=Counter)
    _copies: Counter[str] = field(default_factory=Counter)

    def owned(self, node: str) -> int:
        """Shards the node owns."""
        return self._owned[node]

    def copies(self, node: str) -> int:
        """Shards the node holds, as owner or replica."""
        return self._copies[node]

    def put(self, shard: int, assignment: Assignment) -> None:
        """Assign a shard, keeping the counts."""
        old = self.shards.get(shard)
        if old is not None:
            self._owned[old.owner] -= 1
            self._copies.subtract(old.holders)
        self.shards[shard] = assignment
        self._owned[assignment.owner] += 1
        self._copies.update(assignment.holders)

    def is_ready(self, shard: int, node: str) -> bool:
        return node in self.ready.get(shard, {})

    def keep(self, current: Mapping[int, Assignment], shard_count: int) -> None:
        """Rule 1: settled shards first, so that the homeless ones see the load that stays."""
        homeless = []
        for shard in range(shard_count):
            found = current.get(shard)
            if found is not None and (found.owner in self.nodes or self._stays(shard, found)):
                self.put(shard, replace(found, replicas=self._serving(found)))
            else:
                homeless.append(shard)
        for shard in homeless:
            found = current.get(shard)
            candidates = self._serving(found) if found is not None else ()
            owner = self._heir(shard, candidates) if candidates else self._least_owner()
            self.put(shard, Assignment(owner=owner, replicas=tuple(n for n in candidates if n != owner)))

    def _stays(self, shard: int, found: Assignment) -> bool:
        heirs = [n for n in self._serving(found) if self.is_ready(shard, n)]
        return found.owner in self.leaving and not heirs

    def _serving(self, assignment: Assignment) -> tuple[str, ...]:
        return tuple(n for n in assignment.replicas if n in self.nodes and n != assignment.owner)

    def _heir(self, shard: int, candidates: tuple[str, ...]) -> str:
        applied = self.ready.get(shard, {})
        return min(candidates, key=lambda n: (n not in applied, -applied.get(n, 0), self.owned(n), n))

    def _least_owner(self) -> str:
        return min(self.nodes, key=lambda n: (self.owned(n), self.copies(n), n))

    def top_up(self, shard: int, replication: int) -> None:
        """Rule 2."""
        assignment = self.shards[shard]
        while sum(n in self.nodes for n in assignment.holders) < min(replication, len(self.nodes)):
            free = [n for n in self.nodes if n not in assignment.holders]
            chosen = min(free, key=lambda n: (self.copies(n), self.owned(n), n))
            assignment = replace(assignment, replicas=(*assignment.replicas, chosen))
            self.put(shard, assignment)
            self.added.add((shard, chosen))

    def spread_added(self) -> None:
        """Even out what ``top_up`` gave, while it costs nothing."""
        while (move := self._added_move()) is not None:
            shard, node, light = move
            old = self.shards[shard]
            self.put(shard, replace(old, replicas=tuple(light if n == node else n for n in old.replicas)))
            self.added = (self.added - {(shard, node)}) | {(shard, light)}

    def _added_move(self) -> tuple[int, str, str] | None:
        for shard, node in sorted(self.added):
            free = [n for n in self.nodes if n not in self.shards[shard].holders]
            light = min(free, key=lambda n: (self.copies(n), n), default=None)
            if light is not None and self.copies(node) - self.copies(light) > 1:
                return shard, node, light
        return None

    def move_owners(self) -> None:
        """Rule 4."""
        while (move := self._owner_move()) is not None:
            shard, to = move
            old = self.shards[shard]
            replicas = tuple(old.owner if n == to else n for n in old.replicas)
            self.put(shard, Assignment(owner=to, replicas=replicas))

    def _owner_move(self) -> tuple[int, str] | None:
        best: tuple[int, int, str] | None = None
        for shard, assignment in self.shards.items():
            for node in assignment.replicas:
                gap = self.owned(assignment.owner) - self.owned(node)
                if gap > 1 and self.is_ready(shard, node):
                    candidate = (-gap, shard, node)
                    best = candidate if best is None else min(best, candidate)
        return None if best is None else (best[1], best[2])

    def prepare_moves(self, replication: int) -> None:
        """Rule 3: an extra copy on a node with too little, where it can relieve one with too much."""
        for shard in sorted(self.shards):
            assignment = self.shards[shard]
            free = [n for n in self.nodes if n not in assignment.holders]
            if not free or len(assignment.holders) > replication:
                continue
            light = min(free, key=lambda n: (self.copies(n), self.owned(n), n))
            heaviest_replica = max((self.copies(n) for n in assignment.replicas), default=0)
            relieves_replica = heaviest_replica - self.copies(light) > 1
            relieves_owner = self.owned(assignment.owner) - self._owned_soon(light) > 1 and replication == 1
            if relieves_replica or relieves_owner:
                self.put(shard, replace(assignment, replicas=(*assignment.replicas, light)))

    def _owned_soon(self, node: str) -> int:
        """Shards a node owns or is being given a copy of, to own it later."""
        return self._copies[node]

    def drop_surplus(self, shard: int, replication: int) -> None:
        """Rule 3, its end: one surplus copy less, once all of them answer."""
        assignment = self.shards[shard]
        if len(assignment.holders) <= replication or not all(self.is_ready(shard, n) for n in assignment.holders):
            return
        dropped = max(assignment.replicas, key=lambda n: (self.copies(n), self.owned(n), n))
        self.put(shard, replace(assignment, replicas=tuple(n for n in assignment.replicas if n != dropped)))
