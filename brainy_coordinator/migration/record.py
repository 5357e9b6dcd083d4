"""A migration as a value: the fold over its events. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from brainy.bucket.embedding import EmbeddingIdentity, Reembedding
from brainy.bucket.records import Record
from brainy.errors import CorruptDataError, FencedError
from brainy.traffic.limits import RollbackLimits
from brainy.traffic.serving import ServingFigures
from brainy_coordinator.migration.quality import QualityFound, QualityWish
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.transitions import next_state

#: Who asks for what nobody asked for.
AUTOMATIC = "automatic"

Strategy = Literal[
    "in_place_upgrade",
    "rolling",
    "blue_green",
    "coordinated",
    "backup_restore",
    "sparse_import",
    "dedicated_namespace",
]


class TargetWish(BaseModel):
    """What the target shall look like; zero and empty mean "as the source"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shard_count: int = 0
    metric: str = ""
    scalar_kind: str = ""
    connectivity: int = 0
    #: Label of the nodes that shall hold it.
    pool: str = ""
    expansion_add: int = 0
    expansion_search: int = 0
    partitioning: str = ""
    #: Length of the vectors; another one than the source's needs ``embedding``.
    dimensions: int = 0
    #: The model that makes every vector anew out of the nouns' texts, and how it is asked; None for none.
    embedding: EmbeddingIdentity | None = None
    reembedding: Reembedding | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Left out while there is nothing to say, so that a coordinator from before the fields reads the record.
        values: dict[str, Any] = serialize(self)
        return {name: value for name, value in values.items() if value or name in _FIRST_WISHES}


#: Those that are always written.
_FIRST_WISHES = frozenset({"shard_count", "metric", "scalar_kind", "connectivity", "pool"})


class SourceWish(BaseModel):
    """Data that are elsewhere, as they were asked for: either of the two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Canonical URI of another namespace; "" for none.
    namespace: str = ""
    #: Path of a backup as coordinator and nodes see it, or URI of an object; "" for none.
    backup: str = ""
    #: Leave the vectors behind and embed the texts anew.
    without_vectors: bool = False

    @property
    def name(self) -> str:
        """What it is, for people."""
        return self.namespace or self.backup


class Request(BaseModel):
    """What was asked for, fixed for the life of the migration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_id: str
    namespace: str
    strategy: Strategy
    source_generation: int
    target_generation: int
    target: TargetWish = TargetWish()
    requested_by: str = ""
    #: Longest time writes may wait at the cut-over.
    pause_cap_seconds: float = 3.0
    #: How many unreadable source objects are accepted.
    quarantine_limit: int = 0
    #: The caller's word that nobody writes until the migration has ended; ``coordinated`` asks for it.
    writers_stopped: bool = False
    #: A backup that must be whole, by its path as the coordinator sees it; "" for none.
    require_backup: str = ""
    #: The plan that is executed; "" in histories from before plans were kept.
    plan_id: str = ""
    #: After the switch the source follows the target, until the migration is completed.
    keep_way_back: bool = False
    #: Do not switch before somebody promotes it.
    hold_before_switch: bool = False
    #: With a way back: complete by itself after so long; 0 for only when asked.
    observe_seconds: float = 0.0
    #: Rolling: how many nodes' reads move together; 0 for one.
    max_unavailable: int = 0
    #: Rolling: for how long a wave of nodes must answer healthily before the next one.
    bake_seconds: float = 0.0

    @property
    def in_waves(self) -> bool:
        """Whether it moves in waves that are watched and written down, not simply node by node."""
        return self.max_unavailable > 1 or self.bake_seconds > 0.0

    #: What the target's search quality must keep to before anything moves; None: it is not looked at.
    quality: QualityWish | None = None
    #: With a way back: roll back by itself when the target serves worse than this; None for never.
    rollback_if: RollbackLimits | None = None
    #: Where the data come from; None for the source generation.
    source: SourceWish | None = None

    def same_wish(self, other: Request) -> bool:
        """Whether a repeated call asks for the same thing (the generations were chosen by us)."""
        ignored = {"source_generation": 0, "target_generation": 0, "requested_by": "", "plan_id": ""}
        return self.model_copy(update=ignored) == other.model_copy(update=ignored)


