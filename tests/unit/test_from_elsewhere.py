"""Data that come from elsewhere: checks, decisions and refusals, one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainy.api.coordinator.v1 import migration_pb2
from brainy.backup.source import BackupSource, fetch_backup
from brainy.backup.values import BackupFormat, CheckedBackup, Skipped, Verification
from brainy.bucket import layout
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.embedding import EmbeddingIdentity
from brainy.bucket.items import Noun, Verb
from brainy.bucket.origin import ELSEWHERE, Arrival, Moving, Origin
from brainy.bucket.partition import shard_of
from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement, Spec
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.dataset.base import ItemBatch
from brainy.dataset.elsewhere import Elsewhere
from brainy.errors import InvalidRequestError, NotFoundError, PreconditionError
from brainy.ids import Ids
from brainy.rpc.channel import ChannelPool
from brainy.store.base import PutOutcome
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy_coordinator.departures import held
from brainy_coordinator.migration import actions as act
from brainy_coordinator.migration import edits
from brainy_coordinator.migration.arrival.checks import ARRIVAL_REMEDIES, arrival_checks
from brainy_coordinator.migration.arrival.executor import overlaid
from brainy_coordinator.migration.arrival.origins import OriginSeen
from brainy_coordinator.migration.arrival.source_cluster import SourceCluster
from brainy_coordinator.migration.cut_over import behind, unready_leaders
from brainy_coordinator.migration.decision import decide
from brainy_coordinator.migration.observation import Facts, Observation, ReplicaSeen, ReplicaState, total_lag
from brainy_coordinator.migration.record import MigrationRecord, Request, SourceWish, TargetWish
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.move_away import outcome
from brainy_coordinator.nodes import GrpcNodeCalls
from brainy_coordinator.services.source_messages import check_strategy, source_value, strategy_for
from brainy_node.runtime.moves import refuse_arriving, refuse_moved

OLD, NEW, ID = "memory://left-behind", "memory://moved-into", "m-1"
ORIGIN = Origin(namespace=OLD, generation=3, shard_count=2)
OWN = Spec(generation=0, dimensions=0, shard_count=1, source="empty")
SHARDS = {0: ShardPlacement(owner="a", epoch=1)}
MOVING = Moving(to=NEW, migration=ID, epoch=7)


def request(source: SourceWish, **changes: object) -> Request:
    values = {
        "request_id": "r",
        "namespace": NEW,
        "strategy": strategy_for(source),
        "source_generation": 0,
        "target_generation": 1,
        "source": source,
    }
    return Request.model_validate({**values, **changes})


def routing(*, origin: Origin | None = ORIGIN, **changes: object) -> Routing:
    building = GenerationPlacement(state="building", shard_count=1, shards=SHARDS, follows=0, origin=origin)
    base = Routing(
        namespace=NEW,
        epoch=7,
        nonce="n",
        leader_epoch=1,
        active=0,
        write=0,
        migration=ID,
        nodes={"a": NodeAddress(address="a", incarnation="i")},
        generations={0: GenerationPlacement(state="serving", shard_count=1, shards=SHARDS), 1: building},
    )
    return base.model_copy(update=changes)


def theirs(**changes: object) -> Routing:
    shards = {shard: ShardPlacement(owner="a", epoch=1) for shard in (0, 1)}
    return routing(namespace=OLD, active=3, write=3, migration=None).model_copy(
        update={"generations": {3: GenerationPlacement(state="serving", shard_count=2, shards=shards)}, **changes}
    )


def record(state: State) -> MigrationRecord:
    wish = request(SourceWish(namespace=OLD))
    return MigrationRecord(id=ID, request=wish, state=state, sequence=1, leader_epoch=1, story=())


# --- records --------------------------------------------------------------------------------------------------


def test_what_is_of_here_says_nothing_of_elsewhere() -> None:
    plain = Spec(generation=1, dimensions=4, shard_count=1, source="0")
    assert b"origin" not in plain.encode()
    assert (plain.made_of, plain.model_copy(update={"origin": ORIGIN}).made_of) == (0, ELSEWHERE)
    backup = plain.model_copy(update={"origin": Origin(backup="/b")})
    assert Spec.decode(backup.encode(), key="k") == backup
    # Nothing of a backup is followed: what the target follows is the empty generation before it.
    assert backup.made_of == 0
    kept = Routing.decode(routing(moving=MOVING, phase="draining").encode(), key="k")
    assert (kept.moving, kept.arriving) == (MOVING, ORIGIN)
    assert b"moving" not in theirs().encode()


def test_the_commit_notes_where_the_data_came_from() -> None:
    drained = routing(phase="draining")
    arrival = Arrival(source=OLD, migration=ID)
    done = edits.commit(drained, ID, leading=0, following=1, epoch=7, arrived=arrival)
    assert (done.arrived, done.arriving, done.generations[1].origin) == (arrival, None, None)
    again = done.model_copy(update={"phase": "draining", "generations": {**done.generations, 2: done.generations[0]}})
    assert edits.commit(again, ID, leading=1, following=2, epoch=7).arrived == arrival


# --- front doors ----------------------------------------------------------------------------------------------


def test_a_namespace_takes_no_writes_before_its_first_data_are_in() -> None:
    with pytest.raises(PreconditionError) as refused:
        refuse_arriving(routing())
    assert (refused.value.reason, OLD in refused.value.remedy) == ("NAMESPACE_ARRIVING", True)
    with pytest.raises(PreconditionError, match="first data"):
        refuse_arriving(routing(origin=Origin(backup="/b")))
    refuse_arriving(routing(origin=None))
    refuse_moved(theirs(moving=MOVING, phase="draining"))
    with pytest.raises(PreconditionError) as gone:
        refuse_moved(theirs(moving=MOVING.model_copy(update={"done": True})))
    assert (gone.value.reason, gone.value.remedy) == ("NAMESPACE_MOVED", f"use {NEW}")


# --- requests -------------------------------------------------------------------------------------------------


def test_a_source_is_a_namespace_or_a_backup_and_goes_with_one_strategy() -> None:
    asked = migration_pb2.StartMigrationRequest()
    assert source_value(asked) is None
    asked.source.SetInParent()
    with pytest.raises(InvalidRequestError):
        source_value(asked)
    asked.source.namespace = "bucket/app"
    found = source_value(asked)
    assert found == SourceWish(namespace="s3://bucket/app")
    asked.source.backup = "/file"
    with pytest.raises(InvalidRequestError):
        source_value(asked)
    assert strategy_for(SourceWish(backup="/b")) == "backup_restore"
    assert strategy_for(SourceWish(backup="/b", without_vectors=True)) == "sparse_import"
    check_strategy("dedicated_namespace", found)
    check_strategy("rolling", None)
    for strategy, source in (("rolling", found), ("backup_restore", found), ("backup_restore", None)):
        with pytest.raises(InvalidRequestError):
            check_strategy(strategy, source)  # type: ignore[arg-type]


# --- preflight ------------------------------------------------------------------------------------------------

SEEN = OriginSeen(origin=ORIGIN, spec=OWN, nouns=5, verbs=1, detail="there")
FILE = replace(SEEN, origin=Origin(backup="/b"))
EMBEDDED = TargetWish(embedding=EmbeddingIdentity(model="m", dimensions=4))


@pytest.mark.parametrize(
    ("failing", "wish", "changes"),
    [
        ("", SourceWish(namespace=OLD), {}),
        ("target_empty", SourceWish(namespace=OLD), {"items": 1}),
        ("target_empty", SourceWish(namespace=OLD), {"own": OWN.model_copy(update={"source": "brainy"})}),
        ("source_elsewhere", SourceWish(namespace=NEW), {}),
        ("source_readable", SourceWish(backup="/b"), {"seen": None, "problem": NotFoundError("none such")}),
        ("source_serves", SourceWish(namespace=OLD), {"seen": replace(SEEN, problem="nobody answers")}),
        ("source_writers_stopped", SourceWish(namespace=OLD), {"seen": replace(SEEN, origin=Origin(namespace=OLD))}),
        ("source_skipped", SourceWish(backup="/b"), {"seen": replace(SEEN, origin=Origin(backup="/b"), skipped=1)}),
        ("vectors_or_model", SourceWish(backup="/b", without_vectors=True), {"seen": FILE}),
        ("vectors_or_model", SourceWish(backup="/b"), {"seen": FILE, "target": EMBEDDED}),
        ("texts_stand_still", SourceWish(namespace=OLD, without_vectors=True), {"target": EMBEDDED}),
        ("", SourceWish(backup="/b", without_vectors=True), {"seen": FILE, "target": EMBEDDED}),
        ("no_way_back", SourceWish(namespace=OLD), {"keep_way_back": True}),
    ],
)
def test_arrival_checks(failing: str, wish: SourceWish, changes: dict[str, object]) -> None:
    asked = request(wish, **{name: changes.pop(name) for name in ("keep_way_back", "target") if name in changes})
    values = {"own": OWN, "seen": SEEN, "problem": None, "items": 0, **changes}
    checks = arrival_checks(asked, **values)  # type: ignore[arg-type]
    failed = [check for check in checks if not check.passed]
    assert [check.name for check in failed] == ([failing] if failing else [])
    assert all(check.name in ARRIVAL_REMEDIES for check in checks)
    if failing == "target_empty":
        assert failed[0].reason == "TARGET_NOT_EMPTY"


@pytest.mark.parametrize(
    ("here", "there", "apart"),
    [
        ("s3://bucket/a", "s3://bucket/b", True),
        ("s3://bucket/a", "s3://bucket/ab", True),
        ("s3://bucket/a/b", "s3://bucket/a", False),
        ("s3://bucket", "s3://bucket/a", False),
        ("file:///srv/a", "file:///srv/ab", True),
        ("file:///srv", "file:///srv/a", False),
    ],
)
def test_neither_namespace_lies_inside_the_other(here: str, there: str, apart: bool) -> None:
    asked = request(SourceWish(namespace=there), namespace=here)
    checks = {check.name: check for check in arrival_checks(asked, OWN, SEEN, None, items=0)}
    assert checks["source_elsewhere"].passed is apart


# --- decisions ------------------------------------------------------------------------------------------------


def replicas(reached: int) -> tuple[ReplicaSeen, ...]:
    ready = ReplicaState.READY
    return (
        ReplicaSeen(node_id="a", generation=0, shard=0, state=ready),
        ReplicaSeen(
            node_id="a",
            generation=1,
            shard=0,
            state=ready,
            source_cursor={0: reached, 1: 20},
            source_generation=ELSEWHERE,
        ),
    )


def see(facts: Facts | None = None, *, reached: int = 10, **changes: object) -> Observation:
    return Observation(
        routing=routing(**changes),  # type: ignore[arg-type]
        reachable=frozenset({"a"}),
        replicas=replicas(reached),
        facts=facts or Facts(),
    )


def test_the_lag_is_the_one_behind_the_other_namespace() -> None:
    over = overlaid(see(), record(State.CATCHING_UP), theirs(), {0: 12, 1: 20})
    assert total_lag(over, 0, 1) == 2
    assert (behind(record(State.READY), over, 1), behind(record(State.READY), over, 2)) == (
        "shard 0 is 2 records behind",
        "",
    )
    assert unready_leaders(record(State.READY), over) == ""
    missing = overlaid(see(), record(State.CATCHING_UP), theirs(), {0: 12})
    assert "shard 1" in unready_leaders(record(State.READY), missing)
    assert decide(record(State.READY), over, 0.0).trigger is Trigger.PROMOTED
    held_up = replace(over, facts=Facts(elsewhere="a migration runs there"))
    assert decide(record(State.READY), held_up, 0.0).waits


def test_a_fence_that_is_left_over_is_taken_away() -> None:
    fenced = Facts(fenced_elsewhere=True)
    for state in (State.CATCHING_UP, State.READY):
        (action,) = decide(record(state), see(fenced), 0.0).actions
        assert isinstance(action, act.Undrain)
    undone = see(fenced, migration=None)
    assert decide(record(State.ABORTING), undone, 0.0).actions == (act.Undo(1),)
    assert decide(record(State.ABORTING), see(migration=None), 0.0).trigger is Trigger.UNDONE


def test_data_that_nobody_changes_are_digested_before_the_switch() -> None:
    still = Origin(backup="/b")
    wish = request(SourceWish(backup="/b"))
    at_ready = replace(record(State.READY), request=wish)
    own = replace(replicas(0)[1], source_cursor={}, source_generation=None)
    seen = replace(see(origin=still), replicas=(replicas(0)[0], own))
    assert decide(at_ready, seen, 0.0).actions == (act.MeasureSource(),)
    assert decide(at_ready, replace(seen, facts=Facts(measured=True)), 0.0).trigger is Trigger.PROMOTED


def test_a_node_of_a_namespace_that_has_moved_may_go() -> None:
    assert held({OLD: theirs()}, "a") == (2, 2)
    assert held({OLD: theirs(moving=MOVING)}, "a") == (2, 2)
    assert held({OLD: theirs(moving=MOVING.model_copy(update={"done": True}))}, "a") == (0, 0)


# --- the record that is left ----------------------------------------------------------------------------------


def test_the_outcome_is_what_the_other_record_says() -> None:
    assert outcome(MOVING, None) is None
    assert outcome(MOVING, routing(phase="draining")) is None
    assert outcome(MOVING, routing(epoch=8)) is False
    assert outcome(MOVING, routing(epoch=9, arrived=Arrival(source=OLD, migration=ID))) is True
    assert outcome(MOVING, routing(epoch=9, arrived=Arrival(source=OLD, migration="m-2"))) is False


class Here(Elsewhere):
    """One store under every name."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(StoreSettings(), clock=SystemClock(), ids=Ids())
        self._here = store

    def store(self, namespace: str) -> MeteredStore:
        return MeteredStore(self._here)


