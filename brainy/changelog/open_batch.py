"""What group commit gathers for one change-log object: encoded records, and who waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from brainy.api.storage.v1 import log_pb2
from brainy.errors import BrainyError

#: In place of the end of a request: the whole batch.
WHOLE: Final = 0


class OpenBatch:
    """Requests in order of arrival, and their outcome.

    A request is named by its *end*: how many records the batch held once it was added. Lists side by side and nothing
    of a request's own, because one is added for every write, while all other writers wait.
    """

    __slots__ = (
        "_error", "_first", "_kept", "_last", "_plain", "_starts", "conditional", "cursor", "encoded", "ends", "ids",
        "records", "size", "waiters",
    )  # fmt: skip

    def __init__(self) -> None:
        #: As the callers sent them, and each as ``encode_record`` made it.
        self.records: list[log_pb2.LogRecord] = []
        self.encoded: list[bytes] = []
        #: Bytes of ``encoded``.
        self.size = 0
        #: Request ids that a repeat may name, each with the end of its request.
        self.ids: dict[str, int] = {}
        #: Futures of the callers who wait, each with the end of the request that it waits for.
        self.waiters: list[asyncio.Future[int]] = []
        self.ends: list[int] = []
        #: Source shard -> position.
        self.cursor: dict[int, int] = {}
        #: Whether a record has ``expected`` set.
        self.conditional = False
        #: Where a request of other than one record starts, by its end.
        self._starts: dict[int, int] = {}
        #: Of the first so many records, how many the object holds; None: all.
        self._kept: list[int] | None = None
        #: Whether all who wait wait for a request, and all records are kept.
        self._plain = True
        self._first = self._last = 0
        self._error: BrainyError | None = None

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self.records or self.cursor)

    def add(
        self,
        records: Sequence[log_pb2.LogRecord],
        encoded: Sequence[bytes],
        size: int,
        ids: Sequence[str] = (),
        source_cursor: Mapping[int, int] | None = None,
        conditional: bool = False,
    ) -> int:
        """Add a request; returns its end.

        Args:
            records: as the caller sent them.
            encoded: each as ``encode_record`` made it.
            size: bytes of ``encoded``.
            ids: request ids that a repeat may name.
            source_cursor: source shard -> position; of several requests the highest counts.
            conditional: whether a record has ``expected`` set.
        """
        for shard, position in (source_cursor or {}).items():
            self.cursor[shard] = max(position, self.cursor.get(shard, 0))
        if not records:
            return WHOLE  # a cursor without records is carried by the batch as a whole
        start = len(self.records)
        self.records += records
        self.encoded += encoded
        self.size += size
        self.conditional |= conditional
        end = len(self.records)
        self._starts[end] = start
        for request_id in ids:
            self.ids[request_id] = end
        return end

    def wait(self, end: int) -> asyncio.Future[int]:
        """Return a future of the last position of a request for one caller, to be awaited at once.

        Cancel safety: it is the caller's alone; cancelled, it takes nothing else with it.
        """
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._error is not None:
            waiter.set_exception(self._error)
        elif self._last:
            waiter.set_result(self._position(end))
        else:
            self.waiters.append(waiter)
            self.ends.append(end)
            self._plain &= end != WHOLE
        return waiter

    def keep(self, kept: Sequence[bool]) -> None:
        """Leave out the records for which ``kept`` is false."""
        self._kept, self._plain = [0], False
        for held in kept:
            self._kept.append(self._kept[-1] + held)

    def answer(self, first: int, last: int) -> None:
        """Tell everyone who waits, and who will ask, that the object holds the positions ``first`` to ``last``."""
        self._first, self._last = first, last
        before, plain = first - 1, self._plain
        for waiter, end in zip(self.waiters, self.ends, strict=True):
            if not waiter.done():
                waiter.set_result(before + end if plain else self._position(end))

    def fail(self, error: BrainyError) -> None:
        """Tell everyone who waits, and who will ask, the error."""
        self._error = error
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def _position(self, end: int) -> int:
        if self._kept is None:
            return self._first + end - 1 if end else self._last
        # Of a request that was left out, or of a cursor alone: any position says that all of it was looked at.
        upto, before = self._kept[end], self._kept[self._starts.get(end, end - 1)] if end else 0
        return self._first + upto - 1 if upto > before else self._last
