"""Backup and restore with real processes: killed and gone on with, beside a writer, by command alone."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainy.backup.opening import check_backup
from brainy.backup.values import BackupFormat
from brainy.backup.writing import BackupOptions, write_backup
from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.ids import Ids
from brainy.samples import sample_objects, sample_truth
from brainy.sdk.client import AsyncBrainy
from brainy.store.opening import open_store
from tests.e2e.conftest import RunCluster
from tests.e2e.truth import assert_holds


async def sample_bucket(directory: Path) -> str:
    namespace = f"file://{directory}"
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    for key, body, user_metadata in sample_objects():
        await store.put(key, body, user_metadata=user_metadata)
    await store.close()
    return namespace


async def back_up(namespace: str, path: Path, kind: BackupFormat = BackupFormat.NATIVE) -> None:
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    await write_backup(store, namespace, path, BackupOptions(format=kind), clock=SystemClock(), ids=Ids())
    await store.close()


class Worker:
    """A process of ``backup_worker``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, *arguments: str) -> Worker:
        command = (sys.executable, "-m", "tests.e2e.backup_worker", *arguments)
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 24))

    async def line(self) -> str:
        """Return the next line that is its own, not a log's."""
        assert self.process.stdout is not None
        while True:
            line = (await asyncio.wait_for(self.process.stdout.readline(), 60)).decode().strip()
            if not line or line.isdigit() or line.startswith("{"):
                return line

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def kill_at_step(self, number: int) -> bool:
        """SIGKILL it at its n-th step; False if it had fewer."""
        for _ in range(number):
            if not (await self.line()).isdigit():
                await self.process.wait()
                return False
            self.go_on()
        await self.line()
        self.process.kill()
        await self.process.wait()
        return True

    async def kill_once(self, happened: Callable[[], Awaitable[bool]]) -> None:
        """Let it go on, and SIGKILL it as soon as something has happened."""

        async def let_go_on() -> None:
            while (await self.line()).isdigit():
                self.go_on()

        going = asyncio.create_task(let_go_on())
        while not await happened():
            await asyncio.sleep(0.002)
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await going

    async def result(self) -> Any:
        while (line := await self.line()).isdigit():
            self.go_on()
        await self.process.wait()
        return json.loads(line)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_backup_killed_at_any_step_goes_on(tmp_path: Path) -> None:
    namespace = await sample_bucket(tmp_path / "bucket")
    await back_up(namespace, tmp_path / "whole.backup")
    whole = check_backup(tmp_path / "whole.backup").verification.digest
    path = tmp_path / "b.backup"
    for steps in (0, 1, 3, 2):
        worker = await Worker.start("backup", namespace, str(path))
        assert await worker.kill_at_step(steps)
        assert not await asyncio.to_thread(path.exists)
    done = await (await Worker.start("backup", namespace, str(path))).result()
    assert done["resumed"]
    assert check_backup(path).verification.digest == whole
    names = await asyncio.to_thread(lambda: sorted(entry.name for entry in tmp_path.iterdir()))
    assert names == ["b.backup", "bucket", "whole.backup"]


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_restore_killed_at_any_step_loses_nothing_and_goes_on(tmp_path: Path, run_cluster: RunCluster) -> None:
    namespace = await sample_bucket(tmp_path / "bucket")
    for kind in BackupFormat:
        await back_up(namespace, tmp_path / f"b.{kind}", kind)
    async with run_cluster(f"file://{tmp_path}/target", nodes=1) as (cluster, client):
        (endpoint,) = cluster.endpoints
        await client.add(np.ones(32), {"old": True}, id="old")
        for kind, steps in ((BackupFormat.NATIVE, 0), (BackupFormat.BRAINY, 0)):
            worker = await Worker.start("restore", str(tmp_path / f"b.{kind}"), endpoint)
            assert await worker.kill_at_step(steps)
            assert await client.get("old") is not None
        some = next(iter(sample_truth()["nouns"]))

        async def landed() -> bool:
            return await client.get(some) is not None

        worker = await Worker.start("restore", str(tmp_path / "b.brainy"), endpoint)
        await worker.kill_once(landed)
        done = await (await Worker.start("restore", str(tmp_path / "b.brainy"), endpoint)).result()
        assert done["unchanged"] > 0
        assert done["nouns_restored"] == 189
        assert await client.get("old") is None
        await assert_holds(client, sample_truth())
        again = await (await Worker.start("restore", str(tmp_path / "b.native"), endpoint)).result()
        assert again["unchanged"] == again["nouns_restored"] + again["verbs_restored"]


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_backup_beside_a_writer_has_all_that_was_acknowledged_before_it(
    tmp_path: Path, run_cluster: RunCluster
) -> None:
    namespace = await sample_bucket(tmp_path / "bucket")
    async with run_cluster(namespace, nodes=2) as (_, client):
        acknowledged = [0]

        async def write() -> None:
            while True:
                number = acknowledged[0] + 1
                await client.add(np.full(32, number), {"n": number}, id=f"w{number:06d}")
                acknowledged[0] = number

        writer = asyncio.create_task(write())
        try:
            for turn in range(4):
                while acknowledged[0] < 20 * (turn + 1):
                    await asyncio.sleep(0.01)
                low = acknowledged[0]
                path = tmp_path / f"{turn}.backup"
                if turn < 2:
                    await client.backup_to(path, format="native" if turn else "brainy")
                else:
                    await client.backup_to(path, "native", since=tmp_path / "1.backup")
                high = acknowledged[0]
                backup = check_backup(path)
                found = {noun.id for batch in backup.items() for noun in batch.nouns if noun.id[0] == "w"}
                numbers = {int(name[1:]) for name in found if name[1:].isdigit()}
                assert set(range(1, low + 1)) <= numbers
                assert max(numbers) <= high + 1
        finally:
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer


