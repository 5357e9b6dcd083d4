"""Where a new generation's mirrors begin in the logs of those before it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from brainy.bucket import layout
from brainy.bucket.mirroring import MirrorCursor
from brainy.bucket.partition import shard_of
from brainy.bucket.records import Spec
from brainy.clock import SystemClock
from brainy.ids import Ids
from brainy.legacy.dialect.dialects import SPLIT
from brainy.store.memory import MemoryStore
from brainy_node.runtime.host import Host
from brainy_node.runtime.mirroring import Earlier, Mirroring, begin, logs_of, mirrored_to


class Hasty(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Surroundings:
    namespace = "file:///nowhere"

    def __init__(self, *specs: Spec) -> None:
        self.clock = Hasty()
        self.store = MemoryStore(self.clock)
        self.ids = Ids()
        self._specs = {spec.generation: spec for spec in specs}

    async def spec(self, generation: int) -> Spec:
        return self._specs[generation]

    async def stopped_at(self, generation: int, shard: int, position: int, **more: Any) -> None:
        cursor = MirrorCursor(
            generation=generation,
            shard=shard,
            dialect="flat-split",
            epoch=1,
            nonce="n",
            position=position,
            milliseconds=1000 * position,
            **more,
        )
        await self.store.put(layout.mirror_cursor(generation, shard), cursor.encode())

    async def earlier(self, generation: int) -> list[Earlier]:
        return await Mirroring(cast(Host, self)).earlier(await self.spec(generation), SPLIT)


def spec(generation: int, shards: int, source: str) -> Spec:
    return Spec(generation=generation, dimensions=3, shard_count=shards, source=source)


def fresh(generation: int) -> MirrorCursor:
    return MirrorCursor(generation=generation, shard=0, dialect="flat-split", epoch=1, nonce="")


def id_in(shards: dict[int, int]) -> str:
    """An id that lies in the shard given for each shard count."""
    return next(
        name for name in map(str, range(1000)) if all(shard_of(name, count) == shard for count, shard in shards.items())
    )


async def test_it_begins_where_the_mirrors_of_the_source_stopped() -> None:
    here = Surroundings(spec(0, 2, "brainy"), spec(1, 3, "0"))
    await here.stopped_at(0, 0, 17)
    before = await here.earlier(1)
    cursor = begin(fresh(1), before)
    assert cursor.source == {"0/0": 17, "0/1": 0}
    assert (cursor.position, cursor.milliseconds) == (0, 17_000)
    for shard in range(2):
        found = await here.store.get(layout.mirror_cursor(0, shard))
        assert found is not None
        assert MirrorCursor.decode(found.body, key=found.key).final
    assert await here.earlier(1) == before
    assert mirrored_to(before, 0, 0, "any") == 17
    assert mirrored_to(before, 0, 1, "any") == 0


async def test_what_a_later_generation_did_of_an_older_log_is_not_done_again() -> None:
    here = Surroundings(spec(0, 1, "brainy"), spec(3, 2, "0"), spec(4, 2, "3"))
    await here.stopped_at(0, 0, 10, final=True)
    await here.stopped_at(3, 0, 5, source={"0/0": 40})
    await here.stopped_at(3, 1, 6, source={"0/0": 30})
    before = await here.earlier(4)
    assert begin(fresh(4), before).source == {"3/0": 5, "3/1": 6, "0/0": 30}
    assert mirrored_to(before, 0, 0, id_in({2: 0})) == 40
    assert mirrored_to(before, 0, 0, id_in({2: 1})) == 30
    assert mirrored_to(before, 3, 1, id_in({2: 1})) == 6


async def test_a_generation_that_never_began_has_done_nothing() -> None:
    here = Surroundings(spec(0, 1, "brainy"), spec(3, 2, "0"), spec(4, 2, "3"))
    await here.stopped_at(0, 0, 10, final=True)
    await here.stopped_at(3, 0, 5, source={"0/0": 40})
    before = await here.earlier(4)
    assert begin(fresh(4), before).source == {"3/0": 5, "3/1": 0, "0/0": 10}
    assert mirrored_to(before, 0, 0, id_in({2: 1})) == 10


@pytest.mark.parametrize(
    ("counts", "shard", "expected"),
    [
        ((4, 4), 2, [(0, 2)]),
        ((2, 3), 2, [(0, 0), (0, 1)]),
        ((2, 2, 2), 1, [(0, 1), (1, 1)]),
        ((2, 3, 3), 1, [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]),
    ],
)
def test_logs_are_those_that_may_hold_the_ids(
    counts: tuple[int, ...], shard: int, expected: list[tuple[int, int]]
) -> None:
    *before, target = counts
    earlier = [Earlier(generation=at, cursors=[fresh(at)] * count) for at, count in enumerate(before)]
    assert logs_of(earlier, spec(9, target, "8"), shard) == expected
