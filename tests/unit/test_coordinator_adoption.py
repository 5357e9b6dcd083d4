"""What a namespace is taken for at first sight."""

from __future__ import annotations

import pytest

from brainy.bucket.records import Spec
from brainy.config.settings import CoordinatorSettings
from brainy.errors import ConflictError, PreconditionError
from brainy.legacy.survey import Survey
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy_coordinator.adoption import Adoption, describe, first_routing
from brainy_coordinator.generations import Generations
from brainy_coordinator.migration.preflight.checks import target_spec
from brainy_coordinator.migration.record import Request, TargetWish

SETTINGS = CoordinatorSettings(shard_count=3, replication=2, dimensions=5)


def survey(*trees: str, dimensions: int = 0, foreign: bool = False) -> Survey:
    return Survey(
        trees=trees,
        dimensions=dimensions,
        dimension_counts={dimensions: 1} if dimensions else {},
        sampled=1,
        foreign_keys=foreign,
        empty=not trees and not foreign,
    )


def test_a_tree_keeps_its_own_dimensions() -> None:
    spec = describe(survey("entity", "flat", dimensions=384), SETTINGS, created_at="t")
    assert (spec.source, spec.dimensions, spec.source_trees) == ("brainy", 384, ("flat", "entity"))
    assert (spec.generation, spec.shard_count, spec.replication) == (0, 3, 2)


def test_all_three_trees_are_adopted_together() -> None:
    spec = describe(survey("entity", "flat", "typed", dimensions=512), SETTINGS, created_at="t")
    assert spec.source_trees == ("typed", "flat", "entity")
    assert describe(survey("typed"), SETTINGS, created_at="t").source == "brainy"


def test_nothing_at_all_takes_the_dimensions_of_the_settings() -> None:
    spec = describe(survey(), SETTINGS, created_at="t")
    assert (spec.source, spec.dimensions, spec.source_trees) == ("empty", 5, ())


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (survey(foreign=True), "NOT_A_BRAINY_BUCKET"),
    ],
)
def test_what_cannot_be_served_is_refused(found: Survey, reason: str) -> None:
    with pytest.raises(PreconditionError) as refused:
        describe(found, SETTINGS, created_at="t")
    assert refused.value.reason == reason


async def test_a_bucket_is_described_once() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    generations = Generations(store)
    one = Adoption(store, generations, SETTINGS, namespace="n", clock=clock)
    spec = await one.spec()
    other = CoordinatorSettings(shard_count=9)
    again = Adoption(store, Generations(store), other, namespace="n", clock=clock)
    assert await again.spec() == spec
    assert first_routing("n", spec).generations[0].shard_count == 3


async def test_foreign_objects_are_found_in_the_store() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    await store.put("photos/cat.jpg", b"meow")
    adoption = Adoption(store, Generations(store), SETTINGS, namespace="n", clock=clock)
    with pytest.raises(PreconditionError) as refused:
        await adoption.spec()
    assert refused.value.reason == "NOT_A_BRAINY_BUCKET"
    assert await store.get("cluster/generations/0/spec.json") is None


async def test_generations_are_numbered_by_every_trace_they_left() -> None:
    store = MemoryStore(ManualClock())
    generations = Generations(store)
    assert await generations.numbers() == ()
    for number in (0, 2, 10):
        await generations.create(Spec(generation=number, dimensions=1, shard_count=1, source="empty"))
    await store.put("cluster/generations/9/nouns/0/x.parquet", b"")
    assert await generations.numbers() == (0, 2, 9, 10)
    with pytest.raises(ConflictError):
        await generations.create(Spec(generation=2, dimensions=1, shard_count=1, source="0"))
    unknown = Spec(generation=3, dimensions=0, shard_count=1, source="empty")
    await generations.create(unknown)
    await store.put("cluster/generations/3/spec.json", unknown.model_copy(update={"dimensions": 7}).encode())
    found = await generations.spec(3)
    assert found is not None
    assert found.dimensions == 7


def test_a_target_is_the_source_with_what_was_wished_for() -> None:
    source = describe(survey("flat", dimensions=8), SETTINGS, created_at="then")
    request = Request(
        request_id="r",
        namespace="n",
        strategy="rolling",
        source_generation=0,
        target_generation=4,
        target=TargetWish(shard_count=6, scalar_kind="f16"),
    )
    target = target_spec(source, request, created_at="now")
    assert (target.generation, target.source, target.source_trees, target.created_at) == (4, "0", (), "now")
    assert (target.shard_count, target.scalar_kind, target.metric, target.dimensions) == (6, "f16", "cos", 8)
