"""The history of a migration in the bucket, one immutable object an event.

Before: this process holds the leadership, and has read the history to its end.
Steps of an append: 1. check the transition; 2. create ``migrations/<id>/<sequence>.json`` unless it exists;
3. on anything but a win, read the object back and compare the nonce: ours means it landed; another's means
that we are not the leader any more (or that our view is old).
After: the event is the truth; only now may it be acted on.
If it crashes at step 2: the event exists or it does not; the next leader reads the history and goes on from it.
Take-over: the first thing a new leader writes is LEADER_CHANGED, in the next free sequence. From then on every
append of an earlier leader finds its sequence taken: the history is sealed. A lower leader epoch after a
higher one therefore cannot exist, and is refused when read.
Cancel safety: as a crash.
"""

from __future__ import annotations

from collections.abc import Mapping

from brainy.bucket import layout
from brainy.clock import Clock
from brainy.errors import AlreadyExistsError, ConflictError, FencedError, UnavailableError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.traffic.serving import ServingFigures
from brainy_coordinator.leadership import Leader
from brainy_coordinator.migration.quality import QualityFound
from brainy_coordinator.migration.record import Event, MigrationRecord, Request, fold
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.transitions import next_state

_ATTEMPTS = 5
_SEAL_ATTEMPTS = 8


