"""A mirror that lags and dies anywhere, books saved or not: with Brainy silent, nothing of ours changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import numpy as np
import orjson
import pytest
from both_ways import BothWays, Surroundings

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.follow import MirrorDialect
from brainy.bucket.items import Noun, Verb, noun_to_proto, verb_to_proto
from brainy.changelog.reading import read_log
from brainy.config.environment import inherited
from brainy.errors import FencedError
from brainy.legacy.dialect.dialects import DIALECTS, Dialect
from brainy.legacy.dialect.entries import Place
from brainy.legacy.dialect.rendering import Bounds
from brainy.legacy.mirror import Change, Mirror
from brainy_node.following.own_words import Name
from brainy_node.runtime.host import Host
from brainy_node.runtime.mirror_claim import MirrorClaim
from brainy_node.runtime.shard_mirror import item_of, name_of

STEPS = 120
SEEDS = int(inherited().get("ECHO_SEEDS") or 8)


class LaggingMirror:
    """Reads a batch, writes it later, perhaps not to its end, and then perhaps does not move its cursor."""

    def __init__(self, both: BothWays, dialect: Dialect) -> None:
        self._both = both
        self._dialect = dialect
        self._left: float = 0
        self._batch: list[Change] = []
        self._until = 0
        self._claim: MirrorClaim | None = None

    async def take(self) -> None:
        """Under a new owner."""
        owned = self._both.bucket.owned[0]
        host = cast(Host, Surroundings(self._both.store, self._both.clock))
        self._claim = MirrorClaim(host, 0, 0, epoch=owned.epoch, dialect=self._dialect.name)
        await self._claim.take()
        self._batch = []

    async def read(self, slots: int) -> None:
        assert self._claim is not None
        position, last = self._claim.cursor.position, dict[object, Change]()
        self._until = position
        found = [slot async for slot in read_log(self._both.store, 0, 0, from_position=position + 1)]
        for slot in found[:slots]:
            for at, record in enumerate(slot.batch.records, slot.first):
                if (name := name_of(record)) is not None:
                    place = Place(shard=0, position=at, milliseconds=record.written_at.ToMilliseconds() + at)
                    last[name] = Change(kind=name[0], id=name[1], item=item_of(record), place=place)
            self._until = slot.last
        self._batch = list(last.values())

    async def write(self, writes: float, *, moves: bool) -> None:
        assert self._claim is not None
        watch = self._both.bucket.follower.watch(0, 0)

        async def guard() -> None:
            self._left -= 1
            if self._left < 0:
                raise FencedError("dead")

        self._left = writes
        bounds = Bounds(dimensions=8)
        mirror = Mirror(self._both.store, self._dialect, seen=watch, change_log=True, bounds=bounds, guard=guard)
        try:
            written = await mirror.write(await mirror.prepare(self._batch))
        except FencedError:
            return
        if moves and not written.undecided:
            await self._claim.advance(position=self._until)
            watch.reached(self._until)
        self._batch = []

    @property
    def position(self) -> int:
        assert self._claim is not None
        return self._claim.cursor.position


def change(chances: np.random.Generator) -> tuple[Name, Noun | Verb | None, log_pb2.LogRecord]:
    """A client's word on one of a few items, in one of a few states."""
    request = f"c-{chances.integers(1 << 60)}/0"
    number, item_id = int(chances.integers(1, 4)), f"n{chances.integers(3)}"
    vector = np.full(8, number if chances.random() < 0.7 else 9, "<f4").tobytes()
    metadata = orjson.dumps({"n": number}) if chances.random() < 0.8 else None
    match int(chances.integers(5)):
        case 0:
            return ("noun", item_id), None, log_pb2.LogRecord(request_id=request, delete_noun=item_id)
        case 1 | 2:
            noun = Noun(id=item_id, vector=vector, metadata=metadata)
            return ("noun", item_id), noun, log_pb2.LogRecord(request_id=request, upsert_noun=noun_to_proto(noun))
        case 3:
            return ("verb", "v"), None, log_pb2.LogRecord(request_id=request, delete_verb="v")
        case _:
            kind = f"kind{number}"
            verb = Verb(id="v", source_id="n0", target_id="n1", type=kind, vector=vector, metadata=metadata)
            return ("verb", "v"), verb, log_pb2.LogRecord(request_id=request, upsert_verb=verb_to_proto(verb))


def served(both: BothWays, name: Name) -> Noun | Verb | None:
    shard = both.bucket.owned[0].shard
    found: list[Noun] | list[Verb] = shard.get_nouns([name[1]]) if name[0] == "noun" else shard.get_verbs([name[1]])
    return found[0] if found else None


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_what_our_clients_said_last_is_served_and_ends_in_the_tree(
    tmp_path: Path, seed: int, dialect: str
) -> None:
    chances = np.random.default_rng(seed)
    both = BothWays(tmp_path)
    both.dialect = cast(MirrorDialect, dialect)
    await both.put("n0", 1)
    await both.put("other", 1)
    await both.open()
    mirror = LaggingMirror(both, DIALECTS[dialect])
    await mirror.take()
    said: dict[Name, Noun | Verb | None] = {}

    async def speak() -> None:
        name, item, record = change(chances)
        await both.commit(record)
        said[name] = item

    async def end() -> None:
        await both.bucket.close(save=bool(chances.random() < 0.3))
        await both.bucket.take_over(both.bases)
        both.choose()
        await both.bucket.turn()
        await mirror.take()

    async def write() -> None:
        writes = float(chances.integers(8)) if chances.random() < 0.5 else np.inf
        await mirror.write(writes, moves=bool(chances.random() < 0.7))
        if writes != np.inf or chances.random() < 0.2:
            await end()

    try:
        for _ in range(STEPS):
            steps: list[Callable[[], Awaitable[object]]] = [
                speak,
                speak,
                speak,
                lambda: mirror.read(int(chances.integers(1, 6))),
                write,
                both.bucket.turn,
                lambda: both.clock.advance(float(chances.integers(3))),
            ]
            await steps[int(chances.integers(len(steps)))]()
            assert {name: served(both, name) for name in said} == said
        await end()
        while mirror.position < both.bucket.owned[0].shard.applied:
            await mirror.read(1000)
            await mirror.write(np.inf, moves=True)
            await both.bucket.turn()
        assert {name: served(both, name) for name in said} == said
        assert both.bucket.digest().differing(await both.tree()) == []
        async for slot in read_log(both.store, 0, 0, from_position=1):
            assert [record for record in slot.batch.records if record.foreign_version] == []
    finally:
        await both.bucket.close()
