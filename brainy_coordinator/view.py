"""The cluster as one namespace sees it: members, and the replicas they report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brainy.api.node.v1 import control_pb2
from brainy.bucket.records import NodeAddress
from brainy.clock import Clock
from brainy_coordinator.membership.registry import Member, NodeState, Registry, Report
from brainy_coordinator.migration.observation import ReplicaSeen, ReplicaState
from brainy_coordinator.placement import Ready


class NamespaceView:
    """Reads the registry for one namespace."""

    def __init__(self, registry: Registry, *, namespace: str, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self.namespace = namespace

    def usable(self) -> frozenset[str]:
        """Nodes that may be given shards."""
        return frozenset(m.node_id for m in self._members() if m.state is NodeState.ALIVE)

    def labels(self) -> dict[str, str]:
        """Nodes that may be given shards, and the pool each is in."""
        return {m.node_id: m.report.pool for m in self._members() if m.state is NodeState.ALIVE}

    def leaving(self) -> frozenset[str]:
        """Nodes that drain: they answer, and want to be relieved."""
        return frozenset(m.node_id for m in self._members() if m.state is NodeState.DRAINING)

    def reachable(self) -> dict[str, str]:
        """Nodes that can be called, and where."""
        return {m.node_id: m.report.address for m in self._members() if m.reachable}

    def reports(self) -> dict[str, Report]:
        """What reachable nodes said of themselves last."""
        return {m.node_id: m.report for m in self._members() if m.reachable}

    def spoken(self) -> list[Report]:
        """What reachable nodes said of themselves last, without those that are only expected."""
        return [m.report for m in self._members() if m.reachable and m.heard]

    def addresses(self) -> dict[str, NodeAddress]:
        """Every node that has not left, as the routing record names it."""
        return {
            m.node_id: NodeAddress(address=m.report.address, incarnation=m.report.incarnation, pool=m.report.pool)
            for m in self._members()
            if m.state is not NodeState.LEFT
        }

    def replicas(
        self, fresh: Mapping[str, Sequence[control_pb2.ShardReplica]] | None = None
    ) -> tuple[ReplicaSeen, ...]:
        """What reachable nodes say of their replicas; ``fresh`` answers stand in for older heartbeats."""
        fresh = fresh or {}
        return tuple(
            ReplicaSeen.of(member.node_id, report)
            for member in self._members()
            if member.reachable
            for report in fresh.get(member.node_id, member.report.replicas)
            if report.namespace == self.namespace
        )

    def ready(self, generation: int) -> Ready:
        """Shard -> node -> position applied, of the replicas that answer."""
        found: dict[int, dict[str, int]] = {}
        for seen in self.replicas():
            if seen.generation == generation and seen.state is ReplicaState.READY:
                found.setdefault(seen.shard, {})[seen.node_id] = seen.applied
        return found

    def _members(self) -> tuple[Member, ...]:
        return self._registry.members(self._clock.monotonic())
