"""What first writes settle in spec.json."""

from __future__ import annotations

import asyncio

import pytest

from brainy.bucket import layout
from brainy.bucket.embedding import EmbeddingIdentity, check_same_model, embedding_from_proto, embedding_to_proto
from brainy.bucket.records import Spec
from brainy.errors import CorruptDataError, EmbeddingMismatchError, InvalidRequestError
from brainy.store.base import PutOutcome, PutState
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy_node.runtime.specs import Specs

ONE = EmbeddingIdentity(model="one", dimensions=3, revision="r1")
TWO = EmbeddingIdentity(model="two", dimensions=3)


def spec(generation: int = 0, source: str = "empty", **fields: object) -> Spec:
    return Spec.model_validate(
        {"generation": generation, "dimensions": 3, "shard_count": 2, "source": source, **fields}
    )


async def stored(store: MemoryStore, number: int = 0) -> Spec:
    found = await store.get(layout.spec(number))
    assert found is not None
    return Spec.decode(found.body, key=found.key)


async def world(*specs: Spec) -> tuple[MemoryStore, Specs, ManualClock]:
    store, clock = MemoryStore(), ManualClock()
    for one in specs:
        await store.put(layout.spec(one.generation), one.encode())
    return store, Specs(store, clock=clock, recheck_seconds=2.0), clock


def test_the_record_keeps_its_old_form_while_nothing_is_embedded() -> None:
    assert b"embedding" not in spec().encode()
    told = spec(embedding=ONE)
    assert Spec.decode(told.encode(), key="k") == told
    assert Spec.decode(spec().encode(), key="k").embedding is None


def test_identity_travels() -> None:
    assert embedding_from_proto(embedding_to_proto(ONE)) == ONE
    with pytest.raises(InvalidRequestError):
        embedding_from_proto(type(embedding_to_proto(ONE))(model="", dimensions=3))


@pytest.mark.parametrize(
    "other", [TWO, ONE.model_copy(update={"revision": "r2"}), ONE.model_copy(update={"dimensions": 4})]
)
def test_any_difference_is_another_model(other: EmbeddingIdentity) -> None:
    check_same_model(ONE, ONE)
    check_same_model(ONE, None)
    with pytest.raises(EmbeddingMismatchError) as caught:
        check_same_model(other, ONE)
    assert caught.value.fields == {"recorded": str(ONE), "given": str(other)}
    assert caught.value.data_safe
    assert "recorded model" in caught.value.remedy


async def test_the_first_embedded_write_decides() -> None:
    store, specs, _ = await world(spec())
    assert await specs.embedding(0) is None
    assert await specs.ensure_embedding(0, ONE) == ONE
    assert await specs.ensure_embedding(0, TWO) == ONE
    assert await specs.embedding(0) == ONE
    assert (await stored(store)).embedding == ONE


async def test_a_model_decides_the_dimensions_too() -> None:
    store, specs, _ = await world(spec(dimensions=0))
    await specs.ensure_embedding(0, ONE)
    assert (await specs.spec(0)).dimensions == (await stored(store)).dimensions == 3


async def test_of_two_nodes_one_decides_for_both() -> None:
    store, first, clock = await world(spec(dimensions=0))
    second = Specs(store, clock=clock, recheck_seconds=2.0)
    decided = await asyncio.gather(
        first.ensure_embedding(0, ONE), second.ensure_embedding(0, TWO), first.ensure_dimensions(0, 3)
    )
    assert decided[0] == decided[1] == (await stored(store)).embedding
    # Neither fact was lost to the other.
    assert (await stored(store)).dimensions == 3


async def test_a_swap_nobody_answers_for_is_read_back() -> None:
    class Silent(MemoryStore):
        silent = 2

        async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
            outcome = await super().put_if_match(key, body, etag)
            self.silent -= 1
            return outcome if self.silent < 0 else PutOutcome(state=PutState.UNKNOWN)

    store = Silent()
    await store.put(layout.spec(0), spec().encode())
    assert await Specs(store, clock=ManualClock(), recheck_seconds=2.0).ensure_embedding(0, ONE) == ONE
    assert (await stored(store)).embedding == ONE


@pytest.mark.parametrize("source", ["0", "brainy"])
async def test_a_generation_inherits_what_its_source_says(source: str) -> None:
    """Its spec was written before the first embedded write reached the generation it follows."""
    store, specs, _ = await world(spec(embedding=ONE), spec(1, source), spec(2, "1"))
    assert await specs.embedding(2) == ONE
    assert await specs.ensure_embedding(2, TWO) == ONE
    fresh = Specs(store, clock=ManualClock(), recheck_seconds=2.0)
    assert await fresh.ensure_embedding(2, ONE) == ONE
    assert (await stored(store, 2)).embedding == ONE


async def test_nothing_recorded_is_believed_for_a_while() -> None:
    store, specs, clock = await world(spec())
    assert await specs.embedding(0) is None
    await store.put(layout.spec(0), spec(embedding=ONE).encode())
    assert await specs.embedding(0) is None
    await clock.advance(2.0)
    assert await specs.embedding(0) == ONE
    # A write looks at once.
    _, other, _ = await world(spec(embedding=ONE))
    assert await other.ensure_embedding(0, TWO) == ONE


async def test_a_missing_spec_is_an_error() -> None:
    _, specs, _ = await world()
    for call in (specs.spec(0), specs.embedding(0), specs.ensure_dimensions(0, 3), specs.ensure_embedding(0, ONE)):
        with pytest.raises(CorruptDataError):
            await call
