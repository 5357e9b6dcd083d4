"""What end-to-end tests share: directory buckets with recorded content and clusters of real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster, Roles
from brainy.sdk.local_process import LocalProcess
from brainy.testing.servers import S3Server

#: Short times, so that failures are noticed within a test's patience; the protocols do not depend on them.
QUICK = {
    "BRAINY_COORDINATOR__LEADER_LEASE_SECONDS": "2",
    "BRAINY_COORDINATOR__HEARTBEAT_INTERVAL_SECONDS": "0.25",
    "BRAINY_COORDINATOR__NODE_TTL_SECONDS": "1.5",
    "BRAINY_COORDINATOR__TICK_SECONDS": "0.1",
    "BRAINY_NODE__ROUTING_POLL_SECONDS": "0.5",
}


@pytest.fixture
def object_server(seaweedfs_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """SeaweedFS, which stores that this process opens find as well."""
    for variable, value in seaweedfs_server.environment.items():
        monkeypatch.setenv(variable, value)
    return seaweedfs_server


RunCluster = Callable[..., AbstractAsyncContextManager[tuple[LocalCluster, AsyncBrainy]]]


@pytest.fixture
def run_cluster(tmp_path: Path) -> RunCluster:
    """Start a cluster on a namespace and a client of it; both end with the block."""

    @asynccontextmanager
    async def run(
        namespace: str,
        *,
        nodes: int = 3,
        coordinators: int = 1,
        settings: dict[str, str] | None = None,
        roles: Roles | None = None,
    ) -> AsyncIterator[tuple[LocalCluster, AsyncBrainy]]:
        cluster = LocalCluster(
            namespace,
            nodes=nodes,
            coordinators=coordinators,
            directory=tmp_path / "cluster",
            settings={**QUICK, **(settings or {})},
            roles=roles,
        )
        await cluster.start()
        client = cluster.client()
        try:
            yield cluster, client
        finally:
            await client.close()
            await cluster.stop(grace_seconds=5.0)

    return run


def events(process: LocalProcess) -> list[dict[str, Any]]:
    """What a process has logged; a line that is no JSON (a traceback) is an event of its own."""
    found = []
    for line in Path(process.record.log_file).read_text().splitlines():
        try:
            found.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            found.append({"event": "stray_line", "level": "error", "line": line})
    return found


def unexpected(cluster: LocalCluster) -> list[dict[str, Any]]:
    """Errors and tracebacks in the logs of a cluster's processes."""
    return [
        event
        for process in cluster.processes
        for event in events(process)
        if event.get("level") in ("error", "critical") or "exception" in event
    ]


def legacy_noun(noun_id: str, vector: object) -> tuple[str, bytes]:
    """A noun as Brainy 0.46 stores it."""
    stored = {"id": noun_id, "vector": vector, "connections": {}, "level": 0}
    return f"nouns/{noun_id}.json", orjson.dumps(stored, option=orjson.OPT_INDENT_2)
