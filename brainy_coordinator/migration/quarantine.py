"""How many objects of the source a generation could not read, and whether that was accepted."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from brainy.bucket import layout
from brainy.bucket.quarantine import ReplayedList
from brainy.bucket.records import Routing
from brainy.errors import BrainyError
from brainy.store.base import ObjectStore
from brainy_coordinator.migration.observation import Check, ReplicaSeen, count_quarantined
from brainy_coordinator.nodes import NodeCalls

NAME: Final = "quarantine_within_limit"
_TIMEOUT_SECONDS: Final = 30.0


class QuarantineCount:
    """Counts for one namespace.

    The owners report how many objects are listed. Only where these are more than accepted are they asked which:
    objects that were mended and replayed do not count.
    """

    def __init__(self, store: ObjectStore, nodes: NodeCalls, *, namespace: str) -> None:
        self._store = store
        self._nodes = nodes
        self._namespace = namespace

    async def check(
        self, routing: Routing, generation: int, replicas: tuple[ReplicaSeen, ...], *, limit: int, lenient: bool = False
    ) -> Check:
        """Compare with the limit.

        Args:
            routing: the record in force.
            generation: whose objects.
            replicas: what the nodes report.
            limit: how many are accepted.
            lenient: where an owner does not answer, count what was reported instead of failing.

        Raises:
            BrainyError: an owner or the store did not answer.
        """
        count = count_quarantined(routing, generation, replicas)
        if count <= limit:
            return _check(count, limit, "")
        try:
            reasons, replayed = await self._count(routing, generation)
        except BrainyError as error:
            if not lenient:
                raise
            return _check(count, limit, f" (which, could not be asked: {error.message})")
        listed = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common())
        more = f"; {replayed} more were replayed" if replayed else ""
        return _check(reasons.total(), limit, f" ({listed}{more})" if listed or more else "")

    async def _count(self, routing: Routing, generation: int) -> tuple[Counter[str], int]:
        found = await self._store.get(layout.REPLAYED)
        done = {} if found is None else ReplayedList.decode(found.body, key=layout.REPLAYED).objects
        placed = routing.generations.get(generation)
        shards: dict[str, list[int]] = {}
        for shard, where in (placed.shards if placed else {}).items():
            shards.setdefault(where.owner, []).append(shard)
        answers = await asyncio.gather(
            *(
                self._nodes.list_quarantine(
                    routing.nodes[owner].address,
                    self._namespace,
                    generation=generation,
                    shards=owned,
                    timeout=_TIMEOUT_SECONDS,
                )
                for owner, owned in shards.items()
            )
        )
        listed = {key: reason for answer in answers for key, reason in answer}
        outstanding = Counter(reason for key, reason in listed.items() if key not in done)
        return outstanding, len(listed) - outstanding.total()


def _check(count: int, limit: int, more: str) -> Check:
    return Check(
        name=NAME,
        passed=count <= limit,
        detail=f"{count} unreadable objects, {limit} accepted{more}",
        reason="QUARANTINE_LIMIT",
    )
