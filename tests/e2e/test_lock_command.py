"""``brainy lock`` with real processes: coordinators, commands, their children."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from brainy.cli.exits import Exit
from brainy.config.environment import inherited

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

#: Prints what it was given, then waits; says so when it is asked to stop.
WORKER = """
import os, signal, sys
def stop(*_):
    print("stopped", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
print(os.environ["BRAINY_LOCK_NAME"], os.environ["BRAINY_LOCK_TOKEN"], os.getpid(), flush=True)
while True:
    signal.pause()
"""
STUBBORN = WORKER.replace("sys.exit(3)", "pass")


class Place:
    """A namespace in a directory with coordinators that serve it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.coordinators: list[tuple[Process, str]] = []
        self.commands: list[Process] = []

    async def add_coordinator(self) -> None:
        ready = self.directory / f"ready-{len(self.coordinators)}"
        with (self.directory / "coordinator.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "brainy_coordinator", "--namespace", f"file://{self.directory}/data"),
                *("--listen", "127.0.0.1:0", "--ready-file", str(ready), "--leader-lease", "2"),
                stdout=log,
                stderr=log,
            )
        await until(ready.exists, process)
        self.coordinators.append((process, json.loads(ready.read_text())["address"]))

    async def start(self, *arguments: str, coordinators: list[int] | None = None) -> Process:
        """Start ``brainy lock ...``; options of the target go right behind the subcommand."""
        chosen = self.coordinators if coordinators is None else [self.coordinators[place] for place in coordinators]
        targets = [text for _, address in chosen for text in ("--coordinator", address)]
        verb, *rest = arguments
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "brainy.cli.main", "lock", verb, *targets, *rest),
            stdout=PIPE,
            stderr=PIPE,
            env=inherited(XDG_CACHE_HOME=str(self.directory / "cache"), COLUMNS="200"),
        )
        self.commands.append(process)
        return process

    async def ask(self, *arguments: str) -> tuple[int, str, str]:
        process = await self.start(*arguments)
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def close(self) -> None:
        for process in (*self.commands, *(process for process, _ in self.coordinators)):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            await process.communicate()


async def until(condition: Callable[[], bool], process: Process) -> None:
    async with asyncio.timeout(60):
        while not condition():
            assert process.returncode is None, "the process has ended"
            await asyncio.sleep(0.02)


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()


async def ended(process: Process) -> int:
    return await asyncio.wait_for(process.wait(), 60)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    try:
        await made.add_coordinator()
        yield made
    finally:
        await made.close()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def python(text: str) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", text)


async def test_break_hands_the_lock_over_and_stops_the_first_command(place: Place) -> None:
    first = await place.start("run", "--ttl", "30", "--holder", "first", "nightly", *python(WORKER))
    name, token, pid = (await line(first)).split()
    assert (name, token) == ("nightly", "1")
    second = await place.start("run", "--ttl", "30", "--holder", "second", "nightly", *python(WORKER))
    code, out, _ = await place.ask("show", "nightly", "--json")
    assert (code, json.loads(out)["holder"]) == (0, "first")
    code, out, err = await place.ask("break", "nightly", "--reason", "handing over", "--json")
    assert code == 0, err
    assert json.loads(out)["broken"] is True
    assert await line(first) == "stopped"
    assert await ended(first) == Exit.LOCK_LOST
    assert not psutil.pid_exists(int(pid))
    assert (await line(second)).split()[:2] == ["nightly", "3"]
    code, out, _ = await place.ask("list", "--json")
    assert [(lock["name"], lock["state"], lock["holder"]) for lock in json.loads(out)] == [
        ("nightly", "held", "second")
    ]
    second.send_signal(signal.SIGTERM)  # passed on to the command
    assert await line(second) == "stopped"
    assert await ended(second) == 3
    code, out, _ = await place.ask("show", "nightly", "--json")
    assert json.loads(out)["state"] == "free"


async def test_exit_status_of_the_command_and_of_a_lock_that_is_held(place: Place) -> None:
    assert (await place.ask("run", "job", *python("raise SystemExit(17)")))[0] == 17
    assert (await place.ask("run", "job", *python("import os; os.kill(os.getpid(), 9)")))[0] == 137
    code, out, _ = await place.ask("run", "job", *python("print('hello')"))
    assert (code, out) == (0, "hello\n")
    code, out, err = await place.ask("acquire", "job", "--ttl", "60", "--json")
    lease = json.loads(out)
    assert (code, lease["token"]) == (0, 4), err
    code, out, err = await place.ask("run", "--wait", "0.2", "job", *python("print('never')"))
    assert (code, out) == (Exit.LOCK_HELD, "")
    assert "another holder has this lock" in err
    assert (await place.ask("acquire", "job"))[0] == Exit.LOCK_HELD
    wrong = await place.ask("release", "job", "--token", "4", "--lease", "0" * 32)
    assert wrong[0] == Exit.PRECONDITION
    assert (await place.ask("release", "job", "--token", "4", "--lease", lease["lease_id"]))[0] == 0
    assert (await place.ask("run", "--wait", "0", "job", *python("pass")))[0] == 0


async def test_wrong_use_starts_nothing(place: Place) -> None:
    assert (await place.ask("run", "a b", *python("print('never')")))[:2] == (Exit.USAGE, "")
    assert (await place.ask("run", "--ttl", "0.5", "job", *python("print('never')")))[:2] == (Exit.USAGE, "")
    assert (await place.ask("run", "job", "--", "no-such-command-here"))[0] == Exit.NOT_FOUND
    assert (await place.ask("show", "job"))[0] == Exit.NOT_FOUND
    assert (await place.ask("break", "job", "--reason", "x"))[0] == Exit.NOT_FOUND


async def test_a_command_that_ignores_sigterm_is_killed(place: Place) -> None:
    run = await place.start("run", "--ttl", "30", "--grace", "0.3", "job", *python(STUBBORN))
    pid = int((await line(run)).split()[2])
    await place.ask("break", "job", "--reason", "test")
    assert await line(run) == "stopped"
    assert await ended(run) == Exit.LOCK_LOST
    assert gone(pid)


async def test_the_command_ends_with_the_process_that_keeps_its_lock(place: Place) -> None:
    run = await place.start("run", "job", *python(WORKER))
    pid = int((await line(run)).split()[2])
    run.kill()
    # The leash and the guard may both ask it, so it may say so twice.
    assert (await line(run)).startswith("stopped")
    async with asyncio.timeout(60):
        while not gone(pid):
            await asyncio.sleep(0.02)


async def test_the_lock_outlives_one_coordinator_and_is_lost_with_all_of_them(place: Place) -> None:
    await place.add_coordinator()
    run = await place.start("run", "--ttl", "5", "job", *python(WORKER))
    pid = int((await line(run)).split()[2])
    watched = psutil.Process(pid)
    place.coordinators[0][0].kill()
    other = await place.start("run", "--ttl", "5", "--wait", "5", "job", *python("pass"), coordinators=[1])
    assert await ended(other) == Exit.LOCK_HELD
    assert watched.is_running()
    place.coordinators[1][0].send_signal(signal.SIGSTOP)
    assert await line(run) == "stopped"
    assert await ended(run) == Exit.LOCK_LOST
