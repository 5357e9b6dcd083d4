"""Session tokens: which positions a shard must have applied before it answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from brainy.api.common.v1.common_pb2 import Position
from brainy.bucket.records import Routing
from brainy.clock import Deadline
from brainy.errors import UnavailableError
from brainy_node.runtime.ports import NamespaceRuntime


def outstanding(
    routing: Routing, generation: int, shard: int, session: Iterable[Position], *, besides: bool = False
) -> list[Position]:
    """Return the positions of a session that may bind this shard of the generation being read.

    * Same generation: those of this very shard.
    * An older generation: all of them. The cut-over waits for the owner of the new one, not for each replica; what a
      replica includes of its source is for the runtime to say.
    * A newer generation that was rolled back from: all of them, likewise.
    * A newer generation that this one follows, if it is asked ``besides`` the one in service: all of them, likewise.
      A client's own read belongs to the one in service then, so it is told to read the record again.
    * Any other newer generation: the routing record in force here is behind the client's.

    Raises:
        UnavailableError: STALE_ROUTING, a position of a newer generation.
    """
    known = max(generation, routing.rolled_back_from)
    placement = routing.generations.get(generation)
    if besides and placement is not None and placement.follows is not None:
        known = max(known, placement.follows)
    binding: list[Position] = []
    for position in session:
        if position.generation > known:
            raise stale(routing, generation, f"the session is of generation {position.generation}")
        if position.generation != generation or position.shard == shard:
            binding.append(position)
    return binding


async def settle(
    runtime: NamespaceRuntime,
    generation: int,
    shards: Iterable[int],
    session: Sequence[Position],
    deadline: Deadline,
    *,
    besides: bool = False,
) -> None:
    """Wait until the local replicas named include what the session has seen.

    ``besides``: the generation is asked besides the one in service, to be compared with it; whether it is the one to
    read does not matter then.

    Raises:
        UnavailableError: the deadline passed, or STALE_ROUTING.
    """
    if not session:
        return
    for shard in shards:
        binding = outstanding(runtime.routing, generation, shard, session, besides=besides)
        if binding:
            await runtime.wait_applied(generation, shard, binding, deadline, besides=besides)


def stale(routing: Routing, generation: int, detail: str = "") -> UnavailableError:
    """Build the error that tells a caller to read the routing record again."""
    return UnavailableError(
        "the routing record in force here does not have this generation",
        reason="STALE_ROUTING",
        remedy="read the routing record again and retry",
        generation=generation,
        routing_epoch=routing.epoch,
        detail=detail,
    )
