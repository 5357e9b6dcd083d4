"""Counted, not drifting, figures of a shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from brainy.errors import CorruptDataError
from brainy_node.shard.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatistics:
    """Figures of a shard at one position."""

    nouns: int = 0
    verbs: int = 0
    #: Nouns that carry Brainy's soft-delete marker; they are among ``nouns``.
    soft_deleted: int = 0
    #: Nouns that are stored but not searchable; they are among ``nouns``.
    unindexed: int = 0
    #: Objects of the source that could not be read.
    quarantined: int = 0
    nouns_by_service: Mapping[str, int] = field(default_factory=dict)
    nouns_by_type: Mapping[str, int] = field(default_factory=dict)
    verbs_by_type: Mapping[str, int] = field(default_factory=dict)
    verbs_by_service: Mapping[str, int] = field(default_factory=dict)
    #: Nouns that carry a metadata document.
    metadata_by_service: Mapping[str, int] = field(default_factory=dict)


class Tally:
    """Running counts. An item is counted out with the same arguments it was counted in with."""

    __slots__ = (
        "metadata_by_service",
        "nouns",
        "nouns_by_service",
        "nouns_by_type",
        "soft_deleted",
        "unindexed",
        "verbs",
        "verbs_by_service",
        "verbs_by_type",
    )

    def __init__(self) -> None:
        self.nouns = 0
        self.verbs = 0
        self.soft_deleted = 0
        self.unindexed = 0
        self.nouns_by_service: Counter[str] = Counter()
        self.nouns_by_type: Counter[str] = Counter()
        self.verbs_by_type: Counter[str] = Counter()
        self.verbs_by_service: Counter[str] = Counter()
        self.metadata_by_service: Counter[str] = Counter()

    def noun(self, facts: Facts, *, indexed: bool, by: int = 1) -> None:
        """Count a noun in (``by`` 1) or out (-1)."""
        self.nouns += by
        self.soft_deleted += by * facts.soft_deleted
        self.unindexed += by * (not indexed)
        _shift(self.nouns_by_service, facts.service, by)
        _shift(self.nouns_by_type, facts.type, by)
        if facts.documented:
            _shift(self.metadata_by_service, facts.service, by)

    def verb(self, kind: str, service: str, *, by: int = 1) -> None:
        """Count a verb in or out."""
        self.verbs += by
        _shift(self.verbs_by_type, kind, by)
        _shift(self.verbs_by_service, service, by)

    def statistics(self, *, quarantined: int) -> ShardStatistics:
        """Return the figures as they are now."""
        return ShardStatistics(
            nouns=self.nouns,
            verbs=self.verbs,
            soft_deleted=self.soft_deleted,
            unindexed=self.unindexed,
            quarantined=quarantined,
            nouns_by_service=dict(self.nouns_by_service),
            nouns_by_type=dict(self.nouns_by_type),
            verbs_by_type=dict(self.verbs_by_type),
            verbs_by_service=dict(self.verbs_by_service),
            metadata_by_service=dict(self.metadata_by_service),
        )

    def encode(self) -> dict[str, Any]:
        """Return the counts as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def decode(cls, document: Mapping[str, Any]) -> Tally:
        """Read what ``encode`` wrote.

        Raises:
            CorruptDataError: a count is missing, because an earlier version did not keep it.
        """
        tally = cls()
        for name in cls.__slots__:
            value = document.get(name)
            if value is None:
                raise CorruptDataError(
                    "the base lacks a count that this version keeps",
                    remedy="delete the base directory; it is rebuilt from the bucket",
                    count=name,
                )
            setattr(tally, name, Counter(value) if isinstance(value, dict) else int(value))
        return tally


def _shift(counter: Counter[str], name: str, by: int) -> None:
    left = counter[name] + by
    if left:
        counter[name] = left
    else:
        del counter[name]
