"""A coordinator: it waits for leadership, leads for a term, waits again."""

from __future__ import annotations

import asyncio

from brainy.errors import UnavailableError
from brainy.telemetry.logs import get_logger
from brainy_coordinator.control import Components, Term
from brainy_coordinator.leadership import Leadership

_log = get_logger(__name__)


class Coordinator:
    """The control plane's one long-lived object; services ask it for the term."""

    def __init__(self, components: Components, leadership: Leadership) -> None:
        self.components = components
        self.leadership = leadership
        self._term: Term | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def term(self) -> Term:
        """Return the term this process leads in.

        Raises:
            UnavailableError: not the leader (NOT_LEADER); fields ``leader`` and ``address`` name it.
        """
        self.leadership.epoch()
        if self._term is None:
            raise UnavailableError(
                "leadership was gained a moment ago",
                reason="NOT_LEADER",
                remedy="try again shortly",
                leader=self.leadership.leader_id,
                address=self.leadership.leader_address,
            )
        return self._term

    def term_or_none(self) -> Term | None:
        """Return the term this process leads in, or None while it follows."""
        return self._term if self.leadership.is_leader else None

    def start(self) -> None:
        """Take part in the election, and lead when elected."""
        loop = asyncio.get_running_loop()
        self._tasks = (loop.create_task(self.leadership.run()), loop.create_task(self._lead()))

    async def stop(self) -> None:
        """Stop acting, then give the leadership back."""
        await self.kill()
        await self.leadership.resign()

    async def kill(self) -> None:
        """Stop as a crash would: nothing is given back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = ()

    async def _lead(self) -> None:
        while True:
            await self.leadership.until(True)
            term = Term(self.components, leader=self.leadership, on_fenced=self.leadership.surrender)
            self._term = term
            running = asyncio.get_running_loop().create_task(term.run())
            lost = asyncio.get_running_loop().create_task(self.leadership.until(False))
            try:
                await asyncio.wait({running, lost}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._term = None
                for task in (running, lost):
                    task.cancel()
                await asyncio.gather(running, lost, return_exceptions=True)
            if not running.cancelled() and (error := running.exception()) is not None:
                # A bug: let somebody else try, and say so. Leading without acting would be worse than not leading.
                _log.error("term_crashed", exc_info=error)
                self.leadership.surrender("crashed")
