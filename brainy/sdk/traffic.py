"""Reads tried on the target of a migration before anything is switched."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.api.coordinator.v1 import traffic_pb2
from brainy.errors import InvalidRequestError
from brainy.sdk.connection import Connection
from brainy.sdk.retry import CONTROL, CONTROL_CHANGE, REPLAY
from brainy.traffic.comparison import Comparison, comparison_from_proto


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadShares:
    """Which reads are tried on the target."""

    #: Share of reads that the target answers, 0 to 1.
    weight: float
    #: Share of reads that are asked of it besides, after the client has its answer, 0 to 1.
    shadow: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeComparison:
    """What one front door found."""

    node_id: str
    comparison: Comparison
    #: Queries it remembers for ``replay_reads``.
    queries_recorded: int
    #: Why it is left out; empty if it is not.
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadComparison:
    """What the front doors found, and their sum."""

    source_generation: int
    target_generation: int
    #: None while no reads are set.
    shares: ReadShares | None
    comparison: Comparison
    nodes: tuple[NodeComparison, ...]


class TrafficCalls(Connection):
    """Needs ``coordinators``; without them every call raises ``UnavailableError``."""

    async def set_reads(
        self,
        id: str,  # noqa: A002 - as the field is called
        *,
        weight: float,
        shadow: float,
        restart: bool = False,
        requested_by: str = "",
    ) -> ReadShares:
        """Set which share of reads a migration's target answers, and which share is asked of it besides.

        In force at every reachable node when this returns. Ends by itself with the switch, or with the migration. While
        a way back is kept it is the source that is asked besides (``shadow``), and it never answers.

        Args:
            id: of the migration, which must be READY, or have switched and keep a way back; to set both shares to 0 it
                need not be.
            weight: share of searches and reads by id that the target answers, 0 to 1. A client that has written
                stays on one side: see docs/protocols/reads.md.
            shadow: share that is asked of the target after the client has its answer, and compared, 0 to 1.
            restart: forget what was compared so far.
            requested_by: who asks, for the history.

        Raises:
            InvalidRequestError: a share below 0 or above 1.
            NotFoundError: there is no such migration.
            PreconditionError: WRONG_PHASE, its target cannot be tried now; nothing was changed.
        """
        for name, share in (("weight", weight), ("shadow", shadow)):
            if not 0.0 <= share <= 1.0:
                raise InvalidRequestError(
                    "a share of reads is out of bounds",
                    remedy="give 0 to 1; nothing was sent",
                    field=name,
                    share=share,
                )
        self._changing()
        request = traffic_pb2.SetReadsRequest(
            namespace=self.namespace,
            migration_id=id,
            shares=traffic_pb2.ReadShares(weight=weight, shadow=shadow),
            restart=restart,
            requested_by=requested_by,
        )
        answer = await self._coordinators.unary(lambda leader: leader.traffic.SetReads, request, CONTROL_CHANGE)
        return ReadShares(weight=answer.shares.weight, shadow=answer.shares.shadow)

    async def compare_reads(self, id: str) -> ReadComparison:  # noqa: A002 - as the field is called
        """Return what was found so far where the target was asked what the source was asked.

        Raises:
            NotFoundError: there is no such migration.
        """
        request = traffic_pb2.CompareReadsRequest(namespace=self.namespace, migration_id=id)
        answer = await self._coordinators.unary(lambda leader: leader.traffic.CompareReads, request, CONTROL)
        return _comparison(answer)

    async def replay_reads(self, id: str, *, limit: int = 0, k: int = 0) -> ReadComparison:  # noqa: A002
        """Ask both generations queries that the front doors remember, by index and by scan, and compare.

        Args:
            id: of the migration.
            limit: at most so many queries a node, up to 256; 0 for 64. Fewer if they take longer than half a minute.
            k: neighbours a query, up to 1,000; 0 for 10.

        Raises:
            InvalidRequestError: too many.
            NotFoundError: there is no such migration.
            PreconditionError: WRONG_PHASE, its target is not placed.
        """
        request = traffic_pb2.CompareReadsRequest(
            namespace=self.namespace, migration_id=id, sampled=True, limit=limit, k=k
        )
        answer = await self._coordinators.unary(lambda leader: leader.traffic.CompareReads, request, REPLAY)
        return _comparison(answer)


def _comparison(answer: traffic_pb2.CompareReadsResponse) -> ReadComparison:
    shares = ReadShares(weight=answer.shares.weight, shadow=answer.shares.shadow)
    return ReadComparison(
        source_generation=answer.source_generation,
        target_generation=answer.target_generation,
        shares=shares if answer.HasField("shares") else None,
        comparison=comparison_from_proto(answer.comparison),
        nodes=tuple(
            NodeComparison(
                node_id=node.node_id,
                comparison=comparison_from_proto(node.comparison),
                queries_recorded=node.queries_recorded,
                problem=node.problem,
            )
            for node in answer.nodes
        ),
    )
