"""The records of a mirror: how far each shard's log has been written back into Brainy's tree, and what was met.

``cluster/mirror/<generation>/<shard>.json`` belongs to the owner of the shard and is replaced with If-Match only;
``cluster/mirror/statistics.json`` says how much of the shards' counts Brainy's statistics object includes.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from brainy.bucket.records import Record


class MirrorCounts(BaseModel):
    """What was mirrored as Brainy counts it: by service, an add is one more, a delete one less."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nouns: dict[str, int] = {}
    verbs: dict[str, int] = {}
    metadata: dict[str, int] = {}

    def plus(self, other: MirrorCounts, sign: int = 1) -> MirrorCounts:
        """Return the sum, or with ``sign`` -1 the difference; services that come to nothing are left out."""
        return MirrorCounts(
            nouns=_added(self.nouns, other.nouns, sign),
            verbs=_added(self.verbs, other.verbs, sign),
            metadata=_added(self.metadata, other.metadata, sign),
        )

    @property
    def empty(self) -> bool:
        """Whether there is nothing to say."""
        return not (self.nouns or self.verbs or self.metadata)


class LimitMet(BaseModel):
    """One of the items that the dialect could not carry whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: A value of ``brainy.legacy.dialect.limits.LimitKind``.
    kind: str
    item: str
    id: str
    detail: str = ""
    withheld: bool = False


class MirrorCursor(Record):
    """Progress of one shard's mirror. The position never falls, unless the dialect changes."""

    generation: int
    shard: int
    #: A name of ``brainy.legacy.dialect.dialects.DIALECTS``.
    dialect: str
    #: Epoch of the owner that writes; a lower one stops.
    epoch: int
    nonce: str
    #: Everything of the shard's log at or below this is in Brainy's tree.
    position: int = 0
    #: Milliseconds of the last change-log entry's name: the next one is not below.
    milliseconds: int = 0
    #: Another generation has taken over: what this log holds after the position is mirrored by that one's shards.
    final: bool = False
    #: "generation/shard" of the generations this one was made from -> position up to which those of its changes that
    #: belong to this shard are in the tree.
    source: dict[str, int] = Field(default_factory=dict)
    counts: MirrorCounts = MirrorCounts()
    #: Items written; records that came from Brainy itself and were not written back.
    written: int = 0
    foreign: int = 0
    #: Writes not made because Brainy had changed the object since it was last seen.
    conflicts: int = 0
    #: Kind of limit -> items, and the newest few of them.
    limits: dict[str, int] = Field(default_factory=dict)
    newest_limits: tuple[LimitMet, ...] = ()
    #: Why the mirror does not get on; "" while it does.
    problem: str = ""
    updated_at: str = ""


class MirrorStatistics(Record):
    """How much of the mirrored counts is in Brainy's statistics object. Written before that is."""

    nonce: str
    included: MirrorCounts = MirrorCounts()


def _added(left: Mapping[str, int], right: Mapping[str, int], sign: int) -> dict[str, int]:
    total = {name: left.get(name, 0) + sign * right.get(name, 0) for name in {**left, **right}}
    return {name: count for name, count in sorted(total.items()) if count}
