"""A lease as its holder has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from brainy.api.coordinator.v1 import lease_pb2
from brainy.clock import Clock
from brainy.errors import FencedError
from brainy.locks import record

#: Longer leases are renewed at this share of their length, which saves requests; shorter ones at a third, which
#: leaves time for a second coordinator.
_RENEW_SHARE = 0.45
_SHORT_SECONDS = 10.0
#: However little time is left, a coordinator that refuses at once must not be asked without pause.
_SHORTEST_PAUSE_SECONDS = 0.02


class Lease:
    """A lock that is held, and renewed in the background until it is released or lost.

    ``lost`` is set *before* another can be granted the lock: at 0.9 of the lease's length after the last renewal
    that succeeded was sent, on this machine's own clock, while another waits for 1.1 of it. (An operator's
    forced release is another matter: it is noticed at the next renewal, or within about a second with
    ``watch=True``.) No signal reaches a process that is stopped; therefore send ``token`` along with every guarded
    write, and let what is guarded refuse a token lower than one it has seen.
    """

    def __init__(
        self,
        message: lease_pb2.Lease,
        *,
        deadline: float,
        clock: Clock,
        release: Callable[[Lease], Awaitable[None]],
    ) -> None:
        """Made by ``Lock.acquire``."""
        self._clock = clock
        self._message = message
        self._release = release
        self._over = ""
        #: The lock's name.
        self.name: str = message.name
        #: The fencing token: above every earlier lease's of this lock.
        self.token: int = message.token
        #: Needed, with name and token, to release the lease from another process.
        self.lease_id: str = message.lease_id
        #: Who holds it, for people.
        self.holder: str = message.holder
        self.ttl: float = message.ttl.ToNanoseconds() / 1e9
        #: Set once the guarded work must stop.
        self.lost = asyncio.Event()
        #: Why it was lost, "" while it is held.
        self.lost_because = ""
        #: Monotonic time at which it is lost unless it is renewed.
        self.deadline = deadline
        self.renewals = 0
        self.renew_at = deadline
        self._plan()
        #: Called with the lease when it is lost, in the client's event loop.
        self.on_lost: list[Callable[[Lease], object]] = []

    @property
    def held(self) -> bool:
        """Whether the lease is in force by the clock, even if this process slept through the moment it ended."""
        return not self._over and self._clock.monotonic() < self.deadline

    def remaining(self) -> float:
        """Seconds until it is lost unless it is renewed; never below zero."""
        return max(0.0, self.deadline - self._clock.monotonic()) if not self._over else 0.0

    def check(self) -> None:
        """Do nothing while the lease is in force: to be called before a guarded step.

        Raises:
            FencedError: it was lost or released.
        """
        if not self.held:
            raise FencedError(
                "the lease is over",
                remedy="stop the guarded work; take the lock anew if it is still needed",
                lock=self.name,
                token=self.token,
                because=self.lost_because or self._over or "it ran out",
            )

    async def release(self) -> None:
        """Give the lock back. Releasing twice is fine.

        Raises:
            FencedError: it was lost before; work done since then was not exclusive.
            UnavailableError: no coordinator answered; the lease runs out by itself.
        """
        if self._over == "released":
            return
        await self._release(self)

    # --- for the keeper

    def renewed(self, sent_at: float, ttl: float) -> None:
        """Count the lease anew from the time its renewal was sent."""
        if not self._over:
            self.ttl = ttl
            self.deadline = max(self.deadline, record.deadline(sent_at, ttl))
            self.renewals += 1
            self._plan()

    def again_in(self, seconds: float) -> None:
        """Try the next renewal soon."""
        self.renew_at = self._clock.monotonic() + max(_SHORTEST_PAUSE_SECONDS, min(seconds, self.remaining() / 4))

    def lose(self, because: str) -> None:
        """Say that the lease is over, once."""
        if not self._over:
            self._over = self.lost_because = because
            self.lost.set()
            for tell in self.on_lost:
                tell(self)

    def released(self) -> None:
        """End without alarm."""
        self._over = self._over or "released"

    def message(self) -> lease_pb2.Lease:
        """What must be shown to keep it."""
        return self._message

    def _plan(self) -> None:
        sent_at = self.deadline - self.ttl * (1 - record.DRIFT)
        self.renew_at = sent_at + self.ttl * (_RENEW_SHARE if self.ttl >= _SHORT_SECONDS else 1 / 3)
