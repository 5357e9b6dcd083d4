"""Postponing, what is in the way, stored plans, generations and waves on the command line, against a fake cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import typer
from google.protobuf import duration_pb2
from sdk_cluster_fake import FakeCluster
from typer.testing import CliRunner

from brainy.api.coordinator.v1 import generation_pb2, migration_pb2
from brainy.cli.durations import seconds_of, seconds_until
from brainy.cli.exits import Exit
from brainy.cli.main import app
from brainy.clock import SystemClock, iso
from brainy.sdk.loop_thread import LOOP

State = generation_pb2.GenerationState


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    fake = FakeCluster()
    _, fake.address = LOOP.run(fake.serve())  # type: ignore[attr-defined]
    yield fake
    LOOP.run(fake.close())


def brainy(cluster: FakeCluster, *arguments: str):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(app, [*arguments, "-c", cluster.address], env={"COLUMNS": "250"})  # type: ignore[attr-defined]


def test_times_as_people_type_them() -> None:
    assert [seconds_of(text) for text in ("7d", "2h", "90m", "1h30m", "45s", "45", "0s")] == [
        604_800.0,
        7200.0,
        5400.0,
        5400.0,
        45.0,
        45.0,
        0.0,
    ]
    for text in ("", "soon", "-1h", "h", "1y"):
        with pytest.raises(typer.BadParameter):
            seconds_of(text)
    now = SystemClock().wall()
    assert 3590 < seconds_until(iso(now + 3600)) <= 3600
    for moment in ("tomorrow", iso(now - 60)):
        with pytest.raises(typer.BadParameter):
            seconds_until(moment)


def test_a_switch_is_postponed(cluster: FakeCluster) -> None:
    told = brainy(cluster, "migrate", "postpone", "m-1", "--for", "2h", "--reason", "month's end", "--json")
    assert told.exit_code == 0
    assert json.loads(told.stdout)["postponed"] == {"remaining_seconds": 7200.0, "reason": "month's end", "by": ""}
    request = cluster.calls("PostponeMigration")[-1]
    assert (request.duration.seconds, request.request_id != "", request.requested_by != "") == (7200, True, True)
    until = iso(SystemClock().wall() + 600)
    assert brainy(cluster, "migrate", "postpone", "m-1", "--until", until).exit_code == 0
    assert 590 < cluster.calls("PostponeMigration")[-1].duration.ToNanoseconds() / 1e9 <= 600
    for wrong in ((), ("--for", "2h", "--until", until), ("--for", "a while")):
        assert brainy(cluster, "migrate", "postpone", "m-1", *wrong).exit_code == Exit.USAGE


def test_whether_it_can_switch_is_an_exit_status(cluster: FakeCluster) -> None:
    assert brainy(cluster, "migrate", "can-switch", "m-1").exit_code == 0
    cluster.obstacles = ["shard 1 on b is loading"]
    told = brainy(cluster, "migrate", "can-switch", "m-1")
    assert told.exit_code == Exit.PRECONDITION
    assert "in the way: shard 1 on b is loading" in told.stdout
    assert "what to do: wait" in told.stdout
    found = json.loads(brainy(cluster, "migrate", "can-switch", "m-1", "--json").stdout)
    assert (found["can_switch"], found["obstacles"][0]["remedy"]) == (False, "wait")


def test_stored_plans_are_listed_with_what_became_of_them(cluster: FakeCluster) -> None:
    told = brainy(cluster, "migrate", "plans").stdout
    assert "outdated: age, items" in told
    assert "executed: m-1 SUCCEEDED" in told
    assert "holds until" in told
    listed = json.loads(brainy(cluster, "migrate", "plans", "--json").stdout)
    assert [each["id"] for each in listed] == ["p-3", "p-2", "p-1"]


def test_generations_are_listed_kept_and_given_up(cluster: FakeCluster) -> None:
    deletes = [generation_pb2.ObjectCount(kind="nouns", objects=2, bytes=2 << 20)]
    cluster.generations = [
        generation_pb2.Generation(number=0, state=State.GENERATION_STATE_DELETED, deleted_objects=7, deleted_bytes=70),
        generation_pb2.Generation(
            number=1,
            state=State.GENERATION_STATE_RETAINED,
            remaining=duration_pb2.Duration(seconds=3 * 86400),
            deletes=deletes,
            migration_id="m-1",
        ),
        generation_pb2.Generation(
            number=2, state=State.GENERATION_STATE_RETAINED, waits_for="not confirmed by c", remaining={}
        ),
        generation_pb2.Generation(number=3, state=State.GENERATION_STATE_ACTIVE, deletes=deletes),
    ]
    told = " ".join(brainy(cluster, "generations").stdout.split())
    assert "deleted: 7 objects, 70 bytes" in told
    assert "deleted in 3 days (brainy generations --keep 1)" in told
    assert "deletion is due and waits: not confirmed by c" in told
    assert "in service" in told
    assert cluster.calls("ListGenerations")[-1].sizes
    listed = json.loads(brainy(cluster, "generations", "--json").stdout)
    assert [each["remaining_seconds"] for each in listed] == [None, 259_200.0, 0.0, None]
    assert "stays" in brainy(cluster, "generations", "--keep", "0").stdout
    assert cluster.calls("SetRetention")[-1].keep
    assert "deleted in 12 hours" in brainy(cluster, "generations", "--delete", "0", "--retain", "12h").stdout
    assert cluster.calls("SetRetention")[-1].retain.seconds == 43_200
    assert brainy(cluster, "generations", "--keep", "0", "--delete", "1").exit_code == Exit.USAGE


def test_waves_are_asked_for_and_shown(cluster: FakeCluster) -> None:
    assert brainy(cluster, "migrate", "start", "--max-unavailable", "2", "--bake", "30").exit_code == 0
    request = cluster.calls("StartMigration")[-1]
    assert (request.max_unavailable, request.bake.seconds) == (2, 30)
    wave = migration_pb2.MigrationWave
    cluster.migration.waves.extend(
        [
            wave(nodes=["a", "b"], state=wave.STATE_DONE),
            wave(nodes=["c"], state=wave.STATE_BAKING, baked=duration_pb2.Duration(seconds=12), complaint="disk"),
            wave(nodes=["d"], state=wave.STATE_WAITING),
        ]
    )
    told = brainy(cluster, "migrate", "show", "m-1").stdout
    assert "a+b (done), c (baking 12 s: disk), d (waiting)" in told
    assert brainy(cluster, "migrate", "start", "--plan", "p-1", "--bake", "3").exit_code == Exit.USAGE


@pytest.mark.parametrize(
    ("verb", "ends", "code"),
    [
        ("promote", migration_pb2.MIGRATION_STATE_SUCCEEDED, 0),
        ("promote", migration_pb2.MIGRATION_STATE_OBSERVING, 0),
        ("promote", migration_pb2.MIGRATION_STATE_ABORTED, 1),
        ("rollback", migration_pb2.MIGRATION_STATE_ABORTED, 0),
        ("complete", migration_pb2.MIGRATION_STATE_SUCCEEDED, 0),
        ("start", migration_pb2.MIGRATION_STATE_ABORTED, 1),
        ("start", migration_pb2.MIGRATION_STATE_SUCCEEDED, 0),
    ],
)
def test_scripts_wait_and_read_the_exit_status(cluster: FakeCluster, verb: str, ends: int, code: int) -> None:
    cluster.watch_states = [migration_pb2.MIGRATION_STATE_CUTTING_OVER, ends]
    arguments = ("migrate", verb) if verb == "start" else ("migrate", verb, "m-1")
    assert brainy(cluster, *arguments, "--wait").exit_code == code
