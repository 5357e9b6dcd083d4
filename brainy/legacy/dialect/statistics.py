"""Brainy's statistics object: what it is called on a day, and what it says once our changes are counted in. Pure.

Brainy keeps one cumulative object a day and merges by taking, for each service, the larger of two counts. So ours are
added to the larger of today's and the last day's: nothing that either says is lowered but by our own deletes, and a
later merge of Brainy's keeps the sum.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from brainy.bucket.mirroring import MirrorCounts
from brainy.clock import iso
from brainy.legacy.dialect.javascript import stringify
from brainy.legacy.keys import ENTITY, INDEX, SYSTEM

LEGACY_KEY = f"{INDEX}statistics.json"
_COUNTS = (("nounCount", "nouns"), ("verbCount", "verbs"), ("metadataCount", "metadata"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsKeys:
    """Where a bucket's version keeps its statistics."""

    #: The object of the day that is to be written.
    today: str
    #: The newest one of an earlier day, or the old undated one; "" if there is none.
    earlier: str
    #: A second place that gets the same body; "" if there is none.
    copy: str


def statistics_keys(names: Collection[str], tree: str, now_ms: int) -> StatisticsKeys | None:
    """Return where statistics lie, or None for a version that keeps none.

    Args:
        names: keys of all statistics objects of the bucket.
        tree: the tree in use.
        now_ms: the store's time.
    """
    day = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d")
    for folder in (SYSTEM, INDEX):
        dated = sorted(name for name in names if name.startswith(f"{folder}statistics_"))
        if not dated:
            continue
        today = f"{folder}statistics_{day}.json"
        before = [name for name in dated if name < today]
        return StatisticsKeys(
            today=today, earlier=before[-1] if before else "", copy=LEGACY_KEY if tree == ENTITY else ""
        )
    return StatisticsKeys(today=LEGACY_KEY, earlier="", copy="") if LEGACY_KEY in names else None


def counted_in(
    today: Mapping[str, Any], earlier: Mapping[str, Any], change: MirrorCounts, *, now_ms: int
) -> dict[str, Any]:
    """Return the statistics that include a change; what Brainy says beside the counts stays."""
    body: dict[str, Any] = {}
    for name, ours in _COUNTS:
        counts = _larger(_counts(today, name), _counts(earlier, name))
        for service, more in getattr(change, ours).items():
            counts[service] = max(0, counts.get(service, 0) + more)
        body[name] = counts
    size = max(_number(today.get("hnswIndexSize")), _number(earlier.get("hnswIndexSize")))
    body["hnswIndexSize"] = max(0, size + sum(change.nouns.values()) + sum(change.verbs.values()))
    body["lastUpdated"] = iso(now_ms / 1000)
    return body | {name: value for name, value in {**earlier, **today}.items() if name not in body}


def encode(body: Mapping[str, Any]) -> bytes:
    """Return the object's bytes, as Brainy prints them."""
    return stringify(dict(body), indent=2)


def _larger(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
    return {service: max(left.get(service, 0), right.get(service, 0)) for service in {**left, **right}}


def _counts(body: Mapping[str, Any], name: str) -> dict[str, int]:
    value = body.get(name)
    return {service: _number(count) for service, count in value.items()} if isinstance(value, dict) else {}


def _number(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) and value - value == 0 else 0
