"""LocalCluster with stand-ins for the roles: real processes, real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from brainy import InvalidRequestError, LocalCluster, NotFoundError, PreconditionError, UnavailableError
from brainy.errors import CorruptDataError
from brainy.sdk.local_cluster import Roles, default_directory

ROLE = str(Path(__file__).with_name("sdk_role_fake.py"))
ROLES = Roles(coordinator=(ROLE,), node=(ROLE,))


def make(tmp_path: Path, *, name: str = "data", **options: object) -> LocalCluster:
    return LocalCluster(f"file://{tmp_path}/{name}", directory=tmp_path / "state", roles=ROLES, **options)


def spawn(program: str, **pipes: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program], **pipes)


async def test_cluster_starts_serves_and_leaves_nothing_behind(tmp_path):
    async with make(tmp_path, nodes=2) as cluster:
        pids = [process.record.pid for process in cluster.processes]
        assert [node.name for node in cluster.nodes] == ["node-1", "node-2"]
        assert len(cluster.endpoints) == 2
        async with cluster.client() as brainy:
            assert (await brainy.get_statistics()).noun_count == 0
        assert (tmp_path / "state" / "cluster.json").exists()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not (tmp_path / "state" / "cluster.json").exists()


async def test_killed_node_is_gone_and_a_new_one_gets_a_new_name(tmp_path):
    async with make(tmp_path, nodes=2) as cluster:
        pid = cluster.nodes[0].record.pid
        assert await cluster.kill_node(0) == "node-1"
        assert not psutil.pid_exists(pid)
        node = await cluster.start_node()
        assert node.name == "node-3"
        assert node.address in cluster.endpoints
        with pytest.raises(NotFoundError):
            await cluster.kill_node(7)


async def test_coordinator_comes_back_at_its_address(tmp_path):
    async with make(tmp_path, nodes=1) as cluster:
        address, pid = cluster.coordinator, cluster.processes[0].record.pid
        await cluster.restart_coordinator()
        assert cluster.coordinator == address
        assert cluster._processes["coordinator"].record.pid != pid


async def test_attached_cluster_is_stopped_by_another_object(tmp_path):
    started = await make(tmp_path, nodes=1, leashed=False).start()
    attached = LocalCluster.attach(tmp_path / "state")
    assert attached is not None
    assert attached.endpoints == started.endpoints
    assert str(attached.namespace) == str(started.namespace)
    with pytest.raises(PreconditionError, match="already runs"):
        await make(tmp_path, nodes=1).start()
    await attached.stop()
    # Threads of a process may outlive its first one for a moment.
    codes = [await asyncio.to_thread(process._child.wait, 5) for process in started.processes]
    assert codes == [0, 0]
    assert LocalCluster.attach(tmp_path / "state") is None


async def test_pid_of_a_stranger_is_not_signalled(tmp_path):
    started = await make(tmp_path, nodes=1, leashed=False).start()
    pid = started.nodes[0].record.pid
    stranger = spawn("input()", stdin=subprocess.PIPE)
    file = tmp_path / "state" / "cluster.json"
    file.write_text(file.read_text().replace(f'"pid": {pid}', f'"pid": {stranger.pid}'))
    attached = LocalCluster.attach(tmp_path / "state")
    await attached.stop()
    assert stranger.poll() is None
    stranger.communicate(b"\n")
    await started.stop()
    assert not psutil.pid_exists(pid)


async def test_stubborn_process_is_killed_after_the_grace(tmp_path):
    cluster = await make(tmp_path, name="stubborn", nodes=1).start()
    pids = [process.record.pid for process in cluster.processes]
    await cluster.stop(grace_seconds=0.3)
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_failure_to_start_quotes_the_log(tmp_path):
    with pytest.raises(UnavailableError, match="this role is unwilling") as caught:
        await make(tmp_path, name="unwilling").start()
    assert caught.value.fields["log"] == str(tmp_path / "state" / "logs" / "coordinator.log")


async def test_leashed_children_end_with_their_parent(tmp_path):
    program = (
        "import asyncio\n"
        "from brainy import LocalCluster\n"
        "from brainy.sdk.local_cluster import Roles\n"
        f"roles = Roles(coordinator=({ROLE!r},), node=({ROLE!r},))\n"
        "async def main():\n"
        f"    cluster = LocalCluster('file://{tmp_path}/data', nodes=1, directory='{tmp_path}', roles=roles)\n"
        "    await cluster.start()\n"
        "    print(*(process.record.pid for process in cluster.processes), flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = spawn(program, stdout=subprocess.PIPE)
    pids = [int(pid) for pid in (await asyncio.to_thread(parent.stdout.readline)).split()]
    assert len(pids) == 2
    assert all(psutil.pid_exists(pid) for pid in pids)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    children = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, timeout=10)
    assert alive == []


def test_descriptions_are_checked(tmp_path):
    with pytest.raises(InvalidRequestError, match="memory"):
        LocalCluster("memory://some-name")
    with pytest.raises(InvalidRequestError, match="at least one node"):
        make(tmp_path, nodes=0)
    (tmp_path / "cluster.json").write_text("{}")
    with pytest.raises(CorruptDataError):
        LocalCluster.attach(tmp_path)
    assert default_directory("file:///a") == default_directory("file:///a/")
    assert default_directory("file:///a") != default_directory("file:///b")
