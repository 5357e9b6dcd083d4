"""First sight of a namespace: find out what it is, describe it as generation 0, place it.

Before: this process is the leader; the namespace has no routing record.
Steps: 1. probe that the store keeps its conditions; 2. look which trees of Brainy are there; 3. create
``generations/0/spec.json`` unless it exists; 4. once enough nodes are alive, place every shard and create
``routing.json`` unless it exists.
After: nodes find themselves in the routing record and open their shards. Brainy's own objects are untouched.
If it crashes at any step: nothing, or the description, exists; the next leader repeats the steps and finds it.
Cancel safety: as a crash.
"""

from __future__ import annotations

from brainy.bucket.records import GenerationPlacement, Routing, Spec
from brainy.clock import Clock, iso
from brainy.config.settings import CoordinatorSettings
from brainy.errors import PreconditionError
from brainy.legacy.survey import Survey, survey
from brainy.store.base import ObjectStore
from brainy.telemetry.logs import get_logger
from brainy_coordinator.generations import Generations

_log = get_logger(__name__)

#: Trees that can be read in place, oldest first.
_READABLE = ("typed", "flat", "entity")


def describe(found: Survey, settings: CoordinatorSettings, *, created_at: str) -> Spec:
    """Return the description of generation 0. Pure.

    Raises:
        PreconditionError: objects are there but none is Brainy's (NOT_A_BRAINY_BUCKET).
    """
    trees = tuple(tree for tree in _READABLE if tree in found.trees)
    if not trees and found.foreign_keys:
        raise PreconditionError(
            "the namespace holds objects, but none of Brainy's",
            reason="NOT_A_BRAINY_BUCKET",
            remedy="check bucket and prefix; nothing outside cluster/ was touched",
        )
    return Spec(
        generation=0,
        dimensions=found.dimensions if trees and found.dimensions else settings.dimensions,
        scalar_kind=settings.scalar_kind,
        shard_count=settings.shard_count,
        replication=settings.replication,
        source="brainy" if trees else "empty",
        source_trees=trees,
        created_at=created_at,
    )


class Adoption:
    """Describes generation 0 of one namespace."""

    def __init__(
        self,
        store: ObjectStore,
        generations: Generations,
        settings: CoordinatorSettings,
        *,
        namespace: str,
        clock: Clock,
    ) -> None:
        self._store = store
        self._generations = generations
        self._settings = settings
        self._namespace = namespace
        self._clock = clock

    async def spec(self) -> Spec:
        """Return generation 0's description, having written it if need be.

        Raises:
            PreconditionError: as ``describe``.
        """
        known = await self._generations.spec(0)
        if known is not None:
            return known
        found = await survey(self._store)
        spec = describe(found, self._settings, created_at=iso(self._clock.wall()))
        _log.info(
            "namespace_adopted",
            namespace=self._namespace,
            source=spec.source,
            trees=spec.source_trees,
            dimensions=spec.dimensions,
            dimension_counts=dict(found.dimension_counts),
        )
        return await self._generations.create(spec)


def first_routing(namespace: str, spec: Spec) -> Routing:
    """Return the first routing record, with no shard placed yet."""
    placed = GenerationPlacement(state="serving", shard_count=spec.shard_count)
    return Routing(
        namespace=namespace,
        epoch=0,
        nonce="",
        leader_epoch=0,
        active=spec.generation,
        write=spec.generation,
        generations={spec.generation: placed},
    )
