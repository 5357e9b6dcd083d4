"""A process that holds a lock and appends to a shard's change log under its token, for test_paused_holder.py.

It is ill-mannered on purpose: it never looks at its lease before it writes, and after it was refused it tries
again with a new writer under its old token. Only the log can stop it.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from brainy.api.common.v1 import common_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket.namespace import Namespace
from brainy.changelog.reading import read_log
from brainy.changelog.writing import LogWriter
from brainy.clock import SystemClock
from brainy.config.environment import export
from brainy.config.settings import LockSettings, StoreSettings
from brainy.errors import BrainyError, FencedError
from brainy.ids import Ids
from brainy.locks.opening import open_locks
from brainy.store.metered import MeteredStore
from brainy.store.opening import open_store
from brainy.telemetry.logs import configure_logs

GENERATION, SHARD = 1, 0
LOCK = "shards/1/0"
#: Writes that are tried after the first refusal, each with a fence of its own.
STUBBORN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a holder is told."""

    namespace: str
    locks: LockSettings
    owner: str
    ttl_seconds: float
    #: Variables that make the store's client find its server.
    variables: dict[str, str]


def start(job: Job) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    """Start a holder; it says what it does over the connection, and ends when it is told ``stop``."""
    # One warm process forks them: importing the store's client takes longer than the run.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.e2e.lock_holder", "brainy.store.s3", "brainy.locks.redis"])
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(job, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _main(job: Job, connection: Connection) -> None:
    export(**job.variables)
    configure_logs(level="error", form="json", role=job.owner)
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(_hold(job, connection))


async def _hold(job: Job, connection: Connection) -> None:
    clock, ids = SystemClock(), Ids()
    store = open_store(Namespace.parse(job.namespace), StoreSettings(), clock=clock, ids=ids)
    locks = open_locks(job.locks, store, clock, ids, scope=job.namespace)

    def say(what: str, **fields: Any) -> None:
        connection.send((what, fields))

    try:
        grant = await locks.acquire(
            LOCK,
            owner=job.owner,
            incarnation=ids.uuid(),
            ttl_seconds=job.ttl_seconds,
            wait_until=clock.monotonic() + 60,
        )
        say("granted", token=grant.token)
        renewing = asyncio.create_task(_renew(locks, grant, clock, say))
        writer = await _open_writer(store, job, grant.token, clock, ids)
        say("fenced in")
        refusals = 0
        number = 0
        while refusals <= STUBBORN and not connection.poll():
            number += 1
            try:
                if writer is None:
                    writer = await _open_writer(store, job, grant.token, clock, ids)
                slot = await writer.commit([_record(job.owner, grant.token, number)])
                say("written", number=number, position=slot.first)
            except FencedError as error:
                refusals += 1
                writer = None
                say("refused", number=number, reason=error.reason, **error.fields)
            await clock.sleep(0.02)
        if connection.poll():
            connection.recv()  # told to stop; what is left unread would cut the connection
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        if refusals == 0:
            await locks.release(grant)
        say("ended")
    except BrainyError as error:
        say("failed", error=str(error))
    finally:
        await locks.close()
        await store.close()


async def _renew(locks: Any, grant: Any, clock: SystemClock, say: Any) -> None:
    while True:
        await clock.sleep(grant.ttl_seconds / 3)
        try:
            grant = await locks.renew(grant)
        except FencedError as error:
            say("lost", reason=error.reason)
            return
        except BrainyError as error:
            say("renewal failed", error=str(error))


async def _open_writer(store: MeteredStore, job: Job, token: int, clock: SystemClock, ids: Ids) -> LogWriter:
    position = 1
    async for slot in read_log(store, GENERATION, SHARD, from_position=1):
        position = slot.last + 1
    writer = LogWriter(
        store,
        generation=GENERATION,
        shard=SHARD,
        epoch=token,
        writer_node=job.owner,
        incarnation=ids.uuid(),
        ids=ids,
        clock=clock,
        next_position=position,
    )
    await writer.fence()
    return writer


def _record(owner: str, token: int, number: int) -> log_pb2.LogRecord:
    noun = common_pb2.Noun(id=f"{owner}-{token}-{number}", vector=b"\0\0\0\0")
    return log_pb2.LogRecord(request_id=noun.id, upsert_noun=noun)
