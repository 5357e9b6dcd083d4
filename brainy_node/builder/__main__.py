"""``python -m brainy_node.builder``: one job as JSON on standard input, JSON lines on standard output.

Further lines of the input are ``rate``: how fast to be from then on. Lines of the output are ``progress`` and
``pulse``, then one ``done`` or ``failed`` (see ``job``). Logs go to standard error. The exit code is 0
for done and 1 for failed. The process gives way to the one that serves, and ends when that one has died.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading

from pydantic import BaseModel, ValidationError

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.errors import InvalidRequestError
from brainy.ids import Ids
from brainy.store.metered import MeteredStore
from brainy.store.opening import open_store
from brainy.telemetry.logs import configure_logs, get_logger
from brainy_node.builder.courtesy import give_way, index_threads
from brainy_node.builder.job import Done, Failed, Job, Progress, Pulse, Rate
from brainy_node.builder.pace import Pace
from brainy_node.builder.run import run_job

_ORPHAN_CHECK_SECONDS = 1.0
#: Progress lines of one shard are at least this far apart, so that the reader is never the bottleneck.
_REPORT_SECONDS = 0.1
_PULSE_SECONDS = 0.5


class _Input:
    """Standard input, a line at a time. Its own buffer: a thread that waits in Python's at the end of it aborts."""

    def __init__(self) -> None:
        self._read = b""

    def line(self) -> bytes:
        """Return the next line, b"" at the end."""
        while b"\n" not in self._read:
            more = os.read(0, 1 << 16)
            if not more:
                rest, self._read = self._read, b""
                return rest
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line + b"\n"


class _Output:
    """Standard output, a line at a time."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._last: dict[tuple[int, str], float] = {}
        #: Indexes are built in threads, which say how far they are.
        self._writing = threading.Lock()

    def progress(self, progress: Progress) -> None:
        """Write a progress line unless one was just written."""
        now, key = self._clock.monotonic(), (progress.shard, progress.stage)
        complete = progress.total > 0 and progress.done >= progress.total
        if complete or now - self._last.get(key, -_REPORT_SECONDS) >= _REPORT_SECONDS:
            self._last[key] = now
            self.write(progress)

    def write(self, line: BaseModel) -> None:
        """Write a line."""
        with self._writing:
            sys.stdout.write(line.model_dump_json() + "\n")
            sys.stdout.flush()


def _end_with_parent() -> None:
    parent = os.getppid()
    never = threading.Event()

    def watch() -> None:
        while not never.wait(_ORPHAN_CHECK_SECONDS):
            if os.getppid() != parent:
                # Nobody waits for the result; what was staged is removed by the next builder.
                os._exit(2)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def _take_rates(lines: _Input, pace: Pace) -> None:
    """Take the rates that come after the job, to the end of the input; the last one stays."""

    def read() -> None:
        while line := lines.line():
            try:
                pace.set(Rate.model_validate_json(line).items_per_second)
            except ValidationError as error:
                get_logger(__name__).warning("builder_rate_unreadable", cause=str(error))

    threading.Thread(target=read, name="rates", daemon=True).start()


async def _pulse(store: MeteredStore, output: _Output, clock: SystemClock) -> None:
    told = 0
    while True:
        await clock.sleep(_PULSE_SECONDS)
        if store.repeats != told:
            told = store.repeats
            output.write(Pulse(store_repeats=told))


async def _run(job: Job, lines: _Input, output: _Output, clock: SystemClock, ids: Ids) -> Done:
    store = open_store(Namespace.parse(job.namespace), job.store, clock=clock, ids=ids)
    pace = Pace(clock)
    if job.paced:
        _take_rates(lines, pace)
    pulse = asyncio.create_task(_pulse(store, output, clock))
    try:
        built = await run_job(job, store, clock=clock, ids=ids, report=output.progress, pace=pace)
        get_logger(__name__).info("job_done", kind=job.kind, shards=list(job.shards), store_calls=dict(store.calls))
    finally:
        pulse.cancel()
        await store.close()
    return Done(built=tuple(built), store_calls=dict(store.calls))


def main() -> int:
    """Read the job, do it, answer."""
    clock, ids = SystemClock(), Ids()
    lines, output = _Input(), _Output(clock)
    try:
        job = Job.model_validate_json(lines.line())
    except ValidationError as error:
        output.write(
            Failed.of(InvalidRequestError("not a job", remedy="send one line of JSON", cause=error.errors()[0]["msg"]))
        )
        return 1
    give_way()
    job = job.model_copy(update={"threads": index_threads(job.threads)})
    configure_logs(level=job.log_level, form=job.log_format, role="builder", node=job.node_id)
    _end_with_parent()
    try:
        done = asyncio.run(_run(job, lines, output, clock, ids))
    except Exception as failure:
        # Fetches run in task groups; their first failure is the job's.
        cause: Exception = failure
        while isinstance(cause, ExceptionGroup):
            cause = cause.exceptions[0]
        get_logger(__name__).error("job_failed", kind=job.kind, shards=list(job.shards), exc_info=cause)
        output.write(Failed.of(cause))
        return 1
    output.write(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
