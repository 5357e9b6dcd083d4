"""The source of a fill whose data are elsewhere: another namespace, or a backup.

This is the one place where an ``Origin`` becomes a ``Source``. Whatever shall change the items on their way in
(embedding texts anew) wraps the source that ``opened_source`` yields.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from brainy.backup.source import BackupSource, open_backup
from brainy.bucket import layout
from brainy.bucket.origin import Origin
from brainy.bucket.records import Routing
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.dataset.elsewhere import Elsewhere
from brainy.dataset.kept import NothingKept, TreeKept
from brainy.errors import PreconditionError
from brainy.legacy.survey import survey
from brainy.store.base import ObjectStore
from brainy_node.builder.context import Context
from brainy_node.builder.source import ChosenSource, choose_generation, choose_source


@asynccontextmanager
async def opened_source(context: Context) -> AsyncIterator[ChosenSource]:
    """Open what the generation of a job is filled from, for the length of the block.

    Raises:
        NotFoundError: it does not exist.
        CorruptDataError: a backup that is not whole.
        PreconditionError: the other namespace has gone on to another generation (WRONG_PHASE).
    """
    job = context.job
    origin = job.spec.origin
    if origin is None:
        yield await choose_source(context.store, job.spec)
        return
    elsewhere = Elsewhere(job.store, clock=context.clock, ids=context.ids)
    try:
        if origin.backup:
            backup = await open_backup(origin.backup, context.workspace.stage("backup"), elsewhere)
            yield ChosenSource(source=BackupSource(backup), shard_count=0, kept=NothingKept())
        else:
            yield await _namespace(elsewhere.store(origin.namespace), origin, context)
    finally:
        await elsewhere.close()


async def _namespace(store: ObjectStore, origin: Origin, context: Context) -> ChosenSource:
    if origin.generation is None:
        found = await survey(store)
        return ChosenSource(source=BrainyTreeSource(store, found.trees), shard_count=0, kept=TreeKept(store))
    body = await store.get(layout.ROUTING)
    routing = None if body is None else Routing.decode(body.body, key=layout.ROUTING)
    if routing is None or routing.active != origin.generation:
        raise PreconditionError(
            "the namespace that is moved has gone on to another generation",
            remedy="abort this migration and start it again",
            namespace=origin.namespace,
            planned=origin.generation,
            active=None if routing is None else routing.active,
        )
    return await choose_generation(store, context.job.spec, origin.generation)
