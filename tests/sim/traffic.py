"""Clients: they write, repeat what was not answered with the same request id, and remember what they were told."""

from __future__ import annotations

from collections.abc import Sequence

from brainy.api.node.v1 import shard_pb2, shard_pb2_grpc
from brainy.api.storage.v1 import log_pb2
from brainy.clock import Deadline
from brainy.errors import BrainyError
from brainy.rpc.channel import ChannelPool, call
from brainy.testing.process import SimProcess
from tests.sim.model import Model, Request
from tests.sim.owner import GENERATION, SHARD

_DEADLINE_SECONDS = 3.0


async def write(
    process: SimProcess, pool: ChannelPool, addresses: Sequence[str], model: Model, *, name: str, attempts: int
) -> bool:
    """One request to whoever owns the shard; True once it is acknowledged."""
    count = process.rng.choice((1, 1, 1, 2, 5))
    ids = tuple(f"{name}/{place}" for place in range(count))
    request = Request(ids, model.loop.time())
    model.requests.append(request)
    message = shard_pb2.CommitRecordsRequest(
        namespace="memory://sim",
        generation=GENERATION,
        shard=SHARD,
        records=[log_pb2.LogRecord(request_id=each, delete_noun=each) for each in ids],
    )
    first = process.rng.randrange(len(addresses))
    for attempt in range(attempts):
        stub = pool.stub(addresses[(first + attempt) % len(addresses)], shard_pb2_grpc.ShardServiceStub)
        try:
            deadline = Deadline.after(process.clock, _DEADLINE_SECONDS)
            answer = await call(stub.CommitRecords, message, deadline=deadline, write=True)
        except BrainyError as error:
            model.trace.event("refused", request=name, reason=error.reason)
            await process.clock.sleep(process.rng.uniform(0.02, 0.4))
            continue
        request.position, request.acknowledged = answer.position, model.loop.time()
        model.trace.event("acknowledged", request=name, position=answer.position)
        return True
    return False


async def client(
    process: SimProcess, pool: ChannelPool, addresses: Sequence[str], model: Model, *, writes: int, pause: float
) -> None:
    """A number of requests, one after the other."""
    for number in range(writes):
        await write(process, pool, addresses, model, name=f"{process.name}-{number}", attempts=40)
        await process.clock.sleep(process.rng.uniform(0, pause))
