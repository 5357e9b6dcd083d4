"""create_auto_brainy: where it connects, what it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from sdk_cluster_fake import FakeCluster

import brainy
from brainy import InvalidRequestError, LocalCluster, S3Config, create_auto_brainy, create_auto_brainy_async
from brainy.sdk import auto
from brainy.sdk.local_cluster import Roles
from brainy.sdk.loop_thread import LOOP

ROLE = str(Path(__file__).with_name("sdk_role_fake.py"))


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
        create_auto_brainy(max_memory_usage=3)


def test_options_become_settings_of_the_processes():
    assert auto._namespace_settings(0, 0) == {}
    assert auto._namespace_settings(384, 5_000_000) == {
        "BRAINY_COORDINATOR__DIMENSIONS": "384",
        "BRAINY_COORDINATOR__SHARD_COUNT": "20",
    }
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
