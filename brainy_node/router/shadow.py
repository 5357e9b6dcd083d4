"""Reads that are asked of the target of a migration besides, once their client has its answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from brainy.bucket.trial import ReadTrial
from brainy.clock import Clock
from brainy.errors import BrainyError
from brainy.telemetry.logs import get_logger
from brainy.traffic.comparison import Comparison
from brainy_node.router.comparing import Comparing
from brainy_node.router.reads import ItemsQuestion
from brainy_node.router.recorded import RecordedQueries
from brainy_node.router.search import SearchQuestion
from brainy_node.router.trials import Pair, Spread, TrialBook, trial_of
from brainy_node.router.view import View
from brainy_node.runtime.ports import NamespaceRuntime

_log = get_logger(__name__)

_MOST_RUNNING = 2
_MOST_WAITING = 64
#: The answer to the client is on its way by then.
_HEAD_START_SECONDS = 0.01
_MOST_QUERIES = 16
_MOST_ITEMS = 64
#: The nearest of a long answer stand for it.
_MOST_NEIGHBOURS = 100
#: A scan holds a shard for as long as it takes: one query in so many seconds is enough to know recall by.
_RECALL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Job:
    runtime: NamespaceRuntime
    trial: ReadTrial
    compare: Callable[[], Awaitable[Comparison]]
    at: float


class ShadowReads:
    """Compares a share of the reads of a front door, behind its clients' backs.

    Before: a read was answered from the generation in service, and the routing record names a trial with a shadow
    share.
    Steps: (1) choose evenly; (2) keep the question, not the answer, for at most 64 waiting ones; beyond that it is
    counted as dropped; (3) a moment later compare (``Comparing``), two at a time.
    After: what was found is in the book. Nobody waited for it; the client's answer does not depend on it.
    Cancel safety: what waits is lost with the process, and missing from the figures.
    """

    def __init__(self, comparing: Comparing, book: TrialBook, recorded: RecordedQueries, *, clock: Clock) -> None:
        self._comparing = comparing
        self._book = book
        self._recorded = recorded
        self._clock = clock
        self._spread = Spread()
        self._waiting: deque[_Job] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._recalled_at: dict[str, float] = {}

    def searched(self, runtime: NamespaceRuntime, view: View, question: SearchQuestion) -> None:
        """Note a search that was answered; returns at once."""
        self._recorded.note(runtime.name, question.matrix)
        trial = self._chosen(runtime, view)
        if trial is None:
            return
        rows = np.array(question.matrix[:_MOST_QUERIES], dtype="<f4")
        kept = SearchQuestion(
            vectors=rows.tobytes(),
            matrix=rows,
            k=min(question.k, _MOST_NEIGHBOURS),
            include_soft_deleted=question.include_soft_deleted,
            exact=question.exact,
        )

        async def compare() -> Comparison:
            pair = Pair(runtime.routing.active, trial.generation)
            return await self._comparing.search(runtime, pair, kept, recall=self._recall_due(runtime, kept))

        self._offer(_Job(runtime, trial, compare, self._clock.monotonic()))

    def read(self, runtime: NamespaceRuntime, view: View, question: ItemsQuestion) -> None:
        """Note items that were read by id; returns at once."""
        trial = self._chosen(runtime, view)
        if trial is None:
            return
        every = chain(
            (("noun", item_id) for group in question.nouns.values() for item_id in group),
            (("verb", item_id) for group in question.verbs.values() for item_id in group),
        )
        ids = list(islice(every, _MOST_ITEMS))

        async def compare() -> Comparison:
            pair = Pair(runtime.routing.active, trial.generation)
            return await self._comparing.items(runtime, pair, ids, include_vectors=question.include_vectors)

        self._offer(_Job(runtime, trial, compare, self._clock.monotonic()))

    def _chosen(self, runtime: NamespaceRuntime, view: View) -> ReadTrial | None:
        if view.tried:  # the target answered the client: nothing to compare it with was read
            return None
        trial = trial_of(runtime.routing, runtime.node_id)
        return trial if trial is not None and self._spread.chooses(trial.shadow) else None

    def _recall_due(self, runtime: NamespaceRuntime, question: SearchQuestion) -> int:
        now = self._clock.monotonic()
        if question.exact or now - self._recalled_at.get(runtime.name, float("-inf")) < _RECALL_SECONDS:
            return 0
        self._recalled_at[runtime.name] = now
        return 1

    def _offer(self, job: _Job) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._book.add(job.runtime, job.trial, Comparison(asked=1, dropped=1))
            return
        self._waiting.append(job)
        if len(self._workers) < _MOST_RUNNING:
            task = asyncio.create_task(self._work())
            self._workers.add(task)
            task.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        while self._waiting:
            job = self._waiting.popleft()
            early = job.at + _HEAD_START_SECONDS - self._clock.monotonic()
            if early > 0.0:
                await self._clock.sleep(early)
            try:
                found = await job.compare()
            except BrainyError as error:
                _log.info("shadow_read_failed", namespace=job.runtime.name, reason=error.reason, detail=error.message)
                found = Comparison(asked=1, failed=1)
            except Exception:
                # A fault in here must not show anywhere but in the log.
                _log.exception("shadow_read_crashed", namespace=job.runtime.name)
                found = Comparison(asked=1, failed=1)
            self._book.add(job.runtime, job.trial, found)