class Event(Record):
    """``migrations/<id>/<sequence>.json``: one transition, as stored."""

    sequence: int
    #: Tells our own landed write from another's.
    nonce: str
    #: Wall seconds of the leader, for people.
    at: float
    trigger: Trigger
    #: None in the first event.
    from_state: State | None
    to_state: State
    #: Who caused it: a person's words in REQUESTED and ABORT_REQUESTED, else the coordinator's id.
    by: str
    leader_epoch: int
    detail: str = ""
    #: Only in REQUESTED.
    request: Request | None = None
    #: Only in COMMITTED, SWITCHED, ROLLED_BACK and COMPLETED: how long writes waited, by one leader's monotonic clock.
    write_pause_seconds: float | None = None
    #: Only in COPY_DONE: items copied, and how many there were to copy.
    items_copied: int | None = None
    items_total: int | None = None
    #: Store calls that all nodes and the leader have reported until then, by kind.
    store_calls: dict[str, int] | None = None
    #: Only in QUALITY_MEASURED.
    quality: QualityFound | None = None
    #: Only in COPY_RATE_SET: items a second and stage on each node; None for what the nodes can bear.
    copy_rate: float | None = None
    #: Only in what somebody asked for: the caller's idempotency key.
    request_id: str = ""
    #: Only in POSTPONE_REQUESTED: for how long.
    seconds: float | None = None
    #: Only in WAVE_BAKED: which nodes.
    nodes: tuple[str, ...] = ()
    #: Only in OBSERVED_SO_FAR and OBSERVED: seconds since the switch that leaders have watched, all of them together.
    observed_seconds: float | None = None
    #: Only with limits for rolling back. In PROMOTED: how the source served until then. In OBSERVED_SO_FAR, OBSERVED
    #: and a ROLLBACK_REQUESTED that nobody asked for: how the target served.
    served: ServingFigures | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Software from before the field reads what does not need it.
        values: dict[str, Any] = serialize(self)
        if self.copy_rate is None:
            values.pop("copy_rate", None)
        return values

    @property
    def line(self) -> str:
        """The event in one line, for stories."""
        before = self.from_state.value if self.from_state else "-"
        text = f"{self.sequence} {self.trigger.value}: {before} -> {self.to_state.value}"
        return f"{text} ({self.detail})" if self.detail else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Postponed:
    """A switch that somebody put off."""

    #: Of the event; tells one from another.
    sequence: int
    seconds: float
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationRecord:
    """Where a migration stands, and how it came there."""

    id: str
    request: Request
    state: State
    #: Sequence of the last event.
    sequence: int
    #: Highest leader epoch in the history.
    leader_epoch: int
    story: tuple[Event, ...]
    #: Cut-overs that were given up and are tried again.
    retries: int = 0
    write_pause_seconds: float = 0.0
    items_copied: int = 0
    items_total: int = 0
    #: True once a comparison under stopped writes found both sides equal.
    digest_equal: bool = False
    #: Why it was aborted.
    reason: str = ""
    #: It does not switch before somebody promotes it.
    held: bool = False
    #: Somebody wants the source back.
    wants_rollback: bool = False
    #: The last rollback found that both sides differ: somebody has to look before anything is given up.
    differs: bool = False
    #: How often the source was made active again.
    rolled_back: int = 0
    #: Why it was paused; empty while it is not.
    paused: tuple[str, ...] = ()
    #: It does not switch for so long from when it was asked for.
    postponed: Postponed | None = None
    #: Nodes that moved together and have baked, wave by wave; begins anew after a rollback.
    waves: tuple[tuple[str, ...], ...] = ()
    #: Search quality as measured last since the sides changed; whether somebody accepted it as it is.
    quality: QualityFound | None = None
    quality_accepted: bool = False
    #: Seconds since the switch that leaders have watched, as far as is written down.
    observed_seconds: float = 0.0
    #: How the source served until the switch; None where that is not known.
    served_before: ServingFigures | None = None
    #: Why it rolls back by itself; "" where it does not.
    breach: str = ""
    #: Items a second and stage that the copy may handle on each node; None for what they can bear.
    copy_rate: float | None = None
    #: Keys of what was asked for, so that a repeat changes nothing.
    requests: frozenset[str] = frozenset()

    @property
    def source(self) -> int:
        """The generation that is replaced."""
        return self.request.source_generation

    @property
    def target(self) -> int:
        """The generation that is built."""
        return self.request.target_generation

    @property
    def leading(self) -> int:
        """The side that is active as far as the history knows."""
        return self.target if self.state.is_committed else self.source

    @property
    def following(self) -> int:
        """The side that follows it."""
        return self.source if self.state.is_committed else self.target

    def apply(self, event: Event) -> MigrationRecord:
        """Return the record after one more event.

        Raises:
            FencedError: the event is of an earlier leader than one before it.
            CorruptDataError: sequence or states do not follow.
            PreconditionError: the transition is forbidden.
        """
        if event.leader_epoch < self.leader_epoch:
            raise FencedError(
                "an event of an earlier leader follows one of a later leader",
                migration=self.id,
                sequence=event.sequence,
                leader_epoch=event.leader_epoch,
                newer_epoch=self.leader_epoch,
            )
        expected = next_state(self.state, event.trigger, story=self.lines)
        if event.sequence != self.sequence + 1 or event.from_state is not self.state or event.to_state is not expected:
            raise CorruptDataError(
                "an event does not follow the one before it",
                migration=self.id,
                sequence=event.sequence,
                expected_sequence=self.sequence + 1,
                state=self.state.value,
                event=event.line,
            )
        gave_up = event.trigger in _GAVE_UP
        switched = event.trigger in (Trigger.COMMITTED, Trigger.SWITCHED)
        asked = {event.request_id} - {""}
        aborts = event.to_state is State.ABORTING and self.state is not State.ABORTING
        return replace(
            self,
            state=event.to_state,
            sequence=event.sequence,
            leader_epoch=event.leader_epoch,
            story=(*self.story, event),
            retries=0 if event.trigger in _TURNED else self.retries + gave_up,
            write_pause_seconds=(
                self.write_pause_seconds if event.write_pause_seconds is None else event.write_pause_seconds
            ),
            items_copied=self.items_copied if event.items_copied is None else event.items_copied,
            items_total=self.items_total if event.items_total is None else event.items_total,
            digest_equal=self.digest_equal or switched,
            reason=(event.detail or event.trigger.value) if aborts else self.reason,
            held=_HELD.get(event.trigger, self.held),
            wants_rollback=_WANTS_ROLLBACK.get(event.trigger, self.wants_rollback),
            differs=_DIFFERS.get(event.trigger, self.differs),
            rolled_back=self.rolled_back + (event.trigger is Trigger.ROLLED_BACK),
            paused=_paused(self, event),
            quality=None if event.trigger in _TURNED else event.quality or self.quality,
            quality_accepted=_ACCEPTED.get(event.trigger, self.quality_accepted),
            observed_seconds=_observed(self.observed_seconds, event),
            served_before=event.served if event.trigger is Trigger.PROMOTED else self.served_before,
            breach=_breach(self.breach, event),
            copy_rate=event.copy_rate if event.trigger is Trigger.COPY_RATE_SET else self.copy_rate,
            requests=self.requests | asked,
            postponed=_postponed(self.postponed, event),
            waves=_waves(self.waves, event),
        )

    @property
    def lines(self) -> tuple[str, ...]:
        """The story, one line an event."""
        return tuple(event.line for event in self.story)


