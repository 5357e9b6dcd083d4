"""What one caller of group commit asks for: records that are committed together, and who waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from brainy.api.storage.v1 import log_pb2
from brainy.errors import BrainyError

_NOWHERE: Final[Mapping[int, int]] = {}


class Request:
    """Records on their way into one change-log object."""

    # Not a dataclass: one is made for every write, while all other writers wait.
    __slots__ = ("_outcome", "_waiters", "conditional", "encoded", "ids", "kept", "records", "size", "source_cursor")

    def __init__(
        self,
        records: Sequence[log_pb2.LogRecord],
        encoded: Sequence[bytes],
        size: int,
        ids: Sequence[str] = (),
        source_cursor: Mapping[int, int] | None = None,
        conditional: bool = False,
    ) -> None:
        """Prepare.

        Args:
            records: as the caller sent them.
            encoded: each as ``encode_record`` made it.
            size: bytes of ``encoded``.
            ids: request ids that a repeat may name.
            source_cursor: source shard -> position.
            conditional: whether a record has ``expected`` set.
        """
        self.records = records
        self.encoded = encoded
        self.ids = ids
        self.source_cursor: Mapping[int, int] = source_cursor or _NOWHERE
        self.conditional = conditional
        self.size = size
        #: How many of ``records`` a batch takes: those whose condition held.
        self.kept: int = len(encoded)
        self._outcome: int | BrainyError | None = None
        self._waiters: list[asyncio.Future[int]] = []

    def wait(self) -> asyncio.Future[int]:
        """Return a future of the position for one caller, to be awaited at once.

        Cancel safety: it is the caller's alone; cancelled, it takes nothing else with it.
        """
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._outcome is None:
            self._waiters.append(waiter)
        elif isinstance(self._outcome, int):
            waiter.set_result(self._outcome)
        else:
            waiter.set_exception(self._outcome)
        return waiter

    def answer(self, position: int) -> None:
        """Tell everyone who waits, and who will ask, the position."""
        self._outcome = position
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(position)

    def fail(self, error: BrainyError) -> None:
        """Tell everyone who waits, and who will ask, the error."""
        self._outcome = error
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
