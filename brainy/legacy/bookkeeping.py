"""Brainy's book-keeping, read beside what was counted and never believed: statistics, locks, instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from brainy.clock import iso
from brainy.legacy.names import shown
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.statistics_lock import expires_at_ms
from brainy.legacy.values import UnreadableError, parse_json

_MAX_STATISTICS = 10
_MAX_INSTANCES = 100
_KINDS = (("nouns", "nounCount"), ("verbs", "verbCount"), ("metadata", "metadataCount"))


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)


class StatisticsFound(_Report):
    """One of Brainy's statistics objects, summed over services. None where it cannot be read."""

    key: str
    nouns: int | None
    verbs: int | None
    metadata: int | None
    #: Entries of the writer's in-memory index: nouns and verbs.
    hnsw_index_size: int | None
    last_updated: str | None


class Drift(_Report):
    """What the newest statistics claim of a service, against what was counted."""

    #: None stands for all services together.
    service: str | None
    #: nouns, verbs, metadata or index; the last two only for all services.
    kind: str
    #: None: the statistics do not say.
    claimed: int | None
    counted: int
    #: claimed - counted, nothing claimed being 0.
    difference: int


class Statistics(_Report):
    """What Brainy believed, newest object first (at most ten), against what is there."""

    found: tuple[StatisticsFound, ...]
    objects: int
    counted_nouns: int
    counted_verbs: int
    #: False when an object was found and the newest differs from what was counted.
    agrees: bool
    #: Against the newest object; empty without one.
    drift: tuple[Drift, ...]


class LockFound(_Report):
    """One of Brainy's locks."""

    key: str
    #: As Brainy wrote it: ``<ms>_<random>_<process id>``.
    holder: str
    #: The process id in it.
    process: str | None
    #: ISO 8601, or None where the lock does not say.
    taken_at: str | None
    age_seconds: float | None
    #: ISO 8601, or None where the lock does not say: Brainy treats it as free.
    expires_at: str | None
    #: By how much it is over; negative while it is alive.
    expired_seconds: float | None
    stale: bool


class Instance(_Report):
    """A process that registered itself in Brainy's shared configuration."""

    id: str
    role: str | None
    status: str | None
    last_heartbeat: str | None


class Distributed(_Report):
    """Brainy's shared configuration of its distributed mode."""

    key: str
    version: int | None
    updated: str | None
    instances: tuple[Instance, ...]


class Counted(_Report):
    """What was counted, for the comparison."""

    nouns: int
    verbs: int
    #: Nouns with metadata other than null.
    metadata: int
    noun_services: Mapping[str, int]
    verb_services: Mapping[str, int]


def stamp(milliseconds: float | None) -> str | None:
    """Render milliseconds since 1970 as ISO 8601; None where no calendar has such a day."""
    if milliseconds is None:
        return None
    try:
        return iso(milliseconds / 1000)
    except (OverflowError, ValueError, OSError):
        return None


async def read_statistics(fetcher: Fetcher, names: Sequence[str], objects: int, counted: Counted) -> Statistics:
    """Read the newest statistics objects among ``names`` and compare the newest with what was counted."""
    # By day, newest first; the copy without a date last, since it lags.
    names = sorted(names, key=lambda key: key.rpartition("_")[2], reverse=True)
    dated = [key for key in names if key.removesuffix(".json")[-8:].isdigit()]
    names = (dated + [key for key in names if key not in dated])[:_MAX_STATISTICS]
    found = []
    newest: dict[str, Any] | None = None
    for key, stored in zip(names, await fetcher.get_all(names), strict=True):
        fields = {} if stored is None else _object(stored.body)
        if newest is None and any(isinstance(fields.get(name), dict) for _, name in _KINDS):
            newest = fields
        sums = {kind: _sum(fields.get(name)) for kind, name in _KINDS}
        found.append(
            StatisticsFound(
                key=key,
                nouns=sums["nouns"],
                verbs=sums["verbs"],
                metadata=sums["metadata"],
                hnsw_index_size=_whole(fields.get("hnswIndexSize")),
                last_updated=_text(fields, "lastUpdated"),
            )
        )
    agrees = not found or (found[0].nouns, found[0].verbs) == (counted.nouns, counted.verbs)
    return Statistics(
        found=tuple(found),
        objects=objects,
        counted_nouns=counted.nouns,
        counted_verbs=counted.verbs,
        agrees=agrees,
        drift=() if newest is None else tuple(_drift(newest, counted)),
    )


