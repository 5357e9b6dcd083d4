"""Following a generation that was embedded with another model: each noun gets its vector anew on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager

from brainy.api.storage.v1 import log_pb2
from brainy.dataset.generation import read_spec
from brainy.embedding.reembedding import reembedder_at
from brainy.errors import PreconditionError
from brainy_node.runtime.host import Host
from brainy_node.runtime.source_follower import Transform


@asynccontextmanager
async def reembedding(host: Host, generation: int, followed: int) -> AsyncIterator[Transform | None]:
    """Yield what records of the followed generation go through; None where both were embedded alike.

    The same for both ways: the target of a migration embeds with its new model, and a source that is kept as a way
    back with its old one.

    Raises:
        PreconditionError: the model is not installed here, or nobody recorded which one it is.
        EmbeddingMismatchError: it is not at hand here.
    """
    # Read afresh: a first write may have decided what the source is embedded with since it was last looked at.
    own, other = await read_spec(host.store, generation), await read_spec(host.store, followed)
    if own.embedding == other.embedding or (own.reembedding is None and other.reembedding is None):
        yield None
        return
    if own.embedding is None:
        raise PreconditionError(
            "the generation follows one of another embedding model, and nobody recorded its own",
            remedy="complete the migration: this way back cannot be kept up to date",
            generation=generation,
            follows=followed,
        )
    endpoint = own.reembedding.endpoint if own.reembedding is not None else ""
    with ExitStack() as opened:
        opening = reembedder_at(own.embedding, endpoint, host.embedding)
        reembedder = await asyncio.to_thread(opened.enter_context, opening)

        async def transform(records: Sequence[log_pb2.LogRecord]) -> Sequence[log_pb2.LogRecord]:
            return await asyncio.to_thread(reembedder.records, records)

        yield transform
