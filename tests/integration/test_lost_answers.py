"""A real S3 server whose answers get lost on the way: what was written is found out, nobody healthy is fenced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.namespace import Namespace
from brainy.changelog.batch import Slot
from brainy.changelog.commits import GroupCommit
from brainy.changelog.reading import read_log
from brainy.changelog.writing import LogWriter
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.errors import FencedError
from brainy.ids import Ids
from brainy.locks.object_store import ObjectStoreLocks
from brainy.store.base import ObjectStore
from brainy.store.opening import open_store
from brainy.testing.proxy import LossyProxy
from brainy.testing.servers import S3Server
from tests.conftest import BUCKET

CLIENTS = 16
WRITES = 6


@pytest.fixture
async def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LossyProxy]:
    server: S3Server = request.getfixturevalue(request.param)
    async with LossyProxy(server.endpoint) as proxy:
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, proxy.endpoint if "ENDPOINT" in variable else value)
        yield proxy


@asynccontextmanager
async def opened(prefix: str) -> AsyncIterator[ObjectStore]:
    place = Namespace.parse(f"s3://{BUCKET}/{prefix}")
    store = open_store(place, StoreSettings(request_timeout_seconds=5.0), clock=SystemClock(), ids=Ids())
    try:
        yield store
    finally:
        await store.close()


def commit_put(method: str, path: str) -> bool:
    return method == "PUT" and "/change-log/" in path


def any_put(method: str, _: str) -> bool:
    return method == "PUT"


class Owner:
    """A fenced writer with its group commit, and what it applied."""

    def __init__(self, store: ObjectStore, epoch: int) -> None:
        self.applied: list[Slot] = []
        self.known: dict[str, int] = {}
        self.writer = LogWriter(
            store,
            generation=1,
            shard=0,
            epoch=epoch,
            writer_node=f"node-{epoch}",
            incarnation="i",
            ids=Ids(),
            clock=SystemClock(),
            next_position=1,
        )
        self.commits = GroupCommit(self.writer, known=self.known.get, on_slot=self.apply, clock=SystemClock())

    def apply(self, slot: Slot) -> None:
        self.applied.append(slot)
        for position, record in enumerate(slot.batch.records, slot.first):
            self.known.setdefault(record.request_id, position)


async def client(owner: Owner, number: int, acknowledged: dict[str, int]) -> None:
    for index in range(WRITES):
        name = f"{number}/{index}"
        record = log_pb2.LogRecord(request_id=name, delete_noun=name)
        acknowledged[name] = await owner.commits.commit([record])


@pytest.mark.parametrize("proxy", ["ministack_server", "seaweedfs_server"], indirect=True)
async def test_every_answer_to_a_commit_is_lost(proxy: LossyProxy) -> None:
    async with opened(Ids().short(10)) as store:
        owner = Owner(store, 1)
        proxy.lose(commit_put)
        await owner.writer.fence()
        running = asyncio.create_task(owner.commits.run())
        acknowledged: dict[str, int] = {}
        await asyncio.gather(*(client(owner, number, acknowledged) for number in range(CLIENTS)))
        lost = proxy.lost
        proxy.heal()
        position = await owner.commits.commit([log_pb2.LogRecord(request_id="last", delete_noun="last")])

        assert lost > WRITES  # the fence and every batch
        assert owner.commits.failure is None
        slots = [slot async for slot in read_log(store, 1, 0, from_position=1)]
        records = [record for slot in slots for record in slot.batch.records]
        assert {name: records[at - 1].request_id for name, at in acknowledged.items()} == {n: n for n in acknowledged}
        assert len(acknowledged) == CLIENTS * WRITES
        assert position == len(records) == 1 + CLIENTS * WRITES + 1, "each write landed once"
        # Who is fenced by right is still fenced, whatever gets lost.
        proxy.lose(commit_put)
        newer = Owner(store, 2)
        await newer.writer.fence()
        with pytest.raises(FencedError):
            await owner.commits.commit([log_pb2.LogRecord(request_id="stale", delete_noun="stale")])
        assert isinstance(await running, FencedError)


@pytest.mark.parametrize("proxy", ["ministack_server"], indirect=True)
async def test_every_answer_to_a_lock_is_lost(proxy: LossyProxy) -> None:
    async with opened(Ids().short(10)) as store:
        locks = ObjectStoreLocks(store, SystemClock(), Ids())
        proxy.lose(any_put)
        first = await locks.grant("job", owner="a", incarnation="1", ttl_seconds=30.0)
        first = await locks.renew(first)
        await locks.release(first)
        second = await locks.grant("job", owner="b", incarnation="1", ttl_seconds=30.0)
        assert proxy.lost == 4
        assert (first.token, second.token) == (1, 2)