class Busy(MemoryStore):
    """Its own coordinator is quicker, some times."""

    quicker = 0

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        if self.quicker:
            self.quicker -= 1
            now = Routing.decode(self._objects[key].body, key=key)
            changed = now.model_copy(update={"epoch": now.epoch + 1, "nonce": str(self.quicker)})
            await super().put(key, changed.encode())
        return await super().put_if_match(key, body, etag)


async def left(record: Routing) -> tuple[Busy, SourceCluster]:
    store = Busy()
    await store.put(layout.ROUTING, record.encode())
    return store, SourceCluster(ORIGIN, Here(store), GrpcNodeCalls(ChannelPool(), clock=SystemClock()))


async def test_fence_leave_and_unfence() -> None:
    store, cluster = await left(theirs())
    store.quicker = 2
    fenced = await cluster.fence(MOVING)
    assert (fenced.phase, fenced.moving, fenced.migration, fenced.epoch) == ("draining", MOVING, ID, 10)
    assert fenced.leader_epoch == theirs().leader_epoch
    assert await cluster.fence(MOVING) == fenced
    later = MOVING.model_copy(update={"epoch": 9})
    assert (await cluster.fence(later)).moving == later
    assert (await cluster.unfence("m-2")).moving == later
    let_go = await cluster.unfence(ID)
    assert (let_go.phase, let_go.moving, let_go.migration) == ("serving", None, None)
    with pytest.raises(PreconditionError):
        await cluster.leave(ID)
    await cluster.fence(MOVING)
    gone = await cluster.leave(ID)
    assert gone.moving is not None and gone.moving.done
    assert await cluster.leave(ID) == gone
    assert await cluster.unfence(ID) == gone


