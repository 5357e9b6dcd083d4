"""One coordinator acts; the others answer questions and wait.

Before: any number of coordinators serve the same namespaces. The lock named ``coordinator`` in the store of the
first one by name decides between them; its fencing token is the leader's *epoch*, its purpose the
address where the leader answers.
Steps: 1. ask for the lock, again and again; 2. once it is granted, act, and renew it every third of the lease;
3. when a renewal is refused, or none succeeded before the lease's end on our own clock, stop acting at once.
After: at most one coordinator believes to lead, within the bounds of clocks. What makes a stale one harmless is
not this lock: every record it would write carries its epoch, is written conditionally, and loses.
If it crashes at step 1: nothing happened. At step 2: the lock is free after one lease, and another is granted a
higher token. ``resign`` frees it at once.
Cancel safety: cancelling ``run`` stops renewing; leadership ends with the lease, or with ``resign``.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from brainy.clock import Clock
from brainy.errors import BrainyError, ConflictError, FencedError, UnavailableError
from brainy.ids import Ids
from brainy.locks.base import Grant, LockProvider
from brainy.telemetry.logs import get_logger

_log = get_logger(__name__)

LOCK = "coordinator"
#: Followers ask again at least this often.
_LONGEST_WAIT_SECONDS = 2.0


class Leader(Protocol):
    """Who writes, and under which epoch."""

    @property
    def id(self) -> str:
        """Id of this coordinator."""

    def epoch(self) -> int:
        """Fencing token of the leadership held now.

        Raises:
            UnavailableError: not the leader (NOT_LEADER); fields ``leader`` and ``address`` name it.
        """


class Leadership:
    """This process's part in the election."""

    def __init__(
        self,
        locks: LockProvider,
        *,
        coordinator_id: str,
        address: str,
        lease_seconds: float,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._locks = locks
        self._clock = clock
        self._ids = ids
        self._lease = lease_seconds
        self._incarnation = ids.uuid()
        self._grant: Grant | None = None
        self._changed = asyncio.Event()
        self.id = coordinator_id
        #: host:port where this process answers.
        self.address = address
        #: The leader as last seen by this process: id and address, "" while unknown.
        self.leader_id = ""
        self.leader_address = ""
        self.leader_epoch = 0

    @property
    def is_leader(self) -> bool:
        """Whether this process may act now."""
        return self._grant is not None and self._clock.monotonic() < self._grant.deadline

    def epoch(self) -> int:
        """Return the epoch to write under; see ``Leader.epoch``."""
        if self._grant is None or not self.is_leader:
            raise UnavailableError(
                "this coordinator is not the leader",
                reason="NOT_LEADER",
                remedy=f"ask {self.leader_address}" if self.leader_address else "try again shortly",
                leader=self.leader_id,
                address=self.leader_address,
            )
        return self._grant.token

    async def run(self) -> None:
        """Take part until cancelled."""
        while True:
            try:
                wait = await (self._renew() if self._grant is not None else self._campaign())
            except Exception:
                # Whatever it was, the election must go on; a lease that is not renewed ends by itself.
                _log.exception("leadership_crashed", coordinator=self.id)
                wait = self._lease / 10
                if not self.is_leader:
                    self.surrender("crashed")
            await self._clock.sleep(wait)

    async def _campaign(self) -> float:
        try:
            grant = await self._locks.grant(
                LOCK,
                owner=self.id,
                incarnation=self._incarnation,
                ttl_seconds=self._lease,
                purpose=self.address,
            )
        except ConflictError:
            await self._learn_leader()
        except BrainyError as error:
            _log.warning("leadership_campaign_failed", reason=error.reason, detail=error.message)
        else:
            self._grant = grant
            self.leader_id, self.leader_address, self.leader_epoch = self.id, self.address, grant.token
            _log.info("leadership_gained", coordinator=self.id, epoch=grant.token)
            self._announce()
            return self._lease / 3
        return self._ids.jitter(0.5, 1.0) * min(_LONGEST_WAIT_SECONDS, self._lease / 3)

    async def _renew(self) -> float:
        assert self._grant is not None
        remaining = self._grant.deadline - self._clock.monotonic()
        try:
            self._grant = await asyncio.wait_for(self._locks.renew(self._grant), max(0.0, remaining))
        except FencedError:
            self.surrender("fenced")
        except (BrainyError, TimeoutError) as error:
            _log.warning("leadership_renewal_failed", coordinator=self.id, detail=str(error))
            if not self.is_leader:
                self.surrender("lease_over")
            return min(0.5, self._lease / 10)
        return self._lease / 3

    async def _learn_leader(self) -> None:
        try:
            state = await self._locks.describe(LOCK)
        except BrainyError:
            return
        if state is not None:
            self.leader_id, self.leader_address, self.leader_epoch = state.owner, state.purpose, state.token

    def surrender(self, why: str) -> None:
        """Stop acting at once; the lease is left to run out."""
        if self._grant is not None:
            _log.warning("leadership_lost", coordinator=self.id, epoch=self._grant.token, why=why)
            self._grant = None
            self.leader_id = self.leader_address = ""
            self._announce()

    async def resign(self) -> None:
        """Stop acting and free the lock, so that another need not wait for the lease."""
        grant, self._grant = self._grant, None
        if grant is None:
            return
        self.leader_id = self.leader_address = ""
        self._announce()
        try:
            await self._locks.release(grant)
            _log.info("leadership_released", coordinator=self.id, epoch=grant.token)
        except BrainyError as error:
            _log.warning("leadership_release_failed", coordinator=self.id, detail=error.message)

    async def until(self, leading: bool) -> None:
        """Wait until this process leads, or does not."""
        while self.is_leader is not leading:
            await self._changed.wait()

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
