"""Observe, decide, persist, act: again and again, until nothing is left to do.

Before: this process is the leader. ``take_over`` has sealed and read every history.
Steps of a ``tick``: 1. observe; 2. decide; 3. persist the transition, if one was decided; 4. act.
After: the migration is one step further, or waits.
If it crashes at step 3: the event is in the history or it is not; the next leader folds it and decides again.
At step 4: the next leader repeats the action, which is idempotent. What only this process knew (``Facts``) is
lost, and that is safe: writes that were stopped are let go first, and the cut-over starts afresh.
Cancel safety: as a crash.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from brainy.clock import Clock
from brainy.errors import AlreadyExistsError, NotFoundError, PastPointOfNoReturnError, PreconditionError
from brainy.telemetry.logs import get_logger
from brainy.traffic.serving import ServingFigures
from brainy_coordinator.changes import ChangeSignal
from brainy_coordinator.migration.actions import AwaitBake, AwaitQuiet
from brainy_coordinator.migration.copy_progress import CopyProgress, Speeds, copy_progress
from brainy_coordinator.migration.decision import decide, journal
from brainy_coordinator.migration.executor import Executor
from brainy_coordinator.migration.history import History
from brainy_coordinator.migration.interventions import Intervention
from brainy_coordinator.migration.observation import Observation, ReplicaState, total_lag
from brainy_coordinator.migration.obstacles import obstacles
from brainy_coordinator.migration.postponing import postponed_for
from brainy_coordinator.migration.quality import QualityFound
from brainy_coordinator.migration.record import MigrationRecord, Request
from brainy_coordinator.migration.state import State, Trigger
from brainy_coordinator.migration.watching import watched_seconds
from brainy_coordinator.migration.waves import Wave, waves_of

_log = get_logger(__name__)

_PATIENT = (AwaitQuiet, AwaitBake)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a running migration is; for people, never for decisions."""

    copied: int = 0
    total: int = 0
    lag: int = 0
    adopted: tuple[str, ...] = ()
    message: str = ""
    #: What it waits for, and what to do about it.
    waits_for: tuple[str, ...] = ()
    #: Rolling: the nodes in the order in which their reads move.
    waves: tuple[Wave, ...] = ()
    #: Seconds until a postponed switch may begin; None where it is not postponed.
    postponed: float | None = None
    #: How its target has served since the switch, and for how long that was watched.
    served: ServingFigures | None = None
    observed_seconds: float = 0.0
    #: None where nothing is copied or followed.
    copy: CopyProgress | None = None


