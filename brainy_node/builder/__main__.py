"""``python -m brainy_node.builder``: one job as JSON on standard input, JSON lines on standard output.

Lines are ``progress``, then one ``done`` or ``failed`` (see ``job``). Logs go to standard error. The exit code is 0
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
from brainy.store.opening import open_store
from brainy.telemetry.logs import configure_logs, get_logger
from brainy_node.builder.courtesy import give_way, index_threads
from brainy_node.builder.job import Done, Failed, Job, Progress
from brainy_node.builder.run import run_job

_ORPHAN_CHECK_SECONDS = 1.0
#: Progress lines of one shard are at least this far apart, so that the reader is never the bottleneck.
_REPORT_SECONDS = 0.1


class _Output:
    """Standard output, a line at a time."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._last: dict[tuple[int, str], float] = {}

    def progress(self, progress: Progress) -> None:
        """Write a progress line unless one was just written."""
        now, key = self._clock.monotonic(), (progress.shard, progress.stage)
        complete = progress.total > 0 and progress.done >= progress.total
        if complete or now - self._last.get(key, -_REPORT_SECONDS) >= _REPORT_SECONDS:
            self._last[key] = now
            self.write(progress)

    def write(self, line: BaseModel) -> None:
        """Write a line."""
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


async def _run(job: Job, output: _Output, clock: SystemClock, ids: Ids) -> Done:
    store = open_store(Namespace.parse(job.namespace), job.store, clock=clock, ids=ids)
    try:
        built = await run_job(job, store, clock=clock, ids=ids, report=output.progress)
        get_logger(__name__).info("job_done", kind=job.kind, shards=list(job.shards), store_calls=dict(store.calls))
    finally:
        await store.close()
    return Done(built=tuple(built), store_calls=dict(store.calls))


def main() -> int:
    """Read the job, do it, answer."""
    clock, ids = SystemClock(), Ids()
    output = _Output(clock)
    try:
        job = Job.model_validate_json(sys.stdin.buffer.readline())
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
        done = asyncio.run(_run(job, output, clock, ids))
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