@pytest.mark.parametrize(
    "changes",
    [
        {"migration": "m-9"},
        {"active": 2, "write": 2, "generations": {2: theirs().generations[3]}},
        {"phase": "draining", "migration": "m-9", "moving": Moving(to="memory://third-one", migration="m-9", epoch=1)},
    ],
)
async def test_what_is_not_as_it_was_is_not_fenced(changes: dict[str, object]) -> None:
    store, cluster = await left(theirs(**changes))
    before = store._objects[layout.ROUTING].body
    with pytest.raises(PreconditionError):
        await cluster.fence(MOVING)
    assert store._objects[layout.ROUTING].body == before
    assert cluster.problem(theirs(**changes), {}) != ""


# --- backups --------------------------------------------------------------------------------------------------


class Whole:
    """A checked backup of a few items."""

    def __init__(self, nouns: int) -> None:
        vector = np.zeros(2, dtype="<f4").tobytes()
        self.nouns = [Noun(id=f"n{number}", vector=vector) for number in range(nouns)]
        self.verbs = [Verb(id=f"v{number}", source_id="n0", target_id="n1", type="t") for number in range(3)]

    @property
    def verification(self) -> Verification:
        return Verification(
            file="f",
            format=BackupFormat.BRAINY,
            nouns=len(self.nouns),
            verbs=len(self.verbs),
            dimensions=2,
            digest="",
            sealed=False,
            dangling_verbs=0,
            skipped=(Skipped(kind="noun", id="#4", reason="not_json"), Skipped(kind="verb", id="x", reason="not_json")),
        )

    @property
    def state(self) -> MultisetDigest:
        return MultisetDigest()

    def items(self):  # type: ignore[no-untyped-def]
        yield ItemBatch(nouns=self.nouns)
        yield ItemBatch(verbs=self.verbs)