class Reconciler:
    """Drives the migrations of one namespace, one at a time."""

    def __init__(
        self,
        *,
        history: History,
        executor_for: Callable[[MigrationRecord, Collection[str]], Executor],
        clock: Clock,
        changes: ChangeSignal,
        store_calls: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._history = history
        self._executor_for = executor_for
        self._clock = clock
        self._changes = changes
        #: What nodes and leader have called of the store until now, for the events.
        self._store_calls = store_calls
        self._turn = asyncio.Lock()
        self._records: dict[str, MigrationRecord] = {}
        self._executors: dict[str, Executor] = {}
        self._progress: dict[str, Progress] = {}
        self._speeds: dict[str, Speeds] = {}
        self._stale: set[str] = set()
        #: Migrations whose first event was sent, and whether it landed is not known.
        self._begun: dict[str, Request] = {}

    async def take_over(self) -> None:
        """Read every history and seal the running ones; the first thing a new leader does."""
        async with self._turn:
            for record in (await self._history.load_all()).values():
                self._records[record.id] = await self._history.seal(record)
            self._changes.bump()

    def get(self, migration_id: str) -> MigrationRecord:
        """Return a migration.

        Raises:
            NotFoundError: there is none of that id.
        """
        try:
            return self._records[migration_id]
        except KeyError:
            raise NotFoundError(
                "no such migration", remedy="list the migrations of the namespace", migration=migration_id
            ) from None

    def all(self) -> tuple[MigrationRecord, ...]:
        """Return every migration, the latest first."""
        return tuple(sorted(self._records.values(), key=lambda r: (-r.story[0].at, r.id)))

    def progress(self, migration_id: str) -> Progress:
        """Return how far a migration is."""
        return self._progress.get(migration_id, Progress())

    def running(self) -> MigrationRecord | None:
        """Return the migration that has not ended, or None."""
        alive = [record for record in self._records.values() if not record.state.is_terminal]
        return min(alive, key=lambda record: (record.story[0].at, record.id), default=None)

    async def start(self, migration_id: str, request: Request) -> MigrationRecord:
        """Write the request down; ticks do the rest.

        Raises:
            AlreadyExistsError: the same id was asked for with another wish.
            PreconditionError: another migration runs (MIGRATION_RUNNING).
        """
        async with self._turn:
            await self._settle()
            found = self.same(migration_id, request)
            if found is not None:
                return found
            running = self.running()
            if running is not None:
                raise PreconditionError(
                    "another migration is running",
                    reason="MIGRATION_RUNNING",
                    remedy="wait for it, abort it, or complete it where it has switched",
                    migration=running.id,
                )
            self._begun[migration_id] = request
            await self._begin(migration_id, request)
            return self.same(migration_id, request) or self.get(migration_id)

    async def _settle(self) -> None:
        """Finish what a ``start`` began without seeing its end: its event may be there, or may come yet."""
        for migration_id, request in list(self._begun.items()):
            await self._begin(migration_id, request)

    async def _begin(self, migration_id: str, request: Request) -> None:
        try:
            record = await self._history.create(
                migration_id, request, by=request.requested_by, store_calls=self._store_calls()
            )
        except AlreadyExistsError:
            # Written by a call whose answer was lost, here or under an earlier leader.
            found = await self._history.load(migration_id)
            if found is None:
                raise
            record = await self._history.seal(found)
        self._keep(record)
        del self._begun[migration_id]

    def same(self, migration_id: str, request: Request) -> MigrationRecord | None:
        """Return the migration an earlier call with the same request id started, or None.

        Raises:
            AlreadyExistsError: that call asked for something else.
        """
        found = self._records.get(migration_id)
        if found is not None and not found.request.same_wish(request):
            raise AlreadyExistsError(
                "the request id was used for another migration",
                remedy="use a fresh request id",
                migration=migration_id,
            )
        return found

    async def abort(self, migration_id: str, *, by: str) -> MigrationRecord:
        """Ask for the way back; ticks do the rest. Repeating it changes nothing.

        Raises:
            PastPointOfNoReturnError: the migration has committed.
            NotFoundError: there is none of that id.
        """
        async with self._turn:
            record = self.get(migration_id)
            if record.state.is_terminal and not record.state.is_committed:
                return record
            if not record.state.is_terminal:
                # What the record says may lag behind the routing record: the commit counts, not its journal.
                seen = await self._executor(record).observe(record)
                if seen.routing.active == record.target and not record.state.is_committed:
                    raise PastPointOfNoReturnError(
                        "the migration has committed; it can only go forward",
                        remedy="roll it back (brainy migrate rollback)" if record.request.keep_way_back else "",
                        migration=migration_id,
                    )
            if record.reason:
                return record
            try:
                record = await self._history.append(
                    record, Trigger.ABORT_REQUESTED, by=by, detail=f"asked for by {by}" if by else "asked for"
                )
            except BaseException:
                self._stale.add(record.id)
                raise
            self._keep(record)
            return record

    async def intervene(
        self,
        migration_id: str,
        intervention: Intervention,
        *,
        by: str,
        detail: str = "",
        request_id: str = "",
        seconds: float | None = None,
        validate_only: bool = False,
        quality: QualityFound | None = None,
        copy_rate: float | None = None,
    ) -> MigrationRecord:
        """Persist what somebody asks for; ticks do the rest. Repeating it with the same request id changes nothing.

        With ``validate_only`` it is refused where it would be, and nothing that was asked for is persisted. What
        somebody had measured (``quality``) is persisted with it.

        Raises:
            NotFoundError: there is none of that id.
            PreconditionError: as the intervention says.
        """
        async with self._turn:
            record = self.get(migration_id)
            if request_id and request_id in record.requests:
                return record
            try:
                if record.id in self._stale:
                    record = await self._reread(record)
                executor = self._executor(record)
                seen = await executor.observe(record)
                happened = journal(record, seen)
                if happened is not None and happened.trigger is not None:
                    record = await self._history.append(
                        record, happened.trigger, write_pause_seconds=happened.write_pause_seconds
                    )
                    self._keep(record)
                trigger = intervention(record, seen)
                if trigger is not None and not validate_only:
                    record = await self._history.append(
                        record,
                        trigger,
                        by=by,
                        detail=detail,
                        request_id=request_id,
                        seconds=seconds,
                        quality=quality,
                        copy_rate=copy_rate,
                    )
                    self._keep(record)
                    self._note_progress(record, seen)
            except PreconditionError:
                raise
            except BaseException:
                self._stale.add(migration_id)
                raise
            finally:
                if record.state.is_terminal:
                    self._executors.pop(record.id, None)
            return record

    async def tick(self) -> bool:
        """Take one step of the running migration, if any. Returns whether another may follow at once."""
        async with self._turn:
            await self._settle()
            record = self.running()
            if record is None:
                return False
            try:
                return await self._step(record)
            except BaseException:
                # Whatever was under way may have landed: believe the bucket, not memory.
                self._stale.add(record.id)
                raise

    async def _step(self, record: MigrationRecord) -> bool:
        if record.id in self._stale:
            record = await self._reread(record)
            if record.state.is_terminal:
                return True
        executor = self._executor(record)
        seen = await executor.observe(record)
        self._note_progress(record, seen)
        decision = decide(record, seen, self._clock.monotonic())
        if decision.trigger is not None:
            copied = self.progress(record.id)
            record = await self._history.append(
                record,
                decision.trigger,
                detail=decision.detail,
                write_pause_seconds=decision.write_pause_seconds,
                quality=decision.quality,
                by=decision.by,
                observed_seconds=decision.observed_seconds,
                served=decision.served,
                items=(copied.copied, copied.total) if decision.trigger is Trigger.COPY_DONE else None,
                store_calls=self._store_calls(),
                nodes=decision.nodes,
            )
            self._keep(record)
        for action in decision.actions:
            note = _log.debug if isinstance(action, _PATIENT) else _log.info
            note("migration_action", migration=record.id, action=type(action).__name__)
            await executor.perform(action, record)
        # What only time shows is looked at again later; the others get their turn meanwhile.
        return not decision.waits and not any(isinstance(action, _PATIENT) for action in decision.actions)

    async def _reread(self, record: MigrationRecord) -> MigrationRecord:
        record = await self._history.load(record.id) or record
        self._keep(record)
        self._stale.discard(record.id)
        return record

    def _executor(self, record: MigrationRecord) -> Executor:
        found = self._executors.get(record.id)
        if found is None:
            others = [r.id for r in self._records.values() if r.id != record.id and not r.state.is_terminal]
            found = self._executors[record.id] = self._executor_for(record, others)
        return found

    def _keep(self, record: MigrationRecord) -> None:
        before = self._records.get(record.id)
        self._records[record.id] = record
        if before is None or before.sequence != record.sequence:
            _log.info("migration_moved", migration=record.id, state=record.state.value, story=record.lines[-1])
            self._changes.bump()
        if record.state.is_terminal:
            self._executors.pop(record.id, None)
            self._speeds.pop(record.id, None)

    def _note_progress(self, record: MigrationRecord, seen: Observation) -> None:
        owners = [owner for owner in seen.owners(record.following).values() if owner is not None]
        failed = [owner for owner in owners if owner.state is ReplicaState.FAILED]
        complaints = [f"shard {o.shard} on {o.node_id}: {o.message}" for o in failed]
        now = Progress(
            copied=sum(owner.copied for owner in owners),
            total=sum(owner.total for owner in owners),
            lag=total_lag(seen, record.leading, record.following),
            adopted=tuple(sorted(n for n, g in seen.routing.adopted.items() if g == record.target)),
            message="; ".join(complaints),
            waits_for=obstacles(record, seen, self._clock.monotonic()),
            waves=waves_of(record, seen),
            # Whole seconds: watchers are told of every change.
            postponed=float(math.ceil(postponed_for(record, seen))) or None,
            copy=copy_progress(record, seen, self._speeds.setdefault(record.id, Speeds()), self._clock.monotonic()),
        )
        if record.state is State.OBSERVING:
            watched = watched_seconds(seen, self._clock.monotonic())
            now = replace(now, served=seen.facts.served.get(record.target), observed_seconds=round(watched or 0.0))
        if record.state.is_committed:
            # What was copied is told by the history; what follows back now was not copied.
            now = replace(now, copied=0, total=0)
        elif not owners:
            # The target is not, or no longer, placed: keep what was copied for those who look back.
            before = self.progress(record.id)
            now = replace(now, copied=before.copied, total=before.total, lag=0, message="")
        if now != self._progress.get(record.id):
            self._progress[record.id] = now
            self._changes.bump()