_GAVE_UP = (Trigger.CUT_OVER_INTERRUPTED, Trigger.PAUSE_CAP_EXCEEDED, Trigger.ROLLBACK_INTERRUPTED)
_TURNED = (Trigger.SWITCHED, Trigger.ROLLED_BACK)
#: What was accepted counts until it is measured again, or the sides have changed.
_ACCEPTED = {Trigger.QUALITY_ACCEPTED: True, Trigger.QUALITY_MEASURED: False, **dict.fromkeys(_TURNED, False)}
_HELD = {Trigger.PROMOTE_REQUESTED: False, Trigger.ROLLED_BACK: True}
_WANTS_ROLLBACK = {
    Trigger.ROLLBACK_REQUESTED: True,
    Trigger.ROLLBACK_UNEQUAL: False,
    Trigger.ROLLED_BACK: False,
    Trigger.COMPLETE_REQUESTED: False,
}


_BREACH_IS_PAST = (Trigger.ROLLED_BACK, Trigger.ROLLBACK_UNEQUAL, Trigger.COMPLETE_REQUESTED, Trigger.SWITCHED)
_DIFFERS = {
    Trigger.ROLLBACK_UNEQUAL: True,
    Trigger.ROLLBACK_REQUESTED: False,
    Trigger.COMPLETE_REQUESTED: False,
}