class History:
    """Reads and appends the events of one namespace's migrations."""

    def __init__(self, store: ObjectStore, *, clock: Clock, ids: Ids, leader: Leader) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._leader = leader

    async def load_all(self) -> dict[str, MigrationRecord]:
        """Read every migration of the namespace, by id."""
        found = [meta.key async for page in self._store.list(layout.MIGRATIONS) for meta in page]
        keys = [key for key in found if layout.parse_migration_event(key) is not None]
        grouped: dict[str, list[Event]] = {}
        for key, event in zip(keys, await self._read(keys), strict=True):
            parsed = layout.parse_migration_event(key)
            if parsed is not None and event is not None:
                grouped.setdefault(parsed[0], []).append(event)
        return {migration_id: fold(migration_id, events) for migration_id, events in grouped.items()}

    async def load(self, migration_id: str) -> MigrationRecord | None:
        """Read one migration, or None."""
        prefix = layout.migration_events(migration_id)
        keys = [meta.key async for page in self._store.list(prefix) for meta in page]
        events = [event for event in await self._read(keys) if event is not None]
        return fold(migration_id, events) if events else None

    async def _read(self, keys: list[str]) -> list[Event | None]:
        events: list[Event | None] = []
        for key, found in zip(keys, await self._store.get_many(keys), strict=True):
            if isinstance(found, Exception):
                raise found
            known = found is not None and layout.parse_migration_event(key) is not None
            events.append(Event.decode(found.body, key=key) if found is not None and known else None)
        return events

    async def create(
        self, migration_id: str, request: Request, *, by: str, store_calls: Mapping[str, int] | None = None
    ) -> MigrationRecord:
        """Write the first event.

        Raises:
            AlreadyExistsError: the migration exists.
            UnavailableError: this process is not the leader, or the store cannot be reached.
        """
        event = self._event(None, Trigger.REQUESTED, sequence=1, by=by, request=request, store_calls=store_calls)
        if not await self._put(migration_id, event):
            raise AlreadyExistsError("the migration exists", migration=migration_id)
        return fold(migration_id, [event])

    async def append(
        self,
        record: MigrationRecord,
        trigger: Trigger,
        *,
        by: str = "",
        detail: str = "",
        write_pause_seconds: float | None = None,
        items: tuple[int, int] | None = None,
        store_calls: Mapping[str, int] | None = None,
        request_id: str = "",
        seconds: float | None = None,
        nodes: tuple[str, ...] = (),
        quality: QualityFound | None = None,
        observed_seconds: float | None = None,
        served: ServingFigures | None = None,
        copy_rate: float | None = None,
    ) -> MigrationRecord:
        """Persist a transition.

        Args:
            record: the migration as it is.
            trigger: what happened.
            by: who caused it; this coordinator if empty.
            detail: why, for the story.
            write_pause_seconds: how long writes waited, where that is known now.
            items: items copied and in all, where that is known now.
            store_calls: calls of nodes and leader until now, by kind.
            request_id: the caller's key, where somebody asked for it.
            seconds: for how long, where somebody asked for a time.
            nodes: which nodes, where it is about some.
            quality: what was measured, where it was.
            observed_seconds: how long the target was watched until now, where that is known.
            served: how a generation served, where something is held against it.
            copy_rate: what was asked for, where it is a rate.

        Returns:
            The record after it.

        Raises:
            FencedError: a later leader has taken over.
            ConflictError: the history has moved on; read it again.
            PreconditionError: the transition is forbidden.
            UnavailableError: this process is not the leader, or the store cannot be reached.
        """
        event = self._event(
            record,
            trigger,
            sequence=record.sequence + 1,
            by=by,
            detail=detail,
            write_pause_seconds=write_pause_seconds,
            items=items,
            store_calls=store_calls,
            request_id=request_id,
            seconds=seconds,
            nodes=nodes,
            quality=quality,
            observed_seconds=observed_seconds,
            served=served,
            copy_rate=copy_rate,
        )
        after = record.apply(event)
        if not await self._put(record.id, event):
            raise ConflictError("the history has moved on", migration=record.id, sequence=event.sequence)
        return after

    async def seal(self, record: MigrationRecord) -> MigrationRecord:
        """Make every append of earlier leaders impossible, and return the record at its true end.

        Raises:
            FencedError: a later leader has sealed it already.
        """
        for _ in range(_SEAL_ATTEMPTS):
            if record.state.is_terminal or record.leader_epoch == self._leader.epoch():
                return record
            try:
                return await self.append(record, Trigger.LEADER_CHANGED)
            except ConflictError:
                record = await self.load(record.id) or record
        raise UnavailableError("could not seal the history of a migration", migration=record.id)

    def _event(
        self,
        record: MigrationRecord | None,
        trigger: Trigger,
        *,
        sequence: int,
        by: str,
        detail: str = "",
        request: Request | None = None,
        write_pause_seconds: float | None = None,
        items: tuple[int, int] | None = None,
        store_calls: Mapping[str, int] | None = None,
        request_id: str = "",
        seconds: float | None = None,
        nodes: tuple[str, ...] = (),
        quality: QualityFound | None = None,
        observed_seconds: float | None = None,
        served: ServingFigures | None = None,
        copy_rate: float | None = None,
    ) -> Event:
        state: State | None = record.state if record else None
        return Event(
            sequence=sequence,
            nonce=self._ids.uuid(),
            at=self._clock.wall(),
            trigger=trigger,
            from_state=state,
            to_state=next_state(state, trigger, story=record.lines if record else ()),
            by=by or self._leader.id,
            leader_epoch=self._leader.epoch(),
            detail=detail,
            request=request,
            write_pause_seconds=write_pause_seconds,
            items_copied=items[0] if items else None,
            items_total=items[1] if items else None,
            store_calls=None if store_calls is None else dict(store_calls),
            request_id=request_id,
            seconds=seconds,
            nodes=nodes,
            quality=quality,
            observed_seconds=observed_seconds,
            served=served,
            copy_rate=copy_rate,
        )

    async def _put(self, migration_id: str, event: Event) -> bool:
        """Create the event's object; False when another event has its place."""
        key = layout.migration_event(migration_id, event.sequence)
        body = event.encode()
        for attempt in range(_ATTEMPTS):
            if (await self._store.put_if_absent(key, body)).won:
                return True
            found = await self._store.get(key)
            if found is not None:
                other = Event.decode(found.body, key=key)
                if other.nonce == event.nonce:
                    return True
                if other.leader_epoch > event.leader_epoch:
                    raise FencedError(
                        "a later leader writes this history",
                        migration=migration_id,
                        leader_epoch=event.leader_epoch,
                        newer_epoch=other.leader_epoch,
                    )
                return False
            await self._clock.sleep(self._ids.jitter(0.0, 0.1 * 2.0**attempt))
        raise UnavailableError(
            "the store does not say whether an event was written", reason="STORE_UNAVAILABLE", key=key
        )
