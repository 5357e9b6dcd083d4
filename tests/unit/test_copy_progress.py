"""What is told of a copy: counts added up, speeds, time left, limits; and the rate that somebody asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brainy.api.node.v1 import control_pb2, copy_pb2
from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement
from brainy.clock import SystemClock
from brainy.errors import PreconditionError
from brainy.ids import Ids
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy_coordinator.migration.copy_progress import Speeds, copy_progress
from brainy_coordinator.migration.history import History
from brainy_coordinator.migration.interventions import set_copy_rate
from brainy_coordinator.migration.observation import Observation, ReplicaSeen
from brainy_coordinator.migration.record import MigrationRecord, Request
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.services.copy_messages import copy_message

REQUEST = Request(request_id="r", namespace="n", strategy="rolling", source_generation=0, target_generation=1)
SHARDS = {0: ShardPlacement(owner="a", epoch=1), 1: ShardPlacement(owner="b", epoch=1)}
ROUTING = Routing(
    namespace="memory://x-y-z",
    epoch=7,
    nonce="n",
    leader_epoch=1,
    active=0,
    write=0,
    phase="serving",
    migration="m-1",
    nodes={n: NodeAddress(address=n, incarnation="i") for n in "ab"},
    generations={
        0: GenerationPlacement(state="serving", shard_count=2, shards=SHARDS),
        1: GenerationPlacement(state="building", shard_count=2, follows=0, shards=SHARDS),
    },
)


class Leads:
    id = "c1"

    def epoch(self) -> int:
        return 1


def histories() -> History:
    return History(MemoryStore(ManualClock()), clock=SystemClock(), ids=Ids(), leader=Leads())


async def copying() -> MigrationRecord:
    history = histories()
    record = await history.create("m-1", REQUEST, by="ann")
    record = await history.append(record, Trigger.BEGUN)
    return await history.append(record, Trigger.PREFLIGHT_PASSED)


def replica(node: str, shard: int, *, generation: int = 1, **stages: tuple[int, int]) -> ReplicaSeen:
    report = control_pb2.ShardReplica(generation=generation, shard=shard, state=control_pb2.SHARD_STATE_COPYING)
    report.copying.SetInParent()
    for stage, (done, total) in stages.items():
        report.copying.stages.add(stage=stage, done=done, total=total)
    if node == "a":
        report.copying.limit, report.copying.reason, report.copying.store_repeats = 1234.5, "latency", 3
        report.copying.resumed = 7
    return ReplicaSeen.of(node, report)


def through(node: str, shard: int) -> ReplicaSeen:
    report = control_pb2.ShardReplica(
        generation=1,
        shard=shard,
        state=control_pb2.SHARD_STATE_READY,
        copied=500,
        total=500,
        noun_count=400,
        verb_count=100,
    )
    return ReplicaSeen.of(node, report)


def see(*replicas: ReplicaSeen) -> Observation:
    return Observation(routing=ROUTING, reachable=frozenset("ab"), replicas=replicas)


def test_a_speed_is_of_the_last_seconds_and_says_how_long_it_takes() -> None:
    speeds = Speeds()
    assert speeds.stage("reading", 0, 1000, 0.0).remaining_seconds is None
    for second in range(1, 11):
        found = speeds.stage("reading", second * 10, 1000, float(second))
    assert (found.per_second, found.remaining_seconds) == (10.0, 90.0)
    # Twice as fast from then on: what lies further back counts no more.
    for second in range(11, 40):
        found = speeds.stage("reading", 100 + (second - 10) * 20, 1000, float(second))
    assert (found.per_second, found.remaining_seconds) == (20.0, round((1000 - 680) / 20))
    assert speeds.stage("reading", 1000, 1000, 40.0).remaining_seconds == 0.0
    # Whoever takes over begins with fewer.
    assert speeds.stage("reading", 200, 1000, 41.0).per_second == 0.0


def test_what_is_followed_grows_while_it_is_followed() -> None:
    speeds = Speeds()
    speeds.stage("following", 0, 1000, 0.0)
    found = speeds.stage("following", 500, 1100, 10.0)
    assert (found.per_second, found.remaining_seconds) == (50.0, 15.0)
    assert Speeds().stage("following", 5, 5, 0.0).remaining_seconds == 0.0
    slower = Speeds()
    slower.stage("following", 0, 1000, 0.0)
    assert slower.stage("following", 100, 1500, 10.0).remaining_seconds is None


async def test_stages_are_added_up_over_shards_and_unknown_while_one_is() -> None:
    record, speeds = await copying(), Speeds()
    early = copy_progress(record, see(replica("a", 0, reading=(10, 100)), replica("b", 1)), speeds, 0.0)
    assert early is not None
    assert [(s.stage, s.done, s.total) for s in early.stages] == [("reading", 10, 0)]
    (first, second) = early.limits
    assert (first.node_id, first.items_per_second, first.reason, first.store_repeats) == ("a", 1230.0, "latency", 3)
    assert (second.node_id, second.items_per_second, second.reason) == ("b", None, "")
    assert early.resumed == 7
    later = copy_progress(
        record, see(replica("a", 0, reading=(100, 100), indexing=(5, 80)), through("b", 1)), speeds, 5.0
    )
    assert later is not None
    assert [(s.stage, s.done, s.total) for s in later.stages] == [
        ("reading", 600, 600),
        ("publishing", 500, 0),
        ("indexing", 405, 480),
    ]
    alone = copy_progress(record, see(through("b", 1)), speeds, 6.0)
    assert alone is not None
    assert {s.total for s in alone.stages} == {0}, "a shard nobody speaks for counts as known"


async def test_catching_up_is_told_in_records_and_nothing_before_or_after() -> None:
    record = await copying()
    history = histories()
    pending = await history.create("m-1", REQUEST, by="ann")
    assert copy_progress(pending, see(), Speeds(), 0.0) is None
    behind = control_pb2.ShardReplica(
        generation=1, shard=0, state=control_pb2.SHARD_STATE_READY, source_cursor={0: 30}, source_generation=0
    )
    ahead = control_pb2.ShardReplica(generation=0, shard=0, state=control_pb2.SHARD_STATE_READY, applied=90)
    seen = see(ReplicaSeen.of("a", behind), ReplicaSeen.of("a", ahead))
    assert copy_progress(record, see(), Speeds(), 0.0) is not None
    found = copy_progress(replace(record, state=State.CATCHING_UP), seen, Speeds(), 0.0)
    assert found is not None
    assert [(s.stage, s.done, s.total) for s in found.stages] == [("following", 30, 90)]
    assert copy_progress(replace(record, state=State.SUCCEEDED), seen, Speeds(), 0.0) is None


async def test_a_rate_is_kept_by_the_history_and_refused_when_there_is_nothing_to_copy() -> None:
    history = histories()
    record = await history.create("m-1", REQUEST, by="ann")
    assert set_copy_rate(record, see()) is Trigger.COPY_RATE_SET
    record = await history.append(record, Trigger.COPY_RATE_SET, by="ann", copy_rate=250.0)
    assert (record.copy_rate, record.state) == (250.0, State.PENDING)
    assert await history.load("m-1") == record
    assert copy_message(record, copy_progress(await copying(), see(), Speeds(), 0.0)).wanted == 250.0  # type: ignore[arg-type]
    record = await history.append(record, Trigger.BEGUN)
    assert record.copy_rate == 250.0
    record = await history.append(record, Trigger.COPY_RATE_SET, copy_rate=None)
    assert record.copy_rate is None
    for trigger in (Trigger.PREFLIGHT_PASSED, Trigger.COPY_DONE):
        record = await history.append(record, trigger)
    with pytest.raises(PreconditionError) as refused:
        set_copy_rate(record, see())
    assert refused.value.reason == "WRONG_PHASE"
    assert b"copy_rate" not in record.story[-1].encode()


def test_an_order_without_a_rate_is_not_one_of_zero() -> None:
    assert not copy_pb2.CopyOrder(namespace="n", paused=False, items_per_second=None).HasField("items_per_second")