async def test_each_shard_gets_its_own_part_of_a_backup_once() -> None:
    backup: CheckedBackup = Whole(20)
    source = BackupSource(backup)
    assert (await source.total(), dict(source.cursor)) == (23, {})
    nouns: list[str] = []
    verbs: list[str] = []
    skipped: list[str] = []
    for shards in ((0, 2), (1,)):
        async for batch in source.stream(shards=shards, shard_count=3):
            nouns += [noun.id for noun in batch.nouns]
            verbs += [verb.id for verb in batch.verbs]
            skipped += [each.key for each in batch.quarantined]
            assert {shard_of(noun.id, 3) for noun in batch.nouns} <= set(shards)
    assert sorted(nouns) == sorted(noun.id for noun in Whole(20).nouns)
    assert sorted(verbs) == ["v0", "v1", "v2"]
    assert sorted(skipped) == ["backup/noun/#4", "backup/verb/x"]


async def test_a_backup_that_is_an_object_is_fetched(tmp_path: Path) -> None:
    store = MemoryStore()
    await store.put("before.backup", b"bytes")
    here = Here(store)
    file = await fetch_backup("s3://bucket/backups/before.backup", tmp_path / "in", here)
    assert file.read_bytes() == b"bytes"
    assert await fetch_backup("/srv/before.backup", tmp_path, here) == Path("/srv/before.backup")
    with pytest.raises(NotFoundError):
        await fetch_backup("s3://bucket/backups/none", tmp_path, here)
