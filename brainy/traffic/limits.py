"""When a generation serves so badly that the one before it is wanted back: limits, and the verdict on figures. Pure.

Limits are written ``error-rate>0.01``, ``p99>0.25s``, ``p99>2x``, ``write-p99>3x``, ``overlap<0.9``. ``worse`` stands
for what suits most: an error rate above 1 %, or reads that take three times as long as before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from brainy.api.coordinator.v1 import migration_pb2
from brainy.errors import InvalidRequestError
from brainy.traffic.serving import Calls, ServingFigures, milliseconds

#: Fewest calls and queries that are judged, and the share of searches asked of the other side, where nothing is said.
MIN_CALLS = 100
MIN_QUERIES = 50
SHADOW = 0.05
#: Multiples of less than this are no breach: what takes so little is at the mercy of chance.
LEAST_SECONDS = 0.005

_WORSE = ("error-rate>0.01", "p99>3x")
_LIMIT = re.compile(r"\s*([a-z0-9-]+)\s*([<>])\s*([0-9.eE+-]+)\s*(x|s|ms|%|)\s*", re.ASCII)


class RollbackLimits(BaseModel):
    """What a target must keep to after the switch. None asks nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Largest share of calls that may fail by the server's making, 0 to 1.
    error_rate: float | None = None
    #: Largest 99th percentile of the reads: in seconds, and as a multiple of the source's before the switch.
    p99_seconds: float | None = None
    p99_factor: float | None = None
    write_p99_seconds: float | None = None
    write_p99_factor: float | None = None
    #: Smallest mean share of the nearest neighbours that both sides return, 0 to 1.
    overlap: float | None = None
    #: Fewest calls, reads, writes that are judged.
    min_calls: int = MIN_CALLS
    min_queries: int = MIN_QUERIES
    #: Share of searches asked of the source besides where ``overlap`` is given, 0 to 1.
    shadow: float = SHADOW

    @property
    def texts(self) -> tuple[str, ...]:
        """The limits as they are written."""
        found = (
            ("error-rate>{:g}", self.error_rate),
            ("p99>{:g}s", self.p99_seconds),
            ("p99>{:g}x", self.p99_factor),
            ("write-p99>{:g}s", self.write_p99_seconds),
            ("write-p99>{:g}x", self.write_p99_factor),
            ("overlap<{:g}", self.overlap),
        )
        return tuple(form.format(value) for form, value in found if value is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is wrong, and what cannot be judged."""

    #: Figure against limit, for each that is not kept.
    breaches: tuple[str, ...] = ()
    #: What is missing before a limit can be judged.
    lacking: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether every limit was judged and is kept."""
        return not self.breaches and not self.lacking


def limits_of(limits: RollbackLimits | Iterable[str], *, min_calls: int = 0) -> RollbackLimits | None:
    """Read limits as people write them; None for none. 0 calls stand for the default.

    Raises:
        InvalidRequestError: not such a limit, one given twice, or a number out of bounds.
    """
    if isinstance(limits, RollbackLimits):
        return limits
    values: dict[str, float] = {}
    for text in (part for one in limits for part in ([*_WORSE] if one.strip() == "worse" else [one])):
        name, value = _limit(text)
        if name in values:
            raise InvalidRequestError("a limit is given twice", remedy="give each once", limit=text)
        values[name] = value
    if not values:
        return None
    read = RollbackLimits.model_validate({**values, "min_calls": min_calls or MIN_CALLS})
    check_limits(read)
    return read


def check_limits(limits: RollbackLimits) -> None:
    """Refuse what cannot be meant.

    Raises:
        InvalidRequestError: a number out of bounds, or no limit at all.
    """
    shares = (limits.error_rate, limits.overlap, limits.shadow)
    lengths = (limits.p99_seconds, limits.p99_factor, limits.write_p99_seconds, limits.write_p99_factor)
    wrong = [value for value in shares if value is not None and not 0.0 <= value <= 1.0]
    wrong += [value for value in lengths if value is not None and not (value > 0.0 and math.isfinite(value))]
    if wrong or not limits.texts or limits.min_calls < 1 or limits.min_queries < 1:
        raise InvalidRequestError(
            "a limit for rolling back is out of bounds",
            remedy="shares are 0 to 1, times and multiples above 0, the fewest calls and queries at least 1",
            limits=", ".join(limits.texts),
        )


def judge_serving(limits: RollbackLimits, now: ServingFigures, before: ServingFigures | None) -> Verdict:
    """Hold figures since the switch against limits.

    Args:
        limits: what must be kept.
        now: how the target served since the switch.
        before: how the source served until then; None where that is not known.
    """
    breaches: list[str] = []
    lacking: list[str] = []
    needs = f"of the {limits.min_calls:,} that are needed to judge"
    if limits.error_rate is not None:
        if now.calls < limits.min_calls:
            lacking.append(f"{now.calls:,} calls {needs}")
        elif now.error_rate > limits.error_rate:
            breaches.append(
                f"error-rate {now.error_rate:.4g} > {limits.error_rate:g}: {now.failed:,} of {now.calls:,} calls failed"
            )
    tails = (
        ("p99", "reads", now.reads, now.read_p99_seconds, limits.p99_seconds, limits.p99_factor),
        ("write-p99", "writes", now.writes, now.write_p99_seconds, limits.write_p99_seconds, limits.write_p99_factor),
    )
    for name, kind, count, seconds, most, factor in tails:
        if most is None and factor is None:
            continue
        if count < limits.min_calls:
            lacking.append(f"{count:,} {kind} {needs}")
            continue
        if most is not None and seconds > most:
            breaches.append(f"{name} {milliseconds(seconds)} > {milliseconds(most)} of {count:,} {kind}")
        if factor is None:
            continue
        known = (before.reads, before.read_p99_seconds) if before and name == "p99" else (0, 0.0)
        if before and name != "p99":
            known = (before.writes, before.write_p99_seconds)
        if known[0] < limits.min_calls:
            lacking.append(f"the source answered {known[0]:,} {kind} before the switch, {needs}")
        elif seconds > max(LEAST_SECONDS, factor * known[1]):
            breaches.append(
                f"{name} {milliseconds(seconds)} > {factor:g} x {milliseconds(known[1])} before the switch, "
                f"of {count:,} {kind}"
            )
    if limits.overlap is not None:
        if now.overlap is None or now.queries < limits.min_queries:
            lacking.append(
                f"{now.queries:,} queries were asked of both sides of the {limits.min_queries:,} that are needed"
            )
        elif now.overlap < limits.overlap:
            breaches.append(f"overlap {now.overlap:.4g} < {limits.overlap:g} of {now.queries:,} queries")
    return Verdict(breaches=tuple(breaches), lacking=tuple(lacking))


def limits_to_proto(value: RollbackLimits | None) -> migration_pb2.RollbackLimits | None:
    """Convert for the wire."""
    if value is None:
        return None
    return migration_pb2.RollbackLimits(
        error_rate=value.error_rate,
        p99_seconds=value.p99_seconds,
        p99_factor=value.p99_factor,
        write_p99_seconds=value.write_p99_seconds,
        write_p99_factor=value.write_p99_factor,
        overlap=value.overlap,
        min_calls=value.min_calls,
        min_queries=value.min_queries,
        shadow=value.shadow,
    )


def limits_from_proto(message: migration_pb2.RollbackLimits) -> RollbackLimits:
    """Convert from the wire.

    Raises:
        InvalidRequestError: a number out of bounds, or no limit at all.
    """
    limits = RollbackLimits(
        error_rate=message.error_rate if message.HasField("error_rate") else None,
        p99_seconds=message.p99_seconds if message.HasField("p99_seconds") else None,
        p99_factor=message.p99_factor if message.HasField("p99_factor") else None,
        write_p99_seconds=message.write_p99_seconds if message.HasField("write_p99_seconds") else None,
        write_p99_factor=message.write_p99_factor if message.HasField("write_p99_factor") else None,
        overlap=message.overlap if message.HasField("overlap") else None,
        min_calls=message.min_calls or MIN_CALLS,
        min_queries=message.min_queries or MIN_QUERIES,
        shadow=message.shadow or SHADOW,
    )
    check_limits(limits)
    return limits


def enough(limits: RollbackLimits | None, calls: Calls) -> bool:
    """Whether there are as many calls as are judged."""
    return calls.count >= (limits.min_calls if limits is not None else MIN_CALLS)


def _limit(text: str) -> tuple[str, float]:
    found = _LIMIT.fullmatch(text)
    try:
        name, sign, number, unit = (found[1], found[2], float(found[3]), found[4]) if found else ("", "", 0.0, "")
    except ValueError:
        name, sign, number, unit = "", "", 0.0, ""
    if unit == "%":
        unit, number = "", number / 100
    if unit == "ms":
        unit, number = "s", number / 1000
    known = {
        ("error-rate", ">", ""): "error_rate",
        ("p99", ">", "s"): "p99_seconds",
        ("p99", ">", "x"): "p99_factor",
        ("write-p99", ">", "s"): "write_p99_seconds",
        ("write-p99", ">", "x"): "write_p99_factor",
        ("overlap", "<", ""): "overlap",
    }.get((name, sign, unit))
    if known is None:
        raise InvalidRequestError(
            "not a limit for rolling back",
            remedy="write error-rate>0.01, p99>250ms, p99>2x, write-p99>3x, overlap<0.9, or worse",
            limit=text,
        )
    return known, number
