"""One shard replica of this node, from nothing to serving, as owner or as replica.

States (``brainy.api.node.v1.ShardState``):

    LOADING / COPYING ──▶ REPLAYING ──▶ READY ◀──▶ (FAILED, retried)
                                          └──▶ FENCED (final until the routing record says otherwise)

Steps of a duty (they start over whenever the assignment changes in role or epoch, or an owner is to follow):
  1. Base. The newest intact local one; else the builder makes one: from the Brainy tree (generation 0), from the
     published checkpoint, or, for the owner of a migration's target that has no checkpoint yet, out of the source.
  2. Replay the bucket's change log from the base's position on. Collected meanwhile: back to 1, a newer one is there.
  3. Owner: commit a fence record of this epoch; from here on no older owner can commit. A migration's target follows
     its source (``source_follower``) until the routing record says it serves; then, like any owner, it takes client
     writes through group commit. When a migration that keeps a way back has switched, its source follows the target
     in the same way: the duty starts over from 2, with a fence of the same epoch.
     Replica: follow the owner's stream.

Crash at any step: nothing is shared but the log; the next duty begins at 1 and finds the truth in the bucket.
Cancel safety: cancelling a duty abandons at most a PUT in flight; it lands or not, and step 2 finds out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress

from brainy.api.node.v1 import control_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.changelog.batch import Slot
from brainy.changelog.collection import LogCollector, collected_position
from brainy.changelog.commits import GroupCommit
from brainy.changelog.reading import read_log
from brainy.changelog.writing import LogWriter
from brainy.clock import Deadline
from brainy.errors import BrainyError, CorruptDataError, FencedError, LogCollectedError, UnavailableError
from brainy.telemetry.logs import get_logger
from brainy_node.builder.job import JobKind, Progress
from brainy_node.runtime.assignment import Assignment
from brainy_node.runtime.collecting import held_by_followers, log_collector
from brainy_node.runtime.copy_throttle import CopyCounts
from brainy_node.runtime.folding import TailSize, fold_is_due
from brainy_node.runtime.host import Host
from brainy_node.runtime.pinning import is_pinned, must_change_base
from brainy_node.runtime.reembedding import reembedding
from brainy_node.runtime.report import replica_message
from brainy_node.runtime.slot_window import SlotWindow
from brainy_node.runtime.source_follower import SourceFollower
from brainy_node.shard.base import Base
from brainy_node.shard.shard import Shard

_log = get_logger(__name__)
_State = control_pb2.ShardState
_MANIFEST_POLL_SECONDS = 0.25
#: Longest wait for a PUT under way when ownership goes; its outcome is found in the log otherwise.
_HAND_OVER_SECONDS = 1.0
#: What trying again does not cure: a person has to mend something first.
_LASTING = frozenset({"CORRUPT_DATA", "UNSUPPORTED_FORMAT"})
#: Longest waits between two tries. Each may start a builder and download the shard.
_RETRY_SECONDS = 5.0
_LASTING_RETRY_SECONDS = 15.0


class HostedShard:
    """Runs the duty that the routing record assigns for one shard of one generation."""

    def __init__(self, host: Host, assignment: Assignment) -> None:
        self._host = host
        self.assignment = assignment
        self.shard: Shard | None = None
        self.state: control_pb2.ShardState.ValueType = _State.SHARD_STATE_LOADING
        #: Why the replica does not answer; stays while it is tried again.
        self.message = ""
        self.reason = ""
        self.copied = 0
        self.total = 0
        #: While it is being copied.
        self.counts: CopyCounts | None = None
        self._highest_epoch = 0
        self._window: SlotWindow | None = None
        self._commits: GroupCommit | None = None
        self._follow_no_more = asyncio.Event()
        self._progressed = asyncio.Event()
        self._duty: asyncio.Task[None] | None = None
        self._collector: LogCollector | None = None
        self._folding = False
        #: Held while a duty is being replaced by another.
        self._changing = asyncio.Lock()
        #: Last positions of the slots applied since the base, and when the last one came.
        self._slot_ends: deque[int] = deque()
        self._last_slot_at = host.clock.monotonic()

    # --- assignment -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin the duty."""
        self._follow_no_more = asyncio.Event()
        if self.assignment.follows is None:
            self._follow_no_more.set()
        self._duty = asyncio.create_task(self._run(), name=f"shard-{self._label}", context=self._host.context.copy())

    async def assign(self, new: Assignment) -> None:
        """Take over a changed assignment; a change of role or epoch, or one to follow, starts the duty anew."""
        async with self._changing:
            await self._assign(new)

    async def _assign(self, new: Assignment) -> None:
        old, self.assignment = self.assignment, new
        if (old.is_owner, old.epoch) == (new.is_owner, new.epoch):
            if new.follows is None:
                self._follow_no_more.set()
            begins_to_follow = new.is_owner and new.follows is not None and old.follows != new.follows
            if self._duty is not None and not self._duty.done() and not begins_to_follow:
                return
        await self._stop_duty()
        self.start()

    async def close(self) -> None:
        """End the duty and let the files go."""
        async with self._changing:
            await self._stop_duty()
            self.shard = None

    async def _stop_duty(self) -> None:
        if self._commits is not None:
            # A planned end: the PUT under way is finished and answered, what waits is sent to the next owner.
            self._commits.close(
                UnavailableError("this node owns the shard no more", reason="NOT_OWNER", remedy="ask the new owner")
            )
            with suppress(BrainyError, TimeoutError):
                async with asyncio.timeout(_HAND_OVER_SECONDS):
                    await self._commits.pause()
        if self._duty is not None:
            self._duty.cancel()
            await asyncio.gather(self._duty, return_exceptions=True)
            self._duty = None

    @property
    def _label(self) -> str:
        return f"{self.assignment.generation}/{self.assignment.shard}"

    # --- the duty -------------------------------------------------------------------------------

    async def _run(self) -> None:
        delay = 0.2
        while True:
            try:
                if self.shard is not None and await must_change_base(self._host, self.shard):
                    self.shard = None
                if self.shard is None:
                    await self._load()
                await self._replay()
                if self.assignment.is_owner:
                    await self._own()
                else:
                    await self._follow()
                delay = 0.2
            except FencedError as error:
                self._become(_State.SHARD_STATE_FENCED, error)
                return
            except LogCollectedError as error:
                # Too far behind to catch up by the log. The next round opens the newest checkpoint.
                _log.warning("shard_reopened", shard=self._label, cause=str(error))
                self.shard = None
                await self._host.clock.sleep(self._host.ids.jitter(delay / 2, delay))
                delay = min(delay * 2, 5.0)
            except BrainyError as error:
                # What is in memory stays true while the store is away: reads go on, writes wait.
                goes_on = self.readable and not isinstance(error, CorruptDataError)
                self._become(self.state if goes_on else _State.SHARD_STATE_FAILED, error)
                await self._host.clock.sleep(self._host.ids.jitter(delay / 2, delay))
                delay = min(delay * 2, _LASTING_RETRY_SECONDS if error.reason in _LASTING else _RETRY_SECONDS)
            except Exception as error:
                # A bug must not take the node's other shards with it; it is loud and the shard is not served.
                _log.exception("shard_duty_crashed", shard=self._label)
                self._become(_State.SHARD_STATE_FAILED, BrainyError("internal error", cause=repr(error)))
                await self._host.clock.sleep(2.0)

    def _become(self, state: control_pb2.ShardState.ValueType, failure: BrainyError | None = None) -> None:
        before = (self.state, self.reason, self.message)
        if failure is not None:
            self.reason, self.message = failure.reason, str(failure)
        elif state == _State.SHARD_STATE_READY:
            self.reason = self.message = ""
        self.state = state
        if (self.state, self.reason, self.message) != before:
            say = _log.info if failure is None else _log.warning
            say(
                "shard_state",
                shard=self._label,
                state=control_pb2.ShardState.Name(state).removeprefix("SHARD_STATE_"),
                epoch=self.assignment.epoch,
                reason=self.reason,
                message=self.message,
            )

    async def _load(self) -> None:
        duty, host = self.assignment, self._host
        self._become(_State.SHARD_STATE_LOADING)
        spec = await host.spec(duty.generation)
        published, adopted = True, False
        if duty.generation == 0:
            adopted = not await is_pinned(host, duty.shard)
        else:
            published = await host.store.get(layout.manifest(duty.generation, duty.shard)) is not None
            while not published and not (duty.is_owner and duty.follows is not None):
                await host.clock.sleep(_MANIFEST_POLL_SECONDS)
                published = await host.store.get(layout.manifest(duty.generation, duty.shard)) is not None
        base = await host.supply.local(spec, duty.shard, adopted=adopted) if published else None
        if base is not None and base.position < await collected_position(host.store, duty.generation, duty.shard):
            base = None
        if base is None:
            kind: JobKind = "adopt" if adopted else "open" if published else "fill"
            if kind == "fill":
                self._become(_State.SHARD_STATE_COPYING)
                self.counts = CopyCounts(host.throttle, duty.generation)
            base = await host.supply.build(kind, spec, duty.shard, epoch=duty.epoch, on_progress=self._on_progress)
            self.copied, self.counts = self.total, None
        self.shard = Shard.open(base, spec, expansion_search=host.settings.expansion_search)

    def _on_progress(self, progress: Progress) -> None:
        if progress.stage == "reading":
            self.copied, self.total = progress.done, progress.total
        if self.counts is not None:
            self.counts.note(progress)

    async def _replay(self) -> None:
        assert self.shard is not None
        if self.state != _State.SHARD_STATE_READY:
            self._become(_State.SHARD_STATE_REPLAYING)
        async for slot in read_log(
            self._host.store,
            self.assignment.generation,
            self.assignment.shard,
            from_position=self.shard.applied + 1,
        ):
            await self._apply(slot)

    async def _apply(self, slot: Slot) -> None:
        assert self.shard is not None
        await self.settle_dimensions()
        self._apply_now(slot)

    async def settle_dimensions(self) -> None:
        """Learn the dimensions of a namespace that was empty when the shard was opened."""
        if self.shard is not None and self.shard.spec.dimensions == 0:
            spec = await self._host.spec(self.assignment.generation)
            if spec.dimensions > 0:
                self.shard.use_spec(spec)

    def _apply_now(self, slot: Slot) -> None:
        assert self.shard is not None
        self._highest_epoch = max(self._highest_epoch, slot.batch.epoch)
        self.shard.apply(slot.batch)
        self._slot_ends.append(slot.last)
        self._last_slot_at = self._host.clock.monotonic()
        if self._window is not None:
            self._window.append(slot)
        progressed, self._progressed = self._progressed, asyncio.Event()
        progressed.set()

    # --- owner ----------------------------------------------------------------------------------

    async def _own(self) -> None:
        duty, host, shard = self.assignment, self._host, self.shard
        assert shard is not None
        if self._highest_epoch > duty.epoch:
            raise FencedError("a newer owner has written to this log", epoch=duty.epoch, seen=self._highest_epoch)
        writer = LogWriter(
            host.store,
            generation=duty.generation,
            shard=duty.shard,
            epoch=duty.epoch,
            writer_node=host.node_id,
            incarnation=host.incarnation,
            ids=host.ids,
            clock=host.clock,
            next_position=shard.applied + 1,
            # Half of what collection keeps: rates of clocks differ.
            proof_seconds=host.settings.log_retention_seconds / 2,
        )
        self._window = SlotWindow(host.store, duty.generation, duty.shard, shard.applied)
        try:
            for slot in await writer.fence():
                await self._apply(slot)
            self._become(_State.SHARD_STATE_READY)
            self._collector = log_collector(host, duty)
            if not self._follow_no_more.is_set():
                await self._follow_sources(writer)
            self._commits = GroupCommit(
                writer,
                known=shard.position_of,
                on_slot=self._apply_now,
                clock=host.clock,
                in_place=shard.digest_in_place,
            )
            self._notify()
            raise await self._commits.run()
        finally:
            self._commits = self._collector = None
            self._window.close()
            self._window = None

    async def _follow_sources(self, writer: LogWriter) -> None:
        duty, shard = self.assignment, self.shard
        assert shard is not None

        async def commit(records: Sequence[log_pb2.LogRecord], cursor: Mapping[int, int]) -> None:
            await self._apply(await writer.commit(records, cursor, follower.cursors_of))

        assert duty.follows is not None
        try:
            async with reembedding(self._host, duty.generation, duty.follows) as transform:
                follower = SourceFollower.of(self._host, duty, shard, commit, transform)
                await follower.run(self._follow_no_more)
        except* BrainyError as group:
            raise _first(group) from group

    def _notify(self) -> None:
        progressed, self._progressed = self._progressed, asyncio.Event()
        progressed.set()

    async def writable(self, timeout_seconds: float) -> GroupCommit:
        """Return the group commit of an owned shard, waiting a little for an owner that is just taking over.

        Raises:
            UnavailableError: as ``commits``.
        """
        deadline = Deadline.after(self._host.clock, timeout_seconds)
        while self._commits is None and self.assignment.is_owner and self.state != _State.SHARD_STATE_FENCED:
            if deadline.passed or not await self.wait_progress(deadline.remaining()):
                break
        return self.commits()

    def commits(self) -> GroupCommit:
        """Return the group commit of an owned shard.

        Raises:
            UnavailableError: not the owner (NOT_OWNER), or not ready to write yet (SHARD_NOT_READY).
        """
        if not self.assignment.is_owner or self.state == _State.SHARD_STATE_FENCED:
            raise UnavailableError(
                "this node does not own the shard",
                reason="NOT_OWNER",
                remedy="re-read the routing record and ask the owner",
                shard=self._label,
                owner=self.assignment.owner,
            )
        if self._commits is None:
            raise UnavailableError(
                "the shard is not ready to write", reason="SHARD_NOT_READY", remedy="retry", shard=self._label
            )
        return self._commits

    def resume(self) -> None:
        """Accept commits again after a drain that did not lead to a cut-over."""
        if self._commits is not None:
            self._commits.resume()

    def follow(self, from_position: int) -> AsyncIterator[Slot]:
        """Stream an owned shard's slots.

        Raises:
            UnavailableError: not the owner.
        """
        if self._window is None:
            raise UnavailableError(
                "this node does not own the shard",
                reason="NOT_OWNER",
                remedy="ask the owner",
                shard=self._label,
            )
        return self._window.follow(from_position)

    # --- replica --------------------------------------------------------------------------------

    async def _follow(self) -> None:
        assert self.shard is not None
        duty = self.assignment
        self._become(_State.SHARD_STATE_READY)
        while True:
            try:
                async for slot in self._host.follow_owner(duty.generation, duty.shard, self.shard.applied + 1):
                    await self._apply(slot)
            except LogCollectedError:
                raise
            except BrainyError as error:
                _log.info("owner_stream_ended", shard=self._label, reason=error.reason, cause=str(error))
            await self._host.clock.sleep(self._host.ids.jitter(0.1, 0.3))
            try:
                await self._host.view.refresh()
            except BrainyError as error:
                _log.info("routing_unreadable", cause=str(error))

    # --- reading --------------------------------------------------------------------------------

    @property
    def commits_now(self) -> GroupCommit | None:
        """The group commit of an owner that takes writes, None otherwise."""
        return self._commits if self.assignment.is_owner and self.readable else None

    @property
    def readable(self) -> bool:
        """Whether searches may use this replica."""
        return self.shard is not None and self.state == _State.SHARD_STATE_READY

    @property
    def hopeless(self) -> bool:
        """Whether the replica will not answer before a person has mended what it is made of."""
        return not self.readable and self.reason in _LASTING

    async def wait_progress(self, timeout_seconds: float) -> bool:
        """Wait until something was applied; False when the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._progressed.wait()
        except TimeoutError:
            return False
        return True

    async def fold_if_due(self) -> None:
        """Have the tail merged into a new base once it is long enough, and swap bases without a pause."""
        shard = self.shard
        if shard is None or self._folding or not self.readable:
            return
        while self._slot_ends and self._slot_ends[0] <= shard.base.position:
            self._slot_ends.popleft()
        tail = TailSize(
            records=shard.tail_records,
            slots=len(self._slot_ends),
            base_rows=shard.base_rows,
            idle_seconds=self._host.clock.monotonic() - self._last_slot_at,
        )
        if not fold_is_due(tail, self._host.settings):
            return
        self._folding = True
        try:
            base: Base = await self._host.supply.fold(
                shard.spec,
                shard.base,
                self.assignment.shard,
                up_to=shard.applied,
                epoch=self.assignment.epoch,
                publish=self.assignment.is_owner and not self._host.supply.is_adopted(shard.spec, shard.base),
            )
            if self.shard is shard:
                shard.swap_base(base)
                await self._host.supply.discard_others(shard.spec, self.assignment.shard, base)
                _log.info("base_folded", shard=self._label, position=base.position)
        except LogCollectedError:
            await self._renew_base(shard)
        except BrainyError as error:
            _log.warning("fold_failed", shard=self._label, cause=str(error))
        finally:
            self._folding = False

    async def _renew_base(self, shard: Shard) -> None:
        """Take the published checkpoint as base, because the log behind the present one has been collected."""
        duty = self.assignment
        try:
            base = await self._host.supply.build(
                "open", shard.spec, duty.shard, epoch=duty.epoch, on_progress=self._on_progress
            )
        except BrainyError as error:
            _log.warning("fold_failed", shard=self._label, cause=str(error))
            return
        if self.shard is shard and shard.base.position < base.position <= shard.applied:
            shard.swap_base(base)
            await self._host.supply.discard_others(shard.spec, duty.shard, base)
            _log.info("base_renewed", shard=self._label, position=base.position)

    async def begin_anew(self, shard: Shard) -> None:
        """Start the duty over if ``shard`` is still the one that is served; it then looks for its base again."""
        async with self._changing:
            if self.shard is shard:
                await self._stop_duty()
                self._become(_State.SHARD_STATE_LOADING)
                self.start()

    async def collect_log(self) -> None:
        """Delete the part of an owned log that a checkpoint has included for the retention time."""
        collector, shard = self._collector, self.shard
        if collector is None or shard is None:
            return
        collector.observe(shard.applied)
        try:
            await collector.collect(lambda: held_by_followers(self._host, self.assignment))
        except BrainyError as error:
            _log.warning("collection_failed", shard=self._label, cause=str(error))

    def report(self) -> control_pb2.ShardReplica:
        """Say how the replica is doing, for heartbeats and the coordinator."""
        return replica_message(self._host.namespace, self)


def _first(group: BaseExceptionGroup[BrainyError]) -> BrainyError:
    first = group.exceptions[0]
    return first if isinstance(first, BrainyError) else _first(first)
