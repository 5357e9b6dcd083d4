"""Generations on the wire: between the values of this package and the protos."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf import duration_pb2, timestamp_pb2

from brainy.api.coordinator.v1 import generation_pb2
from brainy.bucket.records import Routing
from brainy_coordinator.retirement.contents import Contents, Count
from brainy_coordinator.retirement.retirements import Retired
from brainy_coordinator.services.membership import duration

_PLACED = {
    "serving": generation_pb2.GENERATION_STATE_ACTIVE,
    "building": generation_pb2.GENERATION_STATE_BUILDING,
    "following": generation_pb2.GENERATION_STATE_FOLLOWING,
}
_RETIRED = {
    "retained": generation_pb2.GENERATION_STATE_RETAINED,
    "kept": generation_pb2.GENERATION_STATE_KEPT,
    "deleting": generation_pb2.GENERATION_STATE_DELETING,
    "deleted": generation_pb2.GENERATION_STATE_DELETED,
}


def counts_message(counts: Mapping[str, Count]) -> list[generation_pb2.ObjectCount]:
    """Return objects by kind."""
    return [
        generation_pb2.ObjectCount(kind=kind, objects=each.objects, bytes=each.bytes)
        for kind, each in sorted(counts.items())
    ]


def retention_message(seconds: float) -> duration_pb2.Duration | None:
    """Return a retention; None for good."""
    return None if seconds < 0.0 else duration(seconds)


def generation_message(
    number: int, *, routing: Routing | None, retired: Retired | None, contents: Contents | None = None
) -> generation_pb2.Generation:
    """Return a generation; one that is neither served nor on record is kept: nobody has said otherwise."""
    message = generation_pb2.Generation(number=number, state=generation_pb2.GENERATION_STATE_KEPT)
    placed = routing.generations.get(number) if routing is not None else None
    if contents is not None:
        message.deletes.extend(counts_message(contents.deleted))
        message.stays.extend(counts_message(contents.stays))
    if retired is not None:
        record = retired.record
        message.state = _RETIRED[record.state]
        message.migration_id = record.migration
        message.waits_for = retired.waits_for
        if record.state == "retained" and placed is None:
            message.remaining.CopyFrom(duration(retired.remaining))
        if record.state in ("deleting", "deleted"):
            message.deleted_objects, message.deleted_bytes = record.objects, record.bytes
        for line in record.story:
            at = timestamp_pb2.Timestamp()
            at.FromNanoseconds(int(line.at * 1e9))
            message.story.add(at=at, what=line.what, by=line.by, detail=line.detail)
    if placed is not None:
        message.state = _PLACED[placed.state]
    return message
