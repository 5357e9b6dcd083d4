"""create_auto_brainy: where it connects, what it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from sdk_cluster_fake import FakeCluster
from structlog.testing import capture_logs

import brainy
from brainy import (
    AsyncBrainy,
    InvalidRequestError,
    LocalCluster,
    S3Config,
    create_auto_brainy,
    create_auto_brainy_async,
    create_quick_brainy,
)
from brainy.config.environment import inherited
from brainy.sdk import auto, quick
from brainy.sdk.local_cluster import Roles
from brainy.sdk.loop_thread import LOOP
from brainy.sdk.machine import Machine

ROLE = str(Path(__file__).with_name("sdk_role_fake.py"))


@pytest.fixture(autouse=True)
def logs_as_before():
    known, configured = structlog.is_configured(), structlog.get_config()
    yield
    structlog.reset_defaults()
    if known:
        structlog.configure(**configured)


@pytest.fixture
def roles(monkeypatch):
    """Start stand-ins instead of the real roles."""
    stand_ins = Roles(coordinator=(ROLE,), node=(ROLE,))
    monkeypatch.setattr("brainy.sdk.local_cluster.Roles", lambda: stand_ins)


@pytest.fixture
def address(monkeypatch):
    fake = FakeCluster()
    _, bound = LOOP.run(fake.serve())
    yield bound
    LOOP.run(fake.close())


def test_connects_to_endpoints(address):
    with create_auto_brainy(endpoints=[address]) as client:
        client.add([1.0], id="a")
        assert client.get("a") is not None


def test_connects_to_endpoints_of_the_environment(address, monkeypatch):
    monkeypatch.setenv("BRAINY_ENDPOINTS", address)
    with create_auto_brainy() as client:
        assert client.asynchronous._node_pool.addresses == (address,)


def test_embeds_a_cluster_and_ends_it_with_the_client(roles, tmp_path):
    state = tmp_path / "state"
    with create_auto_brainy(f"file://{tmp_path}/data", state_directory=state) as client:
        assert LocalCluster.attach(state) is not None
        assert client.namespace == f"file://{tmp_path}/data"
        assert client.get_statistics().noun_count == 0
    assert LocalCluster.attach(state) is None


async def test_joins_a_cluster_that_runs_already(roles, tmp_path):
    state = tmp_path / "state"
    async with LocalCluster(f"file://{tmp_path}/data", nodes=2, directory=state) as cluster:
        client = await create_auto_brainy_async(f"file://{tmp_path}/data", state_directory=state)
        assert set(cluster.endpoints) <= set(client._node_pool.addresses)
        await client.close()
        assert LocalCluster.attach(state) is not None


def test_options_that_exclude_each_other_are_refused():
    with pytest.raises(InvalidRequestError, match="give one of them"):
        create_auto_brainy("file:///x", bucket_name="bucket")
    with pytest.raises(InvalidRequestError, match="region belongs"):
        create_auto_brainy("file:///x", region="eu-central-1")
    with pytest.raises(TypeError):
        create_auto_brainy(max_memory=3)
    with pytest.raises(InvalidRequestError, match="max_memory_usage does not hold"):
        create_auto_brainy("file:///x", max_memory_usage=3)


def test_options_become_settings_of_the_processes(roles, tmp_path, monkeypatch):
    started = {}

    class Seen(LocalCluster):
        def __init__(self, namespace, **options):
            started.update(options)
            super().__init__(namespace, **options)

    monkeypatch.setattr(auto, "LocalCluster", Seen)
    with create_auto_brainy(
        f"file://{tmp_path}/data",
        state_directory=tmp_path / "state",
        nodes=2,
        dimensions=384,
        expected_dataset_size=5_000_000,
        max_memory_usage=4 << 30,
        target_search_latency=500,
        read_only_mode=True,
    ) as client:
        assert client.is_read_only
    assert started["nodes"] == 2
    assert started["settings"] == {
        "BRAINY_COORDINATOR__DIMENSIONS": "384",
        "BRAINY_COORDINATOR__SHARD_COUNT": "20",
        "BRAINY_COORDINATOR__SCALAR_KIND": "i8",
        "BRAINY_NODE__FOLD_RECORDS": "1187",
        "BRAINY_NODE__EXPANSION_SEARCH": "128",
    }


def test_what_has_no_effect_is_said(address):
    with (
        capture_logs() as lines,
        create_auto_brainy(
            endpoints=[address], expected_dataset_size=10, auto_configure_environment=True, learning_enabled=True
        ),
    ):
        pass
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == [
        "learning_not_available",
        "cluster_options_ignored",
    ]
    assert lines[1]["options"] == ["auto_configure_environment", "expected_dataset_size"]


def test_debug_says_on_standard_error_what_was_decided(address):
    program = f"from brainy import create_auto_brainy\ncreate_auto_brainy(endpoints=['{address}']).close()"
    for debug in ("true", ""):
        ended = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=30,
            env=inherited(BRAINY_DEBUG=debug),
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == ""
        assert ("auto_brainy_connects" in ended.stderr) == bool(debug)
        assert bool(ended.stderr) == bool(debug)


def test_a_scenario_fills_in_what_is_not_given(monkeypatch):
    asked = {}

    async def remember(namespace, **options):
        asked.update(options)
        return AsyncBrainy(["127.0.0.1:1"])

    monkeypatch.setattr(quick, "create_auto_brainy_async", remember)
    monkeypatch.setattr(Machine, "here", lambda: Machine(cores=16, memory_bytes=20 << 30))
    create_quick_brainy("enterprise", bucket_name="large-vectors", target_search_latency=80).close()
    assert asked == {
        "bucket_name": "large-vectors",
        "expected_dataset_size": 10_000_000,
        "max_memory_usage": int(0.8 * 0.7 * (20 << 30)),
        "target_search_latency": 80,
        "auto_configure_environment": True,
    }
    asked.clear()
    create_quick_brainy("medium").close()
    assert (asked["expected_dataset_size"], asked["max_memory_usage"]) == (100_000, 4 << 30)
    asked.clear()
    create_quick_brainy("large", endpoints="127.0.0.1:1").close()
    assert asked == {"endpoints": "127.0.0.1:1"}


def test_a_scenario_that_is_none_or_has_no_place_is_refused():
    with pytest.raises(InvalidRequestError, match="no such scenario"):
        create_quick_brainy("huge")
    with pytest.raises(InvalidRequestError, match="place of your choice"):
        create_quick_brainy("large")


def test_an_s3_config_becomes_variables():
    config = S3Config(bucket_name="shared-bucket/app-name/v2", region="us-east-1", access_key_id="k")
    assert config.namespace == "s3://shared-bucket/app-name/v2"
    assert config.settings() == {
        "BRAINY_STORE__REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "k",
    }
    assert "secret" not in repr(S3Config(bucket_name="b", secret_access_key="secret"))


def test_public_names_are_what_all_says():
    assert brainy.__all__ == sorted(brainy.__all__)
    for name in brainy.__all__:
        assert getattr(brainy, name) is not None
    assert set(brainy.__all__) <= set(dir(brainy))
    with pytest.raises(AttributeError):
        brainy.nothing  # noqa: B018 - the access is the test
