"""Locks of the blocking client: ``with brainy.lock("name") as lease``."""

from __future__ import annotations

import threading
from types import TracebackType

from brainy.sdk.lease import Lease
from brainy.sdk.locks import Lock
from brainy.sdk.loop_thread import LOOP


class BlockingLease:
    """A ``Lease`` for threads; it is renewed in the client's background thread.

    ``lost`` is a ``threading.Event``: wait for it, or look at it between two steps.
    """

    def __init__(self, lease: Lease) -> None:
        """Made by ``BlockingLock.acquire``."""
        self._lease = lease
        #: Set once the guarded work must stop; see ``Lease``.
        self.lost = threading.Event()
        self.name = lease.name
        #: The fencing token: above every earlier lease's of this lock.
        self.token = lease.token
        self.lease_id = lease.lease_id
        self.holder = lease.holder
        lease.on_lost.append(lambda _: self.lost.set())
        if lease.lost.is_set():
            self.lost.set()

    @property
    def held(self) -> bool:
        """Whether the lease is in force by the clock."""
        return self._lease.held

    @property
    def lost_because(self) -> str:
        """Why it was lost, "" while it is held."""
        return self._lease.lost_because

    def remaining(self) -> float:
        """Seconds until it is lost unless it is renewed."""
        return self._lease.remaining()

    def check(self) -> None:
        """Do nothing while the lease is in force; see ``Lease.check``."""
        self._lease.check()

    def release(self) -> None:
        """Give the lock back; see ``Lease.release``."""
        LOOP.run(self._lease.release())


class BlockingLock:
    """A lock to be taken with ``with``; see ``Lock``."""

    def __init__(self, lock: Lock) -> None:
        """Made by ``Brainy.lock``."""
        self._lock = lock
        self.name = lock.name

    def acquire(self) -> BlockingLease:
        """Take the lock, waiting for it as long as was said; see ``Lock.acquire``."""
        return BlockingLease(LOOP.run(self._lock.acquire()))

    def release(self) -> None:
        """Give the lock back; see ``Lease.release``."""
        LOOP.run(self._lock.release())

    def __enter__(self) -> BlockingLease:
        """Take the lock."""
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back; see ``Lock.__aexit__``."""
        LOOP.run(self._lock.__aexit__(kind, error, trace))