def _drift(fields: Mapping[str, Any], counted: Counted) -> list[Drift]:
    rows = [
        _row(None, "nouns", _sum(fields.get("nounCount")), counted.nouns),
        _row(None, "verbs", _sum(fields.get("verbCount")), counted.verbs),
        _row(None, "metadata", _sum(fields.get("metadataCount")), counted.metadata),
        _row(None, "index", _whole(fields.get("hnswIndexSize")), counted.nouns + counted.verbs),
    ]
    for kind, name, services in (
        ("nouns", "nounCount", counted.noun_services),
        ("verbs", "verbCount", counted.verb_services),
    ):
        stored = fields.get(name)
        claims = {shown(service): value for service, value in stored.items()} if isinstance(stored, dict) else {}
        rows += [
            _row(service, kind, _whole(claims.get(service)), services.get(service, 0))
            for service in sorted({*claims, *services})
        ]
    return rows


def _row(service: str | None, kind: str, claimed: int | None, counted: int) -> Drift:
    return Drift(service=service, kind=kind, claimed=claimed, counted=counted, difference=(claimed or 0) - counted)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = parse_json(body)
    except UnreadableError:
        return {}
    return value if isinstance(value, dict) else {}


def _sum(counts: object) -> int | None:
    if not isinstance(counts, dict):
        return None
    return sum(_whole(value) or 0 for value in counts.values())


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**63:
        return None
    return int(value)


async def read_locks(fetcher: Fetcher, names: Sequence[str], now: float) -> tuple[LockFound, ...]:
    """Read Brainy's locks; ``now`` in seconds since 1970 tells for people how old they are."""
    found = []
    for stored in await fetcher.get_all(names):
        if stored is None:
            continue
        holder = stored.body[:200].decode("utf-8", "replace")
        expires = expires_at_ms(stored)
        taken, _, rest = holder.partition("_")
        taken_ms = int(taken) if taken.isascii() and taken.isdigit() and len(taken) < 16 else None
        process = rest.rpartition("_")[2]
        found.append(
            LockFound(
                key=stored.key,
                holder=holder,
                process=process if process.isascii() and process.isdigit() else None,
                taken_at=stamp(taken_ms),
                age_seconds=None if taken_ms is None else round(now - taken_ms / 1000, 3),
                expires_at=stamp(expires),
                expired_seconds=None if expires is None else round(now - expires / 1000, 3),
                stale=expires is None or expires <= now * 1000,
            )
        )
    return tuple(found)


async def read_distributed(fetcher: Fetcher, names: Sequence[str]) -> Distributed | None:
    """Read the shared configuration of the strongest tree that has one."""
    if not names:
        return None
    stored = await fetcher.get(names[0])
    fields = {} if stored is None else _object(stored.body)
    instances = fields.get("instances")
    return Distributed(
        key=names[0],
        version=_whole(fields.get("version")),
        updated=_text(fields, "updated"),
        instances=tuple(
            Instance(
                id=shown(name),
                role=_text(entry, "role"),
                status=_text(entry, "status"),
                last_heartbeat=_text(entry, "lastHeartbeat"),
            )
            for name, entry in list(instances.items())[:_MAX_INSTANCES]
        )
        if isinstance(instances, dict)
        else (),
    )


def _text(entry: object, name: str) -> str | None:
    value = entry.get(name) if isinstance(entry, dict) else None
    return shown(value) if isinstance(value, str) else None
