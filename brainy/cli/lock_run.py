"""One command under one lock.

Before: nothing runs.
Steps: 1. take the lock; 2. start the command in a process group of its own, tied to this process: it gets SIGTERM
when this process dies; 3. wait for whichever comes first: the command ends, the lease is lost, or a signal for us,
which is passed on; 4. lease lost: SIGTERM to the group, and SIGKILL after the grace; 5. give the lock back.
After: the command has ended; its group too, if the lease was lost.
Crash at 2 or 3: the kernel ends the command, the lease runs out by itself. A process that is *stopped* can stop
nothing: that is what the token is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from brainy.cli.exits import Exit
from brainy.cli.output import Output
from brainy.config.environment import inherited
from brainy.errors import BrainyError, FencedError, InvalidRequestError, NotFoundError, UnavailableError
from brainy.sdk.lease import Lease
from brainy.sdk.locks import Lock, LockInfo

_LEASH: Final = str(Path(__file__).parent.parent / "sdk" / "leash.py")
_SILENT_SECONDS: Final = 1.0
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


async def run_under(
    lock: Lock,
    command: Sequence[str],
    *,
    describe: Callable[[str], Awaitable[LockInfo]],
    output: Output,
    grace_seconds: float,
) -> int:
    """Run ``command`` while ``lock`` is held; returns the exit status for this process.

    ``describe`` says who has a lock, for whoever waits at the terminal.

    Raises:
        LeaseHeldError: another held the lock for as long as was waited; the command was not started.
        NotFoundError: there is no such command; the lock was not taken.
    """
    program = _program(command)
    lease = await _acquired(lock, describe, output)
    output.err.print(f"holding {lock.name}, token {lease.token}", style="dim")
    status = int(Exit.INTERNAL)
    try:
        status = await _run(lease, [program, *command[1:]], grace_seconds)
    finally:
        try:
            await lock.release()
        except FencedError as error:
            output.error(error)
            status = int(Exit.LOCK_LOST)
        except UnavailableError:
            pass  # it runs out by itself
    return status


async def _acquired(lock: Lock, describe: Callable[[str], Awaitable[LockInfo]], output: Output) -> Lease:
    """Take the lock; say whom it waits for if that takes long."""
    acquiring = asyncio.ensure_future(lock.acquire())
    try:
        await asyncio.wait({acquiring}, timeout=_SILENT_SECONDS)
        if not acquiring.done():
            with contextlib.suppress(BrainyError):
                held = await describe(lock.name)
                output.err.print(f"waiting for {lock.name}: {held.holder} has it, token {held.token}", style="dim")
        return await acquiring
    finally:
        acquiring.cancel()


def _program(command: Sequence[str]) -> str:
    if not command or not command[0]:
        raise InvalidRequestError("no command to run", remedy="write it after --")
    program = shutil.which(command[0])
    if program is None:
        raise NotFoundError("no such command", remedy="check its name and the path", command=command[0])
    # The leash does not search.
    return os.path.abspath(program)  # noqa: PTH100 - resolving links would change argv[0] of busybox and the like


async def _run(lease: Lease, command: Sequence[str], grace_seconds: float) -> int:
    loop = asyncio.get_running_loop()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", _LEASH, str(os.getpid()), *command),
        env=inherited(BRAINY_LOCK_NAME=lease.name, BRAINY_LOCK_TOKEN=str(lease.token)),
        process_group=0,
    )
    for number in _PASSED_ON:
        loop.add_signal_handler(number, _signal_group, child.pid, number)
    ended = asyncio.ensure_future(child.wait())
    lost = asyncio.ensure_future(lease.lost.wait())
    try:
        with _foreground(child.pid):
            await asyncio.wait({ended, lost}, return_when=asyncio.FIRST_COMPLETED)
            if lease.lost.is_set():
                _signal_group(child.pid, signal.SIGTERM)
                # A stopped process does not act on SIGTERM before it goes on.
                _signal_group(child.pid, signal.SIGCONT)
                await asyncio.wait({ended}, timeout=grace_seconds)
                # Also when the command itself has ended: what it started may still be at work.
                _signal_group(child.pid, signal.SIGKILL)
            code = await ended
    finally:
        lost.cancel()
        for number in _PASSED_ON:
            loop.remove_signal_handler(number)
        if not ended.done():
            _signal_group(child.pid, signal.SIGKILL)
            await ended
    return code if code >= 0 else 128 - code


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


@contextlib.contextmanager
def _foreground(group: int) -> Iterator[None]:
    """Give the terminal to the command for the length of the block, so that it can read and Ctrl-C reaches it."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        ours = os.tcgetpgrp(terminal)
        if ours != os.getpgrp():
            yield  # we run in the background ourselves
            return
        # Only a group in the foreground may hand the terminal on without being stopped for it.
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(terminal, group)
            _signal_group(group, signal.SIGCONT)
            yield
        finally:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(terminal, ours)
            signal.signal(signal.SIGTTOU, before)
    finally:
        os.close(terminal)
