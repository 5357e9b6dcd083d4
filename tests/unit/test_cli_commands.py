"""The command against a fake cluster: output, JSON, exit status."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from sdk_cluster_fake import FakeCluster
from typer.testing import CliRunner

from brainy import errors
from brainy.api.common.v1 import common_pb2
from brainy.api.coordinator.v1 import migration_pb2
from brainy.cli.exits import Exit, exit_of, table
from brainy.cli.items import parse_vector
from brainy.cli.main import app
from brainy.samples import sample_objects
from brainy.sdk.local_cluster import LocalCluster, Roles
from brainy.sdk.loop_thread import LOOP
from brainy.store.memory import MemoryStore
from brainy.testing.faulty import UnconditionalStore

ROLE = str(Path(__file__).with_name("sdk_role_fake.py"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Give each test a user's cache of its own, without clusters."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("BRAINY_ENDPOINTS", "BRAINY_COORDINATORS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cluster():
    fake = FakeCluster()
    _, fake.address = LOOP.run(fake.serve())
    fake.nouns["a"] = common_pb2.Noun(id="a", vector=b"\0\0\x80?\0\0\0\0", metadata=b'{"t":"[x]"}')
    fake.nouns["b"] = common_pb2.Noun(id="b", vector=b"\0\0\0\0\0\0\x80?")
    fake.verbs["v"] = common_pb2.Verb(id="v", source_id="a", target_id="b", type="likes", weight=0.5)
    yield fake
    LOOP.run(fake.close())


@pytest.fixture
def roles(monkeypatch):
    stand_ins = Roles(coordinator=(ROLE,), node=(ROLE,))
    monkeypatch.setattr("brainy.sdk.local_cluster.Roles", lambda: stand_ins)


def brainy(*arguments: str):
    return CliRunner().invoke(app, arguments)


def test_search_prints_neighbours(cluster):
    told = brainy("search", "--vector", "1,0.2", "-k", "1", "-e", cluster.address)
    assert told.exit_code == 0
    assert "a" in told.stdout
    assert '{"t":"[x]"}' in told.stdout


def test_search_by_id_as_json(cluster):
    told = brainy("search", "--id", "b", "-e", cluster.address, "--json")
    assert told.exit_code == 0
    assert [hit["id"] for hit in json.loads(told.stdout)] == ["b", "a"]
    assert json.loads(told.stdout)[1]["metadata"] == {"t": "[x]"}


def test_get_noun_and_verb(cluster):
    noun = json.loads(brainy("get", "a", "-e", cluster.address, "--json").stdout)
    assert noun["vector"] == [1.0, 0.0]
    assert noun["metadata"] == {"t": "[x]"}
    verb = json.loads(brainy("get", "v", "--verb", "-e", cluster.address, "--json").stdout)
    assert (verb["source"], verb["target"], verb["weight"]) == ("a", "b", 0.5)
    assert "likes" in brainy("get", "v", "--verb", "-e", cluster.address).stdout


def test_missing_item_is_exit_3_with_what_where_and_remedy(cluster):
    told = brainy("get", "nobody", "-e", cluster.address)
    assert told.exit_code == Exit.NOT_FOUND
    assert told.stdout == ""
    assert "no such noun" in told.stderr
    assert "nobody" in told.stderr
    assert "what to do: check the id" in told.stderr


def test_errors_as_json_go_to_standard_error(cluster):
    told = brainy("get", "nobody", "-e", cluster.address, "--json")
    assert told.stdout == ""
    error = json.loads(told.stderr)["error"]
    assert (error["kind"], error["where"]["id"]) == ("NotFoundError", "nobody")


def test_usage_is_exit_2(cluster):
    assert brainy("search", "-e", cluster.address).exit_code == Exit.USAGE
    assert brainy("search", "--vector", "1,x", "-e", cluster.address).exit_code == Exit.USAGE
    assert brainy("search", "--no-such-option").exit_code == Exit.USAGE
    assert brainy("inspect", "ftp://x").exit_code == Exit.USAGE
    assert brainy("get", "a", "-e", "nonsense").exit_code == Exit.USAGE


def test_no_cluster_is_exit_3():
    assert brainy("status").exit_code == Exit.NOT_FOUND
    assert brainy("down", "file:///nothing").exit_code == Exit.NOT_FOUND


def test_endpoints_come_from_the_environment(cluster, monkeypatch):
    monkeypatch.setenv("BRAINY_ENDPOINTS", cluster.address)
    assert brainy("get", "a").exit_code == 0


def test_status_shows_namespaces_and_nodes(cluster):
    cluster.alive = [cluster.address]
    told = brainy("status", "-c", cluster.address)
    assert told.exit_code == 0
    assert "file:///x" in told.stdout
    assert cluster.address in told.stdout
    found = json.loads(brainy("status", "-c", cluster.address, "--json").stdout)
    assert found["namespaces"][0]["active_generation"] == 1
    assert found["nodes"][0]["state"] == "alive"


def test_migration_from_plan_to_abort(cluster):
    coordinator = ("-c", cluster.address)
    assert "fill" in brainy("migrate", "plan", *coordinator).stdout
    begun = brainy("migrate", "start", "--strategy", "in-place-upgrade", "--shards", "8", *coordinator, "--json")
    assert json.loads(begun.stdout)["state"] == "PENDING"
    (request,) = cluster.calls("StartMigration")
    assert request.strategy == migration_pb2.STRATEGY_IN_PLACE_UPGRADE
    assert request.target.shard_count == 8
    assert "by the brainy command" in request.requested_by
    assert "m-1" in brainy("migrate", "show", "m-1", *coordinator).stdout
    assert [one["id"] for one in json.loads(brainy("migrate", "list", *coordinator, "--json").stdout)] == [
        "m-1",
        "m-2",
    ]
    refused = brainy("migrate", "abort", "m-1", *coordinator)
    assert refused.exit_code == Exit.PRECONDITION
    assert "PAST_POINT_OF_NO_RETURN" in refused.stderr
    assert brainy("migrate", "show", "m-9", *coordinator).exit_code == Exit.NOT_FOUND


def test_the_way_back_on_the_command_line(cluster):
    coordinator = ("-c", cluster.address)
    begun = brainy("migrate", "start", "--keep-way-back", "--hold", "--observe", "60", *coordinator, "--json")
    assert begun.exit_code == 0
    (request,) = cluster.calls("StartMigration")
    assert (request.keep_way_back, request.hold_before_switch, request.observe.seconds) == (True, True, 60)
    limits = ("--rollback-if", "error-rate>0.01", "--rollback-if", "p99>250ms", "--min-calls", "7")
    assert brainy("migrate", "plan", "--keep-way-back", *limits, *coordinator).exit_code == 0
    asked = cluster.calls("PlanMigration")[-1].rollback_if
    assert (asked.error_rate, asked.p99_seconds, asked.min_calls) == (0.01, 0.25, 7)
    assert brainy("migrate", "start", "--plan", "p-1", *limits, *coordinator).exit_code == Exit.USAGE
    wrong = brainy("migrate", "start", "--keep-way-back", "--rollback-if", "p99", *coordinator)
    assert wrong.exit_code == Exit.USAGE
    assert "error-rate>0.01" in " ".join(wrong.stderr.split())
    cluster.migration.rollback_if.CopyFrom(asked)
    cluster.migration.served.CopyFrom(
        migration_pb2.ServingFigures(calls=1000, failed=1, reads=900, queries=5, overlap=0.5)
    )
    cluster.migration.served_before.CopyFrom(migration_pb2.ServingFigures(calls=200, writes=200))
    cluster.migration.observed.FromSeconds(12)
    shown = " ".join(brainy("migrate", "show", "m-1", *coordinator).stdout.split())
    assert "error-rate>0.01 or p99>0.25s" in shown
    assert "1,000 calls, 0.10% failed, p99 0 ms, overlap 50.00% of 5 queries; watched for 12 s" in shown
    told = json.loads(brainy("migrate", "show", "m-1", *coordinator, "--json").stdout)
    assert (told["served"]["failed"], told["observed_seconds"]) == (1, 12.0)
    assert brainy("migrate", "promote", "m-1", *coordinator).exit_code == 0
    assert json.loads(brainy("migrate", "pause", "m-1", "--reason", "lunch", *coordinator, "--json").stdout)[
        "paused"
    ] == ["lunch"]
    assert brainy("migrate", "resume", "m-1", *coordinator).exit_code == 0
    assert brainy("migrate", "rollback", "m-1", "--reason", "slow", *coordinator).exit_code == 0
    assert cluster.calls("RollbackMigration")[-1].reason == "slow"
    dry = brainy("migrate", "complete", "m-1", "--dry-run", *coordinator)
    said = " ".join(dry.stdout.split())
    assert "cluster/generations/0/ would not be served any more" in said
    assert "3 nouns (3.1 MB)" in said
    assert cluster.calls("CompleteMigration")[-1].validate_only
    done = json.loads(brainy("migrate", "complete", "m-1", "--retain", "2d12h", *coordinator, "--json").stdout)
    assert cluster.calls("CompleteMigration")[-1].retain.seconds == 216_000
    assert (done["retain_seconds"], done["deletes"]) == (
        216_000,
        [{"kind": "nouns", "objects": 3, "bytes": 3 << 20}],
    )
    assert (done["state"], done["retired"]) == ("COMPLETING", ["cluster/generations/0/"])
    cluster.refuse("RollbackMigration", grpc.StatusCode.FAILED_PRECONDITION, "PAST_POINT_OF_NO_RETURN")
    assert brainy("migrate", "rollback", "m-1", *coordinator).exit_code == Exit.PRECONDITION


def test_a_copy_is_told_how_fast_and_tells_how_it_is(cluster):
    coordinator = ("-c", cluster.address)
    told = brainy("migrate", "rate", "m-1", "--items-per-second", "800", *coordinator)
    assert told.exit_code == 0, told.stderr
    (request,) = cluster.calls("SetCopyRate")
    assert (request.items_per_second, "by the brainy command" in request.requested_by) == (800.0, True)
    shown = " ".join(told.stdout.split())
    assert "reading 2,000 9,000 500 14 s" in shown
    assert "indexing 10 ? 0 ?" in shown
    assert "asked for: 800 items a second on each node" in shown
    assert "taken over from a copy that was cut short: 1,500 items" in shown
    assert "n1: 800 a second, set by somebody; 2 store calls repeated" in shown
    left = brainy("migrate", "rate", "m-1", "--items-per-second", "auto", *coordinator, "--json")
    assert not cluster.calls("SetCopyRate")[-1].HasField("items_per_second")
    copy = json.loads(left.stdout)["copy"]
    assert (copy["wanted"], copy["resumed"]) == (None, 1500)
    assert copy["stages"][0] == {
        "stage": "reading",
        "done": 2000,
        "total": 9000,
        "per_second": 500.0,
        "remaining_seconds": 14.0,
    }
    assert copy["limits"][0]["reason"] == "latency"
    assert "searches got slower" in brainy("migrate", "show", "m-1", *coordinator).stdout
    assert brainy("migrate", "rate", "m-1", "--items-per-second", "fast", *coordinator).exit_code == Exit.USAGE
    cluster.refuse("SetCopyRate", grpc.StatusCode.FAILED_PRECONDITION, "WRONG_PHASE")
    refused = brainy("migrate", "rate", "m-1", "--items-per-second", "5", *coordinator)
    assert refused.exit_code == Exit.PRECONDITION


def test_a_plan_is_shown_and_executed_by_its_id(cluster):
    coordinator = ("-c", cluster.address)
    told = brainy("migrate", "plan", "--shared", "--downtime", "inf", "--tolerance", "0.2", "--dry-run", *coordinator)
    assert told.exit_code == 0
    assert "brainy migrate start" in told.stdout
    assert "--plan p-1 --confirm no-way-back" in told.stdout
    (request,) = cluster.calls("PlanMigration")
    assert request.strategy == migration_pb2.STRATEGY_UNSPECIFIED
    assert request.dry_run
    assert request.item_tolerance == 0.2
    assert request.answers.shared
    assert not request.answers.HasField("old_writers")
    assert request.answers.downtime.seconds == 10**9
    shown = brainy("migrate", "show", "p-1", *coordinator, "--json")
    assert json.loads(shown.stdout)["confirmations"][0]["name"] == "no-way-back"
    assert brainy("migrate", "show", "p-2", *coordinator).exit_code == Exit.NOT_FOUND

    begun = brainy("migrate", "start", "--plan", "p-1", "--confirm", "a", "--confirm", "b", *coordinator)
    assert begun.exit_code == 0
    (request,) = cluster.calls("StartMigration")
    assert (request.plan_id, list(request.confirm), request.strategy) == ("p-1", ["a", "b"], 0)
    assert brainy("migrate", "start", "--plan", "p-1", "--shards", "8", *coordinator).exit_code == Exit.USAGE
    assert brainy("migrate", "start", "--confirm", "a", *coordinator).exit_code == Exit.USAGE

    cluster.plan.checks.add(name="space", passed=False, detail="n1 has 10", remedy="free disk")
    told = brainy("migrate", "plan", *coordinator)
    assert told.exit_code == Exit.PRECONDITION
    assert "space: n1 has 10 (free disk)" in told.stdout


def test_show_holds_a_migration_against_its_plan(cluster):
    cluster.outcome = migration_pb2.PlanOutcome(
        plan_id="p-1",
        as_planned=True,
        remaining=3,
        disturbances=["5 leader_changed: copying -> copying"],
        predicted=migration_pb2.PlanFigures(calls={"get": 1000}),
        measured=migration_pb2.PlanFigures(calls={"get": 1234}),
    )
    told = brainy("migrate", "show", "m-1", "-c", cluster.address).stdout
    assert "as planned, 3 transitions to come" in told
    assert "1,234 or more" in told
    assert "leader_changed" in told
    found = json.loads(brainy("migrate", "show", "m-1", "-c", cluster.address, "--json").stdout)
    assert found["outcome"]["measured"]["calls"] == {"get": 1234}


def test_watch_ends_with_the_migration(cluster):
    cluster.watch_states = [
        migration_pb2.MIGRATION_STATE_COPYING,
        migration_pb2.MIGRATION_STATE_SUCCEEDED,
    ]
    told = brainy("migrate", "watch", "m-1", "-c", cluster.address)
    assert told.exit_code == 0
    assert "copying" in told.stderr
    assert "SUCCEEDED" in told.stdout


def test_running_migration_is_exit_4(cluster):
    cluster.refuse("StartMigration", grpc.StatusCode.FAILED_PRECONDITION, "MIGRATION_RUNNING")
    told = brainy("migrate", "start", "-c", cluster.address)
    assert told.exit_code == Exit.PRECONDITION
    assert "MIGRATION_RUNNING" in told.stderr


def test_up_and_down(roles, tmp_path):
    namespace = f"file://{tmp_path}/data"
    begun = json.loads(brainy("up", namespace, "--nodes", "1", "--json").stdout)
    try:
        assert brainy("get", "a", "-n", namespace).exit_code == Exit.NOT_FOUND
        again = brainy("up", namespace, "--nodes", "1")
        assert again.exit_code == Exit.PRECONDITION
        assert "already runs" in again.stderr
        assert json.loads(brainy("status", "--json").stdout)["nodes"] == []
    finally:
        ended = brainy("down", "--json")
    assert json.loads(ended.stdout)["stopped"] == ["coordinator", "node-1"]
    assert LocalCluster.attach(begun["directory"]) is None


def test_inspect_tells_what_brainy_left(tmp_path):
    for key, body, _ in sample_objects():
        path = tmp_path / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    told = brainy("inspect", f"file://{tmp_path}/bucket")
    assert told.exit_code == 0
    assert "flat" in told.stdout
    found = json.loads(brainy("inspect", f"file://{tmp_path}/bucket", "--json").stdout)
    assert (found["nouns"], found["verbs"]) == (189, 287)


def test_inspect_of_nothing_is_exit_3(tmp_path):
    assert brainy("inspect", f"file://{tmp_path}/nothing").exit_code == Exit.NOT_FOUND


def test_backup_is_written(tmp_path):
    for key, body, _ in sample_objects():
        path = tmp_path / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    file = tmp_path / "backup.json"
    told = brainy("backup", f"file://{tmp_path}/bucket", "-o", str(file), "--json")
    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout)["nouns"] == 189
    assert len(json.loads(file.read_bytes())["nouns"]) == 189
    assert brainy("backup", f"file://{tmp_path}", "-o", "/no/such/place/b.json").exit_code == Exit.PRECONDITION


def test_version():
    assert json.loads(brainy("version", "--json").stdout)["brainy-cluster"] == "0.1.0"


@pytest.mark.parametrize("text", ["1,2.5,-3e-2", "[1, 2.5, -0.03]", "1 2.5 -0.03"])
def test_vectors_are_read_in_the_spellings_people_use(text):
    assert parse_vector(text) == [1.0, 2.5, -0.03]


def test_every_error_has_an_exit_status():
    kinds = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.BrainyError) and value is not errors.BrainyError
    ]
    assert len(kinds) > 10
    for kind in kinds:
        assert exit_of(kind("x")) not in (Exit.OK, Exit.FAILED_RESULT, Exit.INTERNAL)
    assert exit_of(errors.BrainyError("x")) is Exit.INTERNAL
    assert all(f"{code.value} " in table() for code in Exit)


def test_probe_says_what_a_store_is_fit_for(tmp_path):
    told = brainy("probe", f"file://{tmp_path}", "--json")
    assert told.exit_code == 0
    found = json.loads(told.stdout)
    assert (found["fit"], found["failed"], found["locks"]) == (True, None, {"s3": True, "redis": True})
    assert "locks kept in the store: safe" in brainy("probe", f"file://{tmp_path}").stdout


def test_probe_of_an_unfit_store_is_exit_4(tmp_path, monkeypatch):
    monkeypatch.setattr("brainy.cli.probe.bucket", lambda _: UnconditionalStore(MemoryStore()))
    told = brainy("probe", f"file://{tmp_path}", "--json")
    assert told.exit_code == Exit.PRECONDITION
    found = json.loads(told.stdout)
    assert (found["fit"], found["failed"], found["locks"]) == (False, "create-if-absent", {"s3": False, "redis": True})
    told = brainy("probe", f"file://{tmp_path}")
    assert told.exit_code == Exit.PRECONDITION
    assert "NOT safe" in told.stdout
    assert "unfit" in told.stdout
