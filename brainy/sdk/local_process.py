"""One child process of a local cluster: start, recognise, end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import orjson
import psutil
from pydantic import BaseModel, ConfigDict

from brainy.clock import Clock, Deadline
from brainy.config.environment import inherited
from brainy.errors import UnavailableError

_LEASH = str(Path(__file__).with_name("leash.py"))
_POLL_SECONDS = 0.02
_LOG_TAIL_BYTES = 2000
_KERNEL_THREADS = 2
#: Children meant to outlive their objects, and this process. Forgotten here, they would be reported as leaks.
_DETACHED: list[subprocess.Popen[bytes]] = []


class ProcessRecord(BaseModel):
    """What ``cluster.json`` says of a process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: coordinator, node-1, node-2, ...
    name: str
    pid: int
    address: str
    ready_file: str
    log_file: str
    #: Label of a node, which it keeps when it is started anew.
    pool: str = ""


class LocalProcess:
    """A coordinator or node started by us, in this process or an earlier one.

    A pid alone proves nothing, because the system uses pids again. A process is ours only if the path of its
    ready file is an argument of its command line.
    """

    def __init__(self, record: ProcessRecord, child: subprocess.Popen[bytes] | None = None) -> None:
        self.record = record
        self._child = child

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        leashed: bool,
        pool: str = "",
    ) -> Self:
        """Start ``python command... --ready-file F`` in a session of its own, its output going to a log file.

        Args:
            name: of the process, in file names.
            command: arguments after the interpreter.
            directory: where ``run/`` and ``logs/`` are.
            environment: variables besides the inherited ones.
            leashed: end it when this process ends.
            pool: label of a node, to be remembered.
        """
        ready_file = directory / "run" / f"{name}.json"
        log_file = directory / "logs" / f"{name}.log"
        for path in (ready_file, log_file):
            path.parent.mkdir(parents=True, exist_ok=True)
        ready_file.unlink(missing_ok=True)
        line = [sys.executable, *command, "--ready-file", str(ready_file)]
        if leashed:
            line = [sys.executable, "-I", "-S", _LEASH, str(os.getpid()), *line]
        with log_file.open("ab") as log:
            child = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=inherited(**environment),
                # Ctrl-C in a terminal must reach the parent alone, which then ends its children in order.
                start_new_session=True,
            )
        if not leashed:
            _DETACHED.append(child)
        record = ProcessRecord(
            name=name, pid=child.pid, address="", ready_file=str(ready_file), log_file=str(log_file), pool=pool
        )
        return cls(record, child)

    @property
    def name(self) -> str:
        """Its name in the cluster."""
        return self.record.name

    @property
    def address(self) -> str:
        """host:port, known once it is ready."""
        return self.record.address

    def alive(self) -> bool:
        """Whether it is ours and still there."""
        if self._child is not None:
            return self._child.poll() is None
        try:
            process = psutil.Process(self.record.pid)
            line = process.cmdline()
            # A process that is ending has no command line any more but still holds its ports for a moment.
            ending = not line and process.status() != psutil.STATUS_ZOMBIE and process.ppid() != _KERNEL_THREADS
            return ending or self.record.ready_file in line
        except psutil.Error:
            return False

    async def ready(self, deadline: Deadline) -> None:
        """Wait for the ready file.

        Raises:
            UnavailableError: it exited, or was not ready in time; the end of its log is in the message.
        """
        while (address := self._announced()) is None:
            if not self.alive():
                raise self._failure("exited before it was ready")
            if deadline.passed:
                raise self._failure("was not ready in time")
            await deadline.clock.sleep(_POLL_SECONDS)
        self.record = self.record.model_copy(update={"address": address})

    def _announced(self) -> str | None:
        try:
            body = Path(self.record.ready_file).read_bytes()
        except FileNotFoundError:
            return None
        return str(orjson.loads(body)["address"])

    async def stop(self, clock: Clock, *, grace_seconds: float) -> None:
        """Send SIGTERM, wait, and send SIGKILL to what is left."""
        self._signal(signal.SIGTERM)
        if not await self._gone(Deadline.after(clock, grace_seconds)):
            await self.kill(clock)

    async def kill(self, clock: Clock) -> None:
        """Send SIGKILL and wait until it is gone."""
        self._signal(signal.SIGKILL)
        if not await self._gone(Deadline.after(clock, 10.0)):
            raise self._failure("does not end, not even by SIGKILL")

    async def gone(self, clock: Clock, *, within_seconds: float) -> None:
        """Wait until it has ended by itself.

        Raises:
            UnavailableError: it has not; the end of its log is in the message.
        """
        if not await self._gone(Deadline.after(clock, within_seconds)):
            raise self._failure("is still there")

    async def _gone(self, deadline: Deadline) -> bool:
        while self.alive():
            if deadline.passed:
                return False
            await deadline.clock.sleep(_POLL_SECONDS)
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.send_signal(number)  # knows whether the pid is still the child's
        elif self.alive():
            with contextlib.suppress(ProcessLookupError):  # it ended between the two lines
                os.kill(self.record.pid, number)

    def _failure(self, what: str) -> UnavailableError:
        try:
            tail = Path(self.record.log_file).read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            tail = ""
        last = tail.splitlines()[-1] if tail else "it logged nothing"
        return UnavailableError(
            f"{self.name} {what}: {last}", remedy="read its log and start again", log=self.record.log_file
        )
