"""Clients of a whole cluster: they write and read nouns through any node's front door."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import data_pb2, data_pb2_grpc
from brainy.clock import Deadline
from brainy.errors import BrainyError
from brainy.rpc.channel import ChannelPool, call
from brainy.testing.process import SimProcess
from tests.sim.model import Model

_DEADLINE_SECONDS = 4.0
_IDS = 4


@dataclass(slots=True)
class Noun:
    """One noun, written by one client. A version is its metadata; None is deleted."""

    id: str
    #: What the last acknowledged write left, if any was.
    last: bytes | None = None
    #: What writes that were never answered may have left, now or later.
    maybe: list[bytes | None] = field(default_factory=list)


class Nouns:
    """All nouns of a simulation, and the calls that write and read them."""

    def __init__(self, model: Model, addresses: Sequence[str]) -> None:
        self.model = model
        self.known: dict[str, Noun] = {}
        self.acknowledged = 0
        self.reads = 0
        self._addresses = addresses
        self._numbers = 0

    def _stub(self, pool: ChannelPool, process: SimProcess) -> data_pb2_grpc.NounServiceAsyncStub:
        address = process.rng.choice(self._addresses)
        stub: data_pb2_grpc.NounServiceAsyncStub = pool.stub(address, data_pb2_grpc.NounServiceStub)
        return stub

    async def traffic(self, process: SimProcess, pool: ChannelPool, *, writes: int, pause: float) -> None:
        """Write and read one's own nouns."""
        for _ in range(writes):
            written = await self.write(process, pool, attempts=25)
            if written and process.rng.random() < 0.6:
                await self.read(process, pool, *written)
            await process.clock.sleep(process.rng.uniform(0, pause))

    async def write(
        self, process: SimProcess, pool: ChannelPool, *, attempts: int
    ) -> tuple[list[Noun], Sequence[common_pb2.Position]] | None:
        """Write some nouns in one call, repeated until it is answered; None if it never was."""
        self._numbers += 1
        request_id, rng = f"{process.name}-{self._numbers}", process.rng
        # A noun with an unanswered write is left alone: that write may still come.
        own = [f"{process.name}/{number}" for number in range(_IDS)]
        own = [name for name in own if name not in self.known or not self.known[name].maybe]
        if not own:
            own = [f"{process.name}/new-{self._numbers}"]
        chosen = rng.sample(own, k=min(len(own), rng.choice((1, 1, 2, 3))))
        deletes = rng.random() < 0.2
        version = None if deletes else b'"%d"' % self._numbers
        nouns = [self.known.setdefault(name, Noun(name)) for name in chosen]
        for noun in nouns:
            noun.maybe.append(version)
        for _ in range(attempts):
            stub = self._stub(pool, process)
            deadline = Deadline.after(process.clock, _DEADLINE_SECONDS)
            try:
                if deletes:
                    erase = data_pb2.DeleteNounsRequest(request_id=request_id, ids=chosen)
                    positions = (await call(stub.DeleteNouns, erase, deadline=deadline, write=True)).positions
                else:
                    vector = struct.pack("<2f", 1.0, self._numbers)
                    upsert = data_pb2.UpsertNounsRequest(
                        request_id=request_id,
                        nouns=[common_pb2.Noun(id=name, vector=vector, metadata=version) for name in chosen],
                    )
                    positions = (await call(stub.UpsertNouns, upsert, deadline=deadline, write=True)).positions
            except BrainyError as error:
                self.model.trace.event("refused", request=request_id, reason=error.reason)
                await process.clock.sleep(rng.uniform(0.05, 0.8))
                continue
            for noun in nouns:
                noun.last, noun.maybe = version, []
            self.acknowledged += 1
            told = [(p.generation, p.shard, p.position) for p in positions]
            self.model.trace.event("acknowledged", request=request_id, positions=told)
            return nouns, positions
        return None

    async def read(
        self, process: SimProcess, pool: ChannelPool, wanted: Sequence[Noun], session: Sequence[common_pb2.Position]
    ) -> None:
        """Read what was just written: a session sees its own writes, wherever it asks."""
        request = data_pb2.GetNounsRequest(ids=[noun.id for noun in wanted], session=session)
        try:
            answer = await call(
                self._stub(pool, process).GetNouns, request, deadline=Deadline.after(process.clock, _DEADLINE_SECONDS)
            )
        except BrainyError as error:
            self.model.trace.event("unread", by=process.name, reason=error.reason)
            return
        found = {noun.id: noun.metadata for noun in answer.nouns}
        self.reads += 1
        for noun in wanted:
            if found.get(noun.id) != noun.last:
                self.model.violated(
                    "a session reads its own writes", id=noun.id, told=noun.last, found=found.get(noun.id)
                )