def _paused(before: MigrationRecord, event: Event) -> tuple[str, ...]:
    if event.trigger is Trigger.PAUSE_REQUESTED:
        return (*before.paused, event.detail)
    if event.trigger is Trigger.ROLLED_BACK and before.breach:
        # Else what turned it back would meet it again as soon as somebody promotes it in passing.
        return (*before.paused, f"rolled back by itself: {before.breach}")
    return () if event.trigger is Trigger.RESUME_REQUESTED else before.paused


def _observed(before: float, event: Event) -> float:
    if event.trigger is Trigger.SWITCHED:
        return 0.0
    return before if event.observed_seconds is None else event.observed_seconds


def _breach(before: str, event: Event) -> str:
    if event.trigger is Trigger.ROLLBACK_REQUESTED:
        return event.detail if event.by == AUTOMATIC else ""
    return "" if event.trigger in _BREACH_IS_PAST else before


def _postponed(before: Postponed | None, event: Event) -> Postponed | None:
    if event.trigger is Trigger.POSTPONE_REQUESTED:
        if not event.seconds:
            return None
        return Postponed(sequence=event.sequence, seconds=event.seconds, reason=event.detail, by=event.by)
    ends = (Trigger.PROMOTE_REQUESTED, Trigger.COMMITTED, Trigger.SWITCHED, Trigger.ROLLED_BACK)
    return None if event.trigger in ends or event.to_state is State.ABORTING else before


def _waves(before: tuple[tuple[str, ...], ...], event: Event) -> tuple[tuple[str, ...], ...]:
    if event.trigger is Trigger.WAVE_BAKED:
        return (*before, event.nodes)
    return () if event.trigger is Trigger.ROLLED_BACK else before


def fold(migration_id: str, events: Iterable[Event]) -> MigrationRecord:
    """Return the migration that a history describes.

    Raises:
        CorruptDataError: no first event, a gap, or states that do not follow.
        FencedError: an earlier leader's event follows a later leader's.
    """
    record: MigrationRecord | None = None
    for event in events:
        record = _first(migration_id, event) if record is None else record.apply(event)
    if record is None:
        raise CorruptDataError("a migration without events", migration=migration_id)
    return record


def _first(migration_id: str, event: Event) -> MigrationRecord:
    if event.sequence != 1 or event.trigger is not Trigger.REQUESTED or event.request is None:
        raise CorruptDataError(
            "a history does not start with a request", migration=migration_id, sequence=event.sequence
        )
    return MigrationRecord(
        id=migration_id,
        request=event.request,
        state=next_state(None, event.trigger),
        sequence=1,
        leader_epoch=event.leader_epoch,
        story=(event,),
        held=event.request.hold_before_switch,
    )


def migration_id_for(namespace: str, request_id: str) -> str:
    """Return the id that a request always gets, so that repeating it finds the first one's migration."""
    digest = hashlib.sha256(f"{namespace}\n{request_id}".encode()).hexdigest()
    return f"m-{digest[:20]}"
