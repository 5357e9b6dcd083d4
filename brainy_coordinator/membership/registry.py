"""Who is there: heartbeats in, judgements out. Pure; time is handed in as monotonic seconds.

```
            heartbeat                     silent for longer than the TTL
 (unknown) ──────────▶ ALIVE ◀──────────────────────────────▶ SILENT
                        │  ▲ heartbeat         heartbeat
       draining, drain() │  │ draining = false
                        ▼  │
                      DRAINING ── Leave ──▶ LEFT ── heartbeat of a new incarnation ──▶ ALIVE
```

A leader that has just taken over has heard nobody. It therefore *expects* every node the routing record names:
such a node counts as alive for one full TTL, counted from the take-over, and is judged only then. Without that
every change of leader would look like the death of the whole cluster.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from brainy.api.node.v1 import control_pb2
from brainy.bucket.records import NodeAddress
from brainy.errors import FencedError
from brainy.traffic.serving import Serving

#: Two readings of one instant may differ by rounding.
_SAME_MOMENT_SECONDS = 0.001


class NodeState(enum.Enum):
    """The judgement on one node."""

    ALIVE = "alive"
    SILENT = "silent"
    #: Speaks, but asked to be relieved of its shards.
    DRAINING = "draining"
    LEFT = "left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a node says of itself in one heartbeat."""

    node_id: str
    #: Fresh for each start of the process.
    incarnation: str
    #: host:port of its services.
    address: str
    replicas: tuple[control_pb2.ShardReplica, ...] = ()
    draining: bool = False
    memory_bytes: int = 0
    #: Its label: which generations it may hold (``pools``).
    pool: str = ""
    #: Of its software; empty, as 0 below, from one that is too old to say.
    version: str = ""
    protocol_version: int = 0
    #: Free where it keeps its bases; None where it does not say.
    disk_free_bytes: int | None = None
    #: Namespace -> store calls since its start, by kind.
    store_calls: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    #: (Namespace, generation) -> how its front door served it since its start, or since it was placed.
    served: Mapping[tuple[str, int], Serving] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node and the judgement on it."""

    report: Report
    state: NodeState
    #: Seconds since its last heartbeat (or since it was expected).
    silent_for: float
    #: False while the node is only expected, from the routing record.
    heard: bool

    @property
    def node_id(self) -> str:
        """The node's name."""
        return self.report.node_id

    @property
    def reachable(self) -> bool:
        """Whether calls to it are worth trying: it is alive or draining."""
        return self.state in (NodeState.ALIVE, NodeState.DRAINING)


@dataclass(frozen=True, slots=True)
class _Entry:
    report: Report
    last_heard: float
    heard: bool
    left: bool = False
    #: Its process is known to be gone.
    lost: bool = False


class Registry:
    """The nodes one leader knows. Created afresh at each take-over."""

    def __init__(self, *, ttl_seconds: float) -> None:
        self._ttl = ttl_seconds
        self._entries: dict[str, _Entry] = {}
        #: Incarnations that a later one of the same node has replaced.
        self._replaced: set[tuple[str, str]] = set()
        #: Processes an operator wants out, by node and incarnation.
        self._unwanted: set[tuple[str, str]] = set()

    def expect(self, nodes: Mapping[str, NodeAddress], now: float) -> None:
        """Give every node named, unless already heard, one full TTL before it is judged."""
        for node_id, node in nodes.items():
            if node_id not in self._entries:
                report = Report(node_id=node_id, incarnation=node.incarnation, address=node.address, pool=node.pool)
                self._entries[node_id] = _Entry(report, now, heard=False)

    def heartbeat(self, report: Report, now: float) -> None:
        """Take a node's word.

        Raises:
            FencedError: a later incarnation of the node has been heard since; this process must stop.
        """
        if (report.node_id, report.incarnation) in self._replaced:
            raise FencedError(
                "a later start of this node has taken its place",
                remedy="give every node an id of its own, and stop this process",
                node=report.node_id,
                incarnation=report.incarnation,
            )
        known = self._entries.get(report.node_id)
        if known is not None and known.report.incarnation != report.incarnation:
            self._replaced.add((report.node_id, known.report.incarnation))
        left = known is not None and known.left and known.report.incarnation == report.incarnation
        self._entries[report.node_id] = _Entry(report, now, heard=True, left=left)

    def leave(self, node_id: str, incarnation: str, now: float) -> None:
        """Take a node's good-bye: it is LEFT at once. Unknown nodes and old incarnations are ignored."""
        known = self._entries.get(node_id)
        if known is not None and known.report.incarnation == incarnation:
            self._entries[node_id] = replace(known, left=True, last_heard=now)

    def lost(self, node_id: str, incarnation: str, heard_at: float) -> bool:
        """Count a process as silent from now on, unless it was heard after ``heard_at``. False: it was, or has left."""
        known = self._entries.get(node_id)
        if known is None or known.report.incarnation != incarnation or known.left:
            return False
        if known.last_heard > heard_at + _SAME_MOMENT_SECONDS:
            return False
        self._entries[node_id] = replace(known, lost=True)
        return True

    def drain(self, node_id: str) -> bool:
        """Treat a node as draining for as long as this process of it lives. False when it is not known."""
        known = self._entries.get(node_id)
        if known is None:
            return False
        self._unwanted.add((node_id, known.report.incarnation))
        return True

    def unwanted(self, now: float) -> tuple[Member, ...]:
        """Return the nodes that were asked to go and still speak."""
        speaking = (member for member in self.members(now) if member.reachable)
        return tuple(m for m in speaking if (m.node_id, m.report.incarnation) in self._unwanted)

    def members(self, now: float) -> tuple[Member, ...]:
        """Return every node known, by name, with the judgement on it."""
        return tuple(self._judge(entry, now) for _, entry in sorted(self._entries.items()))

    def forget(self, node_ids: Iterable[str]) -> None:
        """Drop nodes that hold nothing any more."""
        for node_id in node_ids:
            self._entries.pop(node_id, None)

    def _judge(self, entry: _Entry, now: float) -> Member:
        silent_for = max(0.0, now - entry.last_heard)
        if entry.left:
            state = NodeState.LEFT
        elif entry.lost or silent_for > self._ttl:
            state = NodeState.SILENT
        elif entry.report.draining or (entry.report.node_id, entry.report.incarnation) in self._unwanted:
            state = NodeState.DRAINING
        else:
            state = NodeState.ALIVE
        return Member(report=entry.report, state=state, silent_for=silent_for, heard=entry.heard)
