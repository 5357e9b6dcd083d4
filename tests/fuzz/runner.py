"""Runs: a bucket is drawn from real objects, damaged, and put before everything that reads buckets.

Every run has a number; ``--seed`` and the number give the same bucket again::

    python -m tests.fuzz --seed 7 --only 1234
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random  # noqa: TID251 - seeded
import sys
import tempfile
import traceback
from pathlib import Path

from brainy.bucket.items import Noun, Verb
from brainy.clock import SystemClock
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.ids import Ids
from brainy.legacy import keys
from brainy.legacy.inspection import inspect
from brainy.legacy.survey import survey
from brainy.store.memory import MemoryStore
from brainy.telemetry.logs import configure_logs
from tests.buckets import Content, bucket, read
from tests.fuzz.backups import try_backups
from tests.fuzz.corpus import Bucket, draw
from tests.fuzz.mutation import mutate
from tests.fuzz.oracle import Oracle
from tests.fuzz.serving import try_serving

TREES = ("typed", "flat", "entity")
#: Every how many buckets one is served, too, which takes longer than all the rest.
_SERVED = 4


def make(seed: int, number: int) -> Bucket:
    """The bucket of a run."""
    chance = random.Random(f"{seed}/{number}")
    objects = draw(chance)
    mutate(objects, chance)
    return objects


async def try_bucket(objects: Bucket, folder: Path, *, serve: bool = True) -> None:
    """Read a bucket in every way there is; ``serve`` also builds a node's shards from it.

    Raises:
        AssertionError: something is lost, made up, or depends on the way of reading.
        Exception: anything else is a crash.
    """
    store = await bucket(objects)
    stored = {key: found for key in objects if (found := await store.get(key)) is not None}
    content = await read(store, TREES, shard_counts=(1, 3))
    Oracle(stored, content).check()
    await _try_doubles(store, content)
    await _try_inspection(store, objects)
    await try_backups(store, content, TREES, folder, random.Random(len(objects)))
    if serve:
        with tempfile.TemporaryDirectory(dir=folder) as shards:
            await try_serving(store, content, TREES, Path(shards))


async def _try_doubles(store: MemoryStore, content: Content) -> None:
    source = BrainyTreeSource(store, TREES, keep_doubles=True)
    seen = 0
    async for batch in source.stream(shards=[0], shard_count=1):
        items: list[Noun | Verb] = [*batch.nouns, *batch.verbs]
        for item in items:
            seen += 1
            if item.raw_vector is not None:
                assert len(json.loads(item.raw_vector)) * 4 == len(item.vector)
        for noun in batch.nouns:
            assert noun.vector == content.nouns[noun.id].vector
    assert seen == len(content.nouns) + len(content.verbs)


async def _try_inspection(store: MemoryStore, objects: Bucket) -> None:
    seen = await survey(store)
    expected = await read(store, seen.trees, shard_counts=(1,))
    everything = await read(store, TREES, shard_counts=(1,))
    if sum(key.startswith(keys.TYPED_NOUNS) for key in objects) < 32:
        # Few enough to be looked at, every one: no tree with items in it is overlooked.
        assert expected.nouns.keys() == everything.nouns.keys()
        assert expected.verbs.keys() == everything.verbs.keys()
    found = await inspect(store)
    assert (found.nouns, found.verbs) == (len(expected.nouns), len(expected.verbs))
    assert found.quarantined_count == len(expected.quarantined)
    assert json.loads(found.model_dump_json())["nouns"] == found.nouns


def main() -> int:
    """Run for a time; prints the seed, and every failing run with what it takes to repeat it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=None, help="drawn and printed if left out")
    parser.add_argument("--only", type=int, default=None, help="one run of that seed")
    chosen = parser.parse_args()
    configure_logs(level="error")
    clock = SystemClock()
    seed = chosen.seed if chosen.seed is not None else int.from_bytes(Ids().nonce()[:4], "big")
    print(f"seed {seed}", flush=True)
    failed = number = 0
    until = clock.monotonic() + chosen.seconds
    with tempfile.TemporaryDirectory() as folder:
        while clock.monotonic() < until and failed < 10:
            number = number + 1 if chosen.only is None else chosen.only
            try:
                serve = number % _SERVED == 0 or chosen.only is not None
                asyncio.run(try_bucket(make(seed, number), Path(folder), serve=serve))
            except Exception:
                failed += 1
                traceback.print_exc(file=sys.stdout)
                print(f"repeat with: python -m tests.fuzz --seed {seed} --only {number}", flush=True)
            if chosen.only is not None:
                break
    print(f"{number} buckets, {failed} failed", flush=True)
    return 1 if failed else 0
