"""A process that wants to own one shard's log: lease, replay, fence, group commit, as a node does it."""

from __future__ import annotations

import asyncio
from typing import Any

from brainy.api.node.v1 import shard_pb2, shard_pb2_grpc
from brainy.changelog.batch import Slot
from brainy.changelog.commits import GroupCommit
from brainy.changelog.reading import read_log
from brainy.errors import BrainyError, CorruptDataError, FencedError, UnavailableError
from brainy.locks.base import Grant
from brainy.locks.object_store import ObjectStoreLocks
from brainy.rpc.server import Service
from brainy.store.base import ObjectStore
from brainy.testing.process import SimProcess
from tests.sim.model import Model
from tests.sim.planted import Kit

GENERATION, SHARD = 1, 0
LOCK = "shards/1/0"
SERVICE = shard_pb2.DESCRIPTOR.services_by_name["ShardService"]


class Owner(shard_pb2_grpc.ShardServiceServicer):
    """One life of it."""

    def __init__(
        self,
        process: SimProcess,
        store: ObjectStore,
        model: Model,
        kit: Kit,
        *,
        ttl: float,
        reckless: bool,
        tolerates_corruption: bool,
    ) -> None:
        self.process = process
        self._store = store
        self._model = model
        self._kit = kit
        self._ttl = ttl
        #: Goes on writing after its lease was lost, until the log says FENCED.
        self._reckless = reckless
        self._tolerates_corruption = tolerates_corruption
        self._locks: ObjectStoreLocks = kit.locks(store, process.clock, process.ids)
        self._commits: GroupCommit | None = None
        self._positions: dict[str, int] = {}
        self._applied = 0

    def service(self) -> Service:
        """What it answers."""
        return Service(SERVICE, shard_pb2_grpc.add_ShardServiceServicer_to_server, self)

    async def CommitRecords(
        self, request: shard_pb2.CommitRecordsRequest, context: Any
    ) -> shard_pb2.CommitRecordsResponse:
        if self._commits is None:
            raise UnavailableError("this process does not own the shard", reason="NOT_OWNER")
        return shard_pb2.CommitRecordsResponse(position=await self._commits.commit(list(request.records)))

    async def live(self) -> None:
        """Campaign and own, for ever."""
        clock, rng = self.process.clock, self.process.rng
        while True:
            try:
                grant = await self._locks.acquire(
                    LOCK,
                    owner=self.process.name,
                    incarnation=self.process.incarnation,
                    ttl_seconds=self._ttl,
                    wait_until=clock.monotonic() + 30,
                )
            except BrainyError as error:
                self._model.trace.event("not_granted", by=self.process.incarnation, reason=error.reason)
                await clock.sleep(rng.uniform(0.05, 0.3))
                continue
            self._model.leased(self.process, grant)
            await self._hold(grant)
            await clock.sleep(rng.uniform(0.0, self._ttl))

    async def _hold(self, grant: Grant) -> None:
        duty = asyncio.ensure_future(self._duty(grant))
        keep = asyncio.ensure_future(self._keep(grant))
        try:
            await asyncio.wait({duty, keep}, return_when=asyncio.FIRST_COMPLETED)
            if not duty.done() and self._reckless and not keep.result():
                await duty
        finally:
            duty.cancel()
            keep.cancel()
            await asyncio.gather(duty, keep, return_exceptions=True)
        if keep.done() and not keep.cancelled() and keep.exception() is None and keep.result():
            await self._release(keep.result())

    async def _release(self, grant: Grant) -> None:
        self._model.gave_up(grant)
        try:
            await self._locks.release(grant)
            self._model.trace.event("released", by=self.process.incarnation, token=grant.token)
        except BrainyError as error:
            self._model.trace.event("not_released", by=self.process.incarnation, reason=error.reason)

    async def _keep(self, grant: Grant) -> Grant | None:
        """Renew; return the grant to give back, None once it is lost."""
        clock, rng = self.process.clock, self.process.rng
        for _ in range(rng.randrange(2, 20)):
            await clock.sleep(self._ttl / 3)
            try:
                grant = await self._locks.renew(grant)
            except FencedError:
                self._model.gave_up(grant)
                return None
            except BrainyError:
                if clock.monotonic() >= grant.deadline:
                    self._model.gave_up(grant)
                    return None
                continue
            self._model.leased(self.process, grant, renewed=True)
        return grant

    async def _duty(self, grant: Grant) -> None:
        process, epoch = self.process, grant.token
        while True:
            try:
                await self._own(epoch)
            except FencedError:
                self._model.fenced.add((process.incarnation, epoch))
                self._model.trace.event("fenced", by=process.incarnation, epoch=epoch)
                return
            except CorruptDataError as error:
                if not self._tolerates_corruption:
                    self._model.violated("an owner never meets corruption", by=process.incarnation, error=error)
                    return
            except BrainyError as error:
                self._model.trace.event("reopened", by=process.incarnation, epoch=epoch, reason=error.reason)
            await process.clock.sleep(process.rng.uniform(0.02, 0.2))

    async def _own(self, epoch: int) -> None:
        process = self.process
        self._positions.clear()
        self._applied = 0
        async for slot in read_log(self._store, GENERATION, SHARD, from_position=1):
            self._apply(slot)
        writer = self._kit.writer(
            self._store,
            generation=GENERATION,
            shard=SHARD,
            epoch=epoch,
            writer_node=process.name,
            incarnation=process.incarnation,
            ids=process.ids,
            clock=process.clock,
            next_position=self._applied + 1,
        )
        for slot in await writer.fence():
            self._apply(slot)
        self._commits = GroupCommit(writer, known=self._positions.get, on_slot=self._apply, clock=process.clock)
        self._model.trace.event("owns", by=process.incarnation, epoch=epoch, position=self._applied)
        try:
            raise await self._commits.run()
        finally:
            self._commits = None

    def _apply(self, slot: Slot) -> None:
        if slot.first != self._applied + 1:
            self._model.violated("owners apply every slot", by=self.process.incarnation, at=slot.first)
        for place, record in enumerate(slot.batch.records):
            if record.request_id:
                self._positions[record.request_id] = slot.first + place
        self._applied = slot.last
