"""How a generation serves its clients: counts that add up, and what is read off them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf import duration_pb2

from brainy.api.coordinator.v1 import migration_pb2
from brainy.api.node.v1 import serving_pb2
from brainy.traffic.latencies import added, quantile

_TAIL = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls of one kind. The empty one is the zero of ``+``, which is associative and commutative."""

    count: int = 0
    #: Of them, those that failed by the server's making.
    failed: int = 0
    #: All of them by time taken (``brainy.traffic.latencies``).
    latency: tuple[int, ...] = ()

    def __add__(self, other: Calls) -> Calls:
        """Add other calls."""
        return Calls(
            count=self.count + other.count,
            failed=self.failed + other.failed,
            latency=added(self.latency, other.latency),
        )

    def since(self, earlier: Calls) -> Calls:
        """Return what came after an earlier count; all of it where a count fell, for then it began anew meanwhile."""
        padded = (*earlier.latency, *(0,) * (len(self.latency) - len(earlier.latency)))
        fell = self.count < earlier.count or self.failed < earlier.failed or len(padded) > len(self.latency)
        if fell or any(now < was for now, was in zip(self.latency, padded, strict=True)):
            return self
        return Calls(
            count=self.count - earlier.count,
            failed=self.failed - earlier.failed,
            latency=tuple(now - was for now, was in zip(self.latency, padded, strict=True)),
        )

    @property
    def p99_seconds(self) -> float:
        """Seconds that 99 % of the calls did not exceed, at most 9 % too high; 0 without any."""
        return quantile(self.latency, _TAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Reads and writes of one generation."""

    reads: Calls = Calls()
    writes: Calls = Calls()

    def __add__(self, other: Serving) -> Serving:
        """Add other calls."""
        return Serving(reads=self.reads + other.reads, writes=self.writes + other.writes)

    def since(self, earlier: Serving) -> Serving:
        """Return what came after an earlier count; as ``Calls.since``."""
        return Serving(reads=self.reads.since(earlier.reads), writes=self.writes.since(earlier.writes))

    @property
    def both(self) -> Calls:
        """Reads and writes together."""
        return self.reads + self.writes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingFigures:
    """How a generation served, as it is judged, kept in a migration's history, and shown."""

    #: Reads and writes; of them, those that failed by the server's making.
    calls: int = 0
    failed: int = 0
    reads: int = 0
    #: 99th percentile of the reads' times, seconds; 0 without any.
    read_p99_seconds: float = 0.0
    writes: int = 0
    write_p99_seconds: float = 0.0
    #: Queries asked of both sides; the mean share of the neighbours that both returned, None before any was.
    queries: int = 0
    overlap: float | None = None

    @property
    def error_rate(self) -> float:
        """Share of the calls that failed, 0 to 1."""
        return self.failed / self.calls if self.calls else 0.0

    @property
    def text(self) -> str:
        """The figures in words."""
        parts = [f"{self.calls:,} calls, {self.error_rate:.2%} failed"]
        if self.reads:
            parts.append(f"p99 {milliseconds(self.read_p99_seconds)}")
        if self.writes:
            parts.append(f"write-p99 {milliseconds(self.write_p99_seconds)}")
        if self.overlap is not None:
            parts.append(f"overlap {self.overlap:.2%} of {self.queries:,} queries")
        return ", ".join(parts)


def milliseconds(seconds: float) -> str:
    """Return a time in words."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1.0 else f"{seconds:.3g} s"


def calls_to_proto(value: Calls) -> serving_pb2.CallCounts:
    """Convert for the wire."""
    return serving_pb2.CallCounts(count=value.count, failed=value.failed, latency=value.latency)


def served_from_proto(messages: Sequence[serving_pb2.ServedCalls]) -> dict[tuple[str, int], Serving]:
    """Convert from the wire: (namespace, generation) -> how it was served."""
    return {
        (each.namespace, each.generation): Serving(reads=_calls(each.reads), writes=_calls(each.writes))
        for each in messages
    }


def figures_to_proto(value: ServingFigures) -> migration_pb2.ServingFigures:
    """Convert for the wire."""
    return migration_pb2.ServingFigures(
        calls=value.calls,
        failed=value.failed,
        reads=value.reads,
        read_p99=_duration(value.read_p99_seconds) if value.reads else None,
        writes=value.writes,
        write_p99=_duration(value.write_p99_seconds) if value.writes else None,
        queries=value.queries,
        overlap=value.overlap,
    )


def figures_from_proto(message: migration_pb2.ServingFigures) -> ServingFigures:
    """Convert from the wire."""
    return ServingFigures(
        calls=message.calls,
        failed=message.failed,
        reads=message.reads,
        read_p99_seconds=message.read_p99.ToNanoseconds() / 1e9,
        writes=message.writes,
        write_p99_seconds=message.write_p99.ToNanoseconds() / 1e9,
        queries=message.queries,
        overlap=message.overlap if message.HasField("overlap") else None,
    )


def _calls(message: serving_pb2.CallCounts) -> Calls:
    return Calls(count=message.count, failed=message.failed, latency=tuple(message.latency))


def _duration(seconds: float) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromNanoseconds(int(seconds * 1e9))
    return message
