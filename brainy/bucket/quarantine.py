"""``quarantine/<shard>/<name>.json``: what of a source could not be read into a shard, and why."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from brainy.bucket.records import Record


class QuarantinedObject(BaseModel):
    """An object of the source that is not an item."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Its key in the source, without the namespace's prefix.
    key: str
    #: A value of ``brainy.legacy.batch.Reason``.
    reason: str
    #: Bytes, as far as known.
    size: int


class QuarantineList(Record):
    """All of them for one shard. Immutable; named and hashed by the shard's manifest."""

    generation: int
    shard: int
    objects: tuple[QuarantinedObject, ...] = ()
