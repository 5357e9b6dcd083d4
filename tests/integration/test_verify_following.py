"""A tree that Brainy processes write, compared with the generation that follows it, while both move."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from followed_bucket import FollowedBucket, spec_of

from brainy.bucket import layout
from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement
from brainy.clock import SystemClock
from brainy.ids import Ids
from brainy.store.local import LocalStore
from brainy.testing.brainy_writer import ENTITY_057, FLAT_046, BrainyFleet, Manner
from brainy.verify.namespace_side import NamespaceSide
from brainy.verify.rechecking import Patience
from brainy.verify.values import Comparison, Verdict
from brainy.verify.verifying import VerifyOptions, verify

CLOCK = SystemClock()
PATIENT = Patience(rechecks=5, pause=0.1)


async def compare(store: LocalStore) -> Comparison:
    tree = NamespaceSide("tree", store, "tree", CLOCK)
    served = NamespaceSide("served", store, None, CLOCK)
    return await verify(tree, served, VerifyOptions(patience=PATIENT), clock=CLOCK, ids=Ids())


@pytest.mark.parametrize("manner", [FLAT_046, ENTITY_057], ids=lambda manner: manner.name)
async def test_following_is_no_false_alarm(tmp_path: Path, manner: Manner) -> None:
    store = LocalStore(tmp_path / "bucket", durable=False)
    spec = spec_of()
    shards = {number: ShardPlacement(owner="n", epoch=1) for number in range(spec.shard_count)}
    routing = Routing(
        namespace="file:///x",
        epoch=1,
        nonce="n",
        leader_epoch=1,
        active=0,
        write=0,
        nodes={"n": NodeAddress(address="n:1", incarnation="1")},
        generations={0: GenerationPlacement(state="serving", shard_count=spec.shard_count, shards=shards)},
    )
    await store.put(layout.spec(0), spec.encode())
    await store.put(layout.ROUTING, routing.encode())
    fleet = BrainyFleet(store, clock=CLOCK, seed=1, manner=manner)
    await fleet.write(200)
    bucket = FollowedBucket(store, spec, tmp_path / "bases")
    await bucket.open(await bucket.bases())

    async def live() -> None:
        while True:
            await fleet.write(5)
            await bucket.turn()
            await asyncio.sleep(0)

    living = asyncio.create_task(live())
    try:
        suspected = 0
        for _ in range(12):
            result = await compare(store)
            suspected += result.suspected
            assert not result.differences, result.differences
            assert result.verdict is not Verdict.DIFFERENT
    finally:
        living.cancel()
        ended = await asyncio.gather(living, return_exceptions=True)
        assert isinstance(ended[0], asyncio.CancelledError), ended
    # The follower was stopped anywhere; one whole pass after the last write nothing is left.
    await fleet.finish()
    await bucket.turn()
    result = await compare(store)
    applied = bucket.applied
    await bucket.close()
    assert result.verdict is Verdict.EQUAL
    assert applied > 20
    # They were caught between two writes, and let go.
    assert suspected > 0
