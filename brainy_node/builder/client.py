"""Giving jobs to builder processes, from the process that serves."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress

from pydantic import ValidationError

from brainy.clock import Clock, SystemClock
from brainy.config.settings import Settings
from brainy.errors import BrainyError, UnavailableError
from brainy.telemetry.logs import get_logger
from brainy_node.builder.courtesy import keep_fed
from brainy_node.builder.job import Built, Done, Failed, Job, Line, Progress, Pulse, Rate
from brainy_node.builder.rates import Rates

__all__ = ["BuilderClient", "Built", "Progress"]

_log = get_logger(__name__)

#: A line holds at most one ``done`` for all shards of a job.
_LINE_BYTES = 16 << 20


class BuilderClient:
    """Runs jobs, each in a process of its own, at most ``processes`` at a time.

    Each building process takes every core it can get, so one at a time is the default; others wait their turn. Those
    that are held to a rate have a turn of their own: one that stands still keeps nobody from opening a shard.
    """

    def __init__(self, settings: Settings, *, clock: Clock | None = None, processes: int = 1) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._turn = asyncio.Semaphore(processes)
        self._paced_turn = asyncio.Semaphore(processes)
        #: Calls to the object store of all jobs that were done, by namespace and kind.
        self.store_calls: defaultdict[str, Counter[str]] = defaultdict(Counter)

    async def run(
        self, job: Job, on_progress: Callable[[Progress], None], *, rates: Rates | None = None
    ) -> dict[int, Built]:
        """Do a job and return the finished bases by shard. With ``rates`` it is held to them as they change.

        Cancel safety: cancelling kills the process and waits for its end; bases it had finished stay on disk, what
        it staged is removed by the next job.

        Raises:
            BrainyError: what the builder failed with, of the class it was raised as there.
            UnavailableError: the process ended without an answer (killed, out of memory, crashed). Retry.
        """
        job = job.model_copy(
            update={
                "log_level": self._settings.log_level,
                "log_format": self._settings.log_format,
                "paced": rates is not None,
            }
        )
        if job.spec.reembedding is not None:
            job = job.with_embedding(self._settings.embedding)
        async with self._turn if rates is None else self._paced_turn:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "brainy_node.builder", stdin=PIPE, stdout=PIPE, limit=_LINE_BYTES
            )
            _log.info("builder_started", kind=job.kind, shards=list(job.shards), pid=process.pid)
            fed = asyncio.create_task(
                keep_fed(process.pid, self._clock, stands=lambda: rates is not None and rates.current == 0.0)
            )
            try:
                answer = await self._converse(process, job, on_progress, rates)
            finally:
                fed.cancel()
                await _end(process)
        if isinstance(answer, Failed):
            raise answer.exception()
        if answer is None:
            raise UnavailableError(
                "the builder process ended without an answer",
                remedy="look at its log and at free memory; the job may be given again",
                kind=job.kind,
                shards=list(job.shards),
                exit_code=process.returncode,
            )
        self.store_calls[job.namespace].update(answer.store_calls)
        return {built.shard: built for built in answer.built}

    async def _converse(
        self, process: Process, job: Job, on_progress: Callable[[Progress], None], rates: Rates | None
    ) -> Done | Failed | None:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the builder was started without pipes")
        with suppress(BrokenPipeError, ConnectionResetError):  # it died at once: its exit code will say so
            process.stdin.write(job.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
        feeding = asyncio.create_task(_feed(process.stdin, rates))
        answer: Done | Failed | None = None
        repeats = 0
        try:
            async for text in process.stdout:
                try:
                    line = Line.validate_json(text)
                except ValidationError:
                    _log.warning("builder_line_unreadable", pid=process.pid, text=text[:200].decode(errors="replace"))
                    continue
                if isinstance(line, Progress):
                    on_progress(line)
                elif isinstance(line, Pulse):
                    if rates is not None:
                        rates.store_repeats += line.store_repeats - repeats
                    repeats = line.store_repeats
                else:
                    answer = line
            await process.wait()
        finally:
            feeding.cancel()
        if isinstance(answer, Done) and process.returncode:
            raise BrainyError("the builder answered and then failed", exit_code=process.returncode)
        return answer


async def _feed(stdin: asyncio.StreamWriter, rates: Rates | None) -> None:
    """Tell the process each rate; without rates it needs to hear no more."""
    with suppress(BrokenPipeError, ConnectionResetError):
        if rates is None:
            stdin.close()
            return
        async for items_per_second in rates.changes():
            stdin.write(Rate(items_per_second=items_per_second).model_dump_json().encode() + b"\n")
            await stdin.drain()


async def _end(process: Process) -> None:
    """Kill the process if it still runs, and reap it even when cancelled again meanwhile."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(asyncio.ensure_future(process.wait()))