async def brainy(*arguments: str) -> tuple[int, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "brainy.cli.main", *arguments, "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    text = out or error
    return process.returncode or 0, json.loads(text) if text.strip().startswith(b"{") else text


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_the_commands_need_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    namespace = await sample_bucket(tmp_path / "bucket")
    archive, target = str(tmp_path / "b.backup"), f"file://{tmp_path}/target"
    code, made = await brainy("backup", namespace, "-o", archive, "--format", "native")
    assert (code, made["nouns"], made["format"]) == (0, 189, "native")
    code, found = await brainy("verify-backup", archive)
    assert (code, found["digest"], found["sealed"]) == (0, made["digest"], True)
    code, tried = await brainy("restore", archive, target, "--dry-run")
    assert (code, tried["dry_run"], tried["nouns_restored"]) == (0, True, 189)
    code, done = await brainy("restore", archive, target)
    assert (code, done["nouns_restored"], done["verbs_restored"], done["skipped"]) == (0, 189, 287, [])
    # From the new namespace back into Brainy's JSON, and into a third one.
    document = str(tmp_path / "b.json")
    code, again = await brainy("backup", target, "-o", document)
    assert (code, again["digest"]) == (0, made["digest"])
    code, _ = await brainy("restore", document, f"file://{tmp_path}/third", "--clear-existing")
    assert code == 0
    assert (await brainy("restore", document, target, "--keep", "--clear-existing"))[0] == 2
    code, refused = await brainy("restore", document, target, "--dimensions", "7")
    assert (code, refused["error"]["reason"]) == (4, "INVALID_DIMENSION")
    body = await asyncio.to_thread(Path(archive).read_bytes)
    await asyncio.to_thread(Path(archive).write_bytes, body[:-1000])
    code, damaged = await brainy("verify-backup", archive)
    assert (code, damaged["error"]["reason"]) == (6, "CORRUPT_DATA")
    assert (await brainy("restore", archive, target))[0] == 6
    assert (await brainy("verify-backup", str(tmp_path / "none")))[0] == 3
    async with AsyncBrainy(["127.0.0.1:1"]) as client:
        assert (await client.verify_backup(document)).nouns == 189
