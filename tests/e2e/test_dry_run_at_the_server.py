"""A dry run writes nothing: counted in front of a real S3 server, of all processes of a cluster; not our own meter."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from brainy.config.settings import StoreSettings
from brainy.errors import PreconditionError
from brainy.sdk.local_cluster import LocalCluster
from brainy.testing.proxy import LossyProxy
from brainy.testing.servers import S3Server
from tests.conftest import BUCKET
from tests.e2e.conftest import QUICK
from tests.e2e.pages import put_sample

#: Requests that change nothing at the store.
READS = ("GET", "HEAD")


def writes(proxy: LossyProxy) -> list[tuple[str, str]]:
    return [each for each in proxy.passed if each[0] not in READS]


async def quiet(proxy: LossyProxy, seconds: float = 1.5) -> None:
    """Wait until the cluster has written nothing for a while: what follows is what is asked of it."""
    async with asyncio.timeout(60):
        while True:
            proxy.passed.clear()
            await asyncio.sleep(seconds)
            if not writes(proxy):
                return


@pytest.mark.long
@pytest.mark.parametrize("server", ["ministack_server", "seaweedfs_server"])
async def test_plan_and_start_write_nothing(
    server: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: S3Server = request.getfixturevalue(server)
    for name, value in real.environment.items():
        monkeypatch.setenv(name, value)
    namespace = f"s3://{BUCKET}/dry-run-{tmp_path.name}"
    async with LossyProxy(real.endpoint) as proxy:
        variables = {name: proxy.endpoint if "ENDPOINT" in name else text for name, text in real.environment.items()}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        await put_sample(namespace, StoreSettings(endpoint=proxy.endpoint))
        # The leader renews its lease at a third of it: with one this long it does not within the test.
        settings = {**QUICK, **variables, "BRAINY_COORDINATOR__LEADER_LEASE_SECONDS": "3000"}
        cluster = LocalCluster(namespace, nodes=1, directory=tmp_path / "cluster", settings=settings)
        await cluster.start(timeout_seconds=110)
        client = cluster.client()
        try:
            kept = await client.plan_migration("rolling", quarantine_limit=1000)
            confirm = [each.name for each in kept.confirmations]
            await quiet(proxy)

            proxy.passed.clear()
            tried = await client.plan_migration("rolling", quarantine_limit=1000, dry_run=True)
            chosen = await client.plan_migration(quarantine_limit=1000, dry_run=True)
            assert (tried.id, chosen.id) == ("", "")
            planning, seen = writes(proxy), len(proxy.passed)
            unplanned = await client.start_migration("rolling", quarantine_limit=1000, validate_only=True)
            planned = await client.execute_plan(kept.id, confirm=confirm, validate_only=True)
            assert (unplanned.id, planned.id) == ("", "")
            with pytest.raises(PreconditionError, match="not confirmed"):
                await client.execute_plan(kept.id, validate_only=True)
            starting = writes(proxy)[len(planning) :]
            assert seen > 0
            assert len(proxy.passed) > seen
            assert (planning, starting) == ([], [])
            print(f"\n{server}: {len(proxy.passed)} requests, 0 of them PUT, DELETE or POST")

            # What is counted counts: a plan that is kept, and the probes of its checks, are seen.
            await client.plan_migration("rolling", quarantine_limit=1000)
            assert {method for method, path in writes(proxy) if "/probe" in path or "?delete" in path} >= {"PUT"}
            assert any("/cluster/migrations/plans/" in path for method, path in writes(proxy) if method == "PUT")
        finally:
            await client.close()
            await cluster.stop(grace_seconds=5.0)
