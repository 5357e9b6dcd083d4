"""Owners racing for one log over a faulty store: the history stays linear and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - seeded by Hypothesis
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainy.api.storage.v1 import log_pb2
from brainy.changelog.batch import Slot
from brainy.changelog.commits import GroupCommit
from brainy.changelog.reading import read_log
from brainy.changelog.writing import LogWriter
from brainy.clock import SystemClock
from brainy.errors import BrainyError, FencedError, UnavailableError
from brainy.ids import Ids
from brainy.store.base import ObjectMeta, PutOutcome, PutState, StoredObject
from brainy.store.memory import MemoryStore


class UnreliableStore(MemoryStore):
    """Delays, losses and lies about outcomes; conditional writes themselves stay atomic."""

    def __init__(self, rng: random.Random, rate: float) -> None:
        super().__init__()
        self.rng = rng
        self.rate = rate
        self.late: list[asyncio.Task[None]] = []

    async def wait(self) -> None:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        await self.wait()
        if self.rng.random() >= self.rate:
            outcome = await super().put_if_absent(key, body)
            await self.wait()
            return outcome
        fault = self.rng.randrange(5)
        if fault == 0:  # never arrives
            return PutOutcome(state=PutState.UNKNOWN)
        if fault == 1:  # arrives after the caller has given up on it
            self.late.append(asyncio.create_task(self.land(key, body)))
            return PutOutcome(state=PutState.UNKNOWN)
        await super().put_if_absent(key, body)
        await self.wait()
        if fault == 2:
            return PutOutcome(state=PutState.UNKNOWN)
        if fault == 3:  # a library retried by itself
            return PutOutcome(state=PutState.LOST)
        raise UnavailableError("connection reset")

    async def land(self, key: str, body: bytes) -> None:
        for _ in range(self.rng.randrange(60)):
            await asyncio.sleep(0)
        await super().put_if_absent(key, body)

    async def get(self, key: str) -> StoredObject | None:
        await self.wait()
        if self.rng.random() < self.rate / 2:
            raise UnavailableError("slow down")
        return await super().get(key)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        await self.wait()
        async for page in super().list(prefix, start_after=start_after):
            yield page


class SwiftClock(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Owner:
    """What a node does with a shard: replay, fence, commit, and stop when fenced."""

    def __init__(self, store: UnreliableStore, epoch: int, acknowledged: dict[str, int]) -> None:
        self.store = store
        self.epoch = epoch
        self.acknowledged = acknowledged
        self.applied: list[log_pb2.LogRecord] = []
        self.end: BrainyError | None = None

    def apply(self, slot: Slot) -> None:
        assert slot.first == len(self.applied) + 1
        self.applied.extend(slot.batch.records)

    def known(self, request_id: str) -> int | None:
        for position, record in enumerate(self.applied, 1):
            if record.request_id == request_id:
                return position
        return None

    async def open(self) -> LogWriter:
        while True:
            self.applied.clear()
            try:
                async for slot in read_log(self.store, 1, 0, from_position=1):
                    self.apply(slot)
                writer = LogWriter(
                    self.store,
                    generation=1,
                    shard=0,
                    epoch=self.epoch,
                    writer_node=f"node-{self.epoch}",
                    incarnation="i",
                    ids=Ids(self.store.rng),
                    clock=SwiftClock(),
                    next_position=len(self.applied) + 1,
                )
                for slot in await writer.fence():
                    self.apply(slot)
                return writer
            except UnavailableError:
                continue

    async def run(self, writes: int) -> None:
        try:
            commits = GroupCommit(await self.open(), known=self.known, on_slot=self.apply, clock=SwiftClock())
        except FencedError as error:
            self.end = error
            return
        loop = asyncio.create_task(commits.run())
        clients = [asyncio.create_task(self.client(commits, number, writes)) for number in range(4)]
        await asyncio.gather(*clients)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        self.end = commits.failure

    async def client(self, commits: GroupCommit, number: int, writes: int) -> None:
        for index in range(writes):
            name = f"{self.epoch}/{number}/{index}"
            record = log_pb2.LogRecord(request_id=name, delete_noun=name)
            try:
                position = await commits.commit([record])
                # A client that did not hear the answer asks again.
                assert await commits.commit([record]) == position
            except BrainyError:
                return
            self.acknowledged[name] = position


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), owners=st.integers(2, 4), rate=st.sampled_from([0.0, 0.2, 0.5]))
def test_owners_racing_with_faults_keep_a_linear_history(seed: int, owners: int, rate: float) -> None:
    async def scenario() -> None:
        rng = random.Random(seed)
        store = UnreliableStore(rng, rate)
        acknowledged: dict[str, int] = {}
        nodes = [Owner(store, epoch, acknowledged) for epoch in range(1, owners + 1)]
        tasks = []
        for node in nodes:
            tasks.append(asyncio.create_task(node.run(writes=8)))
            for _ in range(rng.randrange(40)):
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        # Stale owners that finished their work unfenced must still be unable to write.
        for node in nodes[:-1]:
            with pytest.raises(FencedError):
                await node.open()
        await asyncio.gather(*store.late)
        store.rate = 0.0

        slots = [slot async for slot in read_log(store, 1, 0, from_position=1)]  # checks density and epochs
        records = [record for slot in slots for record in slot.batch.records]
        for name, position in acknowledged.items():
            assert records[position - 1].request_id == name
        ids = [record.request_id for record in records if record.request_id]
        assert len(ids) == len(set(ids)), "a request was committed twice"
        nonces = [slot.batch.writer.nonce for slot in slots]
        assert len(nonces) == len(set(nonces))
        fences = [record.fence.owner for record in records if record.WhichOneof("operation") == "fence"]
        assert fences == sorted(fences)
        assert fences[-1] == f"node-{owners}"
        # The newest owner finished all its writes: nobody may stop it.
        newest = [name for name in acknowledged if name.startswith(f"{owners}/")]
        assert len(newest) == 4 * 8
        # What every owner applied is a prefix of the one history.
        for node in nodes:
            assert node.applied == records[: len(node.applied)]

    asyncio.run(scenario())
