"""Keeps generations that are out of service for a time, then deletes them.

*Before.* This process leads. A migration is about to take a generation out of the routing record: its source once it is
complete, its target when it is aborted.

*Steps.*

1. ``begin``: create ``cluster/retired/<g>.json`` with the retention. Only then does the migration swap the record.
2. Once the routing record does not name the generation, the leader counts the retention down on its own monotonic
   clock, and writes what is left now and then. Somebody may keep the generation, or say for how long.
3. When nothing is left: every node that the routing record names, and every one that can be called, confirms by barrier
   that it has that record in force; no migration needs the generation, and Brainy's tree is neither followed nor
   mirrored to (``rules.waits_for``). What is there is counted.
4. Swap ``state: deleting``, with these counts. From here on nobody can keep it.
5. Give up its logs in writing, to their very end (``brainy.changelog.collection``); the log of generation 0 stays.
6. Delete the manifests, then the rest, some objects a turn, until a listing from the start shows nothing that goes.
7. Swap ``state: deleted``.

*After.* The description, the positions given up and the log of generation 0 are there; no number is used again.

*If it crashes* after 1 and before the routing swap: the record waits, for the generation is in service. At 2 and 3: the
next leader goes on from what was written down, so that some time is counted twice, never left out. After 4: it goes on
deleting; each delete is idempotent, and what was counted in step 4 stays the account of it.

*A stale node.* One that has not heard of the swaps is waited for in step 3, unless it is silent and owns nothing: it
may wake up and answer from what it has in memory until it reads the record. If it looks into the bucket it finds no
manifest, and waits; a manifest is the first thing that goes, so nobody meets half a checkpoint. An owner that was
replaced and wakes up cannot append to a log that is gone: step 5, and that a generation is kept for no less than logs
are kept (``rules.effective_seconds``).

*Cancel safety.* As a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from brainy.bucket import invariants, layout
from brainy.bucket.follow import FollowChoice
from brainy.bucket.records import Collected, Routing
from brainy.bucket.retirement import Retirement, RetirementEvent
from brainy.clock import Clock
from brainy.config.settings import CoordinatorSettings
from brainy.errors import BrainyError, ConflictError, FencedError, NotFoundError, PreconditionError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.cas import CasRegister
from brainy.telemetry.logs import get_logger
from brainy_coordinator.countdown import step_seconds
from brainy_coordinator.generations import Generations
from brainy_coordinator.leadership import Leader
from brainy_coordinator.migration.barrier import Barrier
from brainy_coordinator.retirement import rules
from brainy_coordinator.retirement.contents import Contents, count, stays
from brainy_coordinator.routing import RoutingRegister
from brainy_coordinator.view import NamespaceView

_log = get_logger(__name__)

#: Above every position: a log that was given up to here has no end that anybody could append behind.
END_OF_LOG = (1 << 63) - 1
_DELETES_A_TURN = 256
_DELETES_AT_ONCE = 16
#: How long to wait before what holds a deletion up is looked at again, and after the store failed.
_LOOK_SECONDS = 5.0
#: Short: placement has its turn after this, and a node that does not answer may be about to be replaced.
_BARRIER_SECONDS = 0.5
_SWAPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """A generation out of service, as it is now."""

    record: Retirement
    #: Seconds that are left of its retention.
    remaining: float
    #: What holds up its deletion although nothing is left; "" for nothing.
    waits_for: str = ""


class Retirements:
    """The generations of one namespace that are not served any more, under one leader."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        register: RoutingRegister,
        generations: Generations,
        barrier: Barrier,
        view: NamespaceView,
        wanted: Callable[[], Mapping[int, str]],
        choice: Callable[[], Awaitable[FollowChoice]],
        settings: CoordinatorSettings,
        leader: Leader,
        clock: Clock,
        ids: Ids,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            store: the namespace's.
            register: the routing record.
            generations: their descriptions.
            barrier: asks nodes.
            view: who is there.
            wanted: generation -> running migration that builds it or is made of it.
            choice: reads what is to be done while Brainy lives on the namespace.
            settings: the retention.
            leader: this process while it leads.
            clock: counts.
            ids: nonces.
        """
        self._store = store
        self._register = register
        self._generations = generations
        self._barrier = barrier
        self._view = view
        self._wanted = wanted
        self._choice = choice
        self._settings = settings
        self._leader = leader
        self._clock = clock
        self._ids = ids
        self._turn = asyncio.Lock()
        #: None before they were read.
        self._held: dict[int, tuple[Retirement, str]] | None = None
        #: What is left by this leader's count, and the nonce of the record that it was counted from.
        self._left: dict[int, float] = {}
        self._nonces: dict[int, str] = {}
        self._waits: dict[int, str] = {}
        self._counted_at = clock.monotonic()
        self._look_again_at: dict[int, float] = {}
        self._rests_until = float("-inf")
        #: Generations whose logs and manifests this leader has seen to, and the last key it deleted of each.
        self._given_up: set[int] = set()
        self._cursors: dict[int, str] = {}

    # --- what others ask --------------------------------------------------------------------------

    async def all(self) -> dict[int, Retired]:
        """Return every generation that is on record, by number. Errors as the store."""
        async with self._turn:
            return {number: self._seen(number) for number in sorted(await self._load())}

    async def begin(
        self, number: int, *, migration: str, by: str = "", retain_seconds: float | None = None
    ) -> Retirement:
        """Say what is to become of a generation that is about to leave the routing record.

        Without ``retain_seconds`` what was said before stays, else the setting counts. Repeating it changes nothing.

        Raises:
            PastPointOfNoReturnError: its deletion has begun.
            BrainyError: the store failed.
        """
        async with self._turn:
            known = (await self._load()).get(number)
            if known is not None and retain_seconds is None:
                return known[0]
            return await self._retain(number, retain_seconds, migration=migration, by=by)

    async def keep(self, number: int, *, by: str) -> Retired:
        """Do not delete a generation that is out of service.

        Raises:
            NotFoundError: there is no such generation.
            PreconditionError: it is in service.
            PastPointOfNoReturnError: its deletion has begun.
        """
        async with self._turn:
            await self._require_retirable(number)
            known = (await self._load()).get(number)
            if known is None or known[0].state != "kept":
                left = self._left.get(number, 0.0)
                await self._change(number, "kept", by=by, detail="not deleted", remaining=left)
            return self._seen(number)

    async def retain(self, number: int, seconds: float, *, by: str) -> Retired:
        """Delete a generation that is out of service after so long, counted from now. Errors as ``keep``."""
        async with self._turn:
            await self._require_retirable(number)
            await self._retain(number, seconds, migration="", by=by)
            return self._seen(number)

    def retention(self, wished: float | None) -> float:
        """Return for how long a generation would be kept; negative for good."""
        seconds = self._settings.retain_seconds if wished is None else wished
        if seconds < 0.0:
            return seconds
        return rules.effective_seconds(seconds, log_retention_seconds=self._settings.log_retention_seconds)

    async def contents(self, number: int) -> Contents:
        """Count what lies in a generation. Errors as the store."""
        return await count(self._store, number)

    # --- the loop ---------------------------------------------------------------------------------

    async def tick(self) -> bool:
        """Count, and delete some of what is due. Returns whether there is more to do.

        A store that fails costs a pause, nothing else: the namespace is served whatever becomes of old generations.

        Raises:
            FencedError: a later leader writes these records.
        """
        async with self._turn:
            now = self._clock.monotonic()
            if now < self._rests_until:
                return False
            try:
                return await self._tick(now)
            except FencedError:
                raise
            except BrainyError as error:
                _log.warning("retirement_failed", reason=error.reason, cause=str(error))
                self._held = None
                self._rests_until = now + _LOOK_SECONDS
                return False

    async def _tick(self, now: float) -> bool:
        routing = await self._register.current()
        if routing is None:
            return False
        elapsed, self._counted_at = now - self._counted_at, now
        more = False
        for number, (record, _) in sorted((await self._load()).items()):
            if number in routing.generations:
                continue
            if record.state == "retained":
                more |= await self._count_down(record, routing, elapsed, now)
            elif record.state == "deleting" and routing.phase == "serving":
                more |= await self._delete_some(record)
        return more

    async def _count_down(self, record: Retirement, routing: Routing, elapsed: float, now: float) -> bool:
        number = record.generation
        left = self._left[number] = max(0.0, self._left[number] - elapsed)
        if left > 0.0:
            if record.remaining_seconds - left >= step_seconds(record.retain_seconds):
                await self._swap(record.model_copy(update={"remaining_seconds": left}))
            return False
        if now < self._look_again_at.get(number, now):
            return False
        why = self._waits[number] = await self._obstacle(record, routing)
        if why:
            self._look_again_at[number] = now + _LOOK_SECONDS
            return False
        total = (await count(self._store, number)).total
        await self._change(
            number,
            "deleting",
            detail=f"{total.objects} objects, {total.bytes} bytes",
            remaining=0.0,
            objects=total.objects,
            bytes=total.bytes,
        )
        return True

    async def _obstacle(self, record: Retirement, routing: Routing) -> str:
        choice = await self._choice()
        before = rules.waits_for(record, routing, choice, unconfirmed=(), wanted=self._wanted())
        if before:
            return before
        # Holders that are silent are replaced by and by, and then the record does not name them any more.
        reachable = self._view.reachable()
        silent = routing.nodes.keys() - reachable.keys()
        if silent:
            return rules.waits_for(record, routing, choice, unconfirmed=silent, wanted=self._wanted())
        addresses = {node: where.address for node, where in routing.nodes.items()} | reachable
        acks = await self._barrier.pass_epoch(addresses, epoch=routing.epoch, timeout=_BARRIER_SECONDS)
        unconfirmed = addresses.keys() - acks.keys()
        return rules.waits_for(record, routing, choice, unconfirmed=unconfirmed, wanted=self._wanted())

    async def _delete_some(self, record: Retirement) -> bool:
        number = record.generation
        if number not in self._given_up:
            await self._give_up_logs(record)
            await self._delete(number, layout.manifests(number), limit=None)
            self._given_up.add(number)
            return True
        deleted = await self._delete(number, layout.generation(number), limit=_DELETES_A_TURN)
        if deleted or self._cursors.pop(number, ""):
            # Until a look from the very start finds nothing.
            return True
        _log.info("generation_deleted", generation=number, objects=record.objects, bytes=record.bytes)
        await self._change(number, "deleted", detail=f"{record.objects} objects, {record.bytes} bytes", remaining=0.0)
        return True

    async def _delete(self, number: int, prefix: str, *, limit: int | None) -> int:
        """Delete what goes under a prefix, after what was deleted last; returns how many objects went."""
        deleted = 0
        after = "" if limit is None else self._cursors.get(number, "")
        async for page in self._store.list(prefix, start_after=after):
            due = [meta.key for meta in page if not stays(number, meta.key)]
            if limit is not None:
                due = due[: limit - deleted]
            for start in range(0, len(due), _DELETES_AT_ONCE):
                await asyncio.gather(*map(self._store.delete, due[start : start + _DELETES_AT_ONCE]))
            deleted += len(due)
            if limit is not None and due:
                self._cursors[number] = due[-1]
            if limit is not None and deleted >= limit:
                break
        return deleted

    async def _give_up_logs(self, record: Retirement) -> None:
        number = record.generation
        spec = await self._generations.latest(number)
        for shard in range(spec.shard_count if spec is not None and number > 0 else 0):
            key = layout.collected(number, shard)

            def decode(body: bytes, key: str = key) -> Collected:
                return Collected.decode(body, key=key)

            register = CasRegister(
                self._store, key, encode=Collected.encode, decode=decode, clock=self._clock, ids=self._ids
            )
            for _ in range(_SWAPS):
                held = await register.load()
                before = held[0] if held else None
                if before is not None and before.position >= END_OF_LOG:
                    break
                after = Collected(
                    generation=number,
                    shard=shard,
                    epoch=before.epoch if before is not None else 0,
                    nonce=self._ids.uuid(),
                    position=END_OF_LOG,
                )
                invariants.check_collected_swap(before, after)
                if await register.swap(after, held[1] if held else None):
                    break
            else:
                raise ConflictError("another process gives up this log each time", key=key)

    # --- records ----------------------------------------------------------------------------------

    async def _load(self) -> dict[int, tuple[Retirement, str]]:
        if self._held is not None:
            return self._held
        keys = [meta.key async for page in self._store.list(layout.RETIRED) for meta in page]
        found: dict[int, tuple[Retirement, str]] = {}
        for stored in await self._store.get_many([key for key in keys if layout.parse_retired(key) is not None]):
            if isinstance(stored, Exception):
                raise stored
            if stored is not None:
                record = Retirement.decode(stored.body, key=stored.key)
                found[record.generation] = record, stored.etag
                if self._nonces.get(record.generation) != record.nonce:
                    self._counts_from(record)
        self._held = found
        return found

    def _seen(self, number: int) -> Retired:
        assert self._held is not None
        record = self._held[number][0]
        due = record.state == "retained" and not self._left[number]
        return Retired(
            record=record, remaining=self._left[number], waits_for=self._waits.get(number, "") if due else ""
        )

    async def _require_retirable(self, number: int) -> None:
        routing = await self._register.current()
        if routing is None:
            raise PreconditionError("the namespace is not served yet", remedy="start enough nodes, then try again")
        rules.require_out_of_service(number, routing, self._wanted())
        if number not in await self._load() and await self._generations.latest(number) is None:
            raise NotFoundError("no such generation", remedy="list them (brainy generations)", generation=number)

    async def _retain(self, number: int, seconds: float | None, *, migration: str, by: str) -> Retirement:
        length = self.retention(seconds)
        if length < 0.0:
            return await self._change(number, "kept", by=by, detail="not deleted", remaining=0.0, migration=migration)
        return await self._change(
            number, "retained", by=by, detail=f"for {length:g} s", remaining=length, retain=length, migration=migration
        )

    async def _change(
        self,
        number: int,
        state: str,
        *,
        detail: str,
        remaining: float,
        by: str = "",
        retain: float | None = None,
        migration: str = "",
        **counts: int,
    ) -> Retirement:
        """Swap in another state, with a line of the story."""
        known = (await self._load()).get(number)
        before = known[0] if known is not None else None
        if before is not None and state in ("kept", "retained"):
            rules.require_undecided(before)
        line = RetirementEvent(at=self._clock.wall(), what=state, by=by or self._leader.id, detail=detail)
        after = Retirement.model_validate(
            {
                **(before.model_dump(exclude={"story"}) if before is not None else {"retain_seconds": remaining}),
                "generation": number,
                "nonce": "",
                "leader_epoch": 0,
                "state": state,
                "remaining_seconds": remaining,
                **({"retain_seconds": retain} if retain is not None else {}),
                **({"migration": migration} if migration else {}),
                **counts,
                "story": (*(before.story if before is not None else ()), line),
            }
        )
        _log.info("generation_retirement", generation=number, state=state, detail=detail, by=line.by)
        return await self._swap(after)

    async def _swap(self, after: Retirement) -> Retirement:
        number = after.generation
        held = (await self._load()).get(number)
        epoch = self._leader.epoch()
        if held is not None and held[0].leader_epoch > epoch:
            raise FencedError("a later leader writes this record", generation=number, leader_epoch=epoch)
        stamped = after.model_copy(update={"nonce": self._ids.uuid(), "leader_epoch": epoch})
        key = layout.retired(number)
        register = CasRegister(
            self._store,
            key,
            encode=Retirement.encode,
            decode=lambda body: Retirement.decode(body, key=key),
            clock=self._clock,
            ids=self._ids,
        )
        assert self._held is not None
        records, self._held = self._held, None
        etag = await register.exchange(stamped, held[1] if held else None)
        if etag is None:
            raise ConflictError("another leader changed what is to become of a generation", generation=number)
        self._held = {**records, number: (stamped, etag)}
        self._counts_from(stamped)
        return stamped

    def _counts_from(self, record: Retirement) -> None:
        self._nonces[record.generation] = record.nonce
        self._left[record.generation] = record.remaining_seconds
        self._look_again_at.pop(record.generation, None)
