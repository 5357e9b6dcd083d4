"""Reads that the target of a migration answers for clients, before anything is switched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from brainy.api.common.v1.common_pb2 import Position
from brainy.bucket.trial import ReadTrial
from brainy.clock import Clock, Deadline
from brainy.errors import BrainyError
from brainy.telemetry.logs import get_logger
from brainy.traffic.comparison import Comparison
from brainy_node.router.served import ServedBook, ServedCall
from brainy_node.router.trials import Spread, TrialBook, place_of, trial_of, trial_view
from brainy_node.router.view import RoutingRefresher, View
from brainy_node.runtime.ports import NamespaceRuntime

Result = TypeVar("Result")

_log = get_logger(__name__)

#: The target may take so long, or half of the time that is left; then the source is asked.
_PATIENCE_SECONDS = 1.0
#: After the target failed, it is left alone for so long.
_REST_SECONDS = 1.0


class WeightedReads:
    """Runs a read on the target or on the source.

    Before: the routing record may name a trial with a weight.
    Steps: (1) choose: a session by its id, the same way at every front door; a read of no session evenly; (2) if the
    target is chosen, run the read on it, bound to the session as any read is; (3) whatever it fails with, run the
    read on the generation in service, whose answer or error is the client's.
    After: one answer, of one generation, which its header names.
    Cancel safety: as the read's own.
    """

    def __init__(self, refresher: RoutingRefresher, book: TrialBook, served: ServedBook, *, clock: Clock) -> None:
        self._refresher = refresher
        self._book = book
        #: Every read of the front door passes here, so here they are counted.
        self._served = served
        self._clock = clock
        self._spread = Spread()
        #: Namespace -> monotonic time until which its target is left alone.
        self._resting: dict[str, float] = {}

    async def reading(
        self,
        runtime: NamespaceRuntime,
        session: Sequence[Position],
        session_id: str,
        deadline: Deadline,
        act: Callable[[View, Deadline], Awaitable[Result]],
    ) -> Result:
        """Run ``act`` on a view, until the deadline it is given with it.

        Raises:
            BrainyError: what it raised on the generation in service.
        """
        with self._served.call(runtime, "reads", deadline) as call:
            return await self._read(runtime, session, session_id, deadline, act, call)

    async def _read(
        self,
        runtime: NamespaceRuntime,
        session: Sequence[Position],
        session_id: str,
        deadline: Deadline,
        act: Callable[[View, Deadline], Awaitable[Result]],
        call: ServedCall,
    ) -> Result:
        trial = self._chosen(runtime, session, session_id)
        failed = False
        if trial is not None and self._clock.monotonic() >= self._resting.get(runtime.name, 0.0):
            patience = Deadline.after(self._clock, min(_PATIENCE_SECONDS, deadline.remaining() / 2))
            try:
                result = await act(trial_view(runtime, trial.generation), patience)
            except BrainyError as error:
                _log.info("tried_read_failed", namespace=runtime.name, reason=error.reason, detail=error.message)
            except Exception:
                # Whatever is wrong with a generation that is only tried, the one in service may not have it.
                _log.exception("tried_read_crashed", namespace=runtime.name)
            else:
                self._book.add(runtime, trial, Comparison(reads_answered=1))
                call.tried(trial.generation)
                return result
            failed = True
        result = await self._refresher.reading(runtime, session, deadline, lambda view: act(view, deadline))
        if trial is not None:  # and the source could answer: a call that is wrong itself is not held against the target
            self._book.add(runtime, trial, Comparison(reads_fallen_back=1))
            if failed:
                self._resting[runtime.name] = self._clock.monotonic() + _REST_SECONDS
        return result

    def _chosen(self, runtime: NamespaceRuntime, session: Sequence[Position], session_id: str) -> ReadTrial | None:
        trial = trial_of(runtime.routing, runtime.node_id)
        if trial is None or not trial.weight:
            return None
        place = place_of(session_id, session)
        chosen = self._spread.chooses(trial.weight) if place is None else place < trial.weight
        return trial if chosen else None
