"""Generations of a namespace: which are served, and what becomes of those that are not any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf import duration_pb2

from brainy.api.coordinator.v1 import generation_pb2
from brainy.clock import iso
from brainy.sdk.connection import Connection
from brainy.sdk.retry import CONTROL, CONTROL_CHANGE


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectCount:
    """Objects of one kind: nouns, verbs, index, manifests, quarantine, change-log, ..."""

    kind: str
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationEvent:
    """One line of what became of a generation."""

    #: ISO 8601 in UTC, by the clock of the coordinator that wrote it; for people.
    at: str
    #: retained, kept, deleting or deleted.
    what: str
    by: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A generation at one moment."""

    number: int
    #: active, building, following (kept as a way back), retained, kept, deleting or deleted.
    state: str
    #: Seconds until it may be deleted, as the leader counts; None unless it is retained.
    remaining_seconds: float | None
    #: What holds its deletion up although the time is over; "" for nothing.
    waits_for: str
    #: What would be deleted with it, and what stays in any case; empty where it was not counted.
    deletes: tuple[ObjectCount, ...]
    stays: tuple[ObjectCount, ...]
    #: The migration that left it behind; "" for none.
    migration_id: str
    deleted_objects: int
    deleted_bytes: int
    story: tuple[GenerationEvent, ...]


class GenerationCalls(Connection):
    """Needs ``coordinators``; without them every call raises ``UnavailableError``."""

    async def list_generations(self, *, sizes: bool = False) -> list[Generation]:
        """List every generation that left a trace, by number.

        Args:
            sizes: count the objects of each: one listing of all its keys.
        """
        request = generation_pb2.ListGenerationsRequest(namespace=self.namespace, sizes=sizes)
        answer = await self._coordinators.unary(lambda leader: leader.generations.ListGenerations, request, CONTROL)
        return [generation_from_proto(each) for each in answer.generations]

    async def keep_generation(self, number: int, *, requested_by: str = "") -> Generation:
        """Do not delete a generation that is not served, until somebody asks for it again.

        Raises:
            NotFoundError: there is no such generation.
            PreconditionError: it is in service (WRONG_PHASE).
            PastPointOfNoReturnError: its deletion has begun.
        """
        self._changing()
        request = generation_pb2.SetRetentionRequest(
            namespace=self.namespace, generation=number, keep=True, requested_by=requested_by
        )
        answer = await self._coordinators.unary(lambda leader: leader.generations.SetRetention, request, CONTROL_CHANGE)
        return generation_from_proto(answer.generation)

    async def retain_generation(self, number: int, seconds: float, *, requested_by: str = "") -> Generation:
        """Delete a generation that is not served after so long from now on, as the leader counts.

        It is kept no less than change logs are (``log_retention_seconds``). Errors as ``keep_generation``.
        """
        self._changing()
        request = generation_pb2.SetRetentionRequest(
            namespace=self.namespace, generation=number, retain=duration_of(seconds), requested_by=requested_by
        )
        answer = await self._coordinators.unary(lambda leader: leader.generations.SetRetention, request, CONTROL_CHANGE)
        return generation_from_proto(answer.generation)


def duration_of(seconds: float) -> duration_pb2.Duration:
    """Convert for the wire."""
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def counts_from_proto(messages: Iterable[generation_pb2.ObjectCount]) -> tuple[ObjectCount, ...]:
    """Convert from the wire."""
    return tuple(ObjectCount(kind=each.kind, objects=each.objects, bytes=each.bytes) for each in messages)


def generation_from_proto(message: generation_pb2.Generation) -> Generation:
    """Convert from the wire."""
    return Generation(
        number=message.number,
        state=generation_pb2.GenerationState.Name(message.state).removeprefix("GENERATION_STATE_").lower(),
        remaining_seconds=message.remaining.ToNanoseconds() / 1e9 if message.HasField("remaining") else None,
        waits_for=message.waits_for,
        deletes=counts_from_proto(message.deletes),
        stays=counts_from_proto(message.stays),
        migration_id=message.migration_id,
        deleted_objects=message.deleted_objects,
        deleted_bytes=message.deleted_bytes,
        story=tuple(
            GenerationEvent(at=iso(each.at.ToNanoseconds() / 1e9), what=each.what, by=each.by, detail=each.detail)
            for each in message.story
        ),
    )
