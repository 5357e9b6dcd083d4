"""How a front door served its clients, by generation: nothing a call but a look at the clock and increments."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import TracebackType
from typing import Literal, Self

from brainy.api.node.v1 import serving_pb2
from brainy.clock import Clock, Deadline
from brainy.errors import (
    AlreadyExistsError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
)
from brainy.traffic.latencies import BUCKETS, bucket_of
from brainy_node.router.fan_out import ASK_ELSEWHERE
from brainy_node.runtime.ports import NamespaceRuntime

#: A caller that leaves less time than this has only itself to blame when it runs out.
FAIR_SECONDS = 1.0

Kind = Literal["reads", "writes"]


class _Counts:
    """Calls of one kind; only ever grows."""

    __slots__ = ("count", "failed", "latency")

    def __init__(self) -> None:
        self.count = 0
        self.failed = 0
        self.latency = [0] * BUCKETS

    def message(self) -> serving_pb2.CallCounts:
        used = next((n for n in range(BUCKETS, 0, -1) if self.latency[n - 1]), 0)
        return serving_pb2.CallCounts(count=self.count, failed=self.failed, latency=self.latency[:used])


class ServedBook:
    """Counts of one node, by namespace, generation and kind, since the process began."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[tuple[str, int], dict[Kind, _Counts]] = {}

    def call(self, runtime: NamespaceRuntime, kind: Kind, deadline: Deadline) -> ServedCall:
        """Return the block in which a call is served.

        It counts for the generation that is in service when it begins, with the time it takes, whatever it ends with,
        except: the caller's own mistakes, which say nothing of the generation; calls that the caller gave up, or left
        less than a second for; calls during which another generation came into service, which are neither one's.
        """
        return ServedCall(self._clock, self, runtime, kind, deadline)

    def add(self, namespace: str, generation: int, kind: Kind, seconds: float, *, failed: bool) -> None:
        """Count one call."""
        kinds = self._counts.get((namespace, generation))
        if kinds is None:
            kinds = self._counts[namespace, generation] = {"reads": _Counts(), "writes": _Counts()}
        counts = kinds[kind]
        counts.count += 1
        counts.failed += failed
        counts.latency[bucket_of(seconds)] += 1

    def report(self, namespace: str, generations: Collection[int]) -> list[serving_pb2.ServedCalls]:
        """Say how the generations named were served; what is counted of others of the namespace is forgotten."""
        for key in [key for key in self._counts if key[0] == namespace and key[1] not in generations]:
            del self._counts[key]
        return [
            serving_pb2.ServedCalls(
                namespace=namespace,
                generation=generation,
                reads=kinds["reads"].message(),
                writes=kinds["writes"].message(),
            )
            for (name, generation), kinds in sorted(self._counts.items())
            if name == namespace
        ]


class ServedCall:
    """One call being served."""

    __slots__ = ("_began", "_book", "_clock", "_deadline", "_fair", "_generation", "_kind", "_runtime", "_tried")

    def __init__(
        self, clock: Clock, book: ServedBook, runtime: NamespaceRuntime, kind: Kind, deadline: Deadline
    ) -> None:
        self._clock = clock
        self._book = book
        self._runtime = runtime
        self._kind = kind
        self._deadline = deadline
        self._tried: int | None = None

    def tried(self, generation: int) -> None:
        """Say that a generation which is only tried gave the answer: the call counts for it."""
        self._tried = generation

    def __enter__(self) -> Self:
        """Begin."""
        self._began = self._clock.monotonic()
        self._fair = self._deadline.at - self._began >= FAIR_SECONDS
        self._generation = self._serving()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Count it."""
        if self._generation != self._serving():
            return
        failed = error is not None
        if failed and not self._held_against(error):
            return
        generation = self._generation if self._tried is None else self._tried
        seconds = self._clock.monotonic() - self._began
        self._book.add(self._runtime.name, generation, self._kind, seconds, failed=failed)

    def _serving(self) -> int:
        routing = self._runtime.routing
        return routing.write if self._kind == "writes" else routing.read_generation(self._runtime.node_id)

    def _held_against(self, error: BaseException | None) -> bool:
        if self._deadline.passed and not self._fair:
            return False
        if isinstance(error, asyncio.CancelledError):
            return self._deadline.passed  # else the caller went away
        if isinstance(error, InvalidRequestError | NotFoundError | AlreadyExistsError | PreconditionError):
            return error.reason in ASK_ELSEWHERE
        return isinstance(error, Exception)
