"""Questions to many nodes at once.

The barrier is the one way this coordinator learns that a routing record is in force: a node answers
``ApplyRouting`` only when it is, and, while the record drains, only when no write is in flight. No clock takes
part; a timeout means "not known", never "surely so".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from brainy.api.node.v1 import control_pb2, traffic_pb2
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.projection import Projection
from brainy.bucket.records import GenerationPlacement
from brainy.errors import BrainyError
from brainy.telemetry.logs import get_logger
from brainy.traffic.comparison import Comparison, comparison_from_proto
from brainy_coordinator.nodes import Ack, DigestSeen, NodeCalls

_log = get_logger(__name__)

Answer = TypeVar("Answer")


class Barrier:
    """Asks nodes of one namespace, all at once; a node that fails is missing from the answer."""

    def __init__(self, nodes: NodeCalls, *, namespace: str) -> None:
        self._nodes = nodes
        self._namespace = namespace

    async def pass_epoch(self, addresses: Mapping[str, str], *, epoch: int, timeout: float) -> dict[str, Ack]:
        """Return the nodes that have ``epoch`` or a later one in force, and what they say."""

        async def ask(address: str) -> Ack:
            return await self._nodes.apply_routing(address, self._namespace, epoch=epoch, timeout=timeout)

        answers = await _ask_all("apply_routing", addresses, ask)
        return {node: ack for node, ack in answers.items() if ack.epoch >= epoch}

    async def shard_states(
        self, addresses: Mapping[str, str], *, timeout: float
    ) -> dict[str, Sequence[control_pb2.ShardReplica]]:
        """Return what nodes hold."""

        async def ask(address: str) -> Sequence[control_pb2.ShardReplica]:
            return await self._nodes.list_shard_states(address, self._namespace, timeout=timeout)

        return await _ask_all("list_shard_states", addresses, ask)

    async def comparisons(
        self, addresses: Mapping[str, str], *, source: int, target: int, timeout: float
    ) -> Comparison:
        """Add up what the front doors found when they asked two generations the same."""
        wanted = traffic_pb2.GetComparisonRequest(
            namespace=self._namespace, source_generation=source, target_generation=target
        )

        async def ask(address: str) -> Comparison:
            answer = await self._nodes.get_comparison(address, wanted, timeout=timeout)
            return comparison_from_proto(answer.comparison)

        return Comparison.total((await _ask_all("get_comparison", addresses, ask)).values())

    async def digest(
        self,
        placed: GenerationPlacement,
        generation: int,
        addresses: Mapping[str, str],
        *,
        timeout: float,
        projection: Projection | None = None,
    ) -> DigestSeen | None:
        """Return the sum over a generation, asked of the owner of each shard; None when one does not answer."""
        owned: dict[str, list[int]] = {}
        for shard, where in placed.shards.items():
            owned.setdefault(where.owner, []).append(shard)
        if not owned.keys() <= addresses.keys():
            return None

        async def ask(node_id: str) -> DigestSeen:
            return await self._nodes.get_digest(
                addresses[node_id],
                self._namespace,
                generation=generation,
                shards=owned[node_id],
                timeout=timeout,
                projection=projection,
            )

        answers = await _ask_all("get_digest", {node: node for node in owned}, ask)
        if len(answers) < len(owned):
            return None
        total = MultisetDigest()
        positions: dict[tuple[int, int], int] = {}
        for seen in answers.values():
            total.merge(seen.digest)
            positions.update(seen.positions)
        return DigestSeen(
            digest=total,
            nouns=sum(seen.nouns for seen in answers.values()),
            verbs=sum(seen.verbs for seen in answers.values()),
            positions=positions,
        )


async def _ask_all(what: str, targets: Mapping[str, str], ask: Callable[[str], Awaitable[Answer]]) -> dict[str, Answer]:
    async def one(node_id: str, target: str) -> tuple[str, Answer | None]:
        try:
            return node_id, await ask(target)
        except BrainyError as error:
            _log.info("node_did_not_answer", call=what, node=node_id, reason=error.reason, detail=error.message)
            return node_id, None

    answers = await asyncio.gather(*(one(node, target) for node, target in targets.items()))
    return {node: answer for node, answer in answers if answer is not None}
